import fc from 'fast-check'
import { describe, expect, expectTypeOf, it } from 'vitest'
import { asset } from '../../src/index.ts'
import { type Batch, batch, type GroupedBatch, itemReader, itemResults, settleItems } from '../../src/items/index.ts'
import { collect } from '../kit/collect.ts'
import { runs } from '../kit/runs.ts'
import { rejection } from '../kit/stage.ts'
import { cursorsOf, expectReadsOn, readAll } from './kit.ts'

const ten = Array.from({ length: 10 }, (_, i) => i)
const itemsOf = <T>(batches: Iterable<Batch<T>>): T[][] => [...batches].map(({ items }) => items)

/**
 * A reader whose chunks have the sizes given, with a cursor behind each item or only behind chunks.
 */
function inChunks<T>(list: readonly T[], sizes: readonly number[], hasCursorAt: boolean) {
  return itemReader<T, { at: number; k: number }>({
    name: 'list',
    async *read(cursor = { at: 0, k: 0 }) {
      let { at, k } = cursor
      for (; at < list.length; k++) {
        const from = at
        at += sizes[k % sizes.length] ?? 1
        const items = list.slice(from, at)
        const next = { at, k: k + 1 }
        // Within a chunk the cursor begins a chunk of its own.
        yield hasCursorAt
          ? { items, cursor: next, cursorAt: (i) => ({ at: from + i + 1, k: 0 }) }
          : { items, cursor: next }
      }
    },
  })
}

describe('batches', () => {
  it('of a list hold so many items', () => {
    expect(batch(ten, { maxItems: 4 })).toEqual([{ items: [0, 1, 2, 3] }, { items: [4, 5, 6, 7] }, { items: [8, 9] }])
    expect(batch([], { maxItems: 4 })).toEqual([])
  })

  it('hold so many bytes, and what is larger by itself', () => {
    const list = ['a'.repeat(10), 'b'.repeat(10), 'c'.repeat(50), 'd']
    expect(itemsOf(batch(list, { maxBytes: 30 }))).toEqual([list.slice(0, 2), [list[2]], [list[3]]])
    expect(itemsOf(batch(['x'.repeat(100_000), 'y'.repeat(100_000)], { maxItems: 9 }))).toHaveLength(2)
  })

  it('of a list hold all of a group, wherever its items stand', () => {
    expect(batch(ten, { groupBy: (n) => n % 3 })).toEqual([
      { items: [0, 3, 6, 9], group: 0 },
      { items: [1, 4, 7], group: 1 },
      { items: [2, 5, 8], group: 2 },
    ])
    expect(itemsOf(batch(ten, { groupBy: (n) => n % 3, maxItems: 2 }))).toEqual([
      [0, 3],
      [6, 9],
      [1, 4],
      [7],
      [2, 5],
      [8],
    ])
  })

  it('of an iterable end where the group changes', async () => {
    function* source() {
      yield* [1, 1, 2, 1]
    }
    const options = { groupBy: (n: number) => n }
    const expected = [
      { items: [1, 1], group: 1 },
      { items: [2], group: 2 },
      { items: [1], group: 1 },
    ]
    expect([...batch(source(), options)]).toEqual(expected)
    expect(await collect(batch(inChunks([1, 1, 2, 1], [3], true)[Symbol.asyncIterator](), options))).toEqual(expected)
  })

  it('of a reader are those of the list, from whatever cursor, however it is cut', async () => {
    const options = fc.record(
      {
        maxItems: fc.integer({ min: 1, max: 5 }),
        maxBytes: fc.integer({ min: 5, max: 40 }),
        groupBy: fc.constant((text: string) => text.length),
      },
      { requiredKeys: ['maxItems'] },
    )
    const texts = fc.array(fc.string({ maxLength: 6 }), { maxLength: 20 })
    const sizes = fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 4 })
    await fc.assert(
      fc.asyncProperty(texts, sizes, fc.boolean(), options, async (list, cuts, hasCursorAt, given) => {
        function* again() {
          yield* list
        }
        const expected = [...batch(again(), given)]
        const reader = batch(inChunks(list, cuts, hasCursorAt), given)
        expect(await readAll(reader)).toEqual(expected)
        await expectReadsOn(reader)
      }),
      runs(150),
    )
  })

  it('of a reader have cursors that stand behind whole batches', async () => {
    const reader = batch(inChunks(ten, [3], false), { maxItems: 4 })
    expect(await cursorsOf(reader)).toEqual([
      [{ skip: 0 }, 0],
      [{ at: { at: 3, k: 1 }, skip: 1 }, 1],
      [{ at: { at: 3, k: 1 }, skip: 1 }, 1],
      [{ at: { at: 6, k: 2 }, skip: 2 }, 2],
      [{ at: { at: 6, k: 2 }, skip: 2 }, 2],
      // The last chunk filled no batch; the rest comes behind it.
      [{ at: { at: 6, k: 2 }, skip: 2 }, 2],
      [{ at: { at: 12, k: 4 }, skip: 0 }, 3],
    ])
  })

  it('are made of batches again, as any reader', async () => {
    expect(await expectReadsOn(batch(batch(inChunks(ten, [3], false), { maxItems: 2 }), { maxItems: 2 }))).toEqual([
      { items: [{ items: [0, 1] }, { items: [2, 3] }] },
      { items: [{ items: [4, 5] }, { items: [6, 7] }] },
      { items: [{ items: [8, 9] }] },
    ])
  })

  it('of a source that fails say where, once', async () => {
    const broken = itemReader<number, number>({
      name: 'numbers',
      retry: { maxAttempts: 1 },
      position: (at) => `number ${at}`,
      async *read() {
        yield { items: [1], cursor: 1 }
        throw new Error('broken')
      },
    })
    expect((await rejection(readAll(batch(broken, { maxItems: 3 })))).message).toBe(
      'numbers: reading failed, behind number 1: broken',
    )
  })

  it.each<[string, Record<string, unknown>, RegExp]>([
    ['nothing', {}, /say how large a batch is: maxItems, maxBytes or groupBy/],
    ['batches of none', { maxItems: 0 }, /maxItems must be a whole number from 1, got 0/],
    ['batches beyond a key', { maxBytes: 1e6 }, /maxBytes must be from 1 to 194560, got 1000000/],
    ['a group that is no function', { groupBy: 'a' }, /groupBy must be a function, got string/],
  ])('cannot be asked for with %s', (_, options, message) => {
    expect(() => batch([1], options)).toThrow(message)
  })

  it('are typed keys', () => {
    const one = asset('one', {
      scatter: () => batch(ten, { groupBy: (n) => n % 2 }),
      execute: ({ scatterKey }) => settleItems(scatterKey.items, (n) => n.toFixed(1)),
      gather: (results) => collect(itemResults(results)),
    })
    expectTypeOf(one.value).toExtend<{ item: number; status: 'ok' | 'failed' }[] | undefined>()
    expectTypeOf(batch(ten, { maxItems: 1 })).toEqualTypeOf<Batch<number>[]>()
    const grouped = batch(ten, { groupBy: String })
    expectTypeOf(grouped).toEqualTypeOf<GroupedBatch<number>[]>()
  })
})

