/** Waits for the state: it lags behind its log. */
import type { Names } from '../../../streams/subjects.ts'
import type { Connection } from '../../log/connection.ts'
import { anyBetween, streamBounds } from '../../log/nats.ts'
import { sleep } from '../../options/timer.ts'
import { foldedTo } from './checkpoint.ts'
import { engineAtWork } from './claim.ts'

/** An engine is behind by milliseconds, on a busy machine by seconds. */
const FOLDED_WAIT_MS = 10_000
/** Nobody waits long for an engine that is not there. */
const NO_ENGINE_WAIT_MS = 1000
/** Who found none a moment ago looks once: many runs may be read one after the other. */
const NO_ENGINE_KNOWN_MS = 5000
const LOOK_MS = 10
const LOOK_MAX_MS = 50

interface Deps {
  readonly connection: Connection
  readonly names: Names
}

/** When somebody waited in vain for an engine, by its log. */
const missed = new WeakMap<Connection, Map<string, number>>()

/** Where the log ends now, and whether the state has all of it. If an engine folds it, it has. */
export async function untilFolded(
  { connection, names }: Deps,
  shard: number,
  mostMs?: number,
): Promise<{ readonly last: number; readonly isFolded: boolean }> {
  const { last } = await connection.read((nc) => streamBounds(nc, names.log(shard)))
  return { last, isFolded: await untilFoldedTo({ connection, names }, shard, last, mostMs) }
}

/** The same up to a position. */
export async function untilFoldedTo(
  { connection, names }: Deps,
  shard: number,
  seq: number,
  mostMs = FOLDED_WAIT_MS,
): Promise<boolean> {
  const log = names.log(shard)
  const missedMs = missed.get(connection) ?? new Map<string, number>()
  missed.set(connection, missedMs)
  const startedMs = performance.now()
  const isKnown = startedMs - (missedMs.get(log) ?? Number.NEGATIVE_INFINITY) < NO_ENGINE_KNOWN_MS
  let seenMs = isKnown ? startedMs - NO_ENGINE_WAIT_MS : startedMs
  for (let lookMs = LOOK_MS; ; lookMs = Math.min(LOOK_MAX_MS, lookMs * 2)) {
    const from = (await foldedTo(connection, names, shard)) + 1
    if (!(await connection.read((nc) => anyBetween(nc, log, from, seq)))) return true
    const isThere = (await engineAtWork(connection, names, shard)) !== undefined
    const nowMs = performance.now()
    if (isThere) seenMs = nowMs
    if (nowMs - seenMs >= NO_ENGINE_WAIT_MS) {
      missedMs.set(log, nowMs)
      return false
    }
    if (nowMs - startedMs > mostMs) return false
    await sleep(lookMs)
  }
}
