/**
 * Finds the tasks that WORK no longer remembers. An engine that died may have enqueued tasks for
 * facts behind its last checkpoint. Its successor folds these facts again, and enqueues the tasks
 * again. WORK drops such duplicates, but only within the `duplicate_window` of the stream. After
 * that the tasks would be done twice.
 */
import type { Names } from '../../../streams/subjects.ts'
import type { Connection } from '../../log/connection.ts'
import { leaderGet, type StoredMessage, streamInfo } from '../../log/nats.ts'

/**
 * An engine makes a checkpoint some 50 ms after it folded a fact; this long after, where the server
 * is slow.
 */
const UNSAVED_MS = 10_000
/** So much of the window is counted on. */
const PART = 0.75
const NANOS_PER_MS = 1_000_000

/**
 * The last fact, behind those folded up to `seq`, of which an engine that is gone may have enqueued
 * tasks that WORK does not remember. 0: there is none.
 */
export async function forgottenTo(connection: Connection, names: Names, shard: number, seq: number): Promise<number> {
  const log = names.log(shard)
  const next = async (from: number): Promise<StoredMessage | undefined> =>
    await connection.read((nc) => leaderGet(nc, log, { seq: from, next_by_subj: '>' }))
  const first = await next(seq + 1)
  if (!first) return 0
  const { config, ts } = await connection.read((nc) => streamInfo(nc, names.work(shard)))
  const windowMs = (config.duplicate_window ?? 0) / NANOS_PER_MS
  if (ts === undefined || Date.parse(ts) - first.timeMs < windowMs * PART) return 0
  // Half of what is left each time: the last one that an engine may have folded without a
  // checkpoint.
  let known = first.seq
  let beyond = (await connection.read((nc) => streamInfo(nc, log))).state.last_seq + 1
  while (beyond - known > 1) {
    const middle = Math.floor((known + beyond) / 2)
    const found = await next(middle)
    if (found && found.timeMs <= first.timeMs + UNSAVED_MS) known = found.seq
    else beyond = middle
  }
  return known
}
