import { setTimeout as sleep } from 'node:timers/promises'
import { expect, it, vi } from 'vitest'
import { asset, pipeline, schedule, sensor } from '../../src/index.ts'
import { until } from '../kit/until.ts'
import { expectAccounted, numbersOf, stopAll } from './occurrences.ts'
import { type Child, type Rig, startRig } from './rig.ts'

// They wait for ticks, kill around them, and wait for what is open: on a busy machine that adds up.
vi.setConfig({ testTimeout: 120_000 })

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

  const runs = await stopAll(rig, none)
  await expectAccounted(rig, 'times/plain', runs, { all: true })
  await expectAccounted(rig, 'times/coded', runs, { all: false })
  const numbers = numbersOf(runs, 'counter', 'n')
  expect(numbers).toEqual(numbers.map((_, i) => i + 1))
  expect(numbers.length).toBeGreaterThan(3)
  await rig.expectStateIsFold()
})

it('a server that is killed around ticks loses no occurrence and doubles none, nor does a sensor its runs', async () => {
  await using rig = await startRig({ killsServer: true })
  const { flow } = rig
  await rig.engine()
  await rig.start('engine')
  await flow.worker(all)
  const fired = async (): Promise<number> => (await flow.schedules.get('times/plain')).fired
  await until('all have begun', async () => (await flow.schedules.list()).every((one) => one.fired > 0))
  for (const afterMs of MOMENTS) {
    const before = await fired()
    await sleep(1000 - ((Date.now() - afterMs) % 1000))
    await rig.killServer()
    await rig.startServer()
    await until('it goes on', async () => (await fired()) > before)
  }
  const runs = await stopAll(rig, none)
  await expectAccounted(rig, 'times/plain', runs, { all: true })
  await expectAccounted(rig, 'times/coded', runs, { all: false })
  const numbers = numbersOf(runs, 'counter', 'n')
  expect(numbers).toEqual(numbers.map((_, i) => i + 1))
  expect(numbers.length).toBeGreaterThan(1)
  await rig.expectStateIsFold()
})
