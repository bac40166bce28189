/**
 * The state of a shard at an earlier position: the nearest snapshot before it, changes that are
 * laid over it, and the facts behind them.
 */
import { PastView } from '../../../projections/past.ts'
import { type ChangesPlace, changesKey, decodeChanges } from '../../../streams/changes.ts'
import { FlowStoneError } from '../../../streams/errors.ts'
import { decodeSnapshot, type SnapshotDoc, snapshotKey } from '../../../streams/snapshots.ts'
import { readDocIfAny } from '../documents.ts'
import type { HistorySource } from '../history.ts'
import { type Steps, stepsBehind } from './changes.ts'
import { foldBehind } from './fold.ts'
import type { Limit } from './limit.ts'
import { type FoundStretch, findStretch } from './stretches.ts'

/** Changes that are read side by side. */
const CHANGES_AT_ONCE = 8
const TRIES = 8

export interface PastShard {
  readonly view: PastView
  /** The last fact that is folded, and the server's time of it. */
  readonly seq: number
  readonly timeMs: number
}

/** What is behind `done` is to be folded. */
interface Stored extends PastShard {
  readonly done: number
}

/** Throws FlowStoneError `no_snapshot`. */
export async function pastShard(source: HistorySource, shard: number, limit: Limit): Promise<PastShard> {
  for (let attempt = 1; ; attempt++) {
    const found = await findStretch(source, shard, limit)
    const steps = await stepsBehind(source, shard, found.stretch.seq, limit)
    const stored = await storedState(source, shard, found, steps)
    if (stored) {
      const { view, done } = stored
      const last = await foldBehind(source, shard, view, { n: found.n, seq: done }, limit)
      return { view, seq: last?.seq ?? stored.seq, timeMs: last?.timeMs ?? stored.timeMs }
    }
    if (attempt >= TRIES)
      throw new FlowStoneError('no_snapshot', `what is near that time in ${source.names.log(shard)} goes as it is read`)
  }
}

/**
 * The state after these steps. Facts that no changes are of are folded. Undefined: some of it was
 * dropped, because there is something nearer.
 */
export async function storedState(
  source: HistorySource,
  shard: number,
  { n, stretch }: FoundStretch,
  { whole, changes }: Steps,
): Promise<Stored | undefined> {
  const docs = whole ? await wholeAt(source, shard, whole.n) : await snapshotAt(source, shard, n, stretch.seq)
  if (!docs) return undefined
  const view = new PastView(docs)
  let at = whole ? shownAt(whole) : { seq: stretch.seq, timeMs: stretch.ms, done: stretch.seq }
  for (let i = 0; i < changes.length; i += CHANGES_AT_ONCE) {
    const some = changes.slice(i, i + CHANGES_AT_ONCE)
    const read = await Promise.all(some.map((place) => bytesOf(source, shard, changesKey.changes(place.n))))
    for (const [k, place] of some.entries()) {
      const bytes = read[k]
      if (!bytes) return undefined
      if (place.from > at.done) await foldBehind(source, shard, view, { n, seq: at.done }, { seq: place.from })
      view.apply(await decodeChanges(bytes))
      at = shownAt(place)
    }
  }
  return { view, ...at }
}

function shownAt({ seq, mark }: ChangesPlace): Omit<Stored, 'view'> {
  return { seq: mark.seq, timeMs: mark.ms, done: seq }
}

async function wholeAt(source: HistorySource, shard: number, n: number): Promise<SnapshotDoc[] | undefined> {
  const bytes = await bytesOf(source, shard, changesKey.whole(n))
  return bytes && (await decodeSnapshot(bytes))
}

async function snapshotAt(source: HistorySource, shard: number, n: number, seq: number): Promise<SnapshotDoc[]> {
  if (seq === 0) return []
  const bytes = await bytesOf(source, shard, snapshotKey.snapshot(n))
  if (bytes) return await decodeSnapshot(bytes)
  const log = source.names.log(shard)
  throw new FlowStoneError('no_snapshot', `snapshot ${n} of ${log} is gone; ask for another time`)
}

async function bytesOf(
  { connection, names }: HistorySource,
  shard: number,
  key: string,
): Promise<Uint8Array | undefined> {
  const doc = await readDocIfAny(connection, names, names.historyBucket(shard), key)
  return doc instanceof Uint8Array ? doc : undefined
}
