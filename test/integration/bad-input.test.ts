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
import { collect } from '../kit/collect.ts'
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
    const value = await (await stage.flow.materialize(last)).result()
    expect(value).toEqual(names.toSorted().map((key) => ({ key, value: true })))
  })

  it('odd but allowed input refuses the one name that objects cannot hold', () => {
    expect(() => asset('__proto__', { execute: () => 1 })).toThrow(InvalidError)
  })
})

describe('what JavaScript gives in place of what the types ask for', () => {
  const circle: Record<string, unknown> = {}
  circle.self = circle
  const odd: readonly unknown[] = [
    ...[null, '', ' ', Number.NaN, -1, 0.5, 10n, true, Symbol('s'), () => 1, [], circle],
    ...['x'.repeat(1_000_000), 'a\0b', '__proto__', '../..', Object.create(null), new Map(), new Date(Number.NaN)],
  ]
  let stage: Stage
  beforeAll(async () => {
    stage = await openStage(server.url, pipeline('odd', [asset('one', { execute: () => 1 })]))
  })
  afterAll(async () => {
    await stage[Symbol.asyncDispose]()
  })

  /** Each takes a value of which no type checker knows. */
  // biome-ignore lint/suspicious/noExplicitAny: it is what the types forbid.
  const calls: Readonly<Record<string, (flow: Stage['flow'], value: any) => unknown>> = {
    run: (flow, value) => flow.run(value),
    history: (flow, value) => collect(flow.history(value)),
    logs: (flow, value) => collect(flow.logs(value)),
    'logs signal': (flow, signal) => collect(flow.logs('0-gone', { signal })),
    'logs instance': (flow, instance) => collect(flow.logs('0-gone', { asset: 'one', instance })),
    'logs level': (flow, level) => collect(flow.logs('0-gone', { level })),
    retry: (flow, value) => flow.retry(value),
    adopt: (flow, value) => flow.adopt(value),
    register: (flow, value) => flow.register(value),
    materialize: (flow, value) => flow.materialize(value),
    'materialize pipeline': (flow, value) => flow.materialize(asset('free', { execute: () => 1 }), { pipeline: value }),
    value: (flow, value) => flow.value(value),
    'value partition': (flow, partition) => flow.value('odd/one', { partition }),
    'value run': (flow, run) => flow.value('odd/one', { run }),
    'why partition': (flow, partition) => flow.why({ asset: 'odd/one', partition }),
    'why run': (flow, run) => flow.why({ run }),
    'why asset': (flow, value) => flow.why({ run: '0-gone', asset: value }),
    'runs partition': (flow, partition) => flow.runs({ partition }),
    'runs after': (flow, after) => flow.runs({ after }),
    'audit by': (flow, by) => flow.audit({ by }),
    'audit kind': (flow, kind) => flow.audit({ kind }),
    'audit limit': (flow, limit) => flow.audit({ limit }),
    'audit after': (flow, after) => flow.audit({ after }),
    'scatter.status': (flow, value) => flow.scatter.status(value),
    'scatter.list': (flow, value) => flow.scatter.list(value),
    'scatter.cancel': (flow, value) => flow.scatter.cancel(value),
    'scatter.pending': (flow, value) => collect(flow.scatter.pending(value)),
    'gates.get': (flow, value) => flow.gates.get(value),
    'gates.list': (flow, value) => flow.gates.list(value),
    'gates.cancel': (flow, value) => flow.gates.cancel(value),
    'gates.callbackUrl': (flow, value) => flow.gates.callbackUrl(value),
    'triggers.retry': (flow, value) => flow.triggers.retry(value),
    'events.retry': (flow, value) => flow.events.retry('odd/none', value),
    'limiter.take signal': (flow, signal) => flow.limiter.take('odd', [1000, 'second'], { signal }),
    'limiter.withLimit': (flow, value) => flow.limiter.withLimit('odd', [1000, 'second'], value),
    'limiter.withSlot': (flow, value) => flow.limiter.withSlot('odd', 10, value),
    'limiter.withSlot signal': (flow, signal) => flow.limiter.withSlot('odd', 10, () => 1, { signal }),
    'limiter.releaseSlot': (flow, value) => flow.limiter.releaseSlot(value),
    ready: (flow, value) => flow.ready(value),
    'setup shards': (flow, shards) => flow.setup({ shards }),
    'setup logsMaxBytes': (flow, logsMaxBytes) => flow.setup({ logsMaxBytes }),
    'setup feedMaxAgeMs': (flow, feedMaxAgeMs) => flow.setup({ feedMaxAgeMs }),
    'verify rate': (flow, rate) => flow.verify({ only: ['state'], rate }),
    'verify only': (flow, only) => flow.verify({ only }),
    'worker queues': (flow, queues) => flow.worker(pipeline('odd', [asset('one', { execute: () => 1 })]), { queues }),
    'worker concurrency': (flow, concurrency) =>
      flow.worker(pipeline('odd', [asset('one', { execute: () => 1 })]), { concurrency }),
    'inspect.pipeline': (flow, value) => flow.inspect.pipeline(value),
    'inspect.timeline': (flow, value) => flow.inspect.timeline(value),
    'inspect.map': (flow, value) => flow.inspect.map(value),
  }

  it.each(Object.entries(calls))('what JavaScript gives is refused in words by %s, or taken', async (_, call) => {
    for (const value of odd) {
      const error: unknown = await (async () => await call(stage.flow, value))().then(
        () => undefined,
        (thrown: unknown) => thrown,
      )
      if (error === undefined) continue
      expect(error).toBeInstanceOf(FlowStoneError)
      expect(error instanceof Error && error.message.length).toBeLessThan(1000)
    }
  })
})
