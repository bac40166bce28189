/** What somebody has asked the engine of a shard to prune, and what came of it. */
import { z } from 'zod'
import type { PruneOrder } from '../../../../projections/retention/policy.ts'
import { encodeJson } from '../../../../streams/codec.ts'
import { FlowStoneError } from '../../../../streams/errors.ts'
import type { Names } from '../../../../streams/subjects.ts'
import type { Connection } from '../../../log/connection.ts'
import { decodeDoc } from '../../../log/documents.ts'
import { isGone, leaderGet, publish } from '../../../log/nats.ts'

/** The document `prune.<shard>` of the control bucket. */
const order = z.object({
  v: z.literal(1),
  id: z.string().min(1).max(64),
  by: z.string().max(256).optional(),
  beforeMs: z.number().optional(),
  pipeline: z.string().max(256).optional(),
  dryRun: z.boolean().optional(),
  archive: z.string().max(2048).optional(),
})
export type PruneOrderDoc = z.infer<typeof order>

/** What pruning took away, or would. */
export interface PruneCount {
  readonly runs: number
  readonly facts: number
  readonly bytes: number
  /** The first and last end of these runs, in milliseconds. */
  readonly oldestMs?: number
  readonly newestMs?: number
}

/** The document `pruned.<shard>`: the answer to the last order. */
export interface PruneAnswer extends PruneCount {
  readonly v: 1
  readonly id: string
  /** Where it was archived to first, or would be. */
  readonly archive?: string
  readonly error?: string
}

/** The document `unarchived.<shard>`: why runs wait to be archived; nothing where none do. */
export interface ArchiveBacklog {
  readonly v: 1
  readonly sinceMs?: number
  readonly says?: string
}

const orderKey = (shard: number): string => `prune.${shard}`
const answerKey = (shard: number): string => `pruned.${shard}`

const backlogKey = (shard: number): string => `unarchived.${shard}`

interface Place {
  readonly connection: Connection
  readonly names: Names
}

export async function readOrder(place: Place, shard: number): Promise<PruneOrderDoc | undefined> {
  return order.safeParse(await documentAt(place, orderKey(shard))).data
}

export async function readAnswer(place: Place, shard: number): Promise<PruneAnswer | undefined> {
  // Only engines write here.
  return (await documentAt(place, answerKey(shard))) as PruneAnswer | undefined
}

export async function writeOrder(place: Place, shard: number, doc: PruneOrderDoc): Promise<void> {
  await put(place, orderKey(shard), doc)
}

export async function writeAnswer(place: Place, shard: number, doc: PruneAnswer): Promise<void> {
  await put(place, answerKey(shard), doc)
}

export async function readBacklog(place: Place, shard: number): Promise<ArchiveBacklog | undefined> {
  // Only engines write here.
  return (await documentAt(place, backlogKey(shard))) as ArchiveBacklog | undefined
}

/** `says`: undefined when no runs wait any more. One that waits already waits since then. */
export async function writeBacklog(
  place: Place,
  shard: number,
  nowMs: number,
  says: string | undefined,
): Promise<void> {
  const before = await readBacklog(place, shard)
  if (says === undefined && before?.sinceMs === undefined) return
  const doc: ArchiveBacklog = says === undefined ? { v: 1 } : { v: 1, sinceMs: before?.sinceMs ?? nowMs, says }
  await put(place, backlogKey(shard), doc)
}

/** Undefined also for what somebody else has written there. */
async function documentAt({ connection, names }: Place, key: string): Promise<unknown> {
  const query = { last_by_subj: names.kvSubject(names.controlBucket, key) }
  try {
    const found = await connection.read((nc) => leaderGet(nc, names.kvStream(names.controlBucket), query))
    return found && decodeDoc(key, found)
  } catch (error) {
    if (isGone(error) || (error instanceof FlowStoneError && error.code === 'undecodable')) return undefined
    throw error
  }
}

export function orderOf({ beforeMs, pipeline }: PruneOrderDoc): PruneOrder {
  return { ...(beforeMs === undefined ? {} : { beforeMs }), ...(pipeline === undefined ? {} : { pipeline }) }
}

async function put({ connection, names }: Place, key: string, doc: unknown): Promise<void> {
  const entry = {
    subject: names.kvSubject(names.controlBucket, key),
    payload: encodeJson(doc),
    contentType: 'application/json',
  }
  const ack = await connection.read((nc) => publish(nc, entry, undefined, 5000))
  if (ack.error) throw new Error(`key ${key} of ${names.controlBucket} was refused: ${ack.error.description}`)
}
