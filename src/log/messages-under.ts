/** All messages of a stream under some subjects, in order. */
import { DeliverPolicy } from '@nats-io/jetstream'
import { FlowStoneError } from '../../streams/errors.ts'
import { jetstream } from '../../streams/jetstream.ts'
import { atMost } from '../options/timer.ts'
import type { Connection } from './connection.ts'
import { reading } from './crowded.ts'
import { forgetConsumer } from './forget-consumer.ts'
import { headerMap, leaderGet, type StoredMessage, startTime } from './nats.ts'
import { storedMsOf } from './stored-ms.ts'

const AHEAD = 500
/** After such a silence the reader asks whether anything is left: it may have been purged. */
const SILENCE_MS = 1000

/**
 * From a sequence or a time on, up to the last one that is there when it begins, or to what is left
 * of them when others are purged meanwhile. Throws FlowStoneError `reader_stopped` when the reading
 * breaks before that: what came is then not all. And `too_many_readers` where no more may read.
 */
export async function* messagesUnder(
  connection: Connection,
  stream: string,
  filters: readonly string[],
  from: number | Date = 1,
): AsyncGenerator<StoredMessage> {
  const lasts = filters.map((last_by_subj) => connection.read((nc) => leaderGet(nc, stream, { last_by_subj })))
  const fromMs = typeof from === 'number' ? Number.NEGATIVE_INFINITY : from.getTime()
  const ends = (await Promise.all(lasts)).map((message) => (message && message.timeMs >= fromMs ? message.seq : 0))
  const end = Math.max(...ends)
  if (end === 0 || (typeof from === 'number' && end < from)) return
  const start =
    typeof from === 'number'
      ? { deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: from }
      : { deliver_policy: DeliverPolicy.StartTime, opt_start_time: startTime(from) }
  const made = jetstream(connection.nc).consumers.get(stream, { filter_subjects: [...filters], ...start })
  const consumer = await reading(connection, stream, made)
  const messages = await reading(connection, stream, consumer.consume({ max_messages: AHEAD }))
  const iterator = messages[Symbol.asyncIterator]()
  let seen = typeof from === 'number' ? from - 1 : 0
  try {
    for (let next = iterator.next(); ; ) {
      const got = await atMost(SILENCE_MS, next)
      if (got === 'late') {
        if (await isAnyLeft(connection, stream, filters, { from: seen + 1, end })) continue
        return
      }
      if (got.done) break
      const message = got.value
      const timeMs = storedMsOf(message)
      const { subject, seq, data: payload } = message
      seen = seq
      yield { subject, seq, timeMs, payload, headers: headerMap(message.headers) }
      if (seq >= end) return
      next = iterator.next()
    }
  } finally {
    // Its own error would hide that of the reading. It waits for the end of its iterator.
    await Promise.all([messages.close(), iterator.return?.()]).catch(() => undefined)
    forgetConsumer(consumer)
  }
  throw new FlowStoneError('reader_stopped', `the reader of ${stream} stopped before message ${end}`)
}

async function isAnyLeft(
  connection: Connection,
  stream: string,
  filters: readonly string[],
  { from, end }: { readonly from: number; readonly end: number },
): Promise<boolean> {
  const query = (next_by_subj: string) => ({ seq: Math.max(1, from), next_by_subj })
  const next = filters.map((filter) => connection.read((nc) => leaderGet(nc, stream, query(filter))))
  return (await Promise.all(next)).some((message) => message !== undefined && message.seq <= end)
}
