import type { AddressInfo } from 'node:net'
import { createServer } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  asset,
  type ConnectOptions,
  connect,
  FlowStoneError,
  InvalidError,
  type MaterializeOptions,
  pipeline,
  type WorkerOptions,
} from '../../src/index.ts'
import { bareNats } from '../kit/bare-nats.ts'
import { useServer } from '../kit/fixture.ts'
import { oldNats } from '../kit/old-nats.ts'
import { freshNamespace, openStage, rejection, type Stage } from '../kit/stage.ts'

const server = useServer({ syncInterval: 'default' })

describe('connect', () => {
  it('connect says that no server is there, where it looked, and how to get one', async () => {
    // A port that was free a moment ago.
    const probe = createServer()
    await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve))
    const { port } = probe.address() as AddressInfo
    await new Promise((resolve) => probe.close(resolve))
    const error = await rejection(connect({ servers: `nats://127.0.0.1:${port}` }))
    expect(error).toBeInstanceOf(FlowStoneError)
    expect(error).toMatchObject({ code: 'unreachable', cause: expect.any(Error) })
    expect(error.message).toContain(`no nats-server at nats://127.0.0.1:${port}`)
    expect(error.message).toContain('start one (docker compose up -d, nats-server -js')
    expect(error.message).toContain('set servers or NATS_URL')
  })

  it('connect says which version of the server is needed when it is too old', async () => {
    await using old = await oldNats('2.10.0')
    const error = await rejection(connect({ servers: old.url }))
    expect(error).toMatchObject({ code: 'server_too_old' })
    expect(error.message).toMatch(/is 2\.10\.0; FlowStone needs 2\.14\.0 or later .*Upgrade it/)
  })

  it('connect says that the server has no JetStream, and how to start one that has', async () => {
    await using bare = await bareNats()
    const error = await rejection(connect({ servers: bare.url }))
    expect(error).toMatchObject({ code: 'no_jetstream' })
    expect(error.message).toContain('has no JetStream; start it with -js')
  })

  it.each<[string, ConnectOptions, string]>([
    ['namespace', { namespace: 'a.b' }, 'namespace must be 1 to 128 characters of A-Z a-z 0-9 _ -, got "a.b"'],
    ['namespace', { namespace: '' }, 'namespace must be 1 to 128 characters'],
    ['namespace', { namespace: 'a b*>' }, 'namespace must be'],
    ['shards', { shards: 0 }, 'shards must be a whole number from 1 to 64, got 0'],
    ['shards', { shards: 1.5 }, 'shards must be'],
    ['shards', { shards: 65 }, 'shards must be'],
    ['replicas', { replicas: 6 }, 'replicas must be a whole number from 1 to 5, got 6'],
    ['feedMaxAgeMs', { feedMaxAgeMs: -1 }, 'feedMaxAgeMs must be'],
    ['feedMaxAgeMs', { feedMaxAgeMs: Number.NaN }, 'feedMaxAgeMs must be'],
    ['servers', { servers: [] }, 'servers: name at least one'],
  ])('refuses a wrong %s and names it', async (_, options, message) => {
    const error = await rejection(connect({ servers: server.url, namespace: freshNamespace(), ...options }))
    expect(error).toBeInstanceOf(InvalidError)
    expect(error.message).toContain(message)
  })

  it('connect says what the server said when it cannot make a stream', async () => {
    await using flow = await connect({ servers: server.url, namespace: freshNamespace(), replicas: 3 })
    const error = await rejection(flow.setup())
    expect(error).toMatchObject({ code: 'topology' })
    expect(error.message).toMatch(/replicas/)
  })
})

