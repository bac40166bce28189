/**
 * Workers and engines die while code of schedules and sensors is evaluated: in the middle of the
 * code, and before and after what came of it is stored.
 */
import { expect, it, vi } from 'vitest'
import { until } from '../kit/until.ts'
import { expectAccounted, numbersOf, stopAll } from './occurrences.ts'
import { ended } from './programs/timed.ts'
import { type Rig, startRig } from './rig.ts'

// Each death is waited for: on a busy machine that adds up.
vi.setConfig({ testTimeout: 120_000 })

/** One worker of a pipeline after the other. */
async function killWorkers(rig: Rig, KILL_TIMED: string, evaluation: string): Promise<void> {
  const end = `[.]${evaluation}[.].*[.]materialized`
  await rig.dies('worker', { KILL_TIMED, KILL_IN_CODE: '1' })
  await rig.dies('worker', { KILL_TIMED, KILL_AT: `after ${end}` })
  await rig.start('worker', {}, { KILL_TIMED })
}

it('occurrences and evaluations of a sensor count once, whoever dies before and after they are stored', async () => {
  await using rig = await startRig()
  const { flow } = rig
  const engine = await rig.engine()
  await Promise.all([killWorkers(rig, 'scheduled', 'schedule__coded'), killWorkers(rig, 'sensed', 'sensor__counter')])
  await until('both go on', async () => {
    const [sensor] = await flow.sensors.list()
    return Number(sensor?.cursor ?? 0) >= 2 && (await flow.schedules.get('scheduled/coded')).fired >= 4
  })
  await engine.stop()
  await rig.dies('engine', {
    KILL_AT: 'after run[.].*[.]requested .*"sensor":[{]"name":"counter","evaluation":\\d+[}]',
  })
  await rig.dies('engine', { KILL_AT: 'before [.]fired' })
  await rig.engine()
  const cursor = async (): Promise<number> => Number((await flow.sensors.list())[0]?.cursor)
  const before = await cursor()
  await until('the sensor goes on', async () => (await cursor()) > before + 1)
  const waiting = async (): Promise<number> => (await flow.schedules.get('scheduled/coded')).waiting
  await until('no occurrence waits', async () => (await waiting()) === 0)

  const runs = await stopAll(rig, ...ended)
  await expectAccounted(rig, 'scheduled/coded', runs, { all: true })
  for (const run of runs)
    if (run.schedule) expect(await flow.run(run.id).result()).toEqual([run.partition, run.schedule.at.toISOString()])
  const last = Number((await flow.sensors.list({ removed: true }))[0]?.cursor)
  for (const prefix of ['a', 'b'])
    expect(numbersOf(runs, 'counter', prefix)).toEqual(Array.from({ length: last }, (_, i) => i + 1))
  await rig.expectStateIsFold()
})
