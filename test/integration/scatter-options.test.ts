import { type JetStreamManager, jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats, type NatsConnection } from '@nats-io/transport-node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { asset, type InstanceOptions, InvalidError, pipeline } from '../../src/index.ts'
import { collect } from '../kit/collect.ts'
import { useServer } from '../kit/fixture.ts'
import { factsOf, openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { busy, within } from '../kit/within.ts'

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

const limit = () => ({ signal: within(20_000) })
const range = (count: number) => Array.from({ length: count }, (_, i) => i)
const soon = { maxAttempts: 2, backoff: '10ms' } as const

async function limitedQueuesOf(namespace: string): Promise<string[]> {
  const consumers = await collect(jsm.consumers.list(`${namespace}_WORK_0`))
  return consumers.map(({ name }) => name).filter((name) => name.startsWith('limited__'))
}

describe('maxConcurrent', () => {
  it.each([[1], [7]])(
    'of %d is never passed over two workers, and is reached; its consumer goes with the scatter (defect 1: "max_concurrent deadlocks")',
    async (maxConcurrent) => {
      const count = 80
      let running = 0
      let most = 0
      const ran: number[] = []
      const by = new Set<string>()
      const full = Promise.withResolvers<void>()
      const limited = asset('limited', {
        scatterOptions: { maxConcurrent },
        scatter: () => range(count),
        execute: async ({ scatterKey, resources }) => {
          running += 1
          most = Math.max(most, running)
          if (running >= maxConcurrent) full.resolve()
          by.add(String(Reflect.get(resources, 'name')))
          // The first ones wait until as many run as may: so the limit is reached, or the test ends
          // by its time.
          await full.promise
          // And some turns of the event loop, in which one too many would begin.
          for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve))
          running -= 1
          ran.push(scatterKey)
          return scatterKey
        },
      })
      const all = pipeline('limited', [limited])
      await using stage = await openStage(server.url, all, { worker: { concurrency: 10, resources: { name: 'one' } } })
      const other = await stage.connect()
      await other.worker(all, { concurrency: 10, resources: { name: 'two' } })
      const run = await stage.flow.materialize(limited)
      await until('its limited queue is open', async () => (await limitedQueuesOf(stage.namespace)).length === 1)
      expect((await run.result(limit())).map(({ value }) => value)).toEqual(range(count))
      expect(most).toBe(maxConcurrent)
      expect(ran.toSorted((a, b) => a - b)).toEqual(range(count))
      if (maxConcurrent > 1) expect([...by].toSorted()).toEqual(['one', 'two'])
      await until('its limited queue is gone', async () => (await limitedQueuesOf(stage.namespace)).length === 0)
    },
  )

  it('maxConcurrent holds while instances fail and are tried again', async () => {
    let running = 0
    let most = 0
    const flaky = asset('flaky', {
      retry: { maxAttempts: 3, backoff: '10ms' },
      scatterOptions: { maxConcurrent: 2 },
      scatter: () => range(20),
      execute: async ({ scatterKey, attempt }) => {
        running += 1
        most = Math.max(most, running)
        for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve))
        running -= 1
        if (scatterKey % 2 === 0 && attempt < 3) throw new Error('not yet')
        return attempt
      },
    })
    await using stage = await openStage(server.url, pipeline('flaky', [flaky]))
    const values = (await (await stage.flow.materialize(flaky)).result(limit())).map(({ value }) => value)
    expect(values).toEqual(range(20).map((key) => (key % 2 === 0 ? 3 : 1)))
    expect(most).toBe(2)
  })
})

