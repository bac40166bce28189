import { jetstream, jetstreamManager, type StoredMsg } from '@nats-io/jetstream'
import { headers } from '@nats-io/nats-core'
import { connect as connectNats, type NatsConnection } from '@nats-io/transport-node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { asset, pipeline } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })
/** An outsider: any NATS client, without this library. */
let nc: NatsConnection
beforeAll(async () => {
  nc = await connectNats({ servers: server.url })
})
afterAll(async () => {
  await nc.close()
})

const made: string[] = []
const report = asset('report', {
  execute: ({ partition }) => {
    made.push(partition ?? 'none')
    return `report of ${partition}`
  },
})
const summary = asset('summary', { dependsOn: [report], execute: (_, deps) => `short ${deps.report}` })
const reports = pipeline('reports', [report, summary])
const copies = pipeline('copies', [report])

/** `name`: an asset of pipeline `reports`, or a pipeline and an asset. */
function publish(namespace: string, name: string, body?: unknown, msgId?: string) {
  const at = name.includes('.') ? name : `reports.${name}`
  const payload = body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body)
  return jetstream(nc).publish(`${namespace}.trigger.${at}`, payload, msgId === undefined ? {} : { msgID: msgId })
}

/** The refusals on the log, as an outsider reads them. */
async function refusals(namespace: string): Promise<{ asset: string; reason: string; msgId?: string }[]> {
  const jsm = await jetstreamManager(nc)
  const stream = `${namespace}_LOG_0`
  const subjects = (await jsm.streams.info(stream, { subjects_filter: `${namespace}.log.0.trigger.*.refused` })).state
    .subjects
  const found: StoredMsg[] = []
  for (const subject of Object.keys(subjects ?? {})) {
    const message = await jsm.streams.getMessage(stream, { last_by_subj: subject })
    if (message) found.push(message)
  }
  return found.toSorted((a, b) => a.seq - b.seq).map((message) => message.json())
}

