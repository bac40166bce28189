import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import { asset, FlowStoneError, type HistoryEntry, pipeline, TerminalError } from '../../src/index.ts'
import {
  batch,
  type ItemReaderOptions,
  itemReader,
  itemResults,
  readLines,
  settleItems,
} from '../../src/items/index.ts'
import { collect } from '../kit/collect.ts'
import { useServer } from '../kit/fixture.ts'
import { runs } from '../kit/runs.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { factsOf, openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })
const scratch = scratchFolder()
afterAll(async () => {
  scratch[Symbol.dispose]()
})

interface KeyChunk {
  readonly count: number
  readonly keys: readonly unknown[]
  readonly cursor?: { readonly reader: string; readonly at?: unknown; readonly skip: number }
}

const keyChunksOf = (facts: readonly HistoryEntry[]): KeyChunk[] =>
  facts.filter(({ kind }) => kind === 'scatter.items').map(({ data }) => data as unknown as KeyChunk)

const retry = { maxAttempts: 3, backoff: '1ms..2ms' } as const

/**
 * The numbers below `total`, `size` at a time, and where it was asked to begin. `before` is called
 * before each chunk but the first of a read.
 */
function numbers(total: number, size: number, before: (at: number, reads: number) => void = () => undefined) {
  const reads: number[] = []
  const options: ItemReaderOptions<number, number> = {
    name: 'numbers',
    retry: { maxAttempts: 1 },
    position: (at) => `number ${at}`,
    async *read(cursor = 0) {
      reads.push(cursor)
      for (let at = cursor; at < total; at += size) {
        if (at > cursor) before(at, reads.length)
        yield { items: Array.from({ length: Math.min(size, total - at) }, (_, i) => at + i), cursor: at + size }
      }
    },
  }
  return { reads, reader: itemReader(options) }
}

/** What MessagePack writes before a text. */
function headOf(text: string): number {
  return text.length < 32 ? 1 : 2
}

