/**
 * Item readers: sources of keys that can be read on from a cursor. A scatter stores the cursor with
 * every key chunk. When a worker is killed, an engine restarts or an attempt is repeated, the next
 * one continues behind the last key chunk. It never reads from the start again.
 */

import { decodeMsgpack } from '../../streams/codec.ts'
import { CancelledError, FlowStoneError, InvalidError, TerminalError } from '../../streams/errors.ts'
import { reasonOf } from '../../streams/thrown.ts'
import { encodeValue } from '../../streams/value.ts'
import { type Duration, parseRange } from '../options/duration.ts'
import { sleep } from '../options/timer.ts'
import { refuseUnknown } from '../options/unknown.ts'
import { emit } from '../telemetry.ts'

/** What a reader gives at a time: some items, and where to go on behind them. May be empty. */
export interface Chunk<T, C = unknown> {
  readonly items: readonly T[]
  /** Where to go on behind the last item. Any value that can be stored, at most 16 KiB. */
  readonly cursor: C
  /**
   * Where to go on behind `items[index]`. Without it, a chunk that was stored in part is read again
   * from its beginning, and the items stored already are skipped. The same cursor must then give
   * the same items.
   */
  cursorAt?(index: number): C
}

/**
 * What `itemReader` makes a reader of: its name, and how it reads on. `T` is an item, `C` a cursor.
 */
export interface ItemReaderOptions<T, C> {
  /**
   * Says what is read, as in `orders of 2026`. Stands in errors and on the log: a scatter is not
   * gone on with by a reader of another name.
   */
  readonly name: string
  /**
   * Reads on from `cursor`; undefined: from the beginning. Called again after an error, with the
   * cursor of the last chunk that came through. `signal` is aborted when nobody wants more.
   */
  read(cursor: C | undefined, signal: AbortSignal): AsyncIterable<Chunk<T, C>>
  /** A cursor in words, for errors. Default: its JSON. */
  position?(cursor: C): string
  readonly retry?: ReaderRetry
}

/** How a reader goes on when its source fails. */
export interface ReaderRetry {
  /**
   * How often the source may fail in a row, without a chunk between. Default 5. Then the attempt
   * has failed, and the asset's own `retry` decides.
   */
  readonly maxAttempts?: number
  /** First wait and longest wait, tripled each time. Default `'200ms..10s'`. */
  readonly backoff?: Duration | `${string}..${string}`
}

export const READER_RETRY = { maxAttempts: 5, backoff: '200ms..10s' } as const
export const CURSOR_MAX_BYTES = 16 * 1024
const BRAND = Symbol.for('flowstone.itemReader')

interface Source<T> {
  read(cursor: unknown, signal: AbortSignal): AsyncIterable<Chunk<T>>
  position(cursor: unknown): string
}

/**
 * Made by `itemReader` and the `read…` functions. For a scatter to return; also an async iterable
 * of its items, read from the beginning.
 */
export class ItemReader<T> implements AsyncIterable<T> {
  readonly [BRAND] = true
  readonly name: string
  readonly #source: Source<T>
  readonly #retry: { readonly maxAttempts: number; readonly minMs: number; readonly maxMs: number }

  /** Use `itemReader`. */
  constructor(name: string, source: Source<T>, retry: { maxAttempts: number; minMs: number; maxMs: number }) {
    this.name = name
    this.#source = source
    this.#retry = retry
  }

  /**
   * Chunk by chunk, from a cursor that it gave before. A source that fails is asked again, with
   * backoff, from behind the last chunk.
   * @throws FlowStoneError `source_failed` with the position, when it fails too often in a row.
   * What the source says is terminal, or invalid, is thrown at once.
   */
  async *read(cursor: unknown, signal: AbortSignal): AsyncGenerator<Chunk<T>> {
    let at = cursor
    let failures = 0
    for (;;) {
      try {
        for await (const chunk of this.#source.read(at, signal)) {
          const next = takeCursor(this.name, chunk.cursor)
          // A chunk that leads nowhere is no success, or a source that fails behind it would be
          // asked for ever.
          if (chunk.items.length > 0 || JSON.stringify(next) !== JSON.stringify(at)) failures = 0
          at = next
          yield { ...chunk, cursor: next }
          signal.throwIfAborted()
        }
        return
      } catch (error) {
        signal.throwIfAborted()
        if (isFinal(error)) throw error
        failures += 1
        const { maxAttempts, minMs, maxMs } = this.#retry
        if (failures >= maxAttempts) throw this.#failed(error, at, failures)
        const waitMs = Math.min(maxMs, minMs * 3 ** (failures - 1))
        emit('flowstone:items.retry', { reader: this.name, position: this.describe(at), failures, waitMs, error })
        await sleep(waitMs, signal)
      }
    }
  }

