/**
 * The state of a shard at an earlier position: the nearest snapshot before it, and the facts in
 * between. They are on the log, in packs of the history, or in both.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { foldPast, PastView } from '../../../projections/past.ts'
import { FlowStoneError } from '../../../streams/errors.ts'
import { type Fact, isTimer } from '../../../streams/facts.ts'
import { decodeSnapshot, type SnapshotDoc, snapshotKey } from '../../../streams/snapshots.ts'
import { readDocIfAny } from '../documents.ts'
import type { HistorySource } from '../history.ts'
import { anyBetween, type StoredMessage, streamBounds } from '../nats.ts'
import { factIfAny, sealedFactIfAny } from '../read-fact.ts'
import { Reader } from '../reader.ts'
import { isWithin, type Limit } from './limit.ts'
import { SealedSince } from './sealed-since.ts'
import { findStretch } from './stretches.ts'

const TAKE = 1000
/** Facts folded before other work of the process gets its turn. */
const SLICE = 500

export interface PastShard {
  readonly view: PastView
  /** The last fact that is folded, and the server's time of it. */
  readonly seq: number
  readonly timeMs: number
}

/** Throws FlowStoneError `no_snapshot`. */
export async function pastShard(source: HistorySource, shard: number, limit: Limit): Promise<PastShard> {
  const { n, stretch } = await findStretch(source, shard, limit)
  const view = new PastView(await snapshotAt(source, shard, n, stretch.seq))
  let { seq, ms: timeMs } = stretch
  let count = 0
  for await (const fact of factsSince(source, shard, limit, { n, seq })) {
    if (++count % SLICE === 0) await nextTurn()
    for (let missing = foldPast(view, fact); missing.length > 0; missing = foldPast(view, fact))
      for (const key of missing) view.put(key, await pipelineDoc(source, shard, key))
    seq = fact.seq
    timeMs = fact.timeMs
  }
  return { view, seq, timeMs }
}

/** As the state has it, or else the base. It never changes. */
export async function pipelineDoc({ connection, names }: HistorySource, shard: number, key: string): Promise<unknown> {
  const ofState = await readDocIfAny(connection, names, names.stateBucket(shard), key)
  return ofState ?? (await readDocIfAny(connection, names, names.historyBucket(shard), key))
}

async function snapshotAt(
  { connection, names }: HistorySource,
  shard: number,
  n: number,
  seq: number,
): Promise<readonly SnapshotDoc[]> {
  if (seq === 0) return []
  const bytes = await readDocIfAny(connection, names, names.historyBucket(shard), snapshotKey.snapshot(n))
  if (bytes instanceof Uint8Array) return await decodeSnapshot(bytes)
  throw new FlowStoneError('no_snapshot', `snapshot ${n} of ${names.log(shard)} is gone; ask for another time`)
}

/** In order, each once. Of the log a batch is in memory. */
async function* factsSince(
  source: HistorySource,
  shard: number,
  limit: Limit,
  from: { readonly n: number; readonly seq: number },
): AsyncGenerator<Fact> {
  const { names } = source
  const sealed = await SealedSince.open(source, shard, limit, from)
  let done = from.seq
  for await (const message of messagesSince(source, shard, limit, from.seq)) {
    await sealed.lookAgain(done)
    // In this order: what is in both places is taken from the log.
    for (const one of sealed.before(message.seq)) {
      if (!isWithin(limit, one)) return
      const fact = sealedFactIfAny(source, shard, one)
      if (fact) yield fact
    }
    if (!isWithin(limit, message)) return
    done = message.seq
    const path = names.factPath(message.subject)
    const fact = path === undefined || isTimer(path) ? undefined : factIfAny(names, shard, message)
    if (fact) yield fact
  }
  await sealed.lookAgain(done)
  for (const one of sealed.before(Number.POSITIVE_INFINITY)) {
    if (!isWithin(limit, one)) return
    const fact = sealedFactIfAny(source, shard, one)
    if (fact) yield fact
  }
}

async function* messagesSince(
  { connection, names }: HistorySource,
  shard: number,
  limit: Limit,
  seq: number,
): AsyncGenerator<StoredMessage> {
  const stream = names.log(shard)
  const { last } = await connection.read((nc) => streamBounds(nc, stream))
  const upTo = Math.min(last, 'seq' in limit ? limit.seq : last)
  if (!(await connection.read((nc) => anyBetween(nc, stream, seq + 1, upTo)))) return
  const reader = new Reader(connection, stream, seq + 1)
  try {
    for (let at = seq; at < upTo; ) {
      const messages = await reader.take(TAKE, upTo)
      if (messages.length === 0) return
      for (const message of messages) {
        if (message.seq > upTo) return
        yield message
      }
      at = messages.at(-1)?.seq ?? upTo
    }
  } finally {
    reader.stop()
  }
}