describe('a message to <ns>.trigger.<pipeline>.<asset>', () => {
  it('a message to <ns>.trigger.<pipeline>.<asset> starts a run: with nothing in it, or with partition, upstream and key', async () => {
    await using stage = await openStage(server.url, reports)
    await publish(stage.namespace, 'report')
    await publish(stage.namespace, 'summary', { partition: '2026-11-23', upstream: 'all' })
    await until(
      'both are made',
      async () => (await stage.flow.runs()).filter(({ finishedAt }) => finishedAt).length === 2,
    )
    const runs = await stage.flow.runs()
    expect(runs.map(({ target, partition, status }) => [target, partition, status]).toSorted()).toEqual([
      ['report', undefined, 'succeeded'],
      ['summary', '2026-11-23', 'succeeded'],
    ])
    const id = runs.find(({ target }) => target === 'summary')?.id ?? ''
    expect(await stage.flow.run(id).result()).toBe('short report of 2026-11-23')
  })

  it('with a key starts the run that the key stands for, as materialize does', async () => {
    await using stage = await openStage(server.url, reports)
    await publish(stage.namespace, 'report', { key: 'nightly', partition: 'p' })
    await publish(stage.namespace, 'report', { key: 'nightly', partition: 'p' })
    await until('it is made', async () => (await stage.flow.runs())[0]?.finishedAt !== undefined)
    const run = await stage.flow.materialize(report, { key: 'nightly', partition: 'p', pipeline: reports })
    expect(await run.result()).toBe('report of p')
    expect((await stage.flow.runs()).map(({ id }) => id)).toEqual([run.id])
  })

  it('with the same Nats-Msg-Id leads to the same run, also when the server has forgotten the first', async () => {
    await using stage = await openStage(server.url, reports)
    made.length = 0
    expect((await publish(stage.namespace, 'report', { partition: 'once' }, 'order-17')).duplicate).toBe(false)
    expect((await publish(stage.namespace, 'report', { partition: 'once' }, 'order-17')).duplicate).toBe(true)
    await until('it is made', async () => (await stage.flow.runs())[0]?.finishedAt !== undefined)

    const jsm = await jetstreamManager(nc)
    let window = 100_000_000
    await until('the server takes it as new', async () => {
      // It looks at what it may forget when this changes, and forgets nothing younger.
      await jsm.streams.update(`${stage.namespace}_TRIGGERS`, { duplicate_window: window++ })
      return !(await publish(stage.namespace, 'report', { partition: 'once' }, 'order-17')).duplicate
    })
    await publish(stage.namespace, 'report', { partition: 'marker' }, 'order-18')
    await until('the engine is past it', async () =>
      (await stage.flow.runs()).some(({ partition }) => partition === 'marker'),
    )
    await until('that is made', () => made.includes('marker'))
    expect(made.toSorted()).toEqual(['marker', 'once'])
    expect(await stage.flow.runs()).toHaveLength(2)
  })

  it('a message to <ns>.trigger.<pipeline>.<asset> is refused with a reason when it makes no sense, and the engine goes on', async () => {
    await using stage = await openStage(server.url, reports)
    const { namespace } = stage
    await publish(namespace, 'report', '{"partition":')
    await publish(namespace, 'report', '"words"')
    await publish(namespace, 'report', '[1]')
    await publish(namespace, 'report', { partiton: 'p' })
    await publish(namespace, 'report', { partition: 5 })
    await publish(namespace, 'report', { upstream: 'some' })
    await publish(namespace, 'report', { key: '' })
    await publish(namespace, 'raport', {}, 'id-1')
    await publish(namespace, 'repots.report')
    await publish(namespace, 'report', { pipeline: 'reports' })
    await jetstream(nc).publish(`${namespace}.trigger.report`)
    await publish(namespace, 'report', '{"__proto__":{"partition":"p"}}')
    await publish(namespace, 'report', { partition: 'fine' })
    await until('the last one is made', async () =>
      (await stage.flow.runs()).some(({ status }) => status === 'succeeded'),
    )
    expect((await stage.flow.runs()).map(({ partition }) => partition)).toEqual(['fine'])
    await until('all others are refused', async () => (await refusals(namespace)).length === 12)
    const reasons = (await refusals(namespace)).map(({ reason }) => reason)
    expect(reasons).toEqual([
      expect.stringContaining('payload is not application/json'),
      expect.stringContaining('expected object'),
      expect.stringContaining('expected object'),
      expect.stringContaining('"partiton"; allowed are partition, upstream, key'),
      expect.stringContaining('partition: '),
      expect.stringContaining('upstream: '),
      expect.stringContaining('key: '),
      expect.stringContaining('pipeline reports has no asset raport; did you mean report?'),
      expect.stringContaining('no pipeline repots is registered; start a worker of it first'),
      expect.stringContaining('"pipeline"; allowed are partition, upstream, key'),
      expect.stringContaining('the subject must end in trigger.<pipeline>.<asset>'),
      expect.stringContaining('__proto__'),
    ])
    expect((await refusals(namespace))[7]).toMatchObject({ pipeline: 'reports', asset: 'raport', msgId: 'id-1' })
  })

  it('a trigger that was refused is taken once its cause is gone, as the same run however often', async () => {
    await using stage = await openStage(server.url, reports, { shards: 2 })
    const { namespace, flow } = stage
    const bodies = [{ partition: 'a' }, { partition: 'b', key: 'k' }, { partition: 'c' }, { partition: 5 }]
    for (const [n, body] of bodies.entries()) await publish(namespace, 'copies.report', body, n === 2 ? 'm' : undefined)
    await publish(namespace, 'copies.report', { tags: { long: 'x'.repeat(9000) } })
    await until('all are refused', async () => (await flow.triggers.refused()).length === 5)
    const [long, bad, ...good] = await flow.triggers.refused()
    expect([long?.kept, bad?.kept, ...good.map(({ kept }) => kept)]).toEqual([false, true, true, true, true])
    expect((await rejection(flow.triggers.retry(good[0]?.id ?? ''))).code).toBe('not_found')
    await flow.worker(copies)
    const runs = []
    for (const { id } of [...good, ...good]) runs.push(await flow.as('ann').triggers.retry(id))
    expect(runs.map(({ isNew }) => isNew)).toEqual([true, true, true, false, false, false])
    expect(runs.slice(3).map(({ id }) => id)).toEqual(runs.slice(0, 3).map(({ id }) => id))
    expect(await runs[0]?.result()).toBe('report of c')
    expect((await flow.triggers.refused()).map(({ run }) => run)).toEqual([
      undefined,
      undefined,
      ...runs.slice(0, 3).map(({ id }) => id),
    ])
    expect((await rejection(flow.triggers.retry(bad?.id ?? ''))).message).toContain('is refused again: partition: ')
    // While the copy of the trigger is on the log, it is read there.
    expect((await rejection(flow.triggers.retry(long?.id ?? ''))).message).toContain('tags.long')
    expect((await rejection(flow.triggers.retry('1-1'))).code).toBe('not_found')
    expect((await rejection(flow.triggers.retry('no'))).code).toBe('invalid')
  })

  it('a message to <ns>.trigger.<pipeline>.<asset> names the pipeline: an asset that is in several is asked for in one of them', async () => {
    await using stage = await openStage(server.url, [reports, copies])
    await publish(stage.namespace, 'copies.report', { partition: 'p' })
    await until('it is made', async () => (await stage.flow.runs())[0]?.finishedAt !== undefined)
    expect((await stage.flow.runs()).map((run) => run.pipeline)).toEqual(['copies'])
  })

  it('may be MessagePack, as its Content-Type says, and takes names as they come', async () => {
    await using stage = await openStage(server.url, reports)
    const h = headers()
    h.set('Content-Type', 'application/msgpack')
    // {"partition":"packed"}
    const packed = Buffer.concat([
      Buffer.from([0x81, 0xa9]),
      Buffer.from('partition'),
      Buffer.from([0xa6]),
      Buffer.from('packed'),
    ])
    await jetstream(nc).publish(`${stage.namespace}.trigger.reports.report`, packed, { headers: h })
    await until('it is made', async () => (await stage.flow.runs())[0]?.finishedAt !== undefined)
    expect((await stage.flow.runs())[0]?.partition).toBe('packed')
  })

  it('finds its run in whichever shard its key falls', async () => {
    await using stage = await openStage(server.url, reports, { shards: 3 })
    for (let i = 0; i < 12; i++) await publish(stage.namespace, 'report', { key: `k${i}`, partition: `p${i}` })
    await until(
      'all are made',
      async () => (await stage.flow.runs()).filter(({ finishedAt }) => finishedAt).length === 12,
    )
    const runs = await stage.flow.runs()
    expect(new Set(runs.map(({ id }) => id.split('-')[0]))).toEqual(new Set(['0', '1', '2']))
  })
})