describe('a scatter over an item reader', () => {
  it('stores key chunks of bounded size, each with the cursor behind it', async () => {
    const lines = Array.from({ length: 30_000 }, (_, i) => `https://example.com/some/path/${i}`)
    const path = join(scratch.path, 'lines.txt')
    writeFileSync(path, lines.join('\n'))
    const urls = asset('urls', {
      scatter: () => readLines(path),
      execute: ({ scatterKey, index }) => scatterKey === lines[index],
      gather: async (results) => (await collect(results)).filter(({ value }) => value).length,
    })
    await using stage = await openStage(server.url, pipeline('reads', [urls]))
    const run = await stage.flow.materialize(urls)
    expect(await run.result()).toBe(30_000)
    const keyChunks = keyChunksOf(await factsOf(stage.flow, run.id))
    let bytes = 0
    for (const { keys, cursor } of keyChunks) {
      const size = keys.reduce<number>((sum, key) => sum + String(key).length + headOf(String(key)), 0)
      expect(size).toBeLessThanOrEqual(200 * 1024)
      bytes += keys.reduce<number>((sum, key) => sum + String(key).length + 1, 0)
      expect(cursor).toMatchObject({ reader: `lines of ${path}`, skip: 0, at: { at: expect.any(Number) } })
      // The last line has no end.
      expect(cursor?.at).toMatchObject({ at: Math.min(bytes, lines.join('\n').length) })
    }
    expect(keyChunks.length).toBeGreaterThan(4)
    expect(keyChunks.flatMap(({ keys }) => keys)).toEqual(lines)
  })

  it('a scatter over an item reader continues at the last cursor when an attempt has failed, and reads nothing from the beginning again', async () => {
    const { reads, reader } = numbers(100_000, 5000, (at, count) => {
      if (count < 3 && at === count * 35_000) throw new Error('broken')
    })
    const keys = asset('keys', {
      retry,
      scatter: () => reader,
      execute: ({ scatterKey, index }) => scatterKey - index,
      gather: async (results) => {
        let sum = 0
        let count = 0
        for await (const { value } of results) {
          sum += Math.abs(value)
          count += 1
        }
        return { count, sum }
      },
    })
    await using stage = await openStage(server.url, pipeline('goes_on', [keys]))
    const run = await stage.flow.materialize(keys)
    expect(await run.result()).toEqual({ count: 100_000, sum: 0 })
    const behind = keyChunksOf(await factsOf(stage.flow, run.id)).map(({ cursor }) => cursor?.at)
    expect(reads).toHaveLength(3)
    // 20,000 keys are the most of a key chunk; what was read beyond the last one is read again.
    for (const [i, from] of reads.slice(1).entries()) {
      expect(behind).toContain(from)
      expect(from).toBeGreaterThanOrEqual((i + 1) * 35_000 - 20_000)
    }
  })

  it('a scatter over an item reader goes on within a chunk whose cursor stands behind all of it, by passing over what is stored', async () => {
    const { reads, reader } = numbers(50_000, 50_000, () => undefined)
    let reading = 0
    const failing = itemReader<number, number>({
      name: 'numbers',
      retry: { maxAttempts: 1 },
      async *read(cursor, signal) {
        reading += 1
        for await (const { items } of reader.read(cursor, signal)) yield { items, cursor: 50_000 }
        if (reading === 1) throw new Error('broken')
      },
    })
    const keys = asset('keys', {
      retry,
      scatter: () => failing,
      execute: () => 1,
      gather: async (all) => (await collect(all)).length,
    })
    await using stage = await openStage(server.url, pipeline('within', [keys]))
    const run = await stage.flow.materialize(keys)
    expect(await run.result()).toBe(50_000)
    expect(reads.length).toBeGreaterThan(1)
    const keyChunks = keyChunksOf(await factsOf(stage.flow, run.id))
    expect(keyChunks.map(({ count, cursor }) => [count, cursor?.skip, cursor?.at])).toEqual([
      [20_000, 20_000, undefined],
      [20_000, 40_000, undefined],
      [10_000, 0, 50_000],
    ])
  })

  it('a scatter over an item reader fails with the position of its source, and how many keys there were, when that fails for good', async () => {
    const { reader, reads } = numbers(1000, 100, (at) => {
      if (at === 300) throw new Error('no route to host')
    })
    const keys = asset('keys', { retry, scatter: () => reader, execute: () => 1 })
    await using stage = await openStage(server.url, pipeline('fails', [keys]))
    const error = await rejection((await stage.flow.materialize(keys)).result())
    expect(error.message).toMatch(/numbers: reading failed, behind number 300: no route to host \(after 300 keys\)/)
    expect(error.code).toBe('source_failed')
    expect(reads.length).toBe(3)
  })

  it('a scatter over an item reader begins with what is there while its source lets it wait for more', async () => {
    const begun = Promise.withResolvers<void>()
    const slow = itemReader<number, number>({
      name: 'slow',
      async *read(cursor = 0) {
        if (cursor < 1) yield { items: [1], cursor: 1 }
        await begun.promise
        yield { items: [2], cursor: 2 }
      },
    })
    const keys = asset('keys', {
      scatter: () => slow,
      execute: ({ scatterKey }) => {
        begun.resolve()
        return scatterKey
      },
    })
    await using stage = await openStage(server.url, pipeline('slow', [keys]))
    expect(await (await stage.flow.materialize(keys)).result()).toEqual([
      { key: 1, value: 1 },
      { key: 2, value: 2 },
    ])
  })

  it.each<[string, boolean]>([
    ['has failed', true],
    ['is cancelled', false],
  ])('stops an endless source when it %s', async (_, fails) => {
    const told = Promise.withResolvers<unknown>()
    const begun = Promise.withResolvers<void>()
    const endless = itemReader<number, number>({
      name: 'endless',
      async *read(cursor = 0, signal) {
        signal.addEventListener('abort', () => told.resolve(signal.reason), { once: true })
        for (let at = cursor; ; at += 10) {
          yield { items: Array.from({ length: 10 }, (_, i) => at + i), cursor: at + 10 }
          await begun.promise
          await setImmediate()
        }
      },
    })
    const keys = asset('keys', {
      scatter: () => endless,
      execute: ({ scatterKey }) => {
        begun.resolve()
        if (fails && scatterKey === 25) throw new TerminalError('enough')
        return 1
      },
    })
    await using stage = await openStage(server.url, pipeline(`endless_${fails}`, [keys]))
    const run = await stage.flow.materialize(keys)
    await begun.promise
    if (!fails) await run.cancel()
    expect((await rejection(run.result())).message).toMatch(fails ? /enough/ : /cancel/)
    await told.promise
    const stored = async (): Promise<number> => keyChunksOf(await factsOf(stage.flow, run.id)).length
    // A key chunk may have been on its way.
    const before = await stored()
    await until('the worker has nothing in its hands', () => stage.worker?.busy === 0)
    expect(await stored()).toBeLessThanOrEqual(before + 1)
  })

  it('may have no keys at all', async () => {
    const keys = asset('keys', { scatter: () => numbers(0, 10).reader, execute: () => 1 })
    await using stage = await openStage(server.url, pipeline('none', [keys]))
    expect(await (await stage.flow.materialize(keys)).result()).toEqual([])
  })

  it.each<['drop' | 'error', RegExp | number]>([
    ['drop', 30_000],
    ['error', /1 duplicate key: 7 \(again at 45000\)/],
  ])('knows duplicates (%s) also of what an earlier attempt stored', async (duplicates, expected) => {
    const { reader, reads } = numbers(60_000, 5000, (at, count) => {
      if (count === 1 && at === 45_000) throw new Error('broken')
    })
    // Of 'drop' the second half are those of the first; of 'error' one of them is.
    const doubled = reader.map((n) => (duplicates === 'drop' ? n % 30_000 : n === 45_000 ? 7 : n))
    const keys = asset('keys', {
      retry,
      scatter: () => doubled,
      scatterOptions: { duplicates },
      execute: () => 1,
      gather: async (all) => (await collect(all)).length,
    })
    await using stage = await openStage(server.url, pipeline(`duplicates_${duplicates}`, [keys]))
    const run = await stage.flow.materialize(keys)
    if (typeof expected === 'number') expect(await run.result()).toBe(expected)
    else expect((await rejection(run.result())).message).toMatch(expected)
    expect(reads[0]).toBe(0)
    expect(reads[1]).toBeGreaterThanOrEqual(20_000)
  })

  it('stores nothing behind a duplicate that is an error, for whoever took over there would never know of it', async () => {
    const twice = numbers(50_000, 50_000).reader.map((n) => (n === 100 ? 7 : n))
    const keys = asset('keys', { retry, scatter: () => twice, execute: () => 1 })
    await using stage = await openStage(server.url, pipeline('behind_duplicate', [keys]))
    const run = await stage.flow.materialize(keys)
    expect((await rejection(run.result())).message).toMatch(/1 duplicate key: 7 \(again at 100\)/)
    expect(keyChunksOf(await factsOf(stage.flow, run.id))).toEqual([])
  })

  it('a scatter over an item reader is not gone on with by what reads something else', async () => {
    let attempt = 0
    const begin = (name: string) =>
      itemReader<number, number>({
        name,
        retry: { maxAttempts: 1 },
        async *read() {
          yield { items: Array.from({ length: 25_000 }, (_, i) => i), cursor: 25_000 }
          throw new Error('broken')
        },
      })
    const keys = asset('keys', {
      retry,
      scatter: () => begin(`orders of ${attempt++}`),
      scatterOptions: { duplicates: 'allow' },
      execute: () => 1,
    })
    await using stage = await openStage(server.url, pipeline('other', [keys]))
    expect((await rejection((await stage.flow.materialize(keys)).result())).message).toMatch(
      /the first \d+ keys were given by orders of 0, and orders of 1 cannot go on from there/,
    )
  })

  it('a scatter over an item reader is not gone on with where a plain generator began', async () => {
    let attempt = 0
    function* broken() {
      for (let i = 0; i < 25_000; i++) yield i
      throw new FlowStoneError('broken', 'broken')
    }
    const keys = asset('keys', {
      retry,
      scatter: () => (attempt++ === 0 ? broken() : numbers(10, 10).reader),
      execute: () => 1,
    })
    await using stage = await openStage(server.url, pipeline('generator', [keys]))
    expect((await rejection((await stage.flow.materialize(keys)).result())).message).toMatch(
      /the first \d+ keys were given by a scatter function that is no item reader, and numbers cannot go on from there/,
    )
  })
})

