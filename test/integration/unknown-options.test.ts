import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { serveGates } from '../../src/http/index.ts'
import { asset, connect, type Flow, InvalidError, pipeline } from '../../src/index.ts'
import {
  batch,
  itemReader,
  readCsv,
  readJsonLines,
  readLines,
  readParquet,
  readPostgres,
  readS3Objects,
  s3Object,
  settleItems,
} from '../../src/items/index.ts'
import { ensureNatsServer, startCluster, startServer } from '../../src/server/index.ts'
import { useServer } from '../kit/fixture.ts'
import { freshNamespace } from '../kit/stage.ts'

const server = useServer({ syncInterval: 'default' })
let flow: Flow
beforeAll(async () => {
  flow = await connect({ servers: server.url, namespace: freshNamespace() })
})
afterAll(async () => {
  await flow.close()
})

const made = asset('made', { execute: () => 1 })
const shard = pipeline('p', [made])

/** As from JavaScript, or from a file of configuration, which no type checker sees. */
function wrong<T extends object>(options: T): T {
  return Object.assign(options, { conncurrency: 1 })
}

/** Functions by name, each called with an option that there is not. */
const CALLS: Readonly<Record<string, () => unknown>> = {
  connect: () => connect(wrong({ servers: 'nats://127.0.0.1:1' })),
  worker: () => flow.worker(shard, wrong({})),
  engine: () => flow.engine(wrong({})),
  materialize: () => flow.materialize(made, wrong({})),
  setup: () => flow.setup(wrong({})),
  runs: () => flow.runs(wrong({})),
  result: () => flow.run('0-none').result(wrong({})),
  watch: () => flow.run('0-none').watch(wrong({})).next(),
  'gates.signal': () => flow.gates.signal('t', 1, wrong({})),
  'gates.signalById': () => flow.gates.signalById('0-r.a.a1n1', 1, wrong({})),
  'gates.signalByCorrelationKey': () => flow.gates.signalByCorrelationKey('t', 1, wrong({})),
  'gates.waiting': () => flow.gates.waiting(wrong({})),
  'gates.extend': () => flow.gates.extend('0-r.a.a1n1', '1h', wrong({})),
  'limiter.check': () => flow.limiter.check('b', [1, 'second'], wrong({})),
  'limiter.peek': () => flow.limiter.peek('b', [1, 'second'], wrong({})),
  'limiter.take': () => flow.limiter.take('b', [1, 'second'], wrong({})),
  'limiter.withLimit': () => flow.limiter.withLimit('b', [1, 'second'], () => 1, wrong({})),
  'limiter.acquireSlot': () => flow.limiter.acquireSlot('b', 1, wrong({})),
  'limiter.takeSlot': () => flow.limiter.takeSlot('b', 1, wrong({})),
  'limiter.withSlot': () => flow.limiter.withSlot('b', 1, () => 1, wrong({})),
  'limiter.list': () => flow.limiter.list(wrong({})),
  pipeline: () => pipeline('q', [made], wrong({})),
  asset: () => asset('b', wrong({ execute: () => 1 })),
  serveGates: () => serveGates(flow, wrong({ port: 0 })),
  startServer: () => startServer(wrong({})),
  startCluster: () => startCluster(wrong({})),
  ensureNatsServer: () => ensureNatsServer(wrong({})),
  batch: () => batch([1], wrong({ maxItems: 1 })),
  itemReader: () => itemReader(wrong({ name: 'r', read: async function* () {} })),
  'itemReader retry': () => itemReader({ name: 'r', read: async function* () {}, retry: wrong({}) }),
  readCsv: () => readCsv('f', wrong({})),
  readJsonLines: () => readJsonLines('f', wrong({})),
  readLines: () => readLines('f', wrong({})),
  readParquet: () => readParquet('f', wrong({})),
  readPostgres: () => readPostgres(wrong({ query: 'SELECT 1 AS a', key: 'a' })),
  readS3Objects: () => readS3Objects(wrong({ bucket: 'b' })),
  s3Object: () => s3Object(wrong({ bucket: 'b', key: 'k' })),
  settleItems: () => settleItems([1], () => 1, wrong({})),
}

describe('an option that there is not', () => {
  it.each(Object.entries(CALLS))('is refused by %s, which names it', async (_, call) => {
    const error: unknown = await Promise.resolve()
      .then(call)
      .then(
        () => undefined,
        (thrown: unknown) => thrown,
      )
    expect(error).toBeInstanceOf(InvalidError)
    expect(error).toMatchObject({ message: expect.stringContaining('there is no option conncurrency') })
  })

  it('an option that there is not is refused with the nearest known one', async () => {
    await expect(flow.worker(shard, wrong({}))).rejects.toThrow('did you mean concurrency?')
  })

  it('an option that there is not is distinct from what is no object of options', async () => {
    const options = JSON.parse('"nightly"')
    await expect(flow.materialize(made, options)).rejects.toThrow('materialize: options must be an object, got string')
    await expect(connect(JSON.parse('null'))).rejects.toThrow('connect: options must be an object, got null')
  })
})

describe('FLOWSTONE_NAMESPACE', () => {
  it('FLOWSTONE_NAMESPACE is the namespace of connect, unless it is given one', async () => {
    const [env, given] = [freshNamespace(), freshNamespace()]
    vi.stubEnv('FLOWSTONE_NAMESPACE', env)
    try {
      await using byEnv = await connect({ servers: server.url })
      await using byOption = await connect({ servers: server.url, namespace: given })
      expect([byEnv.namespace, byOption.namespace]).toEqual([env, given])
    } finally {
      vi.unstubAllEnvs()
    }
  })
})
