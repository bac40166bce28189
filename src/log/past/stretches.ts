/** Finds the stretch of a shard that a time is in: see streams/snapshots.ts. */
import { FlowStoneError } from '../../../streams/errors.ts'
import { historyKey } from '../../../streams/history.ts'
import { type Stretch, type Stretches, snapshotKey } from '../../../streams/snapshots.ts'
import { readDocIfAny } from '../documents.ts'
import type { HistorySource } from '../history.ts'
import { streamBounds } from '../nats.ts'
import type { Limit } from './limit.ts'

export interface FoundStretch {
  readonly n: number
  readonly stretch: Stretch
}

/** Throws FlowStoneError `no_snapshot`. */
export async function findStretch(source: HistorySource, shard: number, limit: Limit): Promise<FoundStretch> {
  const all = (await docOf(source, shard, snapshotKey.stretches)) as Stretches | undefined
  if (!all) return await wholeLog(source, shard)
  const isBehind = ({ seq, ms }: Stretch): boolean => ('seq' in limit ? seq > limit.seq : ms > limit.ms)
  let [low, high] = [all.first, all.next - 1]
  const first = await stretchAt(source, shard, low)
  if (!first || isBehind(first)) throw tooEarly(source, shard, first)
  let stretch = first
  while (low < high) {
    const middle = Math.ceil((low + high) / 2)
    const found = await stretchAt(source, shard, middle)
    if (found && !isBehind(found)) [low, stretch] = [middle, found]
    else high = middle - 1
  }
  return { n: low, stretch }
}

export async function stretchAt(source: HistorySource, shard: number, n: number): Promise<Stretch | undefined> {
  return (await docOf(source, shard, snapshotKey.stretch(n))) as Stretch | undefined
}

async function docOf({ connection, names }: HistorySource, shard: number, key: string): Promise<unknown> {
  // The bucket's type of document follows from its key.
  return await readDocIfAny(connection, names, names.historyBucket(shard), key)
}

/** Where nothing was sealed yet, the log has all. */
async function wholeLog(source: HistorySource, shard: number): Promise<FoundStretch> {
  const { connection, names } = source
  const { first } = await connection.read((nc) => streamBounds(nc, names.log(shard)))
  if (first > 1 && (await docOf(source, shard, historyKey.manifest))) throw tooEarly(source, shard, undefined)
  return { n: 0, stretch: { seq: 0, ms: 0, packs: [] } }
}

function tooEarly({ names }: HistorySource, shard: number, first: Stretch | undefined): FlowStoneError {
  const from = first
    ? `; the earliest is ${new Date(first.ms).toISOString()}, sequence ${first.seq}`
    : '; an engine of this version makes the first one when it seals runs'
  return new FlowStoneError('no_snapshot', `no snapshot of ${names.log(shard)} is as old as that${from}`)
}