describe('materialize', () => {
  const fine = asset('fine', { execute: () => 1 })
  const other = asset('finer', { execute: () => 1 })
  const lone = asset('lone', { execute: () => 1 })
  const all = pipeline('all', [fine])
  let stage: Stage
  beforeAll(async () => {
    stage = await openStage(server.url, all, { worker: false, engine: false })
  })
  afterAll(() => stage[Symbol.asyncDispose]())

  it.each<[string, unknown, string]>([
    ['a name', 'fine', 'materialize takes an asset (what asset(name, …) returned), got the text "fine"'],
    ['nothing', undefined, 'materialize takes an asset'],
    ['a pipeline', all, 'materialize takes an asset'],
    ['an asset in no pipeline', lone, "asset lone is in no pipeline; put it in one: pipeline('name', [lone, …])"],
  ])('refuses %s, and says what it takes', async (_, thing, message) => {
    const error = await rejection(stage.flow.materialize(thing as typeof fine))
    expect(error).toBeInstanceOf(InvalidError)
    expect(error.message).toContain(message)
  })

  it('materialize refuses a pipeline that has no such asset, and names the nearest', async () => {
    const error = await rejection(stage.flow.materialize(other, { pipeline: all }))
    expect(error).toBeInstanceOf(InvalidError)
    expect(error.message).toBe('pipeline all has no asset finer; did you mean fine?')
  })

  it.each<[string, Record<string, unknown>]>([
    ['upstream', { upstream: 'some' }],
    ['partition', { partition: 5 }],
    ['partition', { partition: 'x'.repeat(513) }],
    ['key', { key: '' }],
    ['key', { key: 'x'.repeat(513) }],
  ])('refuses a wrong %s and names it', async (field, options) => {
    const error = await rejection(stage.flow.materialize(fine, options as MaterializeOptions))
    expect(error).toBeInstanceOf(InvalidError)
    expect(error.message).toContain(`${field} must`)
  })

  it('materialize refuses what is no run id', () => {
    expect(() => stage.flow.run('nonsense')).toThrow('"nonsense" is no run id')
    expect(() => stage.flow.run('0-a.b')).toThrow(InvalidError)
    expect(() => stage.flow.history('*')).toThrow(InvalidError)
  })

  it('materialize says at once that there is no run on a shard that does not exist', {
    timeout: 4000,
  }, async () => {
    const { flow } = stage
    const id = '7-abc'
    const run = flow.run(id)
    expect(await run.status()).toBeUndefined()
    expect((await flow.history(id).next()).done).toBe(true)
    const { scatter } = flow
    for (const asking of [
      () => run.result(),
      () => run.cancel(),
      () => run.watch().next(),
      () => scatter.list(id),
      () => scatter.status(`${id}.a`),
      () => scatter.pending(`${id}.a`).next(),
      () => scatter.failures(`${id}.a`).next(),
      () => scatter.redrive(`${id}.a`),
      () => scatter.cancel(`${id}.a`),
      () => scatter.pause(`${id}.a`),
    ])
      expect(await rejection(asking())).toMatchObject({ code: 'not_found' })
  })

  it.each<[string, WorkerOptions]>([
    ['concurrency', { concurrency: 0 }],
    ['concurrency', { concurrency: 2.5 }],
    ['ackWait', { ackWait: '10ms' }],
    ['ackWait', { ackWait: 'soon' as '1s' }],
    ['drainTimeout', { drainTimeout: -1 }],
  ])('a worker refuses a wrong %s and names it', async (field, options) => {
    const error = await rejection(stage.flow.worker(all, options))
    expect(error).toBeInstanceOf(InvalidError)
    expect(error.message).toContain(`worker: ${field} must`)
  })
})

describe('odd but allowed input', () => {
  it('odd but allowed input takes assets with names that objects have, or numbers, and options that are no whole milliseconds', async () => {
    const names = ['constructor', 'toString', 'hasOwnProperty', '7', '-', '_x']
    const sources = names.map((name) => asset(name, { execute: () => name, retry: { backoff: 0.5 }, timeout: 2000.5 }))
    const last = asset('valueOf', {
      dependsOn: sources,
      scatter: (deps) => Object.keys(deps).toSorted(),
      execute: ({ scatterKey }, deps) => Reflect.get(deps, scatterKey) === scatterKey,
    })
    await using stage = await openStage(server.url, pipeline('odd', [...sources, last]))
    const value = await (await stage.flow.materialize(last)).result({ signal: AbortSignal.timeout(5000) })
    expect(value).toEqual(names.toSorted().map((key) => ({ key, value: true })))
  })

  it('odd but allowed input refuses the one name that objects cannot hold', () => {
    expect(() => asset('__proto__', { execute: () => 1 })).toThrow(InvalidError)
  })
})
