/**
 * Reads a bucket as it is at a checkpoint, while an engine goes on writing it. All messages are
 * read in order, until the newest of all is the position that a checkpoint ends with. Then what was
 * read is what the checkpoint stands for. Nothing stands behind it, nothing before it is missing.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { ENGINE_KEY } from '../../../projections/state.ts'
import { FlowStoneError } from '../../../streams/errors.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { Connection } from '../../log/connection.ts'
import { leaderGet, type StoredMessage } from '../../log/nats.ts'
import { Reader } from '../../log/reader.ts'
import { type Position, positionIn } from '../shard/position.ts'

const TAKE = 500
/** So long nothing comes while a checkpoint is not whole: its engine is gone. */
const SILENCE_MS = 5000
const LOOK_MS = 50

export interface BucketSource {
  readonly connection: Connection
  readonly names: Names
  readonly bucket: string
}

/**
 * Gives each message to `take`, with its key. Returns the position; undefined when no engine has
 * written there. Throws FlowStoneError `unreadable` when the last checkpoint is not
 * whole and nobody goes on with it.
 */
export async function readBucket(
  { connection, names, bucket }: BucketSource,
  keys: readonly string[],
  take: (key: string, message: StoredMessage) => void | Promise<void>,
): Promise<Position | undefined> {
  const stream = names.kvStream(bucket)
  const prefix = names.kvSubject(bucket, '')
  const query = { last_by_subj: `${prefix}${ENGINE_KEY}` }
  if (!(await connection.read((nc) => leaderGet(nc, stream, query)))) return undefined
  const filters = (keys.includes('>') ? keys : [...keys, ENGINE_KEY]).map((key) => `${prefix}${key}`)
  const newest = async (): Promise<number> => {
    const lasts = filters.map((last_by_subj) => connection.read((nc) => leaderGet(nc, stream, { last_by_subj })))
    return Math.max(...(await Promise.all(lasts)).map((message) => message?.seq ?? 0))
  }
  const reader = new Reader(connection, stream, 1, { filters, failsWhenRefused: true })
  let last: { readonly position: Position | undefined; readonly seq: number } | undefined
  let read = 0
  let readMs = performance.now()
  try {
    for (let end = await newest(); ; end = await newest()) {
      if (last?.position && !last.position.redo && last.seq === end) return last.position
      if (end > read) readMs = performance.now()
      else if (performance.now() - readMs > SILENCE_MS) break
      else await sleep(LOOK_MS)
      while (read < end) {
        const messages = await reader.take(TAKE, end)
        for (const message of messages) {
          const key = message.subject.slice(prefix.length)
          if (key === ENGINE_KEY) last = { position: positionIn(bucket, message), seq: message.seq }
          else await take(key, message)
        }
        // The rest of them was written anew meanwhile, or deleted.
        read = messages.at(-1)?.seq ?? end
      }
    }
  } finally {
    reader.stop()
  }
  // Somebody else wrote behind the checkpoint: what was read is that, and the checkpoint.
  const now = await connection.read((nc) => leaderGet(nc, stream, query))
  if (last?.position && !last.position.redo && now?.seq === last.seq) return last.position
  throw new FlowStoneError(
    'unreadable',
    `the last checkpoint of ${bucket} is not whole, and no engine goes on with it; start an engine, then verify again`,
  )
}
