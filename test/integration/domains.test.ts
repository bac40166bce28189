/**
 * A hub and a leaf node in one account, each with JetStream of its own: what is published under a
 * namespace's subjects reaches both.
 */
import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats } from '@nats-io/transport-node'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { asset, connect, type Flow, pipeline } from '../../src/index.ts'
import { ensureTopology } from '../../streams/topology.ts'
import { type HubAndLeaf, hubAndLeaf, LEAF_USER } from '../kit/leaf.ts'
import { freshNamespace, listeningLogger, openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { within } from '../kit/within.ts'

let servers: HubAndLeaf
beforeAll(async () => {
  servers = await hubAndLeaf()
})
afterAll(async () => {
  await servers[Symbol.asyncDispose]()
})

const at = (url: string, namespace: string): Promise<Flow> =>
  connect({ servers: url, namespace, nats: LEAF_USER, logger: listeningLogger() })

describe('a namespace on a hub or on a leaf', () => {
  it('a namespace on a hub or on a leaf is refused on the other one, by whoever would make it, and nothing of it is made there', async () => {
    const one = asset('one', { execute: () => 1 })
    const shard = pipeline('p', [one])
    for (const [first, second] of [
      [servers.hub, servers.leaf],
      [servers.leaf, servers.hub],
    ] as const) {
      await using stage = await openStage(first, shard, { nats: LEAF_USER })
      await using other = await at(second, stage.namespace)
      for (const makes of [() => other.engine(), () => other.worker(shard), () => other.setup()]) {
        const refused = await rejection(makes())
        expect(refused).toMatchObject({ code: 'two_domains' })
        expect(refused.message).toContain(`stream ${stage.namespace}_LOG_0 of another domain`)
      }
      const nc = await connectNats({ servers: second, ...LEAF_USER })
      const names: string[] = []
      for await (const name of (await jetstreamManager(nc)).streams.names()) names.push(name)
      await nc.close()
      expect(names.filter((name) => name.includes(stage.namespace))).toEqual([])
      expect(await (await stage.flow.materialize(one)).result()).toBe(1)
    }
  })

  it('a namespace on a hub or on a leaf that stands on both already is refused at connect, on either side, and what asks stores nothing', async () => {
    const namespace = freshNamespace()
    const stored: (() => Promise<number>)[] = []
    const opened = await Promise.all(
      [servers.hub, servers.leaf].map((url) => connectNats({ servers: url, ...LEAF_USER })),
    )
    for (const nc of opened) {
      await ensureTopology(nc, { namespace })
      const jsm = await jetstreamManager(nc)
      stored.push(async () => (await jsm.streams.info(`${namespace}_LOG_0`)).state.messages)
    }
    for (const url of [servers.hub, servers.leaf]) {
      const refused = await rejection(at(url, namespace))
      expect(refused).toMatchObject({ code: 'two_domains' })
      expect(refused.message).toContain('two JetStream domains')
    }
    for (const messages of stored) expect(await messages()).toBe(0)
    for (const nc of opened) await nc.close()
  })

  it('may have another one beside it, with another name', async () => {
    const one = asset('one', { execute: () => 1 })
    await using hub = await openStage(servers.hub, pipeline('p', [one]), { nats: LEAF_USER })
    await using leaf = await openStage(servers.leaf, pipeline('p', [one]), { nats: LEAF_USER })
    for (const { flow } of [hub, leaf]) expect(await (await flow.materialize(one)).result()).toBe(1)
  })
})

/**
 * Engine, worker and client, wherever they are, in the domain that is named: all that FlowStone
 * does with JetStream.
 */
async function works(engineAt: string, workerAt: string, domain: string): Promise<void> {
  const namespace = freshNamespace()
  const settings = { namespace, domain, nats: LEAF_USER, logger: listeningLogger() }
  await using first = await connect({ ...settings, servers: engineAt })
  await using second = await connect({ ...settings, servers: workerAt })
  let out = 0
  let most = 0
  const large = asset('large', { execute: () => new Uint8Array(3_000_000).fill(7) })
  const each = asset('each', {
    dependsOn: [large],
    scatter: () => Array.from({ length: 40 }, (_, i) => i),
    scatterOptions: { maxConcurrent: 3, rateLimit: { bucket: 'b', limit: 1000, per: '1s' } },
    execute: async (ctx, deps) => {
      most = Math.max(most, ++out)
      await second.limiter.withSlot('s', 50, () => undefined)
      out -= 1
      return ctx.scatterKey + deps.large.length
    },
  })
  const shard = pipeline('p', [large, each])
  const engine = await first.engine()
  await engine.active
  await second.worker(shard)
  for (const flow of [first, second]) {
    const run = await flow.materialize(each, { upstream: 'all' })
    const values = await run.result({ signal: within(20_000) })
    expect(values.map(({ value }) => value)).toEqual(Array.from({ length: 40 }, (_, i) => i + 3_000_000))
    await until('its state is there', async () => (await run.status())?.status === 'succeeded')
  }
  expect(most).toBeLessThanOrEqual(3)
  expect(first.connection.denied).toEqual([])
  // All of it stands in that domain, and nothing beside it.
  const nc = await connectNats({ servers: engineAt, ...LEAF_USER })
  for (const where of ['hub', 'leaf']) {
    const names: string[] = []
    for await (const name of (await jetstreamManager(nc, { domain: where })).streams.names()) names.push(name)
    expect(names.filter((name) => name.includes(namespace))).toHaveLength(where === domain ? 11 : 0)
  }
  await nc.close()
}

describe('the option domain', () => {
  it('reaches the hub from a leaf', () => works(servers.leaf, servers.leaf, 'hub'))
  it('reaches a leaf from the hub', () => works(servers.hub, servers.hub, 'leaf'))
  it('joins an engine at the hub with a worker at a leaf that has no JetStream', () =>
    works(servers.hub, servers.bare, 'hub'))

  it('the option domain is also an environment variable; a domain that there is not is named, and a name that cannot be is refused', async () => {
    vi.stubEnv('NATS_JS_DOMAIN', 'nope')
    try {
      const missing = await rejection(at(servers.leaf, freshNamespace()))
      expect(missing).toMatchObject({ code: 'no_jetstream' })
      expect(missing.message).toContain('no JetStream domain nope')
    } finally {
      vi.unstubAllEnvs()
    }
    const refused = await rejection(connect({ servers: servers.leaf, nats: LEAF_USER, domain: 'a.>' }))
    expect(refused).toMatchObject({ code: 'invalid' })
    expect(refused.message).toContain('domain must be')
  })
})
