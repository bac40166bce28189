/**
 * The changes of a shard that are stored, behind a snapshot: see streams/changes.ts. A list of
 * another log counts for nothing, and neither do changes of facts that the log has lost.
 */
import { type ChangesList, type ChangesPlace, changesKey, decodeChangesList } from '../../../streams/changes.ts'
import { readDocIfAny } from '../documents.ts'
import type { HistorySource } from '../history.ts'
import { leaderGet, streamBounds } from '../nats.ts'
import { isSameStoredMs } from '../stored-ms.ts'
import { isWithin, type Limit } from './limit.ts'

export async function changesList(
  { connection, names }: HistorySource,
  shard: number,
): Promise<ChangesList | undefined> {
  const bytes = await readDocIfAny(connection, names, names.historyBucket(shard), changesKey.list)
  return bytes instanceof Uint8Array ? decodeChangesList(bytes) : undefined
}

/** Whether the log still has the facts that the changes are of. They may have left it as sealed. */
export async function isOfLog(
  { connection, names }: HistorySource,
  shard: number,
  { seq, mark }: ChangesPlace,
  last: number,
): Promise<boolean> {
  if (seq > last) return false
  const found = await connection.read((nc) => leaderGet(nc, names.log(shard), { seq: mark.seq }))
  return !found || isSameStoredMs(found.timeMs, mark.ms)
}

/** What is to be laid over the state at a position, in order. */
export interface Steps {
  /** To begin with, in place of that state. */
  readonly whole?: ChangesPlace
  readonly changes: readonly ChangesPlace[]
}

/** Those between a position and a limit; none where the log has all that is behind. */
export async function stepsBehind(source: HistorySource, shard: number, after: number, limit: Limit): Promise<Steps> {
  const list = await changesList(source, shard)
  const places = (list?.all ?? []).filter(
    ({ seq, mark }) => seq > after && isWithin(limit, 'seq' in limit ? { seq, timeMs: 0 } : { seq, timeMs: mark.ms }),
  )
  if (places.length === 0) return { changes: [] }
  const { connection, names } = source
  const log = await connection.read((nc) => streamBounds(nc, names.log(shard)))
  if (list?.log !== log.id) return { changes: [] }
  for (let last = places.at(-1); last; last = places.at(-1)) {
    if (await isOfLog(source, shard, last, log.last)) break
    places.pop()
  }
  return stepsOf(places)
}

/** From the last whole on. */
export function stepsOf(places: readonly ChangesPlace[]): Steps {
  const at = places.findLastIndex(({ whole }) => whole !== undefined)
  const whole = places[at]
  return { ...(whole ? { whole } : {}), changes: places.slice(at + 1) }
}

/** How many facts are between them that no changes are of, at the most. */
export function gapsIn({ whole, changes }: Steps, after: number): number {
  let at = whole?.seq ?? after
  let gaps = 0
  for (const { from, seq } of changes) {
    gaps += Math.max(0, from - at)
    at = seq
  }
  return gaps
}
