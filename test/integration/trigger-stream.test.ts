/**
 * Triggers have a stream of their own: what its publishers can do to it, and that each message is
 * copied to the log once.
 */
import { type JetStreamManager, jetstream, jetstreamManager } from '@nats-io/jetstream'
import { headers } from '@nats-io/nats-core'
import { connect as connectNats, type NatsConnection } from '@nats-io/transport-node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { asset, type Flow, pipeline } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })
let nc: NatsConnection
let jsm: JetStreamManager
beforeAll(async () => {
  nc = await connectNats({ servers: server.url })
  jsm = await jetstreamManager(nc)
})
afterAll(async () => {
  await nc.close()
})

const report = asset('report', { execute: ({ partition }) => `report of ${partition}` })
const reports = pipeline('reports', [report])

function send(namespace: string, partition: string) {
  return jetstream(nc).publish(`${namespace}.trigger.reports.report`, JSON.stringify({ partition }))
}

async function shardsMade(flow: Flow): Promise<(string | undefined)[]> {
  const runs = await flow.runs()
  return runs.flatMap(({ partition, finishedAt }) => (finishedAt ? [partition] : [])).toSorted()
}

describe('the stream of triggers', () => {
  it.each([
    ['Nats-Rollup', { 'Nats-Rollup': 'all' }, 10111],
    ['Nats-TTL', { 'Nats-TTL': '1s' }, 10166],
    [
      'a schedule whose target is on the log',
      { 'Nats-Schedule': '@at 2000-01-01T00:00:00Z', 'Nats-Schedule-Target': 'x.log.0.gate.r.a.g.resolved' },
      10188,
    ],
    [
      'a schedule that is taken away',
      { 'Nats-Scheduler': 'x.log.0.gate.r.a.g.timer', 'Nats-Schedule-Next': 'purge' },
      10188,
    ],
    ['a batch', { 'Nats-Batch-Id': 'b', 'Nats-Batch-Sequence': '1', 'Nats-Batch-Commit': '1' }, 10174],
    ['a counter', { 'Nats-Incr': '1' }, 10168],
  ])('refuses %s', async (_, given, code) => {
    await using stage = await openStage(server.url, reports, { worker: false, engine: false })
    const before = await jsm.streams.info(`${stage.namespace}_LOG_0`)
    const h = headers()
    for (const [key, value] of Object.entries(given)) h.set(key, value.replace(/^x\./, `${stage.namespace}.`))
    const reply = await nc.request(`${stage.namespace}.trigger.reports.report`, '{}', { headers: h, timeout: 5000 })
    expect(reply.json()).toMatchObject({ error: { err_code: code } })
    expect((await jsm.streams.info(`${stage.namespace}_TRIGGERS`)).state.last_seq).toBe(0)
    expect((await jsm.streams.info(`${stage.namespace}_LOG_0`)).state).toMatchObject({
      last_seq: before.state.last_seq,
    })
  })

  it('the stream of triggers takes what is large, odd or not to be decoded; the engine refuses it, and goes on', async () => {
    await using stage = await openStage(server.url, reports)
    const { namespace, flow } = stage
    const js = jetstream(nc)
    const odd = headers()
    odd.set('Content-Type', 'x'.repeat(5000))
    odd.set('KV-Operation', 'PURGE')
    odd.set('Nats-Marker-Reason', 'Purge')
    await js.publish(`${namespace}.trigger.reports.report`, new Uint8Array(1_000_000))
    await js.publish(`${namespace}.trigger.reports.report`, '{}', { headers: odd })
    await js.publish(`${namespace}.trigger.reports.report`, '{}', { msgID: 'm'.repeat(60_000) })
    await js.publish(`${namespace}.trigger.reports.${'n'.repeat(2000)}`, '{}')
    await js.publish(`${namespace}.trigger.a.b.c.d`, '{}')
    await send(namespace, 'fine')
    await until('the last one is made', async () => (await shardsMade(flow)).includes('fine'))
    expect(await shardsMade(flow)).toEqual(['fine'])
    const log = await jsm.streams.info(`${namespace}_LOG_0`, { subjects_filter: `${namespace}.log.0.trigger.*.*` })
    const subjects = Object.keys(log.state.subjects ?? {})
    expect(subjects.filter((subject) => subject.endsWith('.received'))).toHaveLength(6)
    expect(subjects.filter((subject) => subject.endsWith('.refused'))).toHaveLength(5)
    expect(stage.lines.filter((line) => line.includes('starts again'))).toEqual([])
  })

  it('the stream of triggers is emptied as its messages come to the log', async () => {
    await using stage = await openStage(server.url, reports)
    await send(stage.namespace, 'a')
    await until('it is made', async () => (await shardsMade(stage.flow)).length === 1)
    await until(
      'it is taken away',
      async () => (await jsm.streams.info(`${stage.namespace}_TRIGGERS`)).state.messages === 0,
    )
    await send(stage.namespace, 'b')
    await until('the next one is made', async () => (await shardsMade(stage.flow)).length === 2)
  })
})

describe('a trigger', () => {
  it('a trigger that waited for an engine gives one run, however many engines read it, one after the other or at once', async () => {
    await using stage = await openStage(server.url, reports, { engine: false })
    const { namespace, flow } = stage
    // Nothing is taken away: every engine reads all of them.
    await jsm.streams.update(`${namespace}_TRIGGERS`, { deny_purge: true })
    for (const partition of ['a', 'b', 'c']) await send(namespace, partition)
    for (let i = 0; i < 3; i++) {
      const engine = await flow.engine()
      await engine.active
      await send(namespace, `of engine ${i}`)
      await until('all are made', async () => (await shardsMade(flow)).length === 4 + i)
      await engine.stop()
    }
    await flow.rebuild()
    const [one, two] = [await flow.engine(), await (await stage.connect()).engine()]
    await send(namespace, 'last')
    await until('the last one is made', async () => (await shardsMade(flow)).includes('last'))
    await one.stop()
    await two.active
    await send(namespace, 'of the successor')
    await until('that is made', async () => (await shardsMade(flow)).includes('of the successor'))
    const all = ['a', 'b', 'c', 'last', 'of engine 0', 'of engine 1', 'of engine 2', 'of the successor']
    expect(await shardsMade(flow)).toEqual(all)
  })

  it('a trigger is not taken for an older one when the stream was made anew', async () => {
    await using stage = await openStage(server.url, reports)
    const { namespace, flow, engine } = stage
    await send(namespace, 'a')
    await until('it is made', async () => (await shardsMade(flow)).length === 1)
    await engine?.stop()
    await jsm.streams.delete(`${namespace}_TRIGGERS`)
    const again = await stage.connect()
    await again.engine()
    await send(namespace, 'b')
    await until('that of the new stream is made', async () => (await shardsMade(flow)).length === 2)
    expect(await shardsMade(flow)).toEqual(['a', 'b'])
  })
})
