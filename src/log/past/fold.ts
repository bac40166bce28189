/** Folds the facts behind a position of a shard. They are on the log, in packs, or in both. */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { foldPast, type PastView } from '../../../projections/past.ts'
import { ENGINE_KEY } from '../../../projections/state.ts'
import { type Fact, isTimer } from '../../../streams/facts.ts'
import { readDocIfAny } from '../documents.ts'
import type { HistorySource } from '../history.ts'
import { anyBetween, type StoredMessage, streamBounds } from '../nats.ts'
import { factIfAny, sealedFactIfAny } from '../read-fact.ts'
import { Reader } from '../reader.ts'
import { isWithin, type Limit } from './limit.ts'
import { SealedSince } from './sealed-since.ts'

const TAKE = 1000
/** Facts folded before other work of the process gets its turn. */
const SLICE = 500

interface From {
  /** The stretch that the position is in, or one before it. */
  readonly n: number
  readonly seq: number
}

/** The last fact that was folded; undefined when there was none. */
export async function foldBehind(
  source: HistorySource,
  shard: number,
  view: PastView,
  from: From,
  limit: Limit,
): Promise<Pick<Fact, 'seq' | 'timeMs'> | undefined> {
  let last: Fact | undefined
  let count = 0
  for await (const fact of factsSince(source, shard, limit, from)) {
    if (++count % SLICE === 0) await nextTurn()
    for (let missing = foldPast(view, fact); missing.length > 0; missing = foldPast(view, fact))
      for (const key of missing) view.put(key, await pipelineDoc(source, shard, key))
    last = fact
  }
  return last
}

/** As the state has it, or else the base. It never changes. */
export async function pipelineDoc({ connection, names }: HistorySource, shard: number, key: string): Promise<unknown> {
  const ofState = await readDocIfAny(connection, names, names.stateBucket(shard), key)
  return ofState ?? (await readDocIfAny(connection, names, names.historyBucket(shard), key))
}

/** No fact behind this one is sealed. */
async function baseSeq({ connection, names }: HistorySource, shard: number): Promise<number> {
  const doc = await readDocIfAny(connection, names, names.historyBucket(shard), ENGINE_KEY)
  return typeof doc === 'object' && doc !== null ? Number(Reflect.get(doc, 'seq')) : 0
}

/** In order, each once. Of the log a batch is in memory. */
async function* factsSince(source: HistorySource, shard: number, limit: Limit, from: From): AsyncGenerator<Fact> {
  const { names } = source
  const sealed = await SealedSince.open(source, shard, limit, {
    ...from,
    isAhead: from.seq >= (await baseSeq(source, shard)),
  })
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
  const reader = new Reader(connection, stream, seq + 1, { onDenied: 'throw' })
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
