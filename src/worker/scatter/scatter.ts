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
import { ListWriter } from '../../../streams/list.ts'
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
  const seen = target.duplicates === 'allow' ? undefined : new DuplicateKeys(target.duplicates)
  if (isList(source)) {
    // It came late. Any other source is left, and closed, before a key of it is stored.
    target.signal.throwIfAborted()
    const total = await storeList(target, source, seen)
    if (total !== undefined) return total
    // Where duplicates are an error, there are none: all of the list was looked at.
    return await storeStream(target, source, target.duplicates === 'drop' ? new DuplicateKeys('drop') : undefined)
  }
  if (isItemReader(source)) return await storeReader(target, source)
  if (!isIterable(source)) {
    throw new TerminalError(
      `scatter must return a list, an iterable, an async iterable or an item reader, got ${source === null ? 'null' : typeof source}`,
    )
  }
  return await storeStream(target, source, seen)
}

interface Draft {
  readonly keys: Uint8Array<ArrayBuffer>
  readonly count: number
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
async function storeList(
  target: ScatterTarget,
  list: readonly unknown[],
  seen: DuplicateKeys | undefined,
): Promise<number | undefined> {
  const keyChunks = chunksOf(target, list, seen)
  if (!keyChunks || keyChunks.length > 900) return undefined
  const facts: FactDraft[] = [startedFact(target)]
  let offset = 0
  for (const { keys, count } of keyChunks) {
    facts.push(itemsFact(target, offset, keys, count))
    offset += count
  }
  facts.push(sizedFact(target, offset))
  const entries = facts.map((fact) => factEntry(target.names, target.shard, fact))
  if ((await target.log.appendOnce(...entries)) === 'exists') return undefined
  remember(target, keyChunks)
  return offset
}

/** Undefined for a list that is too long. All of it is looked at for duplicates, in any case. */
function chunksOf(
  target: ScatterTarget,
  list: readonly unknown[],
  seen: DuplicateKeys | undefined,
): Draft[] | undefined {
  const mostBytes = keyChunkBytes(target)
  const keyChunks: Draft[] = []
  const keys = new ListWriter()
  const close = (count: number): void => {
    if (count > 0) keyChunks.push({ keys: keys.list(count).slice(), count })
    keys.drop(count)
  }
  try {
    let all = 0
    for (const [i, key] of list.entries()) {
      if (!takeKey(target, keys, key, i, seen)) continue
      if (keys.count > 1 && (keys.size > mostBytes || keys.count > CHUNK_KEYS)) close(keys.count - 1)
      all += keys.last.length
      if (all <= LIST_BATCH_BYTES) continue
      if (!seen) return undefined
      keyChunks.length = 0
    }
    seen?.check()
    if (all > LIST_BATCH_BYTES) return undefined
    close(keys.count)
    return keyChunks
  } finally {
    keys.end()
  }
}

/** The first of them are leased first; the cache holds a few. */
function remember({ values, run, asset }: ScatterTarget, keyChunks: readonly Draft[]): void {
  let offset = 0
  for (const { keys, count } of keyChunks.slice(0, REMEMBERED_KEY_CHUNKS)) {
    values.rememberKeyChunk(run, asset, offset, keys)
    offset += count
  }
}
