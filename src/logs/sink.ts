/**
 * Sends the lines of a worker's `ctx.log` to the stream of logs. It never fails and never holds up
 * user code: what cannot be sent waits in a bounded buffer, and is dropped beyond that.
 *
 * Lines leave some 100 ms after the first one, when there are many, and when a task ends. After a
 * group of many lines the next one waits for half a second. One group is in flight at a time; a
 * large one is one atomic batch. A process that is killed loses what has not left.
 */
import { randomBytes } from 'node:crypto'
import { errors } from '@nats-io/nats-core'
import { FlowStoneError, messageOf } from '../../streams/errors.ts'
import type { NewLine } from '../../streams/log-columns.ts'
import type { Names } from '../../streams/subjects.ts'
import type { ServerClock } from '../log/clock.ts'
import type { Connection } from '../log/connection.ts'
import { type Entry, ERR, type PubAck, publish, publishBatch } from '../log/nats.ts'
import { after, atMost, type Timer } from '../options/timer.ts'
import type { Logger } from '../telemetry.ts'
import { LogBuffer, type LogMessage, type LogScope } from './buffer.ts'
import { LineRate } from './rate.ts'

const FLUSH_MS = 100
/** After a warning, an error, or the end of a task. */
const SOON_MS = 15
/**
 * Groups leave so far apart. Where many lines come, it is longer: each group costs the server a
 * sync, or a batch.
 */
const APART_MS = 100
const MANY_APART_MS = 500
const MANY_LINES = 100
/** So many characters leave at once. */
const FLUSH_CHARS = 256 * 1024
const MAX_CHARS = 8 * 1024 * 1024
const MESSAGE_CHARS = 64 * 1024
/** Of what the server takes, for headers and the subject. */
const HEAD_BYTES = 2048
/** A line is at most about so long. */
const LINE_CHARS = 16 * 1024
/**
 * More messages than these are sent as an atomic batch. The server syncs its disk once for a batch,
 * which costs it as much as some ten messages besides.
 */
const SINGLE_MAX = 7
const BATCH_MAX = 500
const ANSWER_MS = 5000
/** When nobody takes the lines, it is tried again after this; without the right, after longer. */
const AGAIN_MS = 5000
const DENIED_AGAIN_MS = 60_000
/**
 * Lines without an answer are sent again until this long after the first time. The server knows
 * them again for 30 s.
 */
const UNSURE_MS = 20_000
/** A stop waits so long for the last lines. */
const STOP_MS = 2000

/** `unsure`: no answer came. They may be stored, or not. */
type Verdict = 'stored' | 'lost' | 'away' | 'unsure' | 'refused' | 'denied'

export interface SinkParts {
  readonly connection: Connection
  readonly names: Names
  readonly clock: ServerClock
  readonly logger: Logger
  readonly maxPerSecond: number
}

export class LogSink {
  readonly #parts: SinkParts
  readonly #buffer: LogBuffer
  readonly #rate: LineRate
  readonly #id = randomBytes(6).toString('base64url')
  /** Most characters of a line's message and fields together. */
  readonly lineChars: number
  #messages = 0
  #timer: Timer | undefined
  #dueMs = Number.POSITIVE_INFINITY
  /** When the next group may leave. */
  #nextMs = 0
  #sending: Promise<void> | undefined
  /** Until then nothing is sent: nobody would take it. */
  #pausedMs = 0
  #isDenied = false
  #clockAheadMs = 0
  #clockUntilMs = Number.NEGATIVE_INFINITY
  #hasWarned = false
  #isStopped = false

  constructor(parts: SinkParts) {
    this.#parts = parts
    this.#rate = new LineRate(parts.maxPerSecond)
    const messageBytes = Math.max(512, parts.connection.maxPayload - HEAD_BYTES)
    const messageChars = Math.min(MESSAGE_CHARS, Math.floor(messageBytes / 2))
    this.lineChars = Math.min(LINE_CHARS, Math.floor(messageChars / 4))
    this.#buffer = new LogBuffer({ maxChars: MAX_CHARS, messageChars, messageBytes })
  }

