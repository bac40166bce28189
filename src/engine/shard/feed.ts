/**
 * Copies to the feed what outsiders see of the log. Many facts share a batch: the server, which
 * could do this itself, would sync the disk for each.
 *
 * The position is a message of the feed, stored with the facts up to it, and only if the one before
 * is the last. So each fact is copied once, in order, also where an engine that was replaced goes
 * on for a while. What was not copied when an engine died is read from the log by the next one.
 */

import { ConflictError, messageOf } from '../../../streams/errors.ts'
import { decodeFeedPosition, encodeFeedPosition, feedBody, feedPath } from '../../../streams/feed.ts'
import { jetstreamManager } from '../../../streams/jetstream.ts'
import type { Names } from '../../../streams/subjects.ts'
import { Appender } from '../../log/appender.ts'
import type { Connection } from '../../log/connection.ts'
import { directNext, type Entry, leaderGet, type StoredMessage, streamBounds } from '../../log/nats.ts'
import { Reader } from '../../log/reader.ts'
import { sleep } from '../../options/timer.ts'
import type { Logger } from '../../telemetry.ts'

/**
 * Facts that come within so long of each other share a batch. A batch costs the server as much as a
 * dozen messages: while it goes on, batches are further apart.
 */
const LINGER_MS = 10
const APART_MS = 100
const BATCH_FACTS = 900
const BATCH_BYTES = 4 * 1024 * 1024
/** More than this waits on the log, and not here. */
const HELD_FACTS = 5000
const HELD_BYTES = 16 * 1024 * 1024
const AGAIN_MS = 1000
const STOP_MS = 1000
/** Only the last position matters. The others are taken away now and then. */
const POSITIONS_KEPT = 200
/** How far back the end of a feed is searched that the server made once. */
const SEARCHED = 20_000
const SEARCH_STEP = 1000
/** `<stream> <sequence> …`: where a message stood that the server copied. */
const SOURCE_HEADER = 'Nats-Stream-Source'

export interface FeedOptions {
  readonly connection: Connection
  readonly names: Names
  readonly shard: number
  readonly logger: Logger
  /** The engine folds from here on, and offers each message. */
  readonly from: number
}

interface At {
  /** All facts of the log up to here are on the feed. */
  seq: number
  /** Where the position stands on the feed; 0: nowhere. */
  positionSeq: number
  readonly created: string
}

export class Feed {
  readonly #options: FeedOptions
  readonly #appender: Appender
  readonly #log: string
  #queue: StoredMessage[] = []
  #queueBytes = 0
  /** Messages up to here have been offered. */
  #offered: number
  /** What was offered is read from the log, because it is not in the queue. */
  #isBehind = true
  #at: At | undefined
  #stored = 0
  #storedMs = Number.NEGATIVE_INFINITY
  #reader: Reader | undefined
  /** What was in the queue is on its way to the feed. */
  #isStoring = false
  #stopped = false
  #isStopping = false
  #wake: (() => void) | undefined
  #warned = false
  #running: Promise<void> = Promise.resolve()

  constructor(options: FeedOptions) {
    const { connection, names, shard, from } = options
    this.#options = options
    this.#log = names.log(shard)
    this.#offered = from
    this.#appender = new Appender(connection, names.feed, { giveUpMs: 10_000 })
  }

  start(): void {
    this.#running = this.#run()
  }

