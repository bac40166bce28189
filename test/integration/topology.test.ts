import { type JetStreamManager, jetstreamManager, type StreamInfo } from '@nats-io/jetstream'
import { connect as connectNats, type NatsConnection } from '@nats-io/transport-node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { asset, type ConnectOptions, connect, InvalidError, pipeline } from '../../src/index.ts'
import { collect } from '../kit/collect.ts'
import { useServer } from '../kit/fixture.ts'
import { freshNamespace, openStage, rejection } from '../kit/stage.ts'
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

async function streamsOf(namespace: string): Promise<StreamInfo[]> {
  const all = await collect(jsm.streams.list())
  return all
    .filter(({ config: { name } }) => name.includes(namespace))
    .toSorted((a, b) => (a.config.name < b.config.name ? -1 : 1))
}

async function setUp(options: ConnectOptions): Promise<void> {
  await using flow = await connect({ servers: server.url, ...options })
  await flow.setup()
}

describe('the streams and buckets of a namespace', () => {
  it('the streams and buckets of a namespace are made once, however many set them up, also at the same moment', async () => {
    const namespace = freshNamespace()
    const flows = await Promise.all(
      Array.from({ length: 4 }, () => connect({ servers: server.url, namespace, shards: 2 })),
    )
    await Promise.all(flows.map((flow) => flow.setup()))
    const first = await streamsOf(namespace)
    expect(first.map(({ config: { name } }) => name)).toEqual(
      ['FEED', 'LOGS', 'LOG_0', 'LOG_1', 'PROOF', 'TRIGGERS', 'WORK_0', 'WORK_1']
        .map((name) => `${namespace}_${name}`)
        .concat(
          ['control', 'history_0', 'history_1', 'limits', 'state_0', 'state_1'].map(
            (name) => `KV_${namespace}_${name}`,
          ),
          `OBJ_${namespace}_blobs`,
        )
        .toSorted(),
    )
    flows.push(await connect({ servers: server.url, namespace }))
    expect(flows.map(({ shards }) => shards)).toEqual([2, 2, 2, 2, 2])
    expect((await streamsOf(namespace)).map(({ config, created }) => ({ config, created }))).toEqual(
      first.map(({ config, created }) => ({ config, created })),
    )
    for (const flow of flows) await flow.close()
  })

  it('refuse another number of shards than they were made with, and say so', async () => {
    const namespace = freshNamespace()
    await setUp({ namespace })
    const error = await rejection(connect({ servers: server.url, namespace, shards: 3 }))
    expect(error).toBeInstanceOf(InvalidError)
    expect(error.message).toBe(
      `shards: namespace ${namespace} was made with 1, not 3; it cannot be changed. Leave the option out, or use another namespace.`,
    )
  })

  it('take another age for the feed from whoever names one, and keep it for whoever names none', async () => {
    const namespace = freshNamespace()
    const ageMs = async () => (await jsm.streams.info(`${namespace}_FEED`)).config.max_age / 1e6
    await setUp({ namespace })
    expect(await ageMs()).toBe(7 * 24 * 3_600_000)
    await setUp({ namespace, feedMaxAgeMs: 3_600_000 })
    expect(await ageMs()).toBe(3_600_000)
    await setUp({ namespace })
    expect(await ageMs()).toBe(3_600_000)
    // Shorter than the server's window for duplicates.
    await setUp({ namespace, feedMaxAgeMs: 30_000 })
    expect(await ageMs()).toBe(30_000)
  })

  it('the streams and buckets of a namespace keep what facts must keep: no age limit, no deletes, atomic batches, schedules', async () => {
    const namespace = freshNamespace()
    await setUp({ namespace })
    const { config } = await jsm.streams.info(`${namespace}_LOG_0`)
    expect(config).toMatchObject({
      max_age: 0,
      max_msgs: -1,
      max_bytes: -1,
      deny_delete: true,
      allow_atomic: true,
      allow_msg_schedules: true,
    })
  })

  it('the streams and buckets of a namespace are apart from those of other namespaces, also of one whose name begins the same', async () => {
    let made = 0
    const counted = asset('counted', { execute: () => (made += 1) })
    const all = pipeline('apart', [counted])
    const namespace = freshNamespace()
    await using one = await openStage(server.url, all, { namespace })
    await using two = await openStage(server.url, all, { namespace: `${namespace}-2` })
    expect(await (await one.flow.materialize(counted, { key: 'k' })).result()).toBe(1)
    expect(await (await two.flow.materialize(counted, { key: 'k' })).result()).toBe(2)
    for (const { flow } of [one, two]) {
      await until('the state has caught up', async () => (await flow.runs())[0]?.finishedAt !== undefined)
      expect(await flow.runs()).toHaveLength(1)
    }
  })
})

describe('several shards', () => {
  const source = asset('source', { execute: ({ runId }) => runId })
  const reader = asset('reader', { dependsOn: [source], execute: (_, deps) => deps.source })
  const many = asset('many', {
    scatter: () => Array.from({ length: 200 }, (_, i) => i),
    execute: ({ scatterKey }) => scatterKey,
  })
  const all = pipeline('spread', [source, reader, many])

  it('share the runs, and each is found by its id', async () => {
    await using stage = await openStage(server.url, all, { shards: 3, worker: { concurrency: 20 } })
    const runs = await Promise.all(Array.from({ length: 30 }, () => stage.flow.materialize(source)))
    const ids = await Promise.all(runs.map((run) => run.result()))
    expect(ids).toEqual(runs.map(({ id }) => id))
    const spread = Map.groupBy(ids, (id) => id.split('-')[0])
    expect([...spread.keys()].toSorted()).toEqual(['0', '1', '2'])
    for (let shard = 0; shard < 3; shard++) {
      const { state } = await jsm.streams.info(`${stage.namespace}_LOG_${shard}`, {
        subjects_filter: `${stage.namespace}.log.${shard}.run.*.finished`,
      })
      expect(Object.keys(state.subjects ?? {}).length).toBe(spread.get(String(shard))?.length)
    }
    await until('all are listed', async () => (await stage.flow.runs()).length === 30)
    const listed = await stage.flow.runs()
    expect(listed.map(({ requestedAt }) => requestedAt.getTime())).toEqual(
      listed.map(({ requestedAt }) => requestedAt.getTime()).toSorted((a, b) => b - a),
    )
  })

  it('find upstream values that were made in another one, the newest of them', async () => {
    await using stage = await openStage(server.url, all, { shards: 3 })
    const { flow } = stage
    const shardOf = (id: string) => id.split('-')[0]
    const first = await flow.materialize(source)
    await first.result()
    let newest = first
    while (shardOf(newest.id) === shardOf(first.id)) {
      newest = await flow.materialize(source)
      await newest.result()
    }
    await until('the state has caught up', async () => (await newest.status())?.finishedAt !== undefined)
    const seen = new Set<string | undefined>()
    for (let i = 0; seen.size < 3; i++) {
      const run = await flow.materialize(reader, { key: `reader ${i}`, upstream: 'none' })
      expect(await run.result()).toBe(newest.id)
      seen.add(shardOf(run.id))
    }
  })

  it('run scatters side by side', async () => {
    await using stage = await openStage(server.url, all, { shards: 3, worker: { concurrency: 20 } })
    const runs = await Promise.all(['a', 'b', 'c', 'd', 'e', 'f'].map((key) => stage.flow.materialize(many, { key })))
    for (const run of runs) expect(await run.result()).toHaveLength(200)
  })
})
