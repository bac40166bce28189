/**
 * Stores the keys of a scatter function as they come, key chunk by key chunk. What an earlier
 * attempt stored is compared and skipped.
 */
import { encodeMsgpack } from '../../../streams/codec.ts'
import { FlowStoneError, TerminalError } from '../../../streams/errors.ts'
import { hashBytes64 } from '../../../streams/ids.ts'
import type { Snapshot } from '../../../streams/value.ts'
import { factEntry } from '../../log/entries.ts'
import { unlessAborted } from '../../options/timer.ts'
import {
  CHUNK_KEYS,
  itemsFact,
  KEY_CHUNK_WAIT_MS,
  keyChunkBytes,
  keyChunkFact,
  type ScatterTarget,
  startedFact,
  storeTotal,
  type TakenKey,
  takeKey,
  wait,
} from './key-chunks.ts'

/** Returns how many keys there are, once all are stored. */
export async function storeStream(
  target: ScatterTarget,
  source: Iterable<unknown> | AsyncIterable<unknown>,
): Promise<number> {
  await target.log.appendOnce(factEntry(target.names, target.shard, startedFact(target)))
  const total = await new KeyStream(target, source).storeAll()
  await refuseRest(target, total)
  await storeTotal(target, total)
  return total
}

class KeyStream {
  readonly #target: ScatterTarget
  readonly #source: AsyncIterator<unknown> | Iterator<unknown>
  /** Keys that were read and not stored. */
  readonly #buffer: TakenKey[] = []
  #bufferBytes = 0
  /** When the oldest key of the buffer came. */
  #sinceMs = 0
  /** Resolves when it waits for too long. */
  #late: Promise<undefined> | undefined
  /** How many keys were stored, and read. */
  #stored = 0
  #read = 0
  #ended = false
  /** The next key, asked for already. */
  #pending: Promise<IteratorResult<unknown>> | undefined

  constructor(target: ScatterTarget, source: Iterable<unknown> | AsyncIterable<unknown>) {
    this.#target = target
    this.#source = Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]()
  }

  async storeAll(): Promise<number> {
    const mostBytes = keyChunkBytes(this.#target)
    const buffer = this.#buffer
    try {
      while (!this.#ended) {
        // Counted from the key chunk's first key: a source that gives one now and then must not
        // hold back what it gave before.
        await this.#readOne(buffer.length > 0 ? this.#late : undefined)
        const due = !this.#ended && buffer.length > 0 && performance.now() - this.#sinceMs >= KEY_CHUNK_WAIT_MS
        if (due || this.#bufferBytes >= mostBytes || buffer.length >= CHUNK_KEYS) await this.#store(buffer.length)
      }
      while (buffer.length > 0) await this.#store(Math.min(buffer.length, CHUNK_KEYS))
    } finally {
      if (!this.#ended) void Promise.resolve(this.#source.return?.()).catch(() => undefined)
    }
    return this.#stored
  }

  /** Reads one key into the buffer, unless none comes before `late`. */
  async #readOne(late?: Promise<undefined>): Promise<void> {
    const { signal } = this.#target
    signal.throwIfAborted()
    if (this.#pending === undefined) {
      const next = this.#source.next()
      if (!(next instanceof Promise)) {
        this.#take(next)
        return
      }
      this.#pending = next
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
      return
    }
    const taken = takeKey(this.#target, result.value, this.#read++)
    // One timer a key chunk, not one a key.
    if (this.#buffer.length === 0) this.#restart()
    this.#buffer.push(taken)
    this.#bufferBytes += taken.size
  }

  /** The time of the key chunk to come begins. */
  #restart(): void {
    this.#sinceMs = performance.now()
    this.#late = wait(KEY_CHUNK_WAIT_MS)
  }

  /** Stores the first `count` keys of the buffer, or finds them stored. */
  async #store(count: number): Promise<void> {
    const earlier = await storeKeyChunk(this.#target, this.#stored, this.#firstKeys(count))
    if (earlier) await this.#compare(earlier)
    const done = this.#buffer.splice(0, earlier?.count ?? count)
    for (const { size } of done) this.#bufferBytes -= size
    this.#restart()
    this.#stored += done.length
  }

  #firstKeys(count: number): Snapshot[] {
    return this.#buffer.slice(0, count).map(({ key }) => key)
  }

  /**
   * With what an earlier attempt stored, perhaps cut elsewhere: just as many keys as that has. They
   * are read first.
   */
  async #compare({ count, hash }: { readonly count: number; readonly hash: string }): Promise<void> {
    while (this.#buffer.length < count && !this.#ended) await this.#readOne()
    if (this.#buffer.length >= count && hashKeys(this.#firstKeys(count)) === hash) return
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
  keys: readonly Snapshot[],
): Promise<{ count: number; hash: string } | undefined> {
  const entry = factEntry(target.names, target.shard, itemsFact(target, offset, keys))
  if ((await target.log.appendOnce(entry)) === 'stored') return undefined
  const stored = await keyChunkFact(target, String(offset))
  if (stored) return stored.data
  throw new FlowStoneError(
    'missing_items',
    `keys at offset ${offset} of scatter ${target.run}.${target.asset} cannot be read back`,
  )
}

function hashKeys(keys: readonly Snapshot[]): string {
  return hashBytes64(encodeMsgpack(keys))
}
