/** The feed against the log. */
import { type JsMsg, jetstream } from '@nats-io/jetstream'
import type { NatsConnection } from '@nats-io/transport-node'
import { expect } from 'vitest'
import { feedPath } from '../../streams/feed.ts'
import type { Names } from '../../streams/subjects.ts'

const SILENCE_MS = 2000

/** All messages of a stream, in order, as its leader has them. */
export async function allOf(nc: NatsConnection, stream: string): Promise<JsMsg[]> {
  const consumer = await jetstream(nc).consumers.get(stream)
  const { num_pending } = await consumer.info()
  const found: JsMsg[] = []
  for (let [before, isOver] = [-1, num_pending === 0]; !isOver && before < found.length; ) {
    before = found.length
    for await (const message of await consumer.fetch({ max_messages: 1000, expires: SILENCE_MS })) {
      found.push(message)
      isOver = message.info.pending === 0
      if (isOver) break
    }
  }
  await consumer.delete()
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
  const feed = (await allOf(nc, names.feed))
    .filter(({ subject }) => subject.startsWith(names.feedFact('')))
    .map(({ subject, data }) => bodyOf(subject, data))
  let missing = 0
  for (let shard = 0; shard < shards; shard++) {
    const due = (await allOf(nc, names.log(shard))).flatMap(({ subject, data }) => {
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
