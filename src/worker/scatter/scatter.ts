/**
 * Runs a scatter function and stores its keys: scatter.started, key chunks of keys, scatter.sized.
 *
 * A list that fits goes as one atomic batch. Anything longer goes key chunk by key chunk, and
 * instances start while later keys still come.
 *
 * When an earlier attempt stored key chunks already (its worker died), the keys must be the same
 * again. They are compared by hash, key chunk by key chunk, and skipped. Where they differ, the
 * scatter fails rather than mix two lists. An item reader needs none of that: it continues from the
 * cursor of the last key chunk (`scatter-reader.ts`).
 */
import { encodeMsgpack } from '../../../streams/codec.ts'
import { FlowStoneError, TerminalError } from '../../../streams/errors.ts'
import type { FactDraft } from '../../../streams/facts.ts'
import { hashBytes64 } from '../../../streams/ids.ts'
import type { Snapshot } from '../../../streams/value.ts'
import { isItemReader } from '../../items/reader.ts'
import { factEntry } from '../../log/entries.ts'
import { unlessAborted } from '../../options/timer.ts'
import { DuplicateKeys } from './duplicate-keys.ts'
import {
  CHUNK_KEYS,
  itemsFact,
  KEY_CHUNK_WAIT_MS,
  keyChunkBytes,
  keyChunkFact,
  type ScatterTarget,
  sizedFact,
  startedFact,
  storeTotal,
  type TakenKey,
  takeKey,
  wait,
} from './key-chunks.ts'
import { storeReader } from './scatter-reader.ts'

const REMEMBERED_KEY_CHUNKS = 8
const LIST_BATCH_BYTES = 6 * 1024 * 1024

export async function storeKeys(target: ScatterTarget, source: unknown): Promise<number> {
  if (isList(source)) {
    const list = target.duplicates === 'allow' ? source : [...distinct(source, target.duplicates)]
    const total = await storeList(target, list)
    return total ?? (await storeStream(target, list))
  }
  if (isItemReader(source)) return await storeReader(target, source)
  if (!isIterable(source)) {
    throw new TerminalError(
      `scatter must return a list, an iterable, an async iterable or an item reader, got ${source === null ? 'null' : typeof source}`,
    )
  }
  if (target.duplicates === 'allow') return await storeStream(target, source)
  const seen = new DuplicateKeys(target.duplicates)
  return await storeStream(
    target,
    Symbol.asyncIterator in source ? distinctAsync(source, seen) : distinct(source, target.duplicates, seen),
  )
}

function* distinct(
  source: Iterable<unknown>,
  mode: 'error' | 'drop',
  seen = new DuplicateKeys(mode),
): Generator<unknown> {
  for (const key of source) if (seen.isNew(key)) yield key
  seen.check()
}

/** No generator: one that waits for a key that never comes could not be closed. */
function distinctAsync(source: AsyncIterable<unknown>, seen: DuplicateKeys): AsyncIterable<unknown> {
  return {
    [Symbol.asyncIterator]: () => {
      const keys = source[Symbol.asyncIterator]()
      return {
        next: async () => {
          for (;;) {
            const result = await keys.next()
            if (result.done) seen.check()
            else if (!seen.isNew(result.value)) continue
            return result
          }
        },
        return: async () => (await keys.return?.()) ?? { done: true, value: undefined },
      }
    },
  }
}

interface Draft {
  readonly keys: Snapshot[]
  readonly bytes: number
}

function isList(source: unknown): source is readonly unknown[] {
  return Array.isArray(source)
}

function isIterable(source: unknown): source is Iterable<unknown> | AsyncIterable<unknown> {
  return typeof source === 'object' && source !== null && (Symbol.iterator in source || Symbol.asyncIterator in source)
}

/**
 * All of a list in one batch: all of it or none. Undefined when it is too long for that, or when
 * something is stored already.
 */
async function storeList(target: ScatterTarget, list: readonly unknown[]): Promise<number | undefined> {
  const keyChunks: Draft[] = []
  let keys: Snapshot[] = []
  let bytes = 0
  let all = 0
  const mostBytes = keyChunkBytes(target)
  for (const [i, given] of list.entries()) {
    const { key, size } = takeKey(target, given, i)
    if (keys.length > 0 && (bytes + size > mostBytes || keys.length >= CHUNK_KEYS)) {
      keyChunks.push({ keys, bytes })
      keys = []
      bytes = 0
    }
    keys.push(key)
    bytes += size
    all += size
    if (all > LIST_BATCH_BYTES) return undefined
  }
  if (keys.length > 0) keyChunks.push({ keys, bytes })
  if (keyChunks.length > 900) return undefined
  const facts: FactDraft[] = [startedFact(target)]
  let offset = 0
  for (const keyChunk of keyChunks) {
    facts.push(itemsFact(target, offset, keyChunk.keys))
    offset += keyChunk.keys.length
  }
  facts.push(sizedFact(target, list.length))
  const entries = facts.map((fact) => factEntry(target.names, target.shard, fact))
  if ((await target.log.appendOnce(...entries)) === 'exists') return undefined
  remember(target, keyChunks)
  return list.length
}

