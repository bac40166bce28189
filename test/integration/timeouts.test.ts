/**
 * The time limit of an asset is for each of its functions, and for what loads and stores its
 * values.
 */
import { describe, expect, it } from 'vitest'
import { type AnyAsset, type AssetContext, asset, type IoManager, pipeline } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { within } from '../kit/within.ts'

const server = useServer({ syncInterval: 'default' })

const secrets = [{ id: 'k1', secret: 'x'.repeat(40) }]
const never = (): Promise<never> => new Promise<never>(() => undefined)
const limits = { timeout: '200ms', retry: { maxAttempts: 1 } } as const

describe('the time limit of an asset', () => {
  let closed = false
  const hanging: Record<string, AnyAsset> = {
    execute: asset('a', { ...limits, execute: never }),
    'the scatter function': asset('a', { ...limits, scatter: never, execute: () => 1 }),
    'between two keys': asset('a', {
      ...limits,
      scatter: async function* () {
        try {
          yield 1
          await never()
        } finally {
          closed = true
        }
      },
      execute: () => 1,
    }),
    'between two keys of an iterator that can be closed': asset('a', {
      ...limits,
      scatter: () => ({
        [Symbol.asyncIterator]: () => ({
          next: () => never(),
          return: () => {
            closed = true
            return Promise.resolve({ done: true as const, value: undefined })
          },
        }),
      }),
      execute: () => 1,
    }),
    gather: asset('a', { ...limits, scatter: () => [1], execute: () => 1, gather: never }),
    onTimeout: asset('a', { ...limits, execute: ({ signalGate }) => signalGate({ timeout: '1ms' }), onTimeout: never }),
  }

  it.each(Object.keys(hanging))('is for %s', async (name) => {
    const target = hanging[name]
    if (!target) throw new Error('no such asset')
    closed = false
    await using stage = await openStage(server.url, pipeline('timed', [target]), { gates: { secrets } })
    const run = await stage.flow.materialize(target)
    const error = await rejection(run.result({ signal: within(20_000) }))
    expect([error.code, error.message]).toEqual(['timeout', expect.stringContaining('time limit of 200 ms')])
    if (name.includes('closed')) await until('its source is closed', () => closed)
  })

  it('the time limit of an asset ends what its code brings: nothing is stored of what comes after it', async () => {
    const stored: unknown[] = []
    const io: IoManager = {
      store: async (value) => {
        stored.push(value)
        return {}
      },
      load: async () => 'loaded',
    }
    const tried = { timeout: '1s', retry: { maxAttempts: 5, backoff: '10ms' } } as const
    /** What it has when it is to end, the first time. */
    const first = <V>(
      { attempt, signal }: Pick<AssetContext, 'attempt' | 'signal'>,
      early: V,
      late: V,
    ): V | Promise<V> =>
      attempt > 1 ? late : new Promise((resolve) => signal.addEventListener('abort', () => resolve(early)))
    const plain = asset('plain', { ...tried, io: 'own', execute: (ctx) => first(ctx, 'first', 'second') })
    const many = asset('many', {
      ...tried,
      scatter: (_, ctx) => first(ctx, ['first'], ['second', 'third']),
      execute: ({ scatterKey }) => scatterKey,
    })
    await using stage = await openStage(server.url, pipeline('timed', [plain, many]), { io: { own: io } })
    await (await stage.flow.materialize(plain)).result()
    expect(stored).not.toContain('first')
    const run = await stage.flow.materialize(many)
    expect((await run.result()).map(({ key }) => key)).toEqual(['second', 'third'])
  })

  it('the time limit of an asset holds for onSignal', async () => {
    const target = asset('a', {
      ...limits,
      execute: ({ signalGate }) => signalGate({ correlationKey: 'answer' }),
      onSignal: never,
    })
    await using stage = await openStage(server.url, pipeline('timed', [target]), { gates: { secrets } })
    const run = await stage.flow.materialize(target)
    await until('it waits', async () => (await run.status())?.assets.a?.status === 'suspended')
    await stage.flow.gates.signalByCorrelationKey('answer', 1)
    expect((await rejection(run.result())).code).toBe('timeout')
  })

  it.each(['store', 'load'] as const)(
    'is for %s of an I/O manager, also of the instances of a scatter',
    async (how) => {
      const io: IoManager = {
        store: () => (how === 'store' ? never() : Promise.resolve({ at: 1 })),
        load: () => (how === 'load' ? never() : Promise.resolve(1)),
      }
      const first = asset('first', { ...limits, io: 'slow', execute: () => 1 })
      const next = asset('next', { ...limits, dependsOn: [first], execute: () => 1 })
      const spread = asset('spread', {
        ...limits,
        dependsOn: [first],
        scatter: () => [1, 2],
        scatterOptions: { timeout: '200ms', retry: { maxAttempts: 1 } },
        execute: () => 1,
      })
      await using stage = await openStage(server.url, pipeline('io', [first, next, spread]), { io: { slow: io } })
      for (const target of [next, spread] as const) {
        const run = await stage.flow.materialize<unknown>(target, { upstream: 'all' })
        expect((await rejection(run.result({ signal: within(20_000) }))).code).toBe('timeout')
      }
    },
  )

  it('the time limit of an asset has not passed when a manager throws: each instance of the lease loses an attempt, and no worker is lost', async () => {
    const working: IoManager = { store: () => Promise.resolve({ at: 1 }), load: () => Promise.resolve([1, 2]) }
    const broken: IoManager = { ...working, load: () => Promise.reject(new Error('no such file')) }
    const first = asset('first', { io: 'files', execute: () => [1, 2] })
    const spread = asset('spread', {
      dependsOn: [first],
      scatter: (deps) => deps.first,
      scatterOptions: { queue: 'instances', retry: { maxAttempts: 2, backoff: '1ms' } },
      execute: () => 1,
    })
    const shard = pipeline('io', [first, spread])
    await using stage = await openStage(server.url, shard, { io: { files: working }, worker: { queues: ['default'] } })
    const other = await stage.connect({ io: { files: broken } })
    await other.worker(shard, { queues: ['instances'] })
    const run = await stage.flow.materialize(spread)
    const error = await rejection(run.result({ signal: within(20_000) }))
    expect(error.message).toContain('no such file')
  })
})
