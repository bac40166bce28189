/** A hub and a leaf node in one account, each with JetStream of its own: what is published under a namespace's subjects reaches both. */
import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats } from '@nats-io/transport-node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { asset, connect, type Flow, pipeline } from '../../src/index.ts'
import { ensureTopology } from '../../streams/topology.ts'
import { type HubAndLeaf, hubAndLeaf, LEAF_USER } from '../kit/leaf.ts'
import { freshNamespace, listeningLogger, openStage, rejection } from '../kit/stage.ts'

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
  it('is refused on the other one, by whoever would make it, and nothing of it is made there', async () => {
    const one = asset('one', { execute: () => 1 })
    const p = pipeline('p', [one])
    for (const [first, second] of [
      [servers.hub, servers.leaf],
      [servers.leaf, servers.hub],
    ] as const) {
      await using stage = await openStage(first, p, { nats: LEAF_USER })
      await using other = await at(second, stage.namespace)
      for (const makes of [() => other.engine(), () => other.worker(p), () => other.setup()]) {
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

  it('that stands on both already is refused at connect, on either side, and what asks stores nothing', async () => {
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