/** The first of them are leased first; the cache holds a few. */
function remember({ values, run, asset }: ScatterTarget, keyChunks: readonly Draft[]): void {
  let offset = 0
  for (const { keys } of keyChunks.slice(0, REMEMBERED_KEY_CHUNKS)) {
    values.rememberKeyChunk(run, asset, offset, keys)
    offset += keys.length
  }
}

async function storeStream(target: ScatterTarget, source: Iterable<unknown> | AsyncIterable<unknown>): Promise<number> {
  await target.log.appendOnce(factEntry(target.names, target.shard, startedFact(target)))
  const iterator: AsyncIterator<unknown> | Iterator<unknown> =
    Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]()
  const buffer: TakenKey[] = []
  let bufferBytes = 0
  /** When the oldest key of the buffer came. */
  let sinceMs = 0
  let late: Promise<undefined> | undefined
  let offset = 0
  let read = 0
  let ended = false
  let pending: Promise<IteratorResult<unknown>> | undefined

  /** Reads one key into the buffer; false if none came before `late`, or at the end. */
  const readOne = async (late?: Promise<undefined>): Promise<boolean> => {
    target.signal.throwIfAborted()
    if (pending === undefined) {
      const next = iterator.next()
      if (!(next instanceof Promise)) return take(next)
      pending = next
    }
    // One that never comes must not keep its source open for ever. (Where keys wait to be stored,
    // the next look is near.)
    const result =
      late === undefined ? await unlessAborted(pending, target.signal) : await Promise.race([pending, late])
    if (result === undefined) return false
    pending = undefined
    return take(result)
  }
  const take = (result: IteratorResult<unknown>): boolean => {
    if (result.done) {
      ended = true
      return false
    }
    const taken = takeKey(target, result.value, read++)
    if (buffer.length === 0) {
      sinceMs = performance.now()
      // One timer a key chunk, not one a key.
      late = wait(KEY_CHUNK_WAIT_MS)
    }
    buffer.push(taken)
    bufferBytes += taken.size
    return true
  }
  /** Stores the first `count` keys of the buffer, or finds them stored. */
  const store = async (count: number): Promise<void> => {
    const stored = await storeKeyChunk(
      target,
      offset,
      buffer.slice(0, count).map(({ key }) => key),
    )
    if (stored !== undefined) {
      // Stored by an earlier attempt, perhaps cut elsewhere: compare just as many keys as it has.
      while (buffer.length < stored.count && !ended) await readOne()
      const same =
        buffer.length >= stored.count && hashKeys(buffer.slice(0, stored.count).map(({ key }) => key)) === stored.hash
      if (!same) {
        const range = `${offset} to ${offset + stored.count - 1}`
        throw new TerminalError(
          `the scatter function gave other keys than its earlier attempt at positions ${range}; it must give the same keys each time it is called`,
        )
      }
    }
    const done = buffer.splice(0, stored?.count ?? count)
    for (const { size } of done) bufferBytes -= size
    sinceMs = performance.now()
    late = wait(KEY_CHUNK_WAIT_MS)
    offset += done.length
  }
  const mostBytes = keyChunkBytes(target)
  try {
    while (!ended) {
      // Counted from the key chunk's first key: a source that gives one now and then must not hold
      // back what it gave before.
      await readOne(buffer.length > 0 ? late : undefined)
      const due = !ended && buffer.length > 0 && performance.now() - sinceMs >= KEY_CHUNK_WAIT_MS
      if (due || bufferBytes >= mostBytes || buffer.length >= CHUNK_KEYS) await store(buffer.length)
    }
    while (buffer.length > 0) await store(Math.min(buffer.length, CHUNK_KEYS))
  } finally {
    if (!ended) void Promise.resolve(iterator.return?.()).catch(() => undefined)
  }
  await refuseRest(target, offset)
  await storeTotal(target, offset)
  return offset
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