it('keys of a reader are all stored, each once and in order, wherever it fails and however it is cut', async () => {
  interface Plan {
    readonly sizes: readonly number[]
    readonly chunk: number
    /** How many chunks each attempt gives before it fails. */
    readonly breaks: readonly number[]
    readonly hasCursorAt: boolean
    readonly duplicates: 'error' | 'drop' | 'allow'
    readonly perBatch: number
  }
  let plan: Plan
  let attempt = 0
  // A key is its number, and letters that make key chunks end anywhere.
  const keyOf = (i: number): string => `${i}:${'x'.repeat(plan.sizes[i] ?? 0)}`
  const source = () => {
    const { sizes, chunk, hasCursorAt } = plan
    let left = plan.breaks[attempt++] ?? Number.POSITIVE_INFINITY
    return itemReader<string, number>({
      name: 'planned',
      retry: { maxAttempts: 1 },
      async *read(from = 0) {
        for (let at = from; at < sizes.length; at += chunk) {
          if (left-- <= 0) throw new Error('broken')
          const items = Array.from({ length: Math.min(chunk, sizes.length - at) }, (_, i) => keyOf(at + i))
          const cursor = at + items.length
          yield hasCursorAt ? { items, cursor, cursorAt: (i) => at + i + 1 } : { items, cursor }
        }
        if (left <= 0) throw new Error('broken at the end')
      },
    })
  }
  const often = { maxAttempts: 9, backoff: '1ms' } as const
  const whole = (duplicates: Plan['duplicates']) =>
    asset(`whole_${duplicates}`, {
      retry: often,
      scatter: source,
      scatterOptions: { duplicates },
      execute: ({ scatterKey }) => scatterKey.slice(0, scatterKey.indexOf(':')),
      gather: async (results) => (await collect(results)).map(({ value }) => Number(value)),
    })
  const inBatches = asset('in_batches', {
    retry: often,
    scatter: () => batch(source(), { maxItems: plan.perBatch }),
    execute: ({ scatterKey: { items } }) => items.map((text) => Number(text.slice(0, text.indexOf(':')))),
    gather: async (results) => (await collect(results)).flatMap(({ value }) => value),
  })
  const wholes = { error: whole('error'), drop: whole('drop'), allow: whole('allow') }
  await using stage = await openStage(server.url, pipeline('planned', [...Object.values(wholes), inBatches]))
  const size = fc.oneof({ arbitrary: fc.constant(10), weight: 3 }, fc.integer({ min: 20_000, max: 120_000 }))
  await fc.assert(
    fc.asyncProperty(
      fc.record<Plan>({
        sizes: fc.array(size, { maxLength: 40, size: 'max' }),
        chunk: fc.integer({ min: 1, max: 12 }),
        breaks: fc.array(fc.integer({ min: 0, max: 8 }), { maxLength: 6 }),
        hasCursorAt: fc.boolean(),
        duplicates: fc.constantFrom('error', 'drop', 'allow'),
        perBatch: fc.integer({ min: 0, max: 4 }),
      }),
      async (given) => {
        plan = given
        attempt = 0
        const target = given.perBatch > 0 ? inBatches : wholes[given.duplicates]
        const run = await stage.flow.materialize(target)
        expect(await run.result()).toEqual(given.sizes.map((_, i) => i))
        for (const { count, keys } of keyChunksOf(await factsOf(stage.flow, run.id))) expect(keys).toHaveLength(count)
      },
    ),
    { ...runs(20), endOnFailure: true },
  )
})

