/** What makes a namespace, and what does not. */
import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats, type NatsConnection } from '@nats-io/transport-node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Namespace } from '../../src/client/namespace.ts'
import { asset, connect, type Flow, pipeline } from '../../src/index.ts'
import { Connection } from '../../src/log/connection.ts'
import { collect } from '../kit/collect.ts'
import { useServer } from '../kit/fixture.ts'
import { freshNamespace, listeningLogger, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })
let nc: NatsConnection
beforeAll(async () => {
  nc = await connectNats({ servers: server.url })
})
afterAll(async () => {
  await nc.close()
})

const thing = asset('thing', { execute: () => 'made' })
const things = pipeline('things', [thing])
const logger = listeningLogger()
const GATES = { secrets: [{ id: 'k', secret: 'x'.repeat(40) }], baseUrl: 'http://127.0.0.1:9' }

async function streamsOf(namespace: string): Promise<string[]> {
  const jsm = await jetstreamManager(nc)
  const found: string[] = []
  for await (const name of jsm.streams.names()) if (name.includes(namespace)) found.push(name)
  return found.toSorted()
}

const RUN = '0-nobody'
const looks: [string, (flow: Flow) => Promise<unknown>][] = [
  ['runs', (flow) => flow.runs()],
  ['history', (flow) => collect(flow.history(RUN))],
  ['run.status', (flow) => flow.run(RUN).status()],
  ['run.result', (flow) => flow.run(RUN).result()],
  ['run.watch', (flow) => collect(flow.run(RUN).watch())],
  ['run.cancel', (flow) => flow.run(RUN).cancel()],
  ['register', (flow) => flow.register(things)],
  ['materialize', (flow) => flow.materialize(thing)],
  ['rebuild', (flow) => flow.rebuild()],
  ['scatter.status', (flow) => flow.scatter.status(`${RUN}.thing`)],
  ['scatter.list', (flow) => flow.scatter.list(RUN)],
  ['scatter.cancel', (flow) => flow.scatter.cancel(`${RUN}.thing`)],
  ['scatter.pause', (flow) => flow.scatter.pause(`${RUN}.thing`)],
  ['gates.waiting', (flow) => flow.gates.waiting()],
  ['gates.list', (flow) => flow.gates.list(RUN)],
  ['gates.get', (flow) => flow.gates.get(`${RUN}.thing.a1n1`)],
  ['gates.getByCorrelationKey', (flow) => flow.gates.getByCorrelationKey('order')],
  ['gates.signalByCorrelationKey', (flow) => flow.gates.signalByCorrelationKey('order', {}, { keepFor: '1h' })],
  ['gates.cancel', (flow) => flow.gates.cancel(`${RUN}.thing.a1n1`)],
  ['limiter.status', (flow) => flow.limiter.status('api')],
  ['limiter.list', (flow) => flow.limiter.list()],
  ['limiter.peek', (flow) => flow.limiter.peek('api', [1, 'second'])],
  ['limiter.reset', (flow) => flow.limiter.reset('api')],
]

