/**
 * Reads of many subjects for whoever takes something away by what is read. A copy of a stream may
 * lag behind its leader: it then lacks messages, or gives older ones. So its answer counts only if
 * it says that it has all that the leader had before.
 */
import type { Connection } from './connection.ts'
import { directGetMany, leaderGet, type StoredMessage, streamBounds } from './nats.ts'

const AT_ONCE = 500
/** Questions to the leader on their way at a time. */
const ASKED = 32

/** The last message under each subject (no filters), by subject, as the leader has them. */
export async function freshGetMany(
  connection: Connection,
  stream: string,
  subjects: readonly string[],
): Promise<ReadonlyMap<string, StoredMessage>> {
  const found = new Map<string, StoredMessage>()
  if (subjects.length === 0) return found
  const { last } = await connection.read((nc) => streamBounds(nc, stream))
  for (let i = 0; i < subjects.length; i += AT_ONCE) {
    const some = subjects.slice(i, i + AT_ONCE)
    let upTo = 0
    const saw = (seq: number): void => {
      upTo = seq
    }
    const there = await connection.read((nc) => directGetMany(nc, stream, some, { saw }))
    if (upTo >= last) for (const [subject, message] of there) found.set(subject, message)
    else await askLeader(connection, stream, some, found)
  }
  return found
}

async function askLeader(
  connection: Connection,
  stream: string,
  subjects: readonly string[],
  found: Map<string, StoredMessage>,
): Promise<void> {
  for (let i = 0; i < subjects.length; i += ASKED)
    await Promise.all(
      subjects.slice(i, i + ASKED).map(async (last_by_subj) => {
        const message = await connection.read((nc) => leaderGet(nc, stream, { last_by_subj }))
        if (message) found.set(last_by_subj, message)
      }),
    )
}