describe('items that settle', () => {
  const half = (n: number): number => {
    if (n % 2 === 1) throw Object.assign(new Error(`${n} is odd`), { code: 'odd' })
    return n / 2
  }

  it('are sorted into those that went well and those that did not, in their order', async () => {
    expect(await settleItems([0, 1, 2, 3], half)).toEqual({
      ok: [
        { item: 0, value: 0 },
        { item: 2, value: 1 },
      ],
      failed: [
        { item: 1, error: { code: 'odd', message: '1 is odd' } },
        { item: 3, error: { code: 'odd', message: '3 is odd' } },
      ],
    })
    expect(await settleItems([], half)).toEqual({ ok: [], failed: [] })
  })

  it('run so many at a time', async () => {
    let running = 0
    let most = 0
    const { ok } = await settleItems(
      ten,
      async (n) => {
        running += 1
        most = Math.max(most, running)
        await Promise.resolve()
        running -= 1
        return n
      },
      { concurrency: 3 },
    )
    expect(most).toBe(3)
    expect(ok.map(({ item }) => item)).toEqual(ten)
  })

  it.each<[number | { count: number }, boolean]>([
    [0.5, true],
    [0.4, false],
    [{ count: 5 }, true],
    [{ count: 4 }, false],
    [0, false],
    [1, true],
  ])('fail the instance when more fail than %j allows', async (failureThreshold, isFine) => {
    const settling = settleItems(ten, half, { failureThreshold })
    if (isFine) expect((await settling).failed).toHaveLength(5)
    else
      expect(await rejection(settling)).toMatchObject({ code: 'items_failed', message: /more than failureThreshold/ })
  })

  it('begin no more once the instance has failed, or is aborted', async () => {
    const begun: number[] = []
    const run = (n: number) => {
      begun.push(n)
      return half(n)
    }
    await rejection(settleItems(ten, run, { failureThreshold: 0, concurrency: 2 }))
    expect(begun.length).toBeLessThan(5)
    const stop = new AbortController()
    const error = await rejection(
      settleItems(
        ten,
        (n) => {
          if (n === 3) stop.abort(new Error('enough'))
          return n
        },
        { signal: stop.signal },
      ),
    )
    expect(error.message).toBe('enough')
  })

  it.each<[Record<string, unknown>, RegExp]>([
    [{ concurrency: 0 }, /concurrency must be a whole number from 1/],
    [{ failureThreshold: 2 }, /failureThreshold must be a share from 0 to 1/],
    [{ failureThreshold: { count: -1 } }, /failureThreshold must be a share from 0 to 1/],
  ])('cannot be asked for with %j', async (options, message) => {
    expect((await rejection(settleItems(ten, half, options))).message).toMatch(message)
  })
})