describe('a namespace that is not there', () => {
  it('a namespace that is not there is not made by connecting, by looking, or by asking for a run: the error lists those that are there', async () => {
    const there = freshNamespace()
    await using made = await connect({ servers: server.url, namespace: there, logger })
    await made.setup()
    const namespace = `${there}-typo`
    await using flow = await connect({ servers: server.url, namespace, logger, gates: GATES })
    expect(flow.namespace).toBe(namespace)
    for (const [what, look] of looks) {
      const error = await rejection(look(flow))
      expect(error, what).toMatchObject({ code: 'no_namespace' })
      expect(error.message, what).toContain(`no namespace ${namespace} here; there are: `)
      expect(error.message, what).toContain(there)
      expect(error.message, what).toContain(`flowstone setup --namespace ${namespace}`)
    }
    expect(() => flow.shards).toThrow(/no namespace/)
    expect(await streamsOf(namespace)).toEqual([])
  })

  it.each<[string, (flow: Flow) => Promise<unknown>]>([
    ['an engine', (flow) => flow.engine()],
    ['a worker', (flow) => flow.worker(things)],
    ['setup', (flow) => flow.setup()],
    ['who takes from a limit', (flow) => flow.limiter.check('api', [1, 'second'])],
    ['who takes a slot', (flow) => flow.limiter.withSlot('gpu', 1, () => 1)],
  ])('is made by %s, as connect was told to', async (_, make) => {
    const namespace = freshNamespace()
    await using flow = await connect({ servers: server.url, namespace, shards: 2, logger })
    await Promise.all([make(flow), make(flow)])
    expect(flow.shards).toBe(2)
    expect(await streamsOf(namespace)).toHaveLength(15)
  })

  it('a namespace that is not there is found by a connection that was there before it, at its next call', async () => {
    const namespace = freshNamespace()
    await using before = await connect({ servers: server.url, namespace, logger })
    const run = before.run(RUN)
    expect(await rejection(before.runs())).toMatchObject({ code: 'no_namespace' })
    await using later = await connect({ servers: server.url, namespace, shards: 3, logger })
    await later.engine()
    expect(await before.runs()).toEqual([])
    expect(await run.status()).toBeUndefined()
    expect(before.shards).toBe(3)
    await later.worker(things)
    expect(await (await before.materialize(thing)).result()).toBe('made')
  })

  it('a namespace that is not there is found only when its clock is read, whoever asks in between', async () => {
    const name = freshNamespace()
    const connection = await Connection.open({ servers: server.url })
    try {
      const early = new Namespace(connection, { namespace: name }, logger)
      await early.look()
      await using maker = await connect({ servers: server.url, namespace: name })
      await maker.setup()
      let first = false
      const asked: Promise<number>[] = []
      const ask = async (): Promise<number> => {
        await early.found()
        first = true
        return early.clock.now()
      }
      // The next one asks as soon as there may be something to find.
      while (!first) {
        asked.push(ask())
        await new Promise((resolve) => setImmediate(resolve))
      }
      for (const nowMs of await Promise.all(asked)) expect(nowMs).toBeGreaterThan(0)
    } finally {
      await connection.close()
    }
  })

  it('a namespace that is not there takes a worker before an engine, and a request before either has begun', async () => {
    const namespace = freshNamespace()
    await using flow = await connect({ servers: server.url, namespace, logger })
    await flow.worker(things)
    const run = await flow.materialize(thing)
    await flow.engine()
    expect(await run.result()).toBe('made')
  })

  it('a namespace that was made in part is finished by whoever makes it, and not taken for whole by who looks', async () => {
    const namespace = freshNamespace()
    await using flow = await connect({ servers: server.url, namespace, logger })
    await flow.setup()
    const jsm = await jetstreamManager(nc)
    await jsm.streams.delete(`${namespace}_FEED`)
    await nc.request(`$KV.${namespace}_control.topology`, JSON.stringify({ v: 2, shards: 1 }), { timeout: 5000 })
    await using engine = await connect({ servers: server.url, namespace: `${namespace}-x`, logger })
    await engine.setup()
    const looking = connect({ servers: server.url, namespace, logger })
    await flow.engine()
    await using second = await looking
    expect(second.shards).toBe(1)
    expect(await streamsOf(namespace)).toContain(`${namespace}_FEED`)
  })

  it('a namespace that was made in part is finished by an engine, a worker or a setup that connects afterwards', async () => {
    const ways: ((flow: Flow) => Promise<unknown>)[] = [
      (flow) => flow.engine(),
      (flow) => flow.worker(things),
      (flow) => flow.setup(),
    ]
    const finished = ways.map(async (finish) => {
      const namespace = freshNamespace()
      await using first = await connect({ servers: server.url, namespace, logger })
      await first.setup()
      await nc.request(`$KV.${namespace}_control.topology`, JSON.stringify({ v: 2, shards: 1 }), { timeout: 5000 })
      await using flow = await connect({ servers: server.url, namespace, logger })
      await finish(flow)
      await using second = await connect({ servers: server.url, namespace, logger })
      return second.shards
    })
    expect(await Promise.all(finished)).toEqual([1, 1, 1])
  })

  it.each(['is gone', 'says that it is made in part'])(
    'whose entry %s, as when a server dies while its control bucket is made again, is finished by its engine',
    async (how) => {
      const namespace = freshNamespace()
      await using flow = await connect({ servers: server.url, namespace, shards: 3, logger })
      await (await flow.engine()).active
      const key = `$KV.${namespace}_control.topology`
      const jsm = await jetstreamManager(nc)
      if (how === 'is gone') await jsm.streams.purge(`KV_${namespace}_control`, { filter: key })
      else await nc.request(key, JSON.stringify({ v: 2, shards: 3 }), { timeout: 5000 })
      await until('the entry is whole', async () => {
        const found = await jsm.streams.getMessage(`KV_${namespace}_control`, { last_by_subj: key }).catch(() => null)
        return found?.json<{ made?: boolean }>().made === true
      })
      await using second = await connect({ servers: server.url, namespace, logger })
      expect(second.shards).toBe(3)
    },
  )
})
