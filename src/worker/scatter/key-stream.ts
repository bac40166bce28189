/**
 * Stores the keys of a scatter function as they come, key chunk by key chunk. What an earlier
 * attempt stored is compared and skipped.
 */
import { FlowStoneError, TerminalError } from '../../../streams/errors.ts'
import { hashBytes64 } from '../../../streams/ids.ts'
import { ListWriter } from '../../../streams/list.ts'
import { factEntry } from '../../log/entries.ts'
import { unlessAborted } from '../../options/timer.ts'
import { isThenable } from '../attempt/run-code.ts'
import type { DuplicateKeys } from './duplicate-keys.ts'
import {
  CHUNK_KEYS,
  itemsFact,
  KEY_CHUNK_WAIT_MS,
  keyChunkBytes,
  keyChunkFact,
  type ScatterTarget,
  startedFact,
  storeTotal,
  takeKey,
  wait,
} from './key-chunks.ts'
import { TAKE_MS, Turns } from './turns.ts'

/**
 * Returns how many keys there are, once all are stored. `seen`: keys that were given before are
 * looked for.
 */
export async function storeStream(
  target: ScatterTarget,
  source: Iterable<unknown> | AsyncIterable<unknown>,
  seen?: DuplicateKeys,
): Promise<number> {
  await target.log.appendOnce(factEntry(target.names, target.shard, startedFact(target)))
  const total = await new KeyStream(target, source, seen).storeAll()
  await refuseRest(target, total)
  await storeTotal(target, total)
  return total
}

class KeyStream {
  readonly #target: ScatterTarget
  readonly #source: AsyncIterator<unknown> | Iterator<unknown>
  readonly #seen: DuplicateKeys | undefined
  readonly #mostBytes: number
  /** Keys that were read and not stored. */
  readonly #buffer = new ListWriter()
  /** When the oldest key of the buffer came. */
  #sinceMs = 0
  /** Resolves when it waits for too long. */
  #late: Promise<undefined> | undefined
  /** How many keys were stored, and read. */
  #stored = 0
  #read = 0
  #ended = false
  readonly #turns = new Turns()
  /** The next key, asked for already. */
  #pending: Promise<IteratorResult<unknown>> | undefined

  constructor(
    target: ScatterTarget,
    source: Iterable<unknown> | AsyncIterable<unknown>,
    seen: DuplicateKeys | undefined,
  ) {
    this.#target = target
    this.#seen = seen
    this.#mostBytes = keyChunkBytes(target)
    this.#source = Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]()
  }

  async storeAll(): Promise<number> {
    const buffer = this.#buffer
    try {
      while (!this.#ended) {
        this.#readSome()
        // Counted from the key chunk's first key: a source that gives one now and then must not
        // hold back what it gave before.
        if (!this.#ended && !this.#isFull) await this.#readOne(buffer.count > 0 ? this.#late : undefined)
        const due = !this.#ended && buffer.count > 0 && performance.now() - this.#sinceMs >= KEY_CHUNK_WAIT_MS
        if (due || this.#isFull) await this.#store(buffer.count)
        await this.#turns.give()
      }
      while (buffer.count > 0) await this.#store(Math.min(buffer.count, CHUNK_KEYS))
    } finally {
      buffer.end()
      if (!this.#ended) void this.#close()
    }
    return this.#stored
  }

  /** Why it is not read to its end is said, and not what its end throws. */
  async #close(): Promise<void> {
    try {
      await this.#source.return?.()
    } catch {
      // Nobody waits for it.
    }
  }

  get #isFull(): boolean {
    return this.#buffer.size >= this.#mostBytes || this.#buffer.count >= CHUNK_KEYS
  }

  /** Of a source that gives its keys at once, without a promise for each. */
  #readSome(): void {
    this.#target.signal.throwIfAborted()
    const untilMs = performance.now() + TAKE_MS
    for (let i = 1; this.#pending === undefined && !this.#ended && !this.#isFull; i++) {
      const next = this.#source.next()
      if (isThenable(next)) this.#pending = Promise.resolve(next)
      else this.#take(next)
      if (i % 8 === 0 && performance.now() > untilMs) return
    }
  }

  /** Reads one key into the buffer, unless none comes before `late`. */
  async #readOne(late?: Promise<undefined>): Promise<void> {
    const { signal } = this.#target
    signal.throwIfAborted()
    if (this.#pending === undefined) {
      const next = this.#source.next()
      if (!isThenable(next)) {
        this.#take(next)
        return
      }
      this.#pending = Promise.resolve(next)
    }
    // One that never comes must not keep its source open for ever. (Where keys wait to be stored,
    // the next look is near.)
    const pending = this.#pending
    const result = await (late === undefined ? unlessAborted(pending, signal) : Promise.race([pending, late]))
    if (result === undefined) return
    this.#pending = undefined
    this.#take(result)
  }

  #take(result: IteratorResult<unknown>): void {
    if (result.done) {
      this.#ended = true
      this.#seen?.check()
      return
    }
    const isFirst = this.#buffer.count === 0
    if (!takeKey(this.#target, this.#buffer, result.value, this.#read++, this.#seen)) return
    // One timer a key chunk, not one a key.
    if (isFirst) this.#restart()
  }

  /** The time of the key chunk to come begins. */
  #restart(): void {
    this.#sinceMs = performance.now()
    this.#late = wait(KEY_CHUNK_WAIT_MS)
  }

  /** Stores the first `count` keys of the buffer, or finds them stored. */
  async #store(count: number): Promise<void> {
    const earlier = await storeKeyChunk(this.#target, this.#stored, this.#buffer.list(count), count)
    if (earlier) await this.#compare(earlier)
    const done = earlier?.count ?? count
    this.#buffer.drop(done)
    this.#restart()
    this.#stored += done
  }

  /**
   * With what an earlier attempt stored, perhaps cut elsewhere: just as many keys as that has. They
   * are read first.
   */
  async #compare({ count, hash }: { readonly count: number; readonly hash: string }): Promise<void> {
    while (this.#buffer.count < count && !this.#ended) {
      await this.#readOne()
      await this.#turns.give()
    }
    if (this.#buffer.count >= count && hashBytes64(this.#buffer.list(count)) === hash) return
    const range = `${this.#stored} to ${this.#stored + count - 1}`
    throw new TerminalError(
      `the scatter function gave other keys than its earlier attempt at positions ${range}; it must give the same keys each time it is called`,
    )
  }
}

/**
 * Throws when an earlier attempt stored keys behind the last one of this: what runs of them would
 * be counted, and belong to no list.
 */
async function refuseRest(target: ScatterTarget, offset: number): Promise<void> {
  if (!(await keyChunkFact(target, String(offset)))) return
  throw new TerminalError(
    `the scatter function gave ${offset} keys, its earlier attempt more; it must give the same keys each time it is called`,
  )
}

async function storeKeyChunk(
  target: ScatterTarget,
  offset: number,
  keys: Uint8Array<ArrayBuffer>,
  count: number,
): Promise<{ count: number; hash: string } | undefined> {
  const entry = factEntry(target.names, target.shard, itemsFact(target, offset, keys, count))
  if ((await target.log.appendOnce(entry)) === 'stored') return undefined
  const stored = await keyChunkFact(target, String(offset))
  if (stored) return stored.data
  throw new FlowStoneError(
    'missing_items',
    `keys at offset ${offset} of scatter ${target.run}.${target.asset} cannot be read back`,
  )
}