describe("failureMode 'partial'", () => {
  it('gives the gather what failed, with key and error, in the order of the keys, and what follows runs (defect 4: a failed instance does not block the gather)', async () => {
    const some = asset('some', {
      retry: soon,
      scatterOptions: { failureMode: 'partial', failureThreshold: 0.3 },
      scatter: () => range(10).map((n) => ({ n })),
      execute: ({ scatterKey: { n } }) => {
        if (n % 4 === 1) throw new Error(`broken at ${n}`)
        return n * 10
      },
      gather: async (results) => {
        const list: unknown[] = []
        for await (const result of results)
          list.push(
            result.status === 'failed'
              ? [result.index, result.key.n, result.error.code, result.error.message]
              : [result.index, result.key.n, result.value],
          )
        return list
      },
    })
    const after = asset('after', { dependsOn: [some], execute: (_, deps) => deps.some })
    await using stage = await openStage(server.url, pipeline('partial', [some, after]))
    const run = await stage.flow.materialize(after)
    expect(await run.result(limit())).toEqual(
      range(10).map((n) => (n % 4 === 1 ? [n, n, 'error', `broken at ${n}`] : [n, n, n * 10])),
    )
    const closed = (await factsOf(stage.flow, run.id)).filter(({ kind }) => kind === 'scatter.closed')
    expect(closed.map(({ data }) => data)).toMatchObject([{ status: 'partial_failure', succeeded: 7, failed: 3 }])
  })

  it('fails at once when its threshold is passed: what runs is aborted within a second, what waits is not begun', async () => {
    let started = 0
    let abortedMs: number | undefined
    const aborts: number[] = []
    const othersRun = Promise.withResolvers<void>()
    const broken = asset('broken', {
      retry: { maxAttempts: 1 },
      scatterOptions: { failureMode: 'partial', failureThreshold: { count: 1 } },
      scatter: () => range(500),
      execute: async ({ scatterKey, signal }) => {
        started += 1
        if (started === 6) othersRun.resolve()
        await othersRun.promise
        if (scatterKey < 2) throw new Error(`broken at ${scatterKey}`)
        return await new Promise<number>(() => {
          signal.addEventListener('abort', () => {
            abortedMs = Date.now()
            aborts.push(scatterKey)
          })
        })
      },
    })
    let after = 0
    const next = asset('next', { dependsOn: [broken], execute: () => (after += 1) })
    await using stage = await openStage(server.url, pipeline('broken', [broken, next]), { worker: { concurrency: 6 } })
    const run = await stage.flow.materialize(next)
    const error = await rejection(run.result(limit()))
    expect(error).toMatchObject({ code: 'threshold_passed', asset: 'broken' })
    expect(error.message).toContain('2 instances failed, more than failureThreshold (1 instance) allows')
    const closed = (await factsOf(stage.flow, run.id)).find(({ kind }) => kind === 'scatter.closed')
    expect(closed?.data).toMatchObject({ status: 'failed', failed: 2, succeeded: 0 })
    const begun = started
    await until('those that ran are aborted', () => aborts.length === begun - 2, 5000)
    expect((abortedMs ?? Number.POSITIVE_INFINITY) - (closed?.at.getTime() ?? 0)).toBeLessThan(2000 * busy())
    expect(started).toBe(begun)
    // Two places came free when two failed.
    expect(started).toBeLessThanOrEqual(8)
    expect(after).toBe(0)
  })
})

describe('duplicates', () => {
  const keys = () => [{ a: 1, b: 2 }, { a: 2 }, { b: 2, a: 1 }, { a: 3 }, { a: 2 }]
  const sources: [string, () => Iterable<{ a: number; b?: number }> | AsyncIterable<{ a: number; b?: number }>][] = [
    ['a list', keys],
    [
      'an async generator',
      async function* () {
        for (const key of keys()) yield await Promise.resolve(key)
      },
    ],
  ]
  it.each(sources)('in %s are an error that lists them, where nothing is said', async (_, scatter) => {
    let calls = 0
    const twice = asset('twice', {
      retry: soon,
      scatter: () => {
        calls += 1
        return scatter()
      },
      execute: ({ scatterKey }) => scatterKey.a,
    })
    await using stage = await openStage(server.url, pipeline('twice', [twice]))
    const error = await rejection((await stage.flow.materialize(twice)).result(limit()))
    expect(error.message).toContain('2 duplicate keys: {"a":1,"b":2} (again at 2), {"a":2} (again at 4);')
    expect(error.message).toContain("set scatterOptions.duplicates to 'drop' or 'allow'")
    expect(calls).toBe(1)
  })

  it.each(sources)('in %s are left out with drop, the first of each stays', async (_, scatter) => {
    const once = asset('once', {
      scatterOptions: { duplicates: 'drop' },
      scatter,
      execute: ({ scatterKey, index }) => [index, scatterKey.a],
    })
    await using stage = await openStage(server.url, pipeline('once', [once]))
    expect(await (await stage.flow.materialize(once)).result(limit())).toEqual([
      { key: { a: 1, b: 2 }, value: [0, 1] },
      { key: { a: 2 }, value: [1, 2] },
      { key: { a: 3 }, value: [2, 3] },
    ])
  })

  it('all run with allow', async () => {
    const each = asset('each', {
      scatterOptions: { duplicates: 'allow' },
      scatter: () => ['a', 'a', 'a'],
      execute: ({ index }) => index,
    })
    await using stage = await openStage(server.url, pipeline('each', [each]))
    expect((await (await stage.flow.materialize(each)).result(limit())).map(({ value }) => value)).toEqual([0, 1, 2])
  })
})

