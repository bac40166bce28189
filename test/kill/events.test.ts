import { jetstreamManager } from '@nats-io/jetstream'
import { expect, it, vi } from 'vitest'
import { until } from '../kit/until.ts'
import { type Rig, startRig } from './rig.ts'

const EVENTS = 10_000
/** Some seconds, on a machine that has nothing else to do. */
const PATIENCE_MS = 120_000
const RUNS = EVENTS / 10
vi.setConfig({ testTimeout: 2 * PATIENCE_MS })
const WORKER = { concurrency: 50, ackWaitMs: 5000 }
const CODE = { KILL_EVENTS: '1' }

async function stream(rig: Rig, name: string, subject: string): Promise<void> {
  await (await jetstreamManager(rig.nc)).streams.add({ name, subjects: [subject] })
}

function keyOf(i: number): number {
  return i % 2 === 0 ? (i / 2) % RUNS : Math.floor(i / 10)
}

/** How many facts of this kind are on the log. */
async function facts(rig: Rig, path: string): Promise<number> {
  const jsm = await jetstreamManager(rig.nc)
  const info = await jsm.streams.info(rig.names.log(0), { subjects_filter: rig.names.fact(0, path) })
  return Object.values(info.state.subjects ?? {}).reduce((sum, count) => sum + count, 0)
}

it('10,000 events of 1,000 keys start 1,000 runs, whoever is killed meanwhile', async () => {
  await using rig = await startRig({ killsServer: true })
  await stream(rig, 'ORDERS', 'orders')
  const [reader] = await Promise.all([rig.start('worker', WORKER, CODE), rig.engine()])
  const engine = rig.children.find((child) => child !== reader)
  await rig.start('engine')
  // Of each key some come soon again, and some late.
  for (let i = 0; i < EVENTS; i++) rig.nc.publish('orders', JSON.stringify({ id: `o${keyOf(i)}` }))
  await rig.nc.flush()
  const finished = async (count: number): Promise<void> =>
    until(`${count} runs have ended`, async () => (await facts(rig, 'run.*.finished')) >= count, PATIENCE_MS)
  await finished(100)
  await reader.kill()
  await rig.start('worker', WORKER, CODE)
  await finished(400)
  await engine?.kill()
  await finished(RUNS)
  expect(await facts(rig, 'run.*.requested')).toBe(RUNS)
  expect(await facts(rig, 'asset.*.*.*.end.materialized')).toBe(RUNS)
  expect((await rig.flow.partitions('events/billed')).length).toBe(RUNS)
  expect(await rig.flow.events.refused()).toEqual([])
})

it('messages that wait for each other start their runs, whoever is killed meanwhile', async () => {
  await using rig = await startRig({ killsServer: true })
  await stream(rig, 'CHANGES', 'changes')
  const [reader] = await Promise.all([rig.start('worker', WORKER, CODE), rig.engine()])
  const engine = rig.children.find((child) => child !== reader)
  const send = async (n: number): Promise<void> => {
    for (const of of ['a', 'b']) rig.nc.publish('changes', JSON.stringify({ of, n }))
    await rig.nc.flush()
  }
  await send(1)
  await until('they are taken', async () => (await facts(rig, 'subscription.*.*.taken.>')) > 0)
  await reader.kill()
  await send(2)
  await rig.start('worker', WORKER, CODE)
  await until('more are taken', async () => (await facts(rig, 'subscription.*.*.taken.>')) > 1)
  await engine?.kill()
  await rig.killServer()
  await rig.startServer()
  await rig.start('engine')
  await until('both have ended', async () => (await facts(rig, 'run.*.finished')) >= 2, PATIENCE_MS)
  await until('no group waits', async () => ![...(await rig.state()).keys()].some((key) => key.includes('event_group')))
  const values = []
  for (const { id } of await rig.flow.runs()) values.push(await rig.flow.run(id).result())
  // Each message counts once, and most of them together.
  expect(values.flat().toSorted()).toEqual([1, 1, 2, 2])
})
