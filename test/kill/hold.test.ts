import { expect, it } from 'vitest'
import { until } from '../kit/until.ts'
import { within } from '../kit/within.ts'
import { list, outOfTime } from './programs/pipelines.ts'
import { startRig } from './rig.ts'

it('a paused scatter stays so when server, engine and worker are killed, and is whole when it is resumed', async () => {
  await using rig = await startRig({ killsServer: true })
  const [worker, engine] = await Promise.all([rig.start('worker', {}, { KILL_INSTANCE_MS: '20' }), rig.engine()])
  const run = await rig.materialize(list)
  await rig.progress(run, 'list', 800)
  const id = `${run.id}.list`
  await rig.flow.scatter.pause(id, 'maintenance')
  await until('the state knows', async () => (await rig.barrier(run, 'list'))?.paused !== undefined)
  await rig.killServer()
  await Promise.all([worker.kill(), engine.kill()])
  await rig.startServer()
  const others = await Promise.all([rig.start('worker'), rig.engine({ reconcileMs: 500 })])
  // What the killed worker had is found again, is not begun, and goes back.
  await until(
    'nothing is out',
    async () => Object.keys((await rig.barrier(run, 'list'))?.leases ?? { x: 1 }).length === 0,
  )
  const before = await rig.flow.scatter.status(id)
  expect(before).toMatchObject({ status: 'open', running: 0, leased: 0, paused: { reason: 'maintenance' } })
  expect(before.succeeded).toBeGreaterThanOrEqual(800)
  expect(before.succeeded).toBeLessThan(5000)
  await rig.flow.scatter.resume(id)
  await rig.expectWhole(run, 'list')
  expect(others.every((child) => child.isAlive)).toBe(true)
  await rig.expectStateIsFold()
})

it('the time limit of a whole scatter holds when server, engine and worker are killed meanwhile', async () => {
  await using rig = await startRig({ killsServer: true })
  const [worker, engine] = await Promise.all([rig.start('worker', { concurrency: 20 }), rig.engine()])
  const run = await rig.materialize(outOfTime)
  await rig.progress(run, 'out_of_time', 10)
  await rig.killServer()
  await Promise.all([worker.kill(), engine.kill()])
  await rig.startServer()
  // No process runs when the time ends. The next engine finds the deadline on the log.
  await rig.engine()
  await expect(run.result({ signal: within(20_000) })).rejects.toMatchObject({
    code: 'timeout',
    asset: 'out_of_time',
  })
  await until('the state says so', async () => (await rig.barrier(run, 'out_of_time'))?.status === 'failed')
  expect((await rig.barrier(run, 'out_of_time'))?.failed).toBe(0)
  await rig.expectStateIsFold()
})