  /** All that outsiders see up to this sequence of the log is on the feed. */
  get shownTo(): number {
    if (!this.#at) return 0
    return this.#isBehind || this.#queue.length > 0 || this.#isStoring ? this.#at.seq : this.#offered
  }

  /** Each message of the log, in order. */
  offer(message: StoredMessage): void {
    this.#offered = message.seq
    if (this.#isBehind || !this.#at || message.seq <= this.#at.seq || this.#pathOf(message) === undefined) return
    this.#queue.push(message)
    this.#queueBytes += message.payload.length
    if (this.#queue.length > HELD_FACTS || this.#queueBytes > HELD_BYTES) this.#fallBehind()
    this.#wake?.()
  }

  /** Copies what is left, unless that takes long: the next engine has it from the log. */
  async finish(): Promise<void> {
    this.#isStopping = true
    this.#wake?.()
    await Promise.race([this.#running, sleep(STOP_MS, undefined, { unref: true })])
    this.stop()
  }

  stop(): void {
    this.#stopped = true
    this.#reader?.stop()
    this.#wake?.()
  }

  #pathOf(message: StoredMessage): string | undefined {
    const path = this.#options.names.factPath(message.subject)
    return path === undefined ? undefined : feedPath(path)
  }

  #fallBehind(): void {
    this.#isBehind = true
    this.#isStoring = false
    this.#queue = []
    this.#queueBytes = 0
  }

  async #run(): Promise<void> {
    const { connection, names, shard, logger } = this.#options
    while (!this.#stopped && !connection.isClosed) {
      try {
        this.#at ??= await this.#position()
        if (this.#isBehind) await this.#catchUp(this.#at)
        else if (this.#queue.length > 0) await this.#copyQueue(this.#at)
        else if (this.#isStopping) return
        else await this.#offers()
      } catch (error) {
        this.#fallBehind()
        // Another engine copies: from where it stands by now.
        if (error instanceof ConflictError) this.#at = undefined
        else if (!connection.isClosed) {
          if (!this.#warned)
            logger.warn(`${names.feed} takes no facts of shard ${shard}: ${messageOf(error)}; trying on`)
          this.#warned = true
        }
        if (this.#isStopping) return
        await connection.ready(AGAIN_MS)
      }
    }
  }

  #offers(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = () => {
        this.#wake = undefined
        resolve()
      }
    })
  }

  async #copyQueue(at: At): Promise<void> {
    const apartMs = APART_MS - (performance.now() - this.#storedMs)
    if (!this.#isStopping) await sleep(Math.max(LINGER_MS, apartMs))
    const queue = this.#queue
    this.#isStoring = true
    this.#queue = []
    this.#queueBytes = 0
    for (const batch of batchesOf(queue)) await this.#store(at, batch)
    this.#isStoring = false
  }

  async #catchUp(at: At): Promise<void> {
    const upTo = this.#offered
    if (upTo > at.seq) {
      const reader = new Reader(this.#options.connection, this.#log, at.seq + 1)
      this.#reader = reader
      try {
        while (at.seq < upTo && !this.#stopped) {
          const messages = await reader.take(BATCH_FACTS, upTo)
          const last = Math.min(upTo, messages.at(-1)?.seq ?? upTo)
          const shown = messages.filter((message) => message.seq <= upTo && this.#pathOf(message) !== undefined)
          for (const batch of batchesOf(shown)) await this.#store(at, batch)
          if (!this.#stopped) at.seq = last
        }
      } finally {
        reader.stop()
      }
    }
    if (this.#offered <= at.seq) this.#isBehind = false
  }

  async #store(at: At, messages: readonly StoredMessage[]): Promise<void> {
    const { connection, names, shard } = this.#options
    const last = messages.at(-1)
    if (!last || this.#stopped) return
    const facts = messages.map((message): Entry => {
      const contentType = message.headers.get('Content-Type')
      const path = this.#pathOf(message) ?? ''
      return {
        subject: names.feedFact(path),
        payload: feedBody(path, message.payload),
        ...(contentType === undefined ? {} : { contentType }),
      }
    })
    const position: Entry = {
      subject: names.feedPosition(shard),
      payload: encodeFeedPosition({ seq: last.seq, created: at.created }),
      contentType: 'application/json',
      expect: { seq: at.positionSeq },
      // It outlives what the feed drops for its age: without it, all would be copied again.
      headers: { 'Nats-TTL': 'never' },
    }
    const { seq } = await this.#appender.append(...facts, position)
    at.seq = last.seq
    at.positionSeq = seq
    this.#warned = false
    this.#stored += 1
    this.#storedMs = performance.now()
    if (this.#stored % POSITIONS_KEPT !== 1) return
    const jsm = await jetstreamManager(connection.nc)
    await jsm.streams.purge(names.feed, { filter: position.subject, keep: 1 }).catch(() => undefined)
  }

  async #position(): Promise<At> {
    const { connection, names, shard, from } = this.#options
    const last_by_subj = names.feedPosition(shard)
    const found = await connection.read((nc) => leaderGet(nc, names.feed, { last_by_subj }))
    // After the position, which an engine before this one may still move.
    const { last, created } = await connection.read((nc) => streamBounds(nc, this.#log))
    if (!found) return { seq: Math.min(last, await this.#copiedByServer()), positionSeq: 0, created }
    const position = decodeFeedPosition(found.payload)
    // Of another log: what that one had is not known. From now on.
    const seq = position.created === created ? Math.min(position.seq, last) : from
    return { seq, positionSeq: found.seq, created }
  }

  /** The last fact that the server copied, when it made the feed. 0: it never did. */
  async #copiedByServer(): Promise<number> {
    const { connection, names, from } = this.#options
    const { last } = await connection.read((nc) => streamBounds(nc, names.feed))
    let isOfServer = false
    for (let end = last, searched = 0; end > 0 && searched < SEARCHED; searched += SEARCH_STEP) {
      const start = Math.max(1, end - SEARCH_STEP + 1)
      const some = await connection.read((nc) => directNext(nc, names.feed, start, '>', SEARCH_STEP))
      const copied = some.flatMap(({ headers }) => {
        const [stream, seq] = (headers.get(SOURCE_HEADER) ?? '').split(' ')
        if (seq !== undefined) isOfServer = true
        return stream?.split(':')[0] === this.#log && seq !== undefined ? [Number(seq)] : []
      })
      if (copied.length > 0) return Math.max(...copied)
      end = start - 1
    }
    return isOfServer ? from : 0
  }
}

function* batchesOf(messages: readonly StoredMessage[]): Generator<StoredMessage[]> {
  let batch: StoredMessage[] = []
  let bytes = 0
  for (const message of messages) {
    if (batch.length >= BATCH_FACTS || (batch.length > 0 && bytes + message.payload.length > BATCH_BYTES)) {
      yield batch
      batch = []
      bytes = 0
    }
    batch.push(message)
    bytes += message.payload.length
  }
  if (batch.length > 0) yield batch
}
