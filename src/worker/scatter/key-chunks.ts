/**
 * What a scatter's keys look like on the log: key chunks of bounded size, each a fact, and the
 * total at their end.
 */
import { squeeze } from '../../../streams/compress.ts'
import { FlowStoneError, InvalidError, TerminalError } from '../../../streams/errors.ts'
import type { FactDraft, FactOf } from '../../../streams/facts.ts'
import { factPath } from '../../../streams/facts.ts'
import { type AssetName, hashBytes64, type RunId } from '../../../streams/ids.ts'
import { checkKey } from '../../../streams/keys.ts'
import type { ListWriter } from '../../../streams/list.ts'
import type { ItemsCursor } from '../../../streams/scatter-schemas.ts'
import type { Names } from '../../../streams/subjects.ts'
import { measure } from '../../../streams/value.ts'
import type { Appender } from '../../log/appender.ts'
import type { Connection } from '../../log/connection.ts'
import { factEntry } from '../../log/entries.ts'
import { leaderGet } from '../../log/nats.ts'
import { factOf } from '../../log/read-fact.ts'
import type { Values } from '../attempt/values.ts'
import type { DuplicateKeys } from './duplicate-keys.ts'

/**
 * A key chunk is closed at this many bytes of keys, or at this many keys. It is also closed when a
 * slow source has not filled it within this time of its first key.
 */
export const KEY_CHUNK_BYTES = 200 * 1024
export const CHUNK_KEYS = 20_000
export const KEY_CHUNK_WAIT_MS = 100

export interface ScatterTarget {
  readonly connection: Connection
  readonly names: Names
  readonly log: Appender
  readonly shard: number
  readonly run: RunId
  readonly asset: AssetName
  readonly attempt: number
  readonly worker: string
  readonly signal: AbortSignal
  readonly duplicates: 'error' | 'drop' | 'allow'
  readonly values: Values
}

/** The key chunk at `offset`, or with `*` the last one there is. */
export async function keyChunkFact(
  target: ScatterTarget,
  offset: string,
): Promise<FactOf<'scatter.items'> | undefined> {
  const { connection, names, shard, run, asset } = target
  const subject = names.fact(shard, factPath('scatter.items', { run, asset, offset }))
  const message = await connection.read((nc) => leaderGet(nc, names.log(shard), { last_by_subj: subject }))
  if (!message) return undefined
  const fact = factOf(names, shard, message)
  if (fact.name === 'scatter.items') return fact
  throw new FlowStoneError('missing_items', `keys at offset ${offset} of scatter ${run}.${asset} cannot be read back`)
}

/**
 * At so many bytes of keys; also the most that one key may take. Less where the server's messages
 * are small.
 */
export function keyChunkBytes({ connection }: ScatterTarget): number {
  return connection.share(KEY_CHUNK_BYTES)
}

export async function storeTotal(target: ScatterTarget, total: number): Promise<void> {
  const { names, shard, run, asset } = target
  if ((await target.log.appendOnce(factEntry(names, shard, sizedFact(target, total)))) === 'stored') return
  const subject = names.fact(shard, factPath('scatter.sized', { run, asset }))
  const message = await target.connection.read((nc) => leaderGet(nc, names.log(shard), { last_by_subj: subject }))
  const fact = message && factOf(names, shard, message)
  if (fact?.name === 'scatter.sized' && fact.data.total !== total) {
    throw new TerminalError(
      `the scatter function gave ${total} keys, its earlier attempt ${fact.data.total}; it must give the same keys each time it is called`,
    )
  }
}

/**
 * Adds the key to those that are to be stored, as it is now: a scatter function may give the same
 * object again, changed. False: it was given before, and is not added.
 */
export function takeKey(
  target: ScatterTarget,
  keys: ListWriter,
  key: unknown,
  position: number,
  seen: DuplicateKeys | undefined,
): boolean {
  const size = keys.add(key, 'key', position)
  if (seen) {
    if (!seen.isNewIn(keys, key)) {
      keys.undo()
      return false
    }
    // Where duplicates are looked for, the canonical form says so.
  } else if (!keys.isCanonical) checkKey(key, `key[${position}]`)
  const most = keyChunkBytes(target)
  // Text is counted by its UTF-16 units: as much of it may be in a key in any script.
  const counted = size > most ? measure(key) : size
  if (counted > most)
    throw new InvalidError(
      `key[${position}] takes ${counted} bytes; a key is at most ${most}: put large data in a value, and its name in the key`,
    )
  return true
}

export function startedFact({ run, asset, attempt, worker }: ScatterTarget): FactDraft {
  return { name: 'scatter.started', ids: { run, asset }, data: { attempt, worker } }
}

export function itemsFact(
  { run, asset }: ScatterTarget,
  offset: number,
  keys: Uint8Array<ArrayBuffer>,
  count: number,
  cursor?: ItemsCursor,
): FactDraft {
  const { bytes, encoding } = squeeze(keys, count)
  return {
    name: 'scatter.items',
    ids: { run, asset, offset: String(offset) },
    data: {
      count,
      keys: bytes,
      ...(encoding ? { encoding } : {}),
      hash: hashBytes64(keys),
      ...(cursor ? { cursor } : {}),
    },
  }
}

export function sizedFact({ run, asset }: ScatterTarget, total: number): FactDraft {
  return { name: 'scatter.sized', ids: { run, asset }, data: { total } }
}

export function wait(ms: number): Promise<undefined> {
  return new Promise((resolve) => setTimeout(resolve, ms, undefined))
}
