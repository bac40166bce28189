/**
 * Reads a bucket as it is at a checkpoint, while an engine goes on writing it. All messages are
 * read in order, until the newest of all is the position that a checkpoint ends with. Then what was
 * read is what the checkpoint stands for. Nothing stands behind it, nothing before it is missing.
 */
import { type ConsumerMessages, DeliverPolicy } from '@nats-io/jetstream'
import { ENGINE_KEY } from '../../../projections/state.ts'
import { FlowStoneError } from '../../../streams/errors.ts'
import { jetstream } from '../../../streams/jetstream.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { Connection } from '../../log/connection.ts'
import { reading } from '../../log/crowded.ts'
import { forgetConsumer } from '../../log/forget-consumer.ts'
import { headerMap, leaderGet, type StoredMessage } from '../../log/nats.ts'
import { storedMsOf } from '../../log/stored-ms.ts'
import { type Position, positionIn } from '../shard/position.ts'

const AHEAD = 500
/** So long nothing comes while a checkpoint is not whole: its engine is gone. */
const SILENCE_MS = 5000
/** So long nothing comes behind the newest message. A checkpoint comes as a whole. */
const NEWEST_MS = 250

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
  const made = jetstream(connection.nc).consumers.get(stream, {
    filter_subjects: (keys.includes('>') ? keys : [...keys, ENGINE_KEY]).map((key) => `${prefix}${key}`),
    deliver_policy: DeliverPolicy.StartSequence,
    opt_start_seq: 1,
  })
  const consumer = await reading(connection, stream, made)
  const messages = await reading(connection, stream, consumer.consume({ max_messages: AHEAD }))
  const silence = new Silence(messages)
  let last: { readonly position: Position | undefined; readonly seq: number } | undefined
  try {
    for await (const message of messages) {
      const isNewest = message.info.pending === 0
      silence.broken(isNewest ? NEWEST_MS : SILENCE_MS)
      const key = message.subject.slice(prefix.length)
      const stored = {
        subject: message.subject,
        seq: message.seq,
        timeMs: storedMsOf(message),
        payload: message.data,
        headers: headerMap(message.headers),
      }
      if (key === ENGINE_KEY) {
        last = { position: positionIn(bucket, stored), seq: message.seq }
        if (last.position && !last.position.redo && isNewest) return last.position
      } else await take(key, stored)
    }
  } finally {
    silence.end()
    await messages.close().catch(() => undefined)
    forgetConsumer(consumer)
  }
  // Somebody else wrote behind the checkpoint: what was read is that, and the checkpoint.
  const now = await connection.read((nc) => leaderGet(nc, stream, query))
  if (last?.position && !last.position.redo && now?.seq === last.seq) return last.position
  throw new FlowStoneError(
    'unreadable',
    `the last checkpoint of ${bucket} is not whole, and no engine goes on with it; start an engine, then verify again`,
  )
}

/** Ends the reading when nothing comes for long. */
class Silence {
  readonly #messages: ConsumerMessages
  #timer: NodeJS.Timeout | undefined

  constructor(messages: ConsumerMessages) {
    this.#messages = messages
    this.broken(SILENCE_MS)
  }

  broken(ms: number): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.#messages.stop(), ms)
  }

  end(): void {
    clearTimeout(this.#timer)
  }
}
