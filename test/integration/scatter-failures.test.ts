import { jetstream } from '@nats-io/jetstream'
import { connect as connectNats } from '@nats-io/transport-node'
import { describe, expect, it } from 'vitest'
import { asset, pipeline, TerminalError } from '../../src/index.ts'
import { collect } from '../kit/collect.ts'
import { useServer } from '../kit/fixture.ts'
import { factsOf, openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { within } from '../kit/within.ts'

const server = useServer({ syncInterval: 'default' })

const soon = { maxAttempts: 3, backoff: '10ms' } as const
const limit = () => ({ signal: within(15_000) })
const range = (count: number) => Array.from({ length: count }, (_, i) => i)

describe('an instance that fails', () => {
  it('is listed with its key, also where the key chunks before it have no failure', async () => {
    const stored = Promise.withResolvers<void>()
    const spread = asset('spread', {
      retry: { maxAttempts: 1 },
      scatter: async function* () {
        yield* range(30)
        // The first keys are stored by themselves.
        await stored.promise
        yield* range(30).map((key) => key + 30)
      },
      scatterOptions: { failureMode: 'partial', failureThreshold: { count: 1 } },
      execute: ({ scatterKey }) => {
        if (scatterKey === 0) stored.resolve()
        if (scatterKey === 50) throw new Error('this one')
      },
    })
    await using stage = await openStage(server.url, pipeline('spread', [spread]))
    const run = await stage.flow.materialize(spread)
    await run.result()
    const facts = await factsOf(stage.flow, run.id)
    expect(facts.filter(({ kind }) => kind === 'scatter.items').length).toBeGreaterThan(1)
    const failures = await collect(stage.flow.scatter.failures(`${run.id}.spread`))
    expect(failures).toMatchObject([{ index: 50, key: 50, attempts: 1, error: { message: 'this one' } }])
  })

  it('of many in an open scatter is read once: who asks again gets it from what was read', async () => {
    const many = asset('many', {
      retry: { maxAttempts: 1 },
      scatter: () => range(300),
      scatterOptions: { failureMode: 'partial', failureThreshold: { count: 300 } },
      execute: async ({ scatterKey, signal }) => {
        if (scatterKey === 299) await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()))
        throw new TypeError(`no stock of ${scatterKey}`)
      },
    })
    await using stage = await openStage(server.url, pipeline('many', [many]))
    const { flow, namespace } = stage
    const run = await flow.materialize(many)
    const id = `${run.id}.many`
    await until('all others have failed', async () => (await flow.scatter.status(id)).failed === 299)
    await using nc = Object.assign(await connectNats({ servers: server.url }), {
      async [Symbol.asyncDispose](this: { close(): Promise<void> }) {
        await this.close()
      },
    })
    let reads = 0
    const count = (): void => {
      reads += 1
    }
    nc.subscribe(`$JS.API.DIRECT.GET.${namespace}_LOG_0`, { callback: count })
    await nc.flush()
    let asked = 0
    for (let complete = false; !complete; asked++) ({ complete } = await flow.inspect.errors(id, { withinMs: 1 }))
    expect(asked).toBeGreaterThan(1)
    await nc.flush()
    expect(reads).toBeGreaterThan(0)
    expect(reads).toBeLessThanOrEqual(299)
    reads = 0
    const { errors, complete } = await flow.inspect.errors(id, { instances: 3 })
    await nc.flush()
    expect(reads).toBe(0)
    expect(complete).toBe(true)
    expect(errors).toMatchObject([{ code: 'error', message: 'no stock of 0', count: 299, instances: [0, 1, 2] }])
    expect(await flow.inspect.failures(id, { from: 298, limit: 5 })).toMatchObject([
      { index: 298, key: 298, attempts: 1 },
    ])
    await run.cancel()
  })

  it('once, and then not, is run again by itself and counted once', async () => {
    const calls = new Map<number, number[]>()
    const flaky = asset('flaky', {
      retry: soon,
      scatter: () => range(50),
      execute: ({ scatterKey, attempt, idempotencyKey }) => {
        calls.set(scatterKey, [...(calls.get(scatterKey) ?? []), attempt])
        if (scatterKey % 10 === 3 && attempt === 1) throw new Error('not yet')
        return idempotencyKey.split('.').at(-1)
      },
    })
    await using stage = await openStage(server.url, pipeline('flaky', [flaky]))
    const run = await stage.flow.materialize(flaky)
    expect(await run.result()).toEqual(range(50).map((key) => ({ key, value: String(key) })))
    for (const key of range(50)) expect(calls.get(key)).toEqual(key % 10 === 3 ? [1, 2] : [1])
    const closed = (await factsOf(stage.flow, run.id)).find(({ kind }) => kind === 'scatter.closed')
    expect(closed?.data).toMatchObject({ status: 'completed', succeeded: 50, failed: 0 })
  })

  it.each<[string, Error, number, string]>([
    ['until its attempts are used up', new Error('it is broken'), 3, 'error'],
    ['for good', new TerminalError('it is broken'), 1, 'terminal'],
  ])('%s fails its asset and run with its error, and skips what depends on it', async (_, error, attempts, code) => {
    let calls = 0
    let after = 0
    const broken = asset('broken', {
      retry: soon,
      scatter: () => range(20),
      execute: ({ scatterKey }) => {
        if (scatterKey !== 7) return scatterKey
        calls += 1
        throw error
      },
    })
    const next = asset('next', { dependsOn: [broken], execute: () => (after += 1) })
    await using stage = await openStage(server.url, pipeline('broken', [broken, next]))
    const run = await stage.flow.materialize(next)
    const failure = await rejection(run.result())
    expect(failure).toMatchObject({ code, asset: 'broken' })
    expect(failure.message).toContain('it is broken')
    expect([calls, after]).toEqual([attempts, 0])
    await until('the state shows the end', async () => (await run.status())?.status === 'failed')
    expect((await run.status())?.assets).toMatchObject({ broken: { status: 'failed' }, next: { status: 'skipped' } })
  })

  it('aborts the others when its scatter has failed', async () => {
    let started = 0
    let aborted = 0
    const broken = asset('broken', {
      retry: { maxAttempts: 1 },
      scatter: () => range(10),
      execute: ({ scatterKey, signal }) => {
        started += 1
        if (scatterKey === 9) throw new Error('it is broken')
        signal.addEventListener('abort', () => {
          aborted += 1
        })
        return new Promise<number>(() => undefined)
      },
    })
    await using stage = await openStage(server.url, pipeline('aborts', [broken]), { worker: { concurrency: 10 } })
    await rejection((await stage.flow.materialize(broken)).result())
    await until('all are aborted', () => aborted === 9)
    expect(started).toBe(10)
  })

  it('over its time limit fails with code timeout, by itself', async () => {
    const slow = asset('slow', {
      scatterOptions: { timeout: '50ms' },
      retry: { maxAttempts: 2, backoff: '10ms' },
      scatter: () => range(5),
      execute: ({ scatterKey, attempt }) =>
        scatterKey === 2 && attempt === 1 ? new Promise<number>(() => undefined) : attempt,
    })
    await using stage = await openStage(server.url, pipeline('slow', [slow]))
    expect((await (await stage.flow.materialize(slow)).result()).map(({ value }) => value)).toEqual([1, 1, 2, 1, 1])
  })
})

