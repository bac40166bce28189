import { AckPolicy, jetstreamManager } from '@nats-io/jetstream'
import { expect, it, vi } from 'vitest'
import { until } from '../kit/until.ts'
import { type Rig, startRig } from './rig.ts'

const EVENTS = 10_000
/** Some seconds, on a machine that has nothing else to do. */
const PATIENCE_MS = 120_000
vi.setConfig({ testTimeout: 2 * PATIENCE_MS })
const WORKER = { concurrency: 50, ackWaitMs: 5000 }
const CODE = { KILL_EVENTS: '1' }

async function stream(rig: Rig, name: string, subject: string): Promise<void> {
  await (await jetstreamManager(rig.nc)).streams.add({ name, subjects: [subject] })
}

/** Counts facts of a kind as they come. It takes the server long to list thousands of subjects. */
async function counter(rig: Rig, kind: string): Promise<() => Promise<number>> {
  const { consumers } = await jetstreamManager(rig.nc)
  const [log, filter_subject] = [rig.names.log(0), rig.names.fact(0, `run.*.${kind}`)]
  await consumers.add(log, { durable_name: kind, filter_subject, ack_policy: AckPolicy.None })
  return async () => (await consumers.info(log, kind)).num_pending
}

it('10,000 events of which 2,000 come twice start 10,000 runs, whoever is killed meanwhile', async () => {
  await using rig = await startRig()
  await stream(rig, 'ORDERS', 'orders')
  const [reader, engine] = await Promise.all([rig.start('worker', WORKER, CODE), rig.engine()])
  await rig.start('engine')
  const [requested, finished] = [await counter(rig, 'requested'), await counter(rig, 'finished')]
  const publish = (i: number): void => rig.nc.publish('orders', JSON.stringify({ id: `o${i}` }))
  for (let i = 0; i < EVENTS; i++) {
    publish(i)
    // Some come again at once, and some when thousands of others have come. The last one is new.
    if (i % 5 === 0) publish(i % 2 === 0 ? i : (i - 5) / 2)
  }
  await rig.nc.flush()
  const ended = async (count: number): Promise<void> =>
    until(`${count} runs have ended`, async () => (await finished()) >= count, PATIENCE_MS)
  await ended(2000)
  await reader.kill()
  await rig.start('worker', WORKER, CODE)
  await ended(5000)
  await engine.kill()
  await ended(EVENTS)
  expect([await requested(), await finished()]).toEqual([EVENTS, EVENTS])
  expect(await rig.facts('asset.*.*.*.end.materialized')).toBe(EVENTS)
  expect((await rig.flow.partitions('events/billed')).length).toBe(EVENTS)
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
  await until('they are taken', async () => (await rig.facts('subscription.*.*.taken.>')) > 0)
  await reader.kill()
  await send(2)
  await rig.start('worker', WORKER, CODE)
  await until('more are taken', async () => (await rig.facts('subscription.*.*.taken.>')) > 1)
  await engine?.kill()
  await rig.killServer()
  await rig.startServer()
  await rig.start('engine')
  await until('both have ended', async () => (await rig.facts('run.*.finished')) >= 2, PATIENCE_MS)
  await until('no group waits', async () => ![...(await rig.state()).keys()].some((key) => key.includes('event_group')))
  const values = []
  for (const { id } of await rig.flow.runs()) values.push(await rig.flow.run(id).result())
  // Each message counts once, and most of them together.
  expect(values.flat().toSorted()).toEqual([1, 1, 2, 2])
})
