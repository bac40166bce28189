/**
 * Hooks are called for each run that fails, whoever dies: before and after the call is asked for,
 * in the code of the hook, and before and after its end is stored.
 */
import { rmSync, writeFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { until } from '../kit/until.ts'
import { checked, hookedKills } from './programs/hooked.ts'
import { type Rig, startRig } from './rig.ts'

const CODE = { KILL_HOOKS: '1' }

async function fail(rig: Rig, partition: string): Promise<void> {
  await rig.flow.materialize(checked, { pipeline: hookedKills, partition })
}

/** How often each hook began for a run. */
function heard(rig: Rig, partition: string): number[] {
  const lines = [`failed ${partition} no ${partition}`, `finished ${partition} failed`]
  return lines.map((line) => rig.noted().filter((one) => one === line).length)
}

async function expectCalled(rig: Rig, partitions: readonly string[]): Promise<void> {
  const { flow } = rig
  for (const target of ['hooked/hook__run_failed', 'hooked/hook__run_finished'])
    await until(`${target} is called for all`, async () => {
      const calls = await flow.runs({ target })
      return calls.filter(({ status }) => status === 'succeeded').length === partitions.length
    })
  for (const partition of partitions) expect(Math.min(...heard(rig, partition)), partition).toBeGreaterThanOrEqual(1)
  await until('no run is open', async () => (await flow.runs({ open: true })).length === 0)
}

it('hooks are called for each failed run, whichever engine or worker dies on the way', async () => {
  await using rig = await startRig()
  await fail(rig, 'a')
  const worker = await rig.start('worker', {}, CODE)
  for (const at of [
    'before run[.].*[.]requested .*"hook":[{]"on":"run_failed"',
    'after run[.].*[.]requested .*"hook":[{]"on":"run_finished"',
  ])
    await rig.dies('engine', { KILL_AT: at })
  await worker.stop()
  await rig.engine()
  for (const KILL_AT of [
    'before hook__run_failed[.].*[.]materialized',
    'after hook__run_finished[.].*[.]materialized',
  ]) {
    await fail(rig, KILL_AT.slice(0, 5))
    await rig.dies('worker', { ...CODE, KILL_AT })
  }
  await fail(rig, 'b')
  await rig.dies('worker', { ...CODE, KILL_IN_CODE: 'finished b failed' })
  await rig.start('worker', {}, CODE)
  await expectCalled(rig, ['a', 'befor', 'after', 'b'])
  await rig.expectStateIsFold()
})

it('hooks are called once more when all processes and the server die while they run', async () => {
  await using rig = await startRig({ killsServer: true })
  const hold = `${rig.notes}.hold`
  writeFileSync(hold, '')
  const env = { ...CODE, KILL_HOLD: hold }
  const [engine, worker] = await Promise.all([rig.engine(), rig.start('worker', {}, env)])
  await Promise.all(['a', 'b', 'c'].map((partition) => fail(rig, partition)))
  await until('all hooks run', () => ['a', 'b', 'c'].every((one) => heard(rig, one).every((times) => times === 1)))
  await Promise.all([worker.kill(), engine.kill(), rig.killServer()])
  rmSync(hold)
  await rig.startServer()
  await Promise.all([rig.engine(), rig.start('worker', {}, env)])
  await expectCalled(rig, ['a', 'b', 'c'])
  expect(['a', 'b', 'c'].flatMap((one) => heard(rig, one))).toEqual([2, 2, 2, 2, 2, 2])
  await rig.expectStateIsFold()
})
