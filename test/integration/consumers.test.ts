import { type JetStreamManager, jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats, type NatsConnection } from '@nats-io/transport-node'
import { expect, it } from 'vitest'
import { asset, pipeline } from '../../src/index.ts'
import { ensureTopology } from '../../streams/topology.ts'
import { collect } from '../kit/collect.ts'
import { useServer } from '../kit/fixture.ts'
import { freshNamespace, openStage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })

async function withManager<T>(work: (jsm: JetStreamManager, nc: NatsConnection) => Promise<T>): Promise<T> {
  const nc = await connectNats({ servers: server.url })
  try {
    return await work(await jetstreamManager(nc), nc)
  } finally {
    await nc.close()
  }
}

async function consumersOf(jsm: JetStreamManager, namespace: string): Promise<Record<string, number>> {
  const counts: Record<string, number> = {}
  for await (const { config, state } of jsm.streams.list())
    if (config.name.includes(namespace)) counts[config.name] = state.consumer_count
  return counts
}

it('what has read a stream leaves no consumer there, of which the server allows a stream only so many', async () => {
  const many = asset('many', {
    scatter: () => [1, 2, 3],
    execute: ({ index }) => index,
    gather: async (results) => (await collect(results)).length,
  })
  const one = asset('one', { dependsOn: [many], slots: { bucket: 'b', max: 1 }, execute: () => 1 })
  await using stage = await openStage(server.url, pipeline('p', [many, one]))
  const { flow, namespace } = stage
  await withManager(async (jsm) => {
    const runs = await Promise.all([1, 2, 3, 4, 5].map((i) => flow.materialize(one, { partition: `${i}` })))
    for (const run of runs) {
      expect((await collect(run.watch())).at(-1)?.run.status).toBe('succeeded')
      expect((await collect(flow.history(run.id))).length).toBeGreaterThan(3)
    }
    await flow.verify()
    // The engine follows log and triggers, and the worker its queue.
    const own = new Set([`${namespace}_LOG_0`, `${namespace}_TRIGGERS`, `${namespace}_WORK_0`])
    await until('no other is left', async () =>
      Object.entries(await consumersOf(jsm, namespace)).every(([name, count]) => count <= (own.has(name) ? 2 : 0)),
    )
  })
})

it('a stream may have more consumers than the server allows by itself, and as many as an operator has set', async () => {
  const namespace = freshNamespace()
  await withManager(async (jsm, nc) => {
    const allowed = async (): Promise<unknown[]> => {
      const streams = await Promise.all(
        [`${namespace}_LOG_0`, `${namespace}_WORK_0`, `KV_${namespace}_state_0`].map((name) => jsm.streams.info(name)),
      )
      return streams.map(({ config }) => config.max_consumers)
    }
    await ensureTopology(nc, { namespace })
    expect(await allowed()).toEqual([100_000, 100_000, 100_000])
    for (const [name, max_consumers] of [
      [`${namespace}_LOG_0`, -1],
      [`${namespace}_WORK_0`, 500],
    ] as const) {
      const wished = { ...(await jsm.streams.info(name)).config, max_consumers }
      await jsm.streams.update(name, wished)
    }
    await ensureTopology(nc, { namespace })
    expect(await allowed()).toEqual([100_000, 500, 100_000])
  })
})

it('who may not read a stream now hears why, and waits where others will have read soon', async () => {
  const many = asset('many', {
    scatter: () => [1, 2, 3],
    execute: ({ index }) => index,
    gather: async (results) => (await collect(results)).length,
  })
  await using stage = await openStage(server.url, pipeline('p', [many]))
  const { flow, namespace, lines } = stage
  await withManager(async (jsm) => {
    const log = `${namespace}_LOG_0`
    const before = await flow.materialize(many, { partition: 'before' })
    expect(await before.result()).toBe(3)
    const { config } = await jsm.streams.info(log)
    const allow = async (max_consumers: number): Promise<void> => {
      const wished = { ...config, max_consumers }
      await jsm.streams.update(log, wished)
    }
    await until('nobody else reads', async () => (await jsm.streams.info(log)).state.consumer_count === 1)
    await allow(1)
    const text = `stream ${log} has as many consumers as it may have`
    await expect(collect(flow.history(before.id))).rejects.toMatchObject({
      code: 'too_many_readers',
      message: expect.stringContaining(text),
    })
    const run = await flow.materialize(many, { partition: 'after' })
    await until('its gather says why it waits', () => lines.some((line) => line.includes(text)))
    // What is shown may be a checkpoint behind.
    await until('it runs', async () => (await run.view())?.status === 'running')
    await allow(100)
    expect(await run.result()).toBe(3)
  })
})
