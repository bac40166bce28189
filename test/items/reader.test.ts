import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { describe, expect, expectTypeOf, it } from 'vitest'
import { asset, TerminalError } from '../../src/index.ts'
import { type ItemReader, type ItemReaderOptions, itemReader } from '../../src/items/index.ts'
import { isItemReader } from '../../src/items/reader.ts'
import { collect } from '../kit/collect.ts'
import { rejection } from '../kit/stage.ts'
import { never, readAll } from './kit.ts'

/** Numbers from the cursor to 10, two at a time; `fail` may throw before each chunk. */
function numbers(fail: (at: number) => void = () => undefined, more: Partial<ItemReaderOptions<number, number>> = {}) {
  return itemReader<number, number>({
    name: 'numbers',
    retry: { backoff: 1, maxAttempts: 3 },
    async *read(cursor = 0) {
      for (let at = cursor; at < 10; at += 2) {
        fail(at)
        yield { items: [at, at + 1], cursor: at + 2 }
      }
    },
    ...more,
  })
}

describe('an item reader', () => {
  it('is read from the beginning, from a cursor, and as an async iterable', async () => {
    expect(await readAll(numbers())).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    expect(await readAll(numbers(), 6)).toEqual([6, 7, 8, 9])
    expect(await collect(numbers())).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    expect(isItemReader(numbers())).toBe(true)
    expect(isItemReader([1])).toBe(false)
  })

  it('asks a source that fails again, from behind the last chunk, as long as it gets on', async () => {
    const asked: number[] = []
    const reader = numbers((at) => {
      asked.push(at)
      if (asked.filter((one) => one === at).length < 3) throw new Error('broken')
    })
    expect(await readAll(reader)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    expect(asked).toEqual([0, 0, 0, 2, 2, 2, 4, 4, 4, 6, 6, 6, 8, 8, 8])
  })

  it('gives up after so many failures in a row, and says where', async () => {
    const asked: number[] = []
    const fail = (at: number) => {
      asked.push(at)
      if (at === 4) throw new Error('broken')
    }
    const error = await rejection(readAll(numbers(fail, { position: (at) => `number ${at}` })))
    expect(error).toMatchObject({
      code: 'source_failed',
      message: 'numbers: reading failed 3 times in a row, behind number 4: broken',
    })
    expect(asked).toEqual([0, 2, 4, 4, 4])
  })

  it('gives up at once what is terminal', async () => {
    let asked = 0
    const fail = () => {
      asked += 1
      throw new TerminalError('gone')
    }
    expect((await rejection(readAll(numbers(fail)))).message).toBe('gone')
    expect(asked).toBe(1)
  })

  it('gives up a source whose chunks lead nowhere before it fails', async () => {
    const reader = itemReader<number, number>({
      name: 'nowhere',
      retry: { backoff: 1 },
      async *read(cursor = 0) {
        yield { items: [], cursor }
        throw new Error('broken')
      },
    })
    expect((await rejection(readAll(reader))).message).toMatch(/^nowhere: reading failed 5 times in a row/)
  })

  it('ends when its signal is aborted, also while it waits to try again', async () => {
    const stop = new AbortController()
    const reader = numbers(
      () => {
        stop.abort(new Error('enough'))
        throw new Error('broken')
      },
      { retry: { backoff: '1h' } },
    )
    const reading = (async () => {
      for await (const _ of reader.read(undefined, stop.signal)) expect.unreachable()
    })()
    expect((await rejection(reading)).message).toBe('enough')
  })

  it('refuses a cursor that is none, or too large to be stored with every key chunk', async () => {
    const of = (cursor: unknown) =>
      itemReader({
        name: 'odd',
        async *read() {
          yield { items: [1], cursor }
        },
      })
    expect((await rejection(readAll(of(undefined)))).message).toMatch(/odd: a chunk has no cursor/)
    expect((await rejection(readAll(of('x'.repeat(20_000))))).message).toMatch(
      /odd: a cursor takes 20003 bytes; it is at most 16384/,
    )
    expect((await rejection(readAll(of(() => 1)))).message).toMatch(/odd: cursor is a function/)
  })

  it.each<[string, Record<string, unknown>, RegExp]>([
    ['no name', { name: '' }, /name must be a text/],
    ['no read', { read: 1 }, /itemReader numbers: read must be a function/],
    ['no attempt', { retry: { maxAttempts: 0 } }, /retry\.maxAttempts must be a whole number from 1, got 0/],
    ['an odd backoff', { retry: { backoff: 'soon' } }, /retry\.backoff must be milliseconds or text/],
  ])('cannot be made with %s', (_, options, message) => {
    expect(() => numbers(undefined, options)).toThrow(message)
  })

  it('gives its items their type on their way through an asset', () => {
    const one = asset('one', {
      scatter: () => numbers().map((n) => ({ n })),
      execute: ({ scatterKey }) => scatterKey.n.toFixed(1),
    })
    expectTypeOf(one.value).toEqualTypeOf<{ key: { n: number }; value: string }[] | undefined>()
    expectTypeOf(numbers().filter((n) => n > 1)).toEqualTypeOf<ItemReader<number>>()
    expect(never.aborted).toBe(false)
  })
})

describe('telemetry', () => {
  it('reports a source that is asked again, and from where', async () => {
    const heard: unknown[] = []
    const listen = (event: unknown): void => void heard.push(event)
    subscribe('flowstone:items.retry', listen)
    try {
      let failures = 0
      const error = new Error('broken')
      const fail = (at: number) => {
        if (at === 4 && failures++ < 2) throw error
      }
      await readAll(numbers(fail, { position: (at) => `number ${at}`, retry: { backoff: '1ms..2ms' } }))
      const event = { reader: 'numbers', position: 'number 4', error }
      expect(heard).toEqual([
        { ...event, failures: 1, waitMs: 1 },
        { ...event, failures: 2, waitMs: 2 },
      ])
    } finally {
      unsubscribe('flowstone:items.retry', listen)
    }
  })
})
