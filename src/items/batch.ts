/**
 * The item batcher: instances of several items. Cheap items then share what an instance costs (a
 * request, a transaction, a model that is loaded), and fail one by one all the same: see
 * `settleItems`.
 */
import { z } from 'zod'
import { InvalidError } from '../../streams/errors.ts'
import { measure } from '../../streams/value.ts'
import { refuseUnknown } from '../options/unknown.ts'
import { type Chunk, ItemReader, isItemReader } from './reader.ts'

/** Options of `batch`: when a batch is full, and which items belong together. */
export interface BatchOptions<T = unknown> {
  /** Most items of a batch. Default: as many as maxBytes holds. */
  readonly maxItems?: number
  /**
   * Most bytes of a batch's items, as they are stored. Default 128 KiB, at most 190 KiB. An item
   * larger than this is a batch of its own.
   */
  readonly maxBytes?: number
  /**
   * A batch holds items of one group only: those for which this gives the same text or number. Of a
   * list, all items of a group come together, wherever they stand. Iterables and readers are never
   * held in memory as a whole: there a batch ends where the group changes, so have them sorted by
   * group.
   */
  groupBy?(item: T): string | number
}

/** What an instance of batches has as its key. */
export interface Batch<T> {
  readonly items: T[]
}

/** The same with `groupBy`: all its items are of this one group. */
export interface GroupedBatch<T> extends Batch<T> {
  readonly group: string | number
}

type Grouping<T> = BatchOptions<T> & { groupBy(item: T): string | number }

export const DEFAULT_BYTES = 128 * 1024
export const BYTES_MAX = 190 * 1024

/**
 * Puts the items of a list, an iterable or an item reader into batches, for a scatter function to
 * return. The cursor of a reader then stands behind whole batches. `scatterOptions.duplicates`
 * looks at batches, not at items.
 *
 *     scatter: () => batch(readLines('/data/urls.txt'), { maxItems: 100 }),
 *     execute: ({ scatterKey, signal }) => settleItems(scatterKey.items, (url) => check(url, signal)),
 *
 * @throws InvalidError for options that are none.
 */
export function batch<T>(source: ItemReader<T>, options: Grouping<NoInfer<T>>): ItemReader<GroupedBatch<T>>
export function batch<T>(source: ItemReader<T>, options: BatchOptions<NoInfer<T>>): ItemReader<Batch<T>>
export function batch<T>(source: readonly T[], options: Grouping<NoInfer<T>>): GroupedBatch<T>[]
export function batch<T>(source: readonly T[], options: BatchOptions<NoInfer<T>>): Batch<T>[]
export function batch<T>(source: Iterable<T>, options: Grouping<NoInfer<T>>): Iterable<GroupedBatch<T>>
export function batch<T>(source: Iterable<T>, options: BatchOptions<NoInfer<T>>): Iterable<Batch<T>>
export function batch<T>(source: AsyncIterable<T>, options: Grouping<NoInfer<T>>): AsyncIterable<GroupedBatch<T>>
export function batch<T>(source: AsyncIterable<T>, options: BatchOptions<NoInfer<T>>): AsyncIterable<Batch<T>>
export function batch<T>(
  source: ItemReader<T> | Iterable<T> | AsyncIterable<T>,
  options: BatchOptions<T>,
): ItemReader<Batch<T>> | Iterable<Batch<T>> | AsyncIterable<Batch<T>> {
  checkOptions(options)
  if (isReaderOf(source)) return ofReader(source, options)
  if (Array.isArray(source)) return ofList(source, options)
  return Symbol.asyncIterator in source ? ofAsync(source, options) : ofIterable(source, options)
}

function isReaderOf<T>(source: ItemReader<T> | Iterable<T> | AsyncIterable<T>): source is ItemReader<T> {
  return isItemReader(source)
}

function checkOptions(options: BatchOptions): void {
  refuseUnknown('batch', options, ['maxItems', 'maxBytes', 'groupBy'])
  const { maxItems, maxBytes, groupBy } = options
  if (maxItems === undefined && maxBytes === undefined && groupBy === undefined)
    throw new InvalidError('batch: say how large a batch is: maxItems, maxBytes or groupBy')
  if (maxItems !== undefined && !(Number.isInteger(maxItems) && maxItems >= 1))
    throw new InvalidError(`batch: maxItems must be a whole number from 1, got ${maxItems}`)
  if (maxBytes !== undefined && !(maxBytes >= 1 && maxBytes <= BYTES_MAX))
    throw new InvalidError(`batch: maxBytes must be from 1 to ${BYTES_MAX}, got ${maxBytes}: a batch is one key`)
  if (groupBy !== undefined && typeof groupBy !== 'function')
    throw new InvalidError(`batch: groupBy must be a function, got ${typeof groupBy}`)
}

