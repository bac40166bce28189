import { setTimeout as sleep } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { asset, pipeline, schedule, sensor } from '../../src/index.ts'
import { until } from '../kit/until.ts'
import { type Child, type Rig, startRig } from './rig.ts'

const report = asset('report', { execute: ({ partition }) => partition ?? 'none' })
const found = asset('found', { execute: ({ partition }) => partition ?? 'none' })

const plain = schedule('plain', { every: '1s', run: report, overlap: 'allow', catchUp: 'all' })
const coded = schedule('coded', {
  every: '1s',
  run: report,
  overlap: 'queue',
  catchUp: 'last',
  partition: (at) => at.toISOString(),
})
const counter = sensor('counter', {
  every: '1s',
  run: found,
  evaluate: (_ctx, cursor: number = 0) => ({ cursor: cursor + 1, runs: [{ partition: `n${cursor + 1}` }] }),
})
const all = pipeline('times', [report, found], { schedules: [plain, coded], sensors: [counter] })
const none = pipeline('times', [report, found])

/** Milliseconds after a full second: around the tick, and in what follows from it. */
const MOMENTS = [-15, 2, 12, 40]

/** Kills the active engine that long after a full second, while a standby is there. */
async function killAround(rig: Rig, active: Child, afterMs: number): Promise<Child> {
  const heir = await rig.start('engine')
  await sleep(1000 - ((Date.now() - afterMs) % 1000))
  await active.kill()
  await heir.has('engine.active')
  return heir
}

it('engines that are killed around ticks lose no occurrence and double none, and a sensor counts on', async () => {
  await using rig = await startRig()
  const { flow } = rig
  let active = await rig.engine()
  await flow.worker(all)
  await until('all have begun', async () => (await flow.schedules.list()).every((one) => one.fired > 0))
  for (const afterMs of MOMENTS) active = await killAround(rig, active, afterMs)
  const before = (await flow.schedules.get('times/plain')).fired
  await until('it goes on', async () => (await flow.schedules.get('times/plain')).fired > before + 1)

  // The end: nothing more is due, and what is open ends.
  await flow.register(none)
  await until('all have stopped', async () => (await flow.schedules.list()).length === 0)
  await until('no run is open', async () => {
    const [left, sensors] = [await flow.schedules.list({ removed: true }), await flow.sensors.list({ removed: true })]
    const idle = left.every((one) => one.open.length === 0) && sensors.every((one) => one.run === undefined)
    return idle && (await flow.runs({ open: true })).length === 0
  })
  const runs = await flow.runs({ limit: 1000 })
  expect(runs.every(({ status }) => status === 'succeeded')).toBe(true)
  for (const name of ['plain', 'coded']) {
    const became = await flow.schedules.occurrences(`times/${name}`, { limit: 1000 })
    const seconds = became.flatMap(({ at, count = 1 }) =>
      Array.from({ length: count }, (_, i) => at.getTime() / 1000 + i),
    )
    const sorted = seconds.toSorted((a, b) => a - b)
    expect(sorted).toEqual(sorted.map((_, i) => (sorted[0] ?? 0) + i))
    const fired = became.flatMap(({ run }) => run ?? [])
    const started = runs.flatMap(({ id, schedule }) => (schedule?.name === name ? [id] : []))
    expect(started.toSorted()).toEqual(fired.toSorted())
    if (name === 'plain') expect(became.every(({ what, why }) => what === 'fired' || why === 'changed')).toBe(true)
  }
  const numbers = runs.flatMap(({ sensor, partition }) => (sensor === 'counter' ? [Number(partition?.slice(1))] : []))
  expect(numbers.toSorted((a, b) => a - b)).toEqual(numbers.map((_, i) => i + 1))
  expect(numbers.length).toBeGreaterThan(3)
  await rig.expectStateIsFold()
})