describe('a scatter function', () => {
  it('a scatter function that throws is called again, and fails its asset when its attempts are used up', async () => {
    let calls = 0
    const flaky = asset('flaky', {
      retry: soon,
      scatter: () => {
        calls += 1
        if (calls < 3) throw new Error('not yet')
        return [1]
      },
      execute: ({ scatterKey }) => scatterKey,
    })
    const hopeless = asset('hopeless', {
      retry: soon,
      scatter: (): number[] => {
        throw new Error('no list')
      },
      execute: ({ scatterKey }) => scatterKey,
    })
    await using stage = await openStage(server.url, pipeline('scatters', [flaky, hopeless]))
    expect(await (await stage.flow.materialize(flaky)).result()).toEqual([{ key: 1, value: 1 }])
    expect(calls).toBe(3)
    const error = await rejection((await stage.flow.materialize(hopeless)).result())
    expect(error).toMatchObject({ asset: 'hopeless' })
    expect(error.message).toContain('no list')
  })

  it.each<[string, unknown]>([
    ['undefined', undefined],
    ['null', null],
    ['a number', 5],
    ['an object', { a: 1 }],
    ['a text', 'keys'],
  ])('that returns %s fails its asset at once, and says what it may return', async (_, returned) => {
    let calls = 0
    const wrong = asset('wrong', {
      retry: soon,
      scatter: () => {
        calls += 1
        return returned as number[]
      },
      execute: ({ scatterKey }) => scatterKey,
    })
    await using stage = await openStage(server.url, pipeline('wrong', [wrong]))
    const error = await rejection((await stage.flow.materialize(wrong)).result(limit()))
    expect(error.message).toContain('scatter must return a list, an iterable, an async iterable or an item reader, got')
    expect(calls).toBe(1)
  })

  it('a scatter function that is called again after it has given some keys goes on behind them when it gives the same', async () => {
    let calls = 0
    const instances = new Map<number, number>()
    const again = asset('again', {
      retry: soon,
      scatter: async function* () {
        calls += 1
        yield* [1, 2]
        if (calls === 1) {
          await until('the first keys have run', () => instances.size === 2)
          throw new Error('the source broke')
        }
        yield* [3, 4]
      },
      execute: ({ scatterKey }) => {
        instances.set(scatterKey, (instances.get(scatterKey) ?? 0) + 1)
        return scatterKey
      },
    })
    await using stage = await openStage(server.url, pipeline('again', [again]))
    expect((await (await stage.flow.materialize(again)).result(limit())).map(({ key }) => key)).toEqual([1, 2, 3, 4])
    expect([...instances.values()]).toEqual([1, 1, 1, 1])
  })

  it.each<[string, (calls: number) => number[], string]>([
    ['other keys', (calls) => [1, calls + 1], 'gave other keys than its earlier attempt at positions 0 to 1'],
    ['fewer keys', () => [1], 'gave other keys than its earlier attempt at positions 0 to 1'],
    ['no keys', () => [], 'gave other keys|earlier attempt more'],
  ])('that gives %s when it is called again fails with that reason, and mixes no lists', async (_, second, message) => {
    let calls = 0
    const ran = new Set<number>()
    const unsteady = asset('unsteady', {
      retry: soon,
      scatter: async function* () {
        calls += 1
        if (calls > 1) {
          yield* second(calls)
          return
        }
        yield* [1, 2]
        await until('the first keys have run', () => ran.size === 2)
        throw new Error('the source broke')
      },
      execute: ({ scatterKey }) => ran.add(scatterKey).size,
    })
    await using stage = await openStage(server.url, pipeline('unsteady', [unsteady]))
    const error = await rejection((await stage.flow.materialize(unsteady)).result(limit()))
    expect(error).toMatchObject({ code: 'terminal', asset: 'unsteady' })
    expect(error.message).toMatch(new RegExp(message))
    expect(calls).toBe(2)
    expect([...ran]).toEqual([1, 2])
  })

  it('a scatter function that ends just where an earlier attempt’s key chunk ended, but had more, fails with that reason', async () => {
    let calls = 0
    const ran = new Set<number>()
    const shorter = asset('shorter', {
      retry: soon,
      scatter: async function* () {
        calls += 1
        yield 1
        if (calls > 1) return
        await until('the first key chunk has run', () => ran.size === 1)
        yield 2
        await until('the second key chunk has run', () => ran.size === 2)
        throw new Error('the source broke')
      },
      execute: ({ scatterKey }) => ran.add(scatterKey).size,
    })
    await using stage = await openStage(server.url, pipeline('shorter', [shorter]))
    const error = await rejection((await stage.flow.materialize(shorter)).result(limit()))
    expect(error.message).toContain('gave 1 keys, its earlier attempt more')
  })

  it('a scatter function that gives a key too large fails, naming the key and what to do', async () => {
    const large = asset('large', {
      scatter: function* () {
        yield 'fine'
        yield 'x'.repeat(300_000)
      },
      execute: ({ scatterKey }) => scatterKey.length,
    })
    await using stage = await openStage(server.url, pipeline('large', [large]))
    const error = await rejection((await stage.flow.materialize(large)).result(limit()))
    expect(error).toMatchObject({ code: 'invalid' })
    expect(error.message).toMatch(/key\[1\] takes 300003 bytes; a key is at most 204800: put large data in a value/)
  })

  it('a scatter function that never ends is stopped when its run is cancelled, and may clean up', async () => {
    const ended = Promise.withResolvers<void>()
    let ran = 0
    const endless = asset('endless', {
      scatter: async function* () {
        try {
          for (let i = 0; ; i++) {
            yield i
            if (i % 1000 === 0) await new Promise((resolve) => setImmediate(resolve))
          }
        } finally {
          ended.resolve()
        }
      },
      execute: () => (ran += 1),
    })
    await using stage = await openStage(server.url, pipeline('endless', [endless]))
    const run = await stage.flow.materialize(endless)
    await until('some have run', () => ran > 10)
    await run.cancel()
    expect(await rejection(run.result(limit()))).toMatchObject({ code: 'cancelled' })
    await ended.promise
  })
})