/** The batch that is being filled. */
class Filling<T> {
  readonly #options: BatchOptions<T>
  #items: T[] = []
  #bytes = 0
  #group: string | number | undefined

  constructor(options: BatchOptions<T>) {
    this.#options = options
  }

  get isEmpty(): boolean {
    return this.#items.length === 0
  }

  /**
   * Takes an item. `before`: the batch that ended because the item has no place in it; `full`: the
   * one that ended with it.
   */
  add(item: T): { before: Batch<T> | undefined; full: Batch<T> | undefined } {
    const { maxItems = Number.POSITIVE_INFINITY, maxBytes = DEFAULT_BYTES, groupBy } = this.#options
    const bytes = measure(item, 'item')
    const group = groupBy?.(item)
    const fits = this.isEmpty || (group === this.#group && this.#bytes + bytes <= maxBytes)
    const before = fits ? undefined : this.end()
    this.#items.push(item)
    this.#bytes += bytes
    this.#group = group
    return { before, full: this.#items.length >= maxItems || this.#bytes >= maxBytes ? this.end() : undefined }
  }

  /** What there is, as a batch. */
  end(): Batch<T> | undefined {
    if (this.isEmpty) return undefined
    const batch = { items: this.#items, ...(this.#group === undefined ? {} : { group: this.#group }) }
    this.#items = []
    this.#bytes = 0
    this.#group = undefined
    return batch
  }
}

function ofList<T>(list: readonly T[], options: BatchOptions<NoInfer<T>>): Batch<T>[] {
  const { groupBy } = options
  if (!groupBy) return [...ofIterable(list, options)]
  const groups = new Map<string | number, T[]>()
  for (const item of list) {
    const group = groupBy(item)
    const known = groups.get(group)
    if (known) known.push(item)
    else groups.set(group, [item])
  }
  return [...groups.values()].flatMap((items) => [...ofIterable(items, options)])
}

function* ofIterable<T>(source: Iterable<T>, options: BatchOptions<T>): Generator<Batch<T>> {
  const filling = new Filling(options)
  for (const item of source) {
    const { before, full } = filling.add(item)
    if (before) yield before
    if (full) yield full
  }
  const rest = filling.end()
  if (rest) yield rest
}

async function* ofAsync<T>(source: AsyncIterable<T>, options: BatchOptions<T>): AsyncGenerator<Batch<T>> {
  const filling = new Filling(options)
  for await (const item of source) {
    const { before, full } = filling.add(item)
    if (before) yield before
    if (full) yield full
  }
  const rest = filling.end()
  if (rest) yield rest
}

/** Where the source goes on: at its own cursor, after so many items from there. */
const places = z.object({ at: z.unknown().optional(), skip: z.int().min(0) })
type Place = z.infer<typeof places>

function ofReader<T>(source: ItemReader<T>, options: BatchOptions<NoInfer<T>>): ItemReader<Batch<T>> {
  async function* read(given: unknown, signal: AbortSignal): AsyncGenerator<Chunk<Batch<T>>> {
    const filling = new Filling(options)
    /**
     * Where the source goes on behind the batch that ended last: what waits in `filling` comes
     * again then.
     */
    let behind: Place = given === undefined ? { skip: 0 } : places.parse(given)
    let from = behind
    for await (const chunk of source.read(from.at, signal)) {
      const { at, skip } = from
      const placeBehind = (i: number): Place =>
        chunk.cursorAt ? { at: chunk.cursorAt(i), skip: 0 } : { ...(at === undefined ? {} : { at }), skip: i + 1 }
      const batches: Batch<T>[] = []
      const ends: Place[] = []
      for (const [i, item] of chunk.items.entries()) {
        if (i < skip) continue
        const { before, full } = filling.add(item)
        if (before) {
          batches.push(before)
          ends.push(i > skip ? placeBehind(i - 1) : from)
        }
        if (full) {
          batches.push(full)
          ends.push(placeBehind(i))
        }
      }
      from = { at: chunk.cursor, skip: Math.max(0, skip - chunk.items.length) }
      const end = filling.isEmpty ? from : (ends.at(-1) ?? behind)
      behind = end
      yield { items: batches, cursor: end, cursorAt: (i) => ends[i] ?? end }
    }
    const rest = filling.end()
    if (rest) yield { items: [rest], cursor: from }
  }
  // The source has its own retries.
  const once = { maxAttempts: 1, minMs: 0, maxMs: 0 }
  const position = (cursor: unknown): string => source.describe(places.safeParse(cursor).data?.at)
  return new ItemReader(`batches of ${source.name}`, { read, position }, once)
}
