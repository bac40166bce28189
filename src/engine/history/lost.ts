/**
 * Whether the history of a shard is lost: what was sealed is nowhere else. A mark outside of the
 * history bucket records that there is one. The log shows it only where its first message has left,
 * and that is mostly a fact of a pipeline, which stays.
 */
import { decode, encodeJson } from '../../../streams/codec.ts'
import { FlowStoneError } from '../../../streams/errors.ts'
import { type HistoryManifest, historyKey } from '../../../streams/history.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { Connection } from '../../log/connection.ts'
import { readDocIfAny } from '../../log/documents.ts'
import { leaderGet, publishTo, streamBounds } from '../../log/nats.ts'
import { positionOf } from '../shard/checkpoint.ts'
import { REBUILD_ADVICE } from '../shard/position.ts'

interface ShardOptions {
  readonly connection: Connection
  readonly names: Names
  readonly shard: number
}

/** One of a log of which nothing is sealed. */
export function emptyManifest(log: string): HistoryManifest {
  return { v: 1, log, graceMs: 0, packs: 0, nextSegment: 0, levels: [] }
}

function markOf({ names, shard }: ShardOptions): string {
  return names.kvSubject(names.controlBucket, `sealed.${shard}`)
}

/** From now on it is known that the shard has a history of this log. Whether that is stored. */
export async function markSealed(options: ShardOptions, log: string): Promise<boolean> {
  const { connection, names } = options
  if (await isMarked(options, log)) return true
  const entry = { subject: markOf(options), payload: encodeJson({ v: 1, log }), contentType: 'application/json' }
  const stream = names.kvStream(names.controlBucket)
  const { error } = await connection.read((nc) => publishTo(nc, stream, entry, undefined, 5000))
  return error === undefined
}

async function isMarked(options: ShardOptions, log: string): Promise<boolean> {
  const { connection, names } = options
  const query = { last_by_subj: markOf(options) }
  const found = await connection.read((nc) => leaderGet(nc, names.kvStream(names.controlBucket), query))
  const doc: unknown = found && found.payload.length > 0 ? decode(found.payload, undefined) : undefined
  return typeof doc === 'object' && doc !== null && Reflect.get(doc, 'log') === log
}

/** The error that says so. Undefined: it is there, or nothing was sealed yet. */
export async function historyLost(options: ShardOptions): Promise<FlowStoneError | undefined> {
  const { connection, names, shard } = options
  // The mark first: who seals stores the base before it.
  const { id, first } = await connection.read((nc) => streamBounds(nc, names.log(shard)))
  const wasThere = first > 1 || (await isMarked(options, id))
  const bucket = names.historyBucket(shard)
  if (!wasThere || ((await positionOf(connection, names, bucket))?.seq ?? 0) > 0) return undefined
  if (await readDocIfAny(connection, names, bucket, historyKey.manifest)) return undefined
  return new FlowStoneError(
    'history_lost',
    `the history of shard ${shard} is gone, and with it what was sealed; restore bucket ${bucket} from a backup. To go on without it, ${REBUILD_ADVICE}`,
  )
}

/** The history begins anew, behind what is lost. */
export async function beginHistory({ connection, names, shard }: ShardOptions): Promise<void> {
  const { id } = await connection.read((nc) => streamBounds(nc, names.log(shard)))
  const bucket = names.historyBucket(shard)
  const entry = {
    subject: names.kvSubject(bucket, historyKey.manifest),
    payload: encodeJson(emptyManifest(id)),
    contentType: 'application/json',
  }
  const { error } = await connection.read((nc) => publishTo(nc, names.kvStream(bucket), entry, undefined, 5000))
  if (error) throw new FlowStoneError('refused', `${bucket} cannot be begun anew: ${error.description}`)
}
