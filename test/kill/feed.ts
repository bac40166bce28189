/** The feed against the log. */
import { jetstreamManager, type StoredMsg } from '@nats-io/jetstream'
import type { NatsConnection } from '@nats-io/transport-node'
import { expect } from 'vitest'
import { feedPath } from '../../streams/feed.ts'
import type { Names } from '../../streams/subjects.ts'

/** All messages of a stream, in order. */
async function messagesOf(nc: NatsConnection, stream: string): Promise<StoredMsg[]> {
  const jsm = await jetstreamManager(nc)
  const { last_seq } = (await jsm.streams.info(stream)).state
  const found: StoredMsg[] = []
  for (let seq = 1; seq <= last_seq; seq = (found.at(-1)?.seq ?? last_seq) + 1) {
    const before = found.length
    try {
      for await (const message of await jsm.direct.getBatch(stream, { seq, batch: 1000 })) found.push(message)
    } catch (error) {
      if (!String(error).includes('message not found')) throw error
    }
    if (found.length === before) break
  }
  return found
}

const bodyOf = (subject: string, data: Uint8Array): string => `${subject} ${Buffer.from(data).toString('latin1')}`

/**
 * Each fact that outsiders may see is on the feed once at most, and in the order of its log.
 * Returns how many there are, and how many of the last ones are missing yet.
 */
export async function compareFeed(
  nc: NatsConnection,
  names: Names,
  shards: number,
): Promise<{ readonly shown: number; readonly missing: number }> {
  const feed = (await messagesOf(nc, names.feed))
    .filter(({ subject }) => subject.startsWith(names.feedFact('')))
    .map(({ subject, data }) => bodyOf(subject, data))
  let missing = 0
  for (let shard = 0; shard < shards; shard++) {
    const due = (await messagesOf(nc, names.log(shard))).flatMap(({ subject, data }) => {
      const path = feedPath(names.factPath(subject) ?? '')
      return path === undefined ? [] : [bodyOf(names.feedFact(path), data)]
    })
    const known = new Set(due)
    const copied = feed.filter((body) => known.has(body))
    expect(copied, `feed of shard ${shard}`).toEqual(due.slice(0, copied.length))
    missing += due.length - copied.length
  }
  return { shown: feed.length, missing }
}