describe('a scatter over batches', () => {
  it('a scatter over batches tells item by item what became of it, and fails those of an instance that failed', async () => {
    const checked = asset('checked', {
      retry: { maxAttempts: 1 },
      scatter: () => batch(numbers(95, 7).reader, { maxItems: 10 }),
      scatterOptions: { failureMode: 'partial', failureThreshold: 0.2 },
      execute: ({ scatterKey: { items } }) =>
        settleItems(
          items,
          (n) => {
            if (n % 10 === 3 || (n >= 50 && n < 56)) throw new Error(`${n} is bad`)
            return n * 2
          },
          { failureThreshold: 0.5 },
        ),
      gather: async (results) => {
        const items = await collect(itemResults(results))
        return {
          ok: items.filter(({ status }) => status === 'ok').map(({ item, value }) => [item, value]),
          failed: items.flatMap(({ item, error }) => (error ? [[item, error.code]] : [])),
        }
      },
    })
    await using stage = await openStage(server.url, pipeline('batches', [checked]))
    const run = await stage.flow.materialize(checked)
    const { ok, failed } = await run.result()
    const alone = [3, 13, 23, 33, 43, 63, 73, 83, 93]
    const together = Array.from({ length: 10 }, (_, i) => 50 + i)
    const isBad = (n: number) => [...alone, ...together].includes(n)
    expect(failed).toEqual(
      [...alone, ...together]
        .toSorted((a, b) => a - b)
        .map((n) => [n, together.includes(n) ? 'items_failed' : 'error']),
    )
    expect(ok).toEqual(Array.from({ length: 95 }, (_, i) => i).flatMap((n) => (isBad(n) ? [] : [[n, n * 2]])))
    const keys = keyChunksOf(await factsOf(stage.flow, run.id)).flatMap((keyChunk) => keyChunk.keys)
    expect(keys[9]).toEqual({ items: [90, 91, 92, 93, 94] })
  })

  it('a scatter over batches goes on behind whole batches when an attempt has failed', async () => {
    const { reads, reader } = numbers(70_000, 4000, (at, count) => {
      if (count === 1 && at === 60_000) throw new Error('broken')
    })
    const sums = asset('sums', {
      retry,
      scatter: () => batch(reader, { maxItems: 3 }),
      execute: ({ scatterKey }) => scatterKey.items,
      gather: async (results) => (await collect(results)).flatMap(({ value }) => value),
    })
    await using stage = await openStage(server.url, pipeline('batches_go_on', [sums]))
    const all = await (await stage.flow.materialize(sums)).result()
    expect(all).toEqual(Array.from({ length: 70_000 }, (_, i) => i))
    expect(reads[0]).toBe(0)
    expect(reads[1]).toBeGreaterThan(10_000)
  })
})

