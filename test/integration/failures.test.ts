import { describe, expect, it } from 'vitest'
import { asset, ConflictError, pipeline, RetryableError, RunFailedError, TerminalError } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { factsOf, openStage, rejection } from '../kit/stage.ts'
import { busy } from '../kit/within.ts'

const server = useServer({ syncInterval: 'default' })

const soon = { maxAttempts: 3, backoff: '10ms' } as const

describe('an asset that fails', () => {
  it('an asset that fails is tried again after a pause, and its history shows each attempt', async () => {
    const attempts: number[] = []
    const flaky = asset('flaky', {
      retry: { maxAttempts: 3, backoff: '40ms..1s' },
      execute: ({ attempt, idempotencyKey }) => {
        attempts.push(attempt)
        if (attempt < 3) throw new Error(`failure ${attempt}`)
        return idempotencyKey
      },
    })
    await using stage = await openStage(server.url, pipeline('retries', [flaky]))
    const run = await stage.flow.materialize(flaky)
    expect(await run.result()).toBe(`${run.id}.flaky`)
    expect(attempts).toEqual([1, 2, 3])
    const errored = (await factsOf(stage.flow, run.id)).filter(({ kind }) => kind === 'attempt.ended')
    expect(errored.map(({ ids, data }) => [ids.attempt, Reflect.get(data, 'error').message])).toEqual([
      ['1', 'failure 1'],
      ['2', 'failure 2'],
    ])
    // 40 ms and 120 ms, of which the upper quarter is spread.
    const end = (await factsOf(stage.flow, run.id)).find(({ kind }) => kind === 'asset.materialized')
    const gaps = [errored[1], end].map((fact, i) => (fact?.at.getTime() ?? 0) - (errored[i]?.at.getTime() ?? 0))
    expect(gaps[0]).toBeGreaterThanOrEqual(29)
    expect(gaps[1]).toBeGreaterThanOrEqual(89)
  })

  it('an asset that fails has failed when its attempts are used up, with the last error', async () => {
    const hopeless = asset('hopeless', {
      retry: soon,
      execute: ({ attempt }) => {
        throw new Error(`failure ${attempt}`)
      },
    })
    await using stage = await openStage(server.url, pipeline('hopelessly', [hopeless]))
    const run = await stage.flow.materialize(hopeless)
    expect((await rejection(run.result())).message).toContain('failure 3')
    const failed = (await factsOf(stage.flow, run.id)).find(({ kind }) => kind === 'asset.failed')
    expect(failed?.data).toMatchObject({ attempts: 3, error: { code: 'error', message: 'failure 3' } })
  })

  it('an asset that fails is not tried again after a TerminalError', async () => {
    let calls = 0
    const wrong = asset('wrong', {
      retry: soon,
      execute: () => {
        calls += 1
        throw new TerminalError('wrong for good')
      },
    })
    await using stage = await openStage(server.url, pipeline('terminally', [wrong]))
    expect(await rejection((await stage.flow.materialize(wrong)).result())).toMatchObject({ code: 'terminal' })
    expect(calls).toBe(1)
  })

  it('an asset that fails waits as long as its RetryableError says, not as long as its backoff', async () => {
    const times: number[] = []
    const limited = asset('limited', {
      retry: { maxAttempts: 2, backoff: '1h' },
      execute: ({ attempt }) => {
        times.push(performance.now())
        if (attempt === 1) throw new RetryableError('try later', { retryAfterMs: 150 })
        return 'there'
      },
    })
    await using stage = await openStage(server.url, pipeline('politely', [limited]))
    expect(await (await stage.flow.materialize(limited)).result()).toBe('there')
    const gap = (times[1] ?? 0) - (times[0] ?? 0)
    expect(gap).toBeGreaterThanOrEqual(145)
    expect(gap).toBeLessThan(5000 * busy())
  })

  it.each([
    ['is no number', Number.NaN, 'there'],
    ['is negative', -5, 'there'],
  ])('takes a RetryableError whose retryAfterMs %s', async (_, retryAfterMs, expected) => {
    const odd = asset('odd', {
      retry: soon,
      execute: ({ attempt }) => {
        if (attempt === 1) throw new RetryableError('try later', { retryAfterMs })
        return 'there'
      },
    })
    await using stage = await openStage(server.url, pipeline('oddly', [odd]))
    expect(await (await stage.flow.materialize(odd)).result()).toBe(expected)
  })

  it('an asset that fails does not hurt the engine with a retryAfterMs beyond all calendars', async () => {
    const never = asset('never', {
      retry: soon,
      execute: () => {
        throw new RetryableError('try later', { retryAfterMs: 9e15 })
      },
    })
    const fine = asset('fine', { execute: () => 'there' })
    await using stage = await openStage(server.url, pipeline('calendars', [never, fine]))
    const run = await stage.flow.materialize(never)
    expect(await (await stage.flow.materialize(fine)).result()).toBe('there')
    await run.cancel()
    expect(await rejection(run.result())).toMatchObject({ code: 'cancelled' })
    expect(stage.lines.filter((line) => line.includes('starts again'))).toEqual([])
  })

  it('over its time limit has its signal aborted, and fails with code timeout', async () => {
    const reasons: unknown[] = []
    const slow = asset('slow', {
      timeout: '40ms',
      retry: { maxAttempts: 2, backoff: '10ms' },
      execute: ({ signal }) =>
        new Promise<never>((_, reject) => {
          signal.addEventListener('abort', () => {
            reasons.push(signal.reason)
            reject(new Error('what the code makes of it'))
          })
        }),
    })
    await using stage = await openStage(server.url, pipeline('slowly', [slow]))
    const run = await stage.flow.materialize(slow)
    const error = await rejection(run.result())
    expect(error).toMatchObject({ code: 'timeout', asset: 'slow' })
    expect(error.message).toContain('time limit of 40 ms')
    expect(reasons.map((reason) => Reflect.get(Object(reason), 'code'))).toEqual(['timeout', 'timeout'])
    const errored = (await factsOf(stage.flow, run.id)).filter(({ kind }) => kind === 'attempt.ended')
    expect(errored.map(({ data }) => Reflect.get(data, 'outcome'))).toEqual(['timeout', 'timeout'])
  })

  it('over its time limit is not waited for when it looks at no signal, be it a promise or only thenable', async () => {
    const never = new Promise<void>(() => undefined)
    const deaf = asset('deaf', { timeout: '30ms', retry: { maxAttempts: 1 }, execute: () => never })
    const thenable = asset('thenable', {
      timeout: '30ms',
      retry: { maxAttempts: 1 },
      // As query builders do.
      // biome-ignore lint/suspicious/noThenProperty: that is the point
      execute: () => ({ then: () => undefined }),
    })
    await using stage = await openStage(server.url, pipeline('deafly', [deaf, thenable]))
    for (const each of [deaf, thenable]) {
      const run = await stage.flow.materialize<unknown>(each)
      expect(await rejection(run.result())).toMatchObject({ code: 'timeout' })
    }
  })

  const circle: Record<string, unknown> = Object.create(null)
  circle.self = circle
  it.each<[string, unknown, string]>([
    ['a text', 'just words', 'just words'],
    ['undefined', undefined, 'undefined'],
    ['null', null, 'null'],
    ['an object', { status: 503 }, '{"status":503}'],
    ['a symbol', Symbol('why'), 'Symbol(why)'],
    ['an object that cannot be written', circle, ''],
    ['an error whose message is no text', Object.assign(new Error('x'), { message: 5 }), '5'],
  ])('may throw %s: it fails with a message, and nobody dies', async (_, thrown, message) => {
    const strange = asset('strange', {
      retry: { maxAttempts: 1 },
      execute: () => {
        throw thrown
      },
    })
    const scattered = asset('scattered', {
      scatter: () => [1],
      retry: { maxAttempts: 1 },
      execute: async () => {
        throw thrown
      },
    })
    const fine = asset('fine', { execute: () => 'alive' })
    await using stage = await openStage(server.url, pipeline('strangely', [strange, scattered, fine]))
    for (const each of [strange, scattered]) {
      const error = await rejection((await stage.flow.materialize<unknown>(each)).result())
      expect(error).toBeInstanceOf(RunFailedError)
      expect(error.code).toBe(thrown instanceof Error ? 'error' : 'thrown_non_error')
      expect(error.message).toContain(message)
    }
    expect(await (await stage.flow.materialize(fine)).result()).toBe('alive')
  })

  it('may throw a ConflictError of its own, which is a failure like others', async () => {
    let calls = 0
    const nested = asset('nested', {
      retry: soon,
      execute: () => {
        calls += 1
        throw new ConflictError('key k was used for another run')
      },
    })
    await using stage = await openStage(server.url, pipeline('nesting', [nested]))
    const run = await stage.flow.materialize(nested)
    expect(await rejection(run.result())).toMatchObject({ code: 'conflict' })
    expect(calls).toBe(3)
  })
})
