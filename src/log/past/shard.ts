/**
 * The state of a shard at an earlier position: the nearest snapshot before it, and the facts in
 * between. They are on the log, in packs of the history, or in both.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { foldPast, PastView } from '../../../projections/past.ts'
import { FlowStoneError } from '../../../streams/errors.ts'
import { decodeFact, type Fact, isTimer } from '../../../streams/facts.ts'
import { decodeSnapshot, type SnapshotDoc, type Stretch, snapshotKey } from '../../../streams/snapshots.ts'
import { readDocIfAny } from '../documents.ts'
import { type HistorySource, packAt } from '../history.ts'
import { anyBetween, streamBounds } from '../nats.ts'
import { factIfAny } from '../read-fact.ts'
import { Reader } from '../reader.ts'
import { isWithin, type Limit } from './limit.ts'
import { type FoundStretch, findStretch, stretchAt } from './stretches.ts'

const TAKE = 1000
/** Facts folded before other work of the process gets its turn. */
const SLICE = 500
const TRIES = 5
/** Packs that are read side by side. */
const PACKS_AT_ONCE = 4

export interface PastShard {
  readonly view: PastView
  /** The last fact that is folded, and the server's time of it. */
  readonly seq: number
  readonly timeMs: number
}

/** Throws FlowStoneError `no_snapshot`. */
export async function pastShard(source: HistorySource, shard: number, limit: Limit): Promise<PastShard> {
  for (let attempt = 1; ; attempt++) {
    const found = await findStretch(source, shard, limit)
    const { n, stretch } = found
    const [snapshot, onLog] = await Promise.all([
      snapshotAt(source, shard, n, stretch),
      factsOnLog(source, shard, limit, found),
    ])
    // In this order: what has left the log since was put into a pack before.
    const sealed = await sealedIn(source, shard, n)
    // The stretch may have ended since. What comes behind its end is in the packs of the next one.
    const isWhole = found.end !== Number.POSITIVE_INFINITY || !(await stretchAt(source, shard, n + 1))
    if (!isWhole && attempt < TRIES) continue
    return await foldedOver(source, shard, { snapshot, stretch }, upToLimit([...onLog, ...sealed], stretch, limit))
  }
}

/** In order, each once. */
function upToLimit(facts: readonly Fact[], { seq: from }: Stretch, limit: Limit): Fact[] {
  const bySeq = new Map(facts.filter(({ seq }) => seq > from).map((fact) => [fact.seq, fact]))
  const sorted = [...bySeq.values()].sort((a, b) => a.seq - b.seq)
  const end = sorted.findIndex((fact) => !isWithin(limit, fact))
  return end < 0 ? sorted : sorted.slice(0, end)
}

async function foldedOver(
  source: HistorySource,
  shard: number,
  { snapshot, stretch }: { readonly snapshot: readonly SnapshotDoc[]; readonly stretch: Stretch },
  facts: readonly Fact[],
): Promise<PastShard> {
  const view = new PastView(snapshot)
  for (const [i, fact] of facts.entries()) {
    if (i % SLICE === SLICE - 1) await nextTurn()
    for (let missing = foldPast(view, fact); missing.length > 0; missing = foldPast(view, fact))
      for (const key of missing) view.put(key, await pipelineDoc(source, shard, key))
  }
  const last = facts.at(-1)
  return { view, seq: last?.seq ?? stretch.seq, timeMs: last?.timeMs ?? stretch.ms }
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
  { seq }: Stretch,
): Promise<readonly SnapshotDoc[]> {
  if (seq === 0) return []
  const bytes = await readDocIfAny(connection, names, names.historyBucket(shard), snapshotKey.snapshot(n))
  if (bytes instanceof Uint8Array) return await decodeSnapshot(bytes)
  throw new FlowStoneError('no_snapshot', `snapshot ${n} of ${names.log(shard)} is gone; ask for another time`)
}

async function factsOnLog(
  { connection, names }: HistorySource,
  shard: number,
  limit: Limit,
  { stretch, end }: FoundStretch,
): Promise<Fact[]> {
  const stream = names.log(shard)
  const { last } = await connection.read((nc) => streamBounds(nc, stream))
  const upTo = Math.min(last, end, 'seq' in limit ? limit.seq : last)
  if (!(await connection.read((nc) => anyBetween(nc, stream, stretch.seq + 1, upTo)))) return []
  const facts: Fact[] = []
  const reader = new Reader(connection, stream, stretch.seq + 1)
  try {
    for (;;) {
      const messages = await reader.take(TAKE, upTo)
      if (connection.isClosed) throw new FlowStoneError('closed', 'the connection was closed while a log was read')
      for (const message of messages) {
        if (message.seq > upTo || !isWithin(limit, message)) return facts
        const path = names.factPath(message.subject)
        const fact = path === undefined || isTimer(path) ? undefined : factIfAny(names, shard, message)
        if (fact) facts.push(fact)
      }
      if (messages.length === 0 || (messages.at(-1)?.seq ?? 0) >= upTo) return facts
    }
  } finally {
    reader.stop()
  }
}

/** Throws `no_snapshot` where packs lack facts that they had. */
async function sealedIn(source: HistorySource, shard: number, n: number): Promise<Fact[]> {
  const [stretch, next] = await Promise.all([stretchAt(source, shard, n), stretchAt(source, shard, n + 1)])
  const [from, to] = [stretch?.seq ?? 0, next?.seq ?? Number.POSITIVE_INFINITY]
  const facts: Fact[] = []
  const packs = stretch?.packs ?? []
  for (let i = 0; i < packs.length; i += PACKS_AT_ONCE) {
    const read = packs.slice(i, i + PACKS_AT_ONCE).map(async ([pack, count]) => {
      const found = (await packAt(source, shard, pack)).flatMap(({ facts }) => facts)
      const within = found.filter(({ seq }) => seq > from && seq <= to)
      if (within.length < count) throw pruned(source, shard)
      for (const fact of within) facts.push(decodeFact({ ...fact, shard }))
    })
    await Promise.all(read)
  }
  return facts
}

function pruned({ names }: HistorySource, shard: number): FlowStoneError {
  return new FlowStoneError(
    'no_snapshot',
    `runs of that time were pruned from the history of ${names.log(shard)}, so nobody knows what there was; ask for a later time`,
  )
}