  /** The server's time in milliseconds; its clock is asked now and then, and not for each line. */
  nowMs(): number {
    const nowMs = performance.now()
    if (nowMs > this.#clockUntilMs) {
      this.#clockAheadMs = this.#parts.clock.now() - nowMs
      this.#clockUntilMs = nowMs + FLUSH_MS
    }
    return Math.round(nowMs + this.#clockAheadMs)
  }

  add(scope: LogScope, line: NewLine): void {
    if (this.#isStopped || this.#isDenied || !this.#buffer.add(scope, line)) return
    if (this.#buffer.chars >= FLUSH_CHARS) this.#flushIn(0)
    else if (line.level > 1) this.#flushSoon()
    else if (this.#dueMs === Number.POSITIVE_INFINITY) this.#flushApart(FLUSH_MS)
  }

  /** Whether a line may come now. If not, it is counted. */
  takes(scope: LogScope, level: number): boolean {
    if (this.#rate.takes(level > 1)) return true
    if (this.#isStopped || this.#isDenied) return false
    this.#buffer.drop(scope)
    if (this.#dueMs === Number.POSITIVE_INFINITY) this.#flushApart(FLUSH_MS)
    return false
  }

  /** A task has ended. */
  soon(): void {
    if (!this.#buffer.isEmpty) this.#flushSoon()
  }

  #flushSoon(): void {
    this.#flushApart(SOON_MS)
  }

  /** Many short tasks end each second: theirs leave together. */
  #flushApart(ms: number): void {
    this.#flushIn(Math.max(ms, this.#nextMs - performance.now()))
  }

  /** Sends what there is, for at most 2 s. */
  async stop(): Promise<void> {
    this.#pausedMs = 0
    await atMost(STOP_MS, this.#drain())
    this.#isStopped = true
    this.#timer?.cancel()
  }

  async #drain(): Promise<void> {
    await this.#sending
    while (!this.#buffer.isEmpty && this.#pausedMs === 0) await this.#flush()
  }

  #flushIn(ms: number): void {
    const dueMs = performance.now() + ms
    if (this.#isStopped || dueMs >= this.#dueMs) return
    this.#timer?.cancel()
    this.#dueMs = dueMs
    this.#timer = after(ms, () => void this.#flush(), { unref: true })
  }

  /** What is logged meanwhile leaves behind it. */
  async #flush(): Promise<void> {
    this.#timer?.cancel()
    this.#dueMs = Number.POSITIVE_INFINITY
    const waitMs = this.#pausedMs - performance.now()
    if (waitMs > 0) {
      this.#flushIn(waitMs)
      return
    }
    this.#isDenied = false
    if (this.#sending) return await this.#sending
    this.#sending = this.#sendAll().finally(() => {
      this.#sending = undefined
      if (this.#buffer.chars >= FLUSH_CHARS) this.#flushIn(0)
      else if (!this.#buffer.isEmpty) this.#flushSoon()
    })
    await this.#sending
  }

  async #sendAll(): Promise<void> {
    const messages = this.#buffer.take()
    const entries = messages.map((message) => this.#entry(message))
    const lines = messages.reduce((sum, message) => sum + message.lines, 0)
    let sinceMs = performance.now()
    const isMany = entries.length > SINGLE_MAX || lines > MANY_LINES
    this.#nextMs = sinceMs + (isMany ? MANY_APART_MS : APART_MS)
    for (let i = 0; i < entries.length && !this.#isStopped; ) {
      const size = entries.length - i <= SINGLE_MAX ? SINGLE_MAX : BATCH_MAX
      const verdict = await this.#send(entries.slice(i, i + size))
      const isGivenUp = verdict === 'unsure' && performance.now() - sinceMs > UNSURE_MS
      if (verdict === 'stored' || verdict === 'lost' || isGivenUp) {
        i += size
        sinceMs = performance.now()
      } else if (verdict === 'away' || verdict === 'unsure') await this.#parts.connection.ready(FLUSH_MS)
      else {
        this.#pausedMs = performance.now() + (verdict === 'denied' ? DENIED_AGAIN_MS : AGAIN_MS)
        this.#isDenied = verdict === 'denied'
        break
      }
      if (this.#parts.connection.isClosed) break
    }
    this.#buffer.sent()
  }

  /** The server knows a message again that is sent twice because its answer was lost. */
  #entry({ subject, payload }: LogMessage): Entry {
    this.#messages += 1
    return { subject, payload, msgId: `${this.#id}.${this.#messages.toString(36)}` }
  }

  async #send(entries: readonly Entry[]): Promise<Verdict> {
    const { connection, names } = this.#parts
    try {
      const acks = await connection.untilDisconnect(async (nc): Promise<readonly PubAck[]> => {
        if (entries.length <= SINGLE_MAX)
          return await Promise.all(entries.map((entry) => publish(nc, entry, undefined, ANSWER_MS)))
        // By the first one the server knows all of a batch again.
        const batch = entries.map(({ msgId, ...entry }, i) => ({
          entry: i === 0 && msgId !== undefined ? { ...entry, msgId } : entry,
          unit: undefined,
        }))
        return [await publishBatch(nc, batch, randomBytes(9).toString('base64url'), ANSWER_MS)]
      })
      if (!acks) return 'away'
      const error = acks.find((ack) => ack.error && ack.error.errCode !== ERR.duplicateInBatch)?.error
      if (!error) return 'stored'
      this.#warn(`${names.logs} refuses them: ${error.description}`)
      return 'lost'
    } catch (error) {
      if (connection.isClosed) return 'lost'
      if (error instanceof FlowStoneError && error.code === 'denied') return 'denied'
      if (error instanceof errors.NoRespondersError) {
        this.#warn(`there is no stream ${names.logs}; an engine of this version makes it, and so does flowstone setup`)
        return 'refused'
      }
      connection.suspect()
      this.#warn(messageOf(error))
      return 'unsure'
    }
  }

  /** Once: what a missing permission means is reported by the connection. */
  #warn(why: string): void {
    if (this.#hasWarned) return
    this.#hasWarned = true
    this.#parts.logger.warn(`lines of ctx.log are not kept: ${why}`)
  }
}
