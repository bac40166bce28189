/**
 * Whether an engine was active on a shard before. A mark outside of the state bucket records it,
 * because that bucket may get lost. The log and WORK show it too.
 */
import { randomBytes } from 'node:crypto'
import { encodeJson } from '../../../streams/codec.ts'
import { FlowStoneError } from '../../../streams/errors.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { Connection } from '../../log/connection.ts'
import { ERR, isFull, isPassingRefusal, leaderGet, publishTo, streamBounds, UNIT_HEADER } from '../../log/nats.ts'

const FULL_PAUSE_MS = 500

/**
 * Sets the mark. True for the caller that set it first on a shard where nothing has been done yet.
 */
export async function isFirstEngine(connection: Connection, names: Names, shard: number): Promise<boolean> {
  const unit = randomBytes(12).toString('base64url')
  const entry = { subject: markOf(names, shard), payload: encodeJson({ v: 1 }), contentType: 'application/json' }
  const stream = names.kvStream(names.controlBucket)
  for (;;) {
    const ack = await connection.read((nc) => publishTo(nc, stream, { ...entry, expect: { seq: 0 } }, unit, 5000))
    if (!ack.error) break
    if (ack.error.errCode === ERR.wrongLastSequence) {
      // Asked twice because an answer was lost: it is this engine's own word that stands there.
      if ((await readMark(connection, names, shard))?.headers.get(UNIT_HEADER) !== unit) return false
      break
    }
    if (!isPassingRefusal(ack.error) && ack.error.errCode !== ERR.wrongLastSequenceConstant)
      throw new FlowStoneError('checkpoint', `${entry.subject} could not be stored: ${ack.error.description}`)
    await connection.ready(isFull(ack.error) ? FULL_PAUSE_MS : 100)
  }
  return !(await hasTraces(connection, names, shard))
}

/** Whether an engine was active on the shard, by the mark or by what it left. */
export async function hasBegun(connection: Connection, names: Names, shard: number): Promise<boolean> {
  return (await readMark(connection, names, shard)) !== undefined || (await hasTraces(connection, names, shard))
}

function markOf(names: Names, shard: number): string {
  return names.kvSubject(names.controlBucket, `begun.${shard}`)
}

async function readMark(connection: Connection, names: Names, shard: number): ReturnType<typeof leaderGet> {
  const query = { last_by_subj: markOf(names, shard) }
  return await connection.read((nc) => leaderGet(nc, names.kvStream(names.controlBucket), query))
}

/** The mark may be lost, with the control bucket. */
async function hasTraces(connection: Connection, names: Names, shard: number): Promise<boolean> {
  const { messages } = await connection.read((nc) => streamBounds(nc, names.work(shard)))
  if (messages > 0) return true
  const paths = ['run.*.planned', 'run.*.finished', 'asset.>', 'scatter.>']
  const found = await Promise.all(
    paths.map((path) =>
      connection.read((nc) => leaderGet(nc, names.log(shard), { last_by_subj: names.fact(shard, path) })),
    ),
  )
  return found.some((message) => message !== undefined)
}