describe('scatterOptions', () => {
  it('timeout holds for each instance by itself, and aborts its signal; the timeout of the asset does not', async () => {
    const aborted: number[] = []
    const slow = asset('slow', {
      timeout: '20s',
      retry: { maxAttempts: 1 },
      scatterOptions: {
        timeout: '60ms',
        retry: { maxAttempts: 2, backoff: '10ms' },
        failureMode: 'partial',
        failureThreshold: { count: 1 },
      },
      scatter: () => range(5),
      execute: ({ scatterKey, attempt, signal }) => {
        if (scatterKey !== 2 && !(scatterKey === 3 && attempt === 1)) return attempt
        signal.addEventListener('abort', () => aborted.push(scatterKey))
        return new Promise<number>(() => undefined)
      },
      gather: async (results) => {
        const list: unknown[] = []
        for await (const { status, value } of results) list.push(value ?? status)
        return list
      },
    })
    await using stage = await openStage(server.url, pipeline('slow', [slow]))
    const run = await stage.flow.materialize(slow)
    expect(await run.result(limit())).toEqual([1, 1, 'failed', 2, 1])
    expect(aborted.toSorted()).toEqual([2, 2, 3])
    await until('the state says so', async () => (await stage.flow.scatter.status(`${run.id}.slow`)).timedOut === 1)
  })

  it.each<[string, InstanceOptions]>([
    ['without a limited queue', { queue: 'gpu', priority: 0 }],
    ['with a limited queue', { queue: 'gpu', priority: 3, maxConcurrent: 2 }],
  ])(
    'queue says which workers run the instances, %s; scatter and gather stay on the queue of the asset',
    async (_, scatterOptions) => {
      const places: string[] = []
      const placed = asset('placed', {
        scatterOptions,
        scatter: (_deps, { resources }) => {
          places.push(`scatter on ${Reflect.get(resources, 'name')}`)
          return range(5)
        },
        execute: ({ resources, index }) => {
          places.push(`instance ${index} on ${Reflect.get(resources, 'name')}`)
          return index
        },
        gather: async (results, { resources }) => {
          places.push(`gather on ${Reflect.get(resources, 'name')}`)
          return (await collect(results)).length
        },
      })
      const all = pipeline('placed', [placed])
      const plain = { queues: ['default'], resources: { name: 'plain' } }
      await using stage = await openStage(server.url, all, { worker: plain })
      const other = await stage.connect()
      await other.worker(all, { queues: ['gpu'], resources: { name: 'gpu' } })
      expect(await (await stage.flow.materialize(placed)).result(limit())).toBe(5)
      expect(places.toSorted()).toEqual([
        'gather on plain',
        ...range(5).map((i) => `instance ${i} on gpu`),
        'scatter on plain',
      ])
    },
  )

  it.each<[string, object, RegExp]>([
    ['maxConcurrent of 0', { maxConcurrent: 0 }, /maxConcurrent must be a whole number from 1 to 2048, got 0$/],
    ['maxConcurrent of 1.5', { maxConcurrent: 1.5 }, /maxConcurrent must be .*, got 1\.5$/],
    ['maxConcurrent of 2049', { maxConcurrent: 2049 }, /maxConcurrent must be .*, got 2049$/],
    [
      'failureMode there is not',
      { failureMode: 'some' },
      /failureMode must be one of all_or_nothing, partial, got "some"$/,
    ],
    [
      'failureThreshold over 1',
      { failureMode: 'partial', failureThreshold: 2 },
      /failureThreshold must be a fraction from 0 to 1.*got 2$/,
    ],
    [
      'failureThreshold below 0',
      { failureMode: 'partial', failureThreshold: -0.1 },
      /failureThreshold must be .*got -0\.1$/,
    ],
    [
      'failureThreshold as text',
      { failureMode: 'partial', failureThreshold: '5%' },
      /failureThreshold must be .*got "5%"$/,
    ],
    [
      'failureThreshold of null',
      { failureMode: 'partial', failureThreshold: null },
      /failureThreshold must be .*got null$/,
    ],
    [
      'failureThreshold with half a count',
      { failureMode: 'partial', failureThreshold: { count: 0.5 } },
      /failureThreshold must be .*got {"count":0\.5}$/,
    ],
    [
      'failureThreshold with no count',
      { failureMode: 'partial', failureThreshold: {} },
      /failureThreshold must be .*got {}$/,
    ],
    ['failureThreshold without partial', { failureThreshold: 0.1 }, /failureThreshold needs failureMode 'partial'/],
    [
      'a strategy there is not',
      { retry: { strategy: 'all' } },
      /retry\.strategy must be one of individual, batch, got "all"$/,
    ],
    ['maxAttempts of 0', { retry: { maxAttempts: 0 } }, /retry\.maxAttempts must be a whole number from 1, got 0$/],
    ['a backoff in words', { retry: { backoff: 'soon' } }, /retry\.backoff/],
    ['a retry option there is not', { retry: { attempts: 2 } }, /retry: there is no option attempts/],
    ['a queue with a dot', { queue: 'a.b' }, /queue must be 1 to 128 characters/],
    ['a priority of 4', { priority: 4 }, /priority must be 0, 1, 2 or 3, got 4$/],
    ['a timeout of 0', { timeout: 0 }, /timeout must be more than 0/],
    ['duplicates there is not', { duplicates: 'keep' }, /duplicates must be one of error, drop, allow, got "keep"$/],
    ['an option there is not', { maxConcurency: 2 }, /there is no option maxConcurency; did you mean maxConcurrent\?/],
  ])('with %s is refused where it is declared, and the option is named', (_, scatterOptions, message) => {
    const declare = () =>
      asset('a', { scatter: () => [1], execute: () => 1, scatterOptions: scatterOptions as InstanceOptions })
    expect(declare).toThrow(InvalidError)
    expect(declare).toThrow(/^asset a: scatterOptions/)
    expect(declare).toThrow(message)
  })

  it('without scatter is refused', () => {
    // @ts-expect-error: no form of asset has scatterOptions alone
    expect(() => asset('a', { execute: () => 1, scatterOptions: {} })).toThrow(
      /^asset a: scatterOptions needs scatter$/,
    )
  })
})