describe('a gather', () => {
  it('a gather that throws is called again, with all results from the first', async () => {
    const seen: number[] = []
    const flaky = asset('flaky', {
      retry: soon,
      scatter: () => range(10),
      execute: ({ scatterKey }) => scatterKey,
      gather: async (results) => {
        let count = 0
        for await (const _ of results) {
          count += 1
          if (seen.length === 0 && count === 5) {
            seen.push(count)
            throw new Error('not yet')
          }
        }
        seen.push(count)
        return count
      },
    })
    await using stage = await openStage(server.url, pipeline('gathers', [flaky]))
    expect(await (await stage.flow.materialize(flaky)).result(limit())).toBe(10)
    expect(seen).toEqual([5, 10])
  })

  it('a gather fails its asset when its attempts are used up', async () => {
    const hopeless = asset('hopeless', {
      retry: soon,
      scatter: () => [1],
      execute: () => 1,
      gather: (): number => {
        throw new Error('no sum')
      },
    })
    await using stage = await openStage(server.url, pipeline('hopeless', [hopeless]))
    expect((await rejection((await stage.flow.materialize(hopeless)).result(limit()))).message).toContain('no sum')
  })

  it('steps over what somebody else published among the outcomes', async () => {
    const gate = Promise.withResolvers<void>()
    let started = 0
    const held = asset('held', {
      scatter: () => [1, 2],
      execute: async ({ scatterKey }) => {
        started += 1
        await gate.promise
        return scatterKey
      },
    })
    await using stage = await openStage(server.url, pipeline('garbage', [held]))
    const run = await stage.flow.materialize(held)
    await until('the instances run', () => started === 2)
    const nc = await connectNats({ servers: server.url })
    for (const garbage of ['{', '{"lease":"0-2-1"}', '[]', '']) {
      await jetstream(nc).publish(`${stage.namespace}.log.0.scatter.${run.id}.held.outcomes`, garbage)
    }
    await nc.close()
    gate.resolve()
    expect((await run.result(limit())).map(({ value }) => value)).toEqual([1, 2])
  })
})
