/** All messages of a stream under some subjects, in order. */
import type { Connection } from './connection.ts'
import { directSince, leaderGet, type StoredMessage } from './nats.ts'
import { Reader } from './reader.ts'

const TAKE = 500

/**
 * From a sequence or a time on, up to the last one that is there when it begins, or to what is left
 * of them when others are purged meanwhile. `filters`: none may cover another one. Throws
 * FlowStoneError as `Reader` does, and `too_many_readers` or `denied` where nobody more may read.
 */
export async function* messagesUnder(
  connection: Connection,
  stream: string,
  filters: readonly string[],
  from: number | Date = 1,
): AsyncGenerator<StoredMessage> {
  const lasts = await Promise.all(
    filters.map((last_by_subj) => connection.read((nc) => leaderGet(nc, stream, { last_by_subj }))),
  )
  const fromMs = typeof from === 'number' ? Number.NEGATIVE_INFINITY : from.getTime()
  const wanted = filters.filter((_, i) => (lasts[i]?.timeMs ?? Number.NEGATIVE_INFINITY) >= fromMs)
  const end = Math.max(0, ...lasts.map((message) => (message && message.timeMs >= fromMs ? message.seq : 0)))
  const start = typeof from === 'number' ? from : await firstSince(connection, stream, wanted, from)
  if (end < start) return
  const reader = new Reader(connection, stream, start, { filters, failsWhenRefused: true })
  try {
    for (;;) {
      const messages = await reader.take(TAKE, end)
      if (messages.length === 0) return
      for (const message of messages) {
        if (message.seq > end) return
        if (message.timeMs >= fromMs) yield message
        if (message.seq === end) return
      }
    }
  } finally {
    reader.stop()
  }
}

/** The sequence of the first message since a time, or of one before it. */
async function firstSince(
  connection: Connection,
  stream: string,
  filters: readonly string[],
  since: Date,
): Promise<number> {
  const firsts = filters.map((filter) => connection.read((nc) => directSince(nc, stream, since, filter)))
  // A replica may not have it yet.
  return Math.min(...(await Promise.all(firsts)).map((first) => first?.seq ?? 1))
}