  /** The items, changed one by one. Cursors stay what they are. */
  map<U>(change: (item: T) => U): ItemReader<U> {
    return this.#chunks((chunk) => ({ ...chunk, items: chunk.items.map((item) => change(item)) }))
  }

  /** Without the items that `keep` says no to. */
  filter(keep: (item: T) => boolean): ItemReader<T> {
    return this.#chunks((chunk) => {
      const items: T[] = []
      const places: number[] = []
      for (const [i, item] of chunk.items.entries()) {
        if (!keep(item)) continue
        items.push(item)
        places.push(i)
      }
      const { cursor } = chunk
      if (!chunk.cursorAt) return { items, cursor }
      return { items, cursor, cursorAt: (index) => chunk.cursorAt?.(places[index] ?? 0) }
    })
  }

  #chunks<U>(change: (chunk: Chunk<T>) => Chunk<U>): ItemReader<U> {
    const source = this.#source
    return new ItemReader<U>(
      this.name,
      {
        async *read(cursor, signal) {
          for await (const chunk of source.read(cursor, signal)) yield change(chunk)
        },
        position: (cursor) => source.position(cursor),
      },
      this.#retry,
    )
  }

  /** Where a cursor stands, in words. */
  describe(cursor: unknown): string {
    return cursor === undefined ? 'the beginning' : this.#source.position(cursor)
  }

  /** All items, from the first one on. */
  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    const ended = new AbortController()
    try {
      for await (const { items } of this.read(undefined, ended.signal)) yield* items
    } finally {
      ended.abort()
    }
  }

  #failed(error: unknown, at: unknown, failures: number): FlowStoneError {
    const where = at === undefined ? 'at the beginning' : `behind ${this.describe(at)}`
    const times = failures === 1 ? '' : ` ${failures} times in a row`
    return new FlowStoneError('source_failed', `${this.name}: reading failed${times}, ${where}: ${reasonOf(error)}`, {
      cause: error,
    })
  }
}

/**
 * A reader of your own. Throw TerminalError from `read` where trying again cannot help.
 * @throws InvalidError for options that are none.
 */
export function itemReader<T, C>(options: ItemReaderOptions<T, C>): ItemReader<T> {
  refuseUnknown('itemReader', options, ['name', 'read', 'position', 'retry'])
  const { name, retry } = options
  if (typeof name !== 'string' || name === '' || name.length > 1024)
    throw new InvalidError('itemReader: name must be a text of 1 to 1,024 characters that says what is read')
  if (typeof options.read !== 'function') throw new InvalidError(`itemReader ${name}: read must be a function`)
  if (retry !== undefined) refuseUnknown(`itemReader ${name}: retry`, retry, ['maxAttempts', 'backoff'])
  const maxAttempts = retry?.maxAttempts ?? READER_RETRY.maxAttempts
  if (!Number.isInteger(maxAttempts) || maxAttempts < 1)
    throw new InvalidError(`itemReader ${name}: retry.maxAttempts must be a whole number from 1, got ${maxAttempts}`)
  const { minMs, maxMs } = parseRange(`itemReader ${name}: retry.backoff`, retry?.backoff ?? READER_RETRY.backoff)
  // A cursor comes back from the log as this reader gave it, or one of its name did.
  const erased: ItemReaderOptions<T, unknown> = options
  const source: Source<T> = {
    read: (cursor, signal) => erased.read(cursor, signal),
    position: (cursor) => erased.position?.(cursor) ?? JSON.stringify(cursor),
  }
  return new ItemReader<T>(name, source, { maxAttempts, minMs, maxMs })
}

/** Also one that another copy of this package made. */
export function isItemReader(value: unknown): value is ItemReader<unknown> {
  return typeof value === 'object' && value !== null && BRAND in value
}

/** Nothing to try again for, or tried often enough by the reader that this one reads from. */
function isFinal(error: unknown): boolean {
  if (error instanceof TerminalError || error instanceof InvalidError || error instanceof CancelledError) return true
  return error instanceof FlowStoneError && error.code === 'source_failed'
}

/** The cursor as it is now: a source may go on with the same object, changed. */
function takeCursor(name: string, cursor: unknown): unknown {
  if (cursor === undefined) throw new InvalidError(`${name}: a chunk has no cursor; say where to go on behind it`)
  const bytes = encodeValue(cursor, `${name}: cursor`)
  if (bytes.length > CURSOR_MAX_BYTES)
    throw new InvalidError(`${name}: a cursor takes ${bytes.length} bytes; it is at most ${CURSOR_MAX_BYTES}`)
  return decodeMsgpack(bytes)
}