describe('a key', () => {
  it('a key of the largest size goes there and back, whatever its script', async () => {
    const large = ['a', '日', '😀'].map((text) => text.repeat((200 * 1024 - 3) / text.length))
    const keys = asset('keys', {
      scatter: () => large,
      execute: ({ scatterKey, index }) => scatterKey === large[index],
    })
    await using stage = await openStage(server.url, pipeline('large_keys', [keys]))
    const all = await (await stage.flow.materialize(keys)).result()
    expect(all.map(({ key, value }) => [key.length, value])).toEqual(large.map((text) => [text.length, true]))
  })

  it.each<['error' | 'allow', string, unknown, RegExp]>([
    ['error', 'a text cut in two', 'cut \ud83d', /key\[1\] has half a surrogate pair/],
    ['allow', 'a text cut in two', 'cut \ud83d', /key\[1\] has half a surrogate pair/],
    ['error', 'a URL', new URL('http://example.com'), /key\[1\] is a URL, which would be stored empty/],
    ['allow', 'a URL', new URL('http://example.com'), /key\[1\] is a URL, which would be stored empty/],
  ])(
    'that would come back as another one fails the scatter (duplicates: %s): %s',
    async (duplicates, _, key, message) => {
      const keys = asset('keys', { scatter: () => ['fine', key], scatterOptions: { duplicates }, execute: () => 1 })
      await using stage = await openStage(server.url, pipeline('odd_keys', [keys]))
      expect((await rejection((await stage.flow.materialize(keys)).result())).message).toMatch(message)
    },
  )
})
