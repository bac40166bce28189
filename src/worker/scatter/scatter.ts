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
import { TerminalError } from '../../../streams/errors.ts'
import type { FactDraft } from '../../../streams/facts.ts'
import type { Snapshot } from '../../../streams/value.ts'
import { isItemReader } from '../../items/reader.ts'
import { factEntry } from '../../log/entries.ts'
import { DuplicateKeys } from './duplicate-keys.ts'
import {
  CHUNK_KEYS,
  itemsFact,
  keyChunkBytes,
  type ScatterTarget,
  sizedFact,
  startedFact,
  takeKey,
} from './key-chunks.ts'
import { storeStream } from './key-stream.ts'
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
