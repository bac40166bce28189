/**
 * Reports what is wrong with a connection, for people. Each problem is logged when it begins, and
 * from time to time while it lasts, but not for each message that meets it. Telemetry gets the same
 * events.
 */
import type { NatsConnection } from '@nats-io/nats-core'
import { FlowStoneError, messageOf } from '../../streams/errors.ts'
import { after, type Timer } from '../options/timer.ts'
import { emit, type Logger } from '../telemetry.ts'
import { consequenceOf, type Denied, deniedBy, remedyOf } from './permissions.ts'

/** A server that restarts within this time is no news. */
const AWAY_SAID_AFTER_MS = 1000
const AWAY_AGAIN_MS = 60_000
const REFUSED_AGAIN_MS = 30_000
const FULL_AGAIN_MS = 10_000
const CROWDED_AGAIN_MS = 30_000
/** A stream that nobody has tried to write to for so long is not spoken of any more. */
const FULL_FORGOTTEN_MS = 30_000
/** So many different subjects and server errors are remembered; more of them are not logged. */
const SAID_MAX = 1000

interface Full {
  readonly sinceMs: number
  seenMs: number
  limit: string
}

export class Reports {
  readonly #logger: Logger
  readonly #where: () => string
  readonly #inboxPrefix: string
  /** Finds out which limit a stream has reached. */
  readonly #limitOf: (stream: string, description: string) => Promise<string>
  readonly #said = new Set<string>()
  readonly #denied = new Map<string, Denied>()
  readonly #full = new Map<string, Full>()
  /** When it was said last that a stream lets nobody else read it. */
  readonly #crowded = new Map<string, number>()
  #fullSaidMs = Number.NEGATIVE_INFINITY
  #awaySince: Date | undefined
  #awayTimer: Timer | undefined
  #awaySaid = false
  #refusedSaidMs = Number.NEGATIVE_INFINITY
  #badMessages = 0
  #reason: string | undefined

  constructor(
    logger: Logger,
    about: {
      where: () => string
      inboxPrefix: string
      limitOf: (stream: string, description: string) => Promise<string>
    },
  ) {
    this.#logger = logger
    this.#where = about.where
    this.#inboxPrefix = about.inboxPrefix
    this.#limitOf = about.limitOf
  }

  /** Since when the server is away; undefined while it is there. */
  get awaySince(): Date | undefined {
    return this.#awaySince
  }

  /** Why the connection is not there, as far as the server said. */
  get reason(): string | undefined {
    return this.#reason
  }

  get denied(): readonly Denied[] {
    return [...this.#denied.values()]
  }

  /** Streams that take no message, because some limit of their storage is reached. */
  get full(): readonly string[] {
    const nowMs = performance.now()
    return [...this.#full].filter(([, { seenMs }]) => nowMs - seenMs < FULL_FORGOTTEN_MS).map(([stream]) => stream)
  }

  /** Messages that could not be read, and were dropped. */
  get badMessages(): number {
    return this.#badMessages
  }

  away(): void {
    if (this.#awaySince) return
    this.#awaySince = new Date()
    emit('flowstone:connection.away', { server: this.#where() })
    const say = (): void => {
      this.#awaySaid = true
      const why = this.#reason === undefined ? '' : ` (${this.#reason})`
      this.#logger.warn(
        `server away since ${this.#awaySince?.toISOString()}: nats-server at ${this.#where()}${why}; reconnecting`,
      )
      this.#awayTimer = after(AWAY_AGAIN_MS, say, { unref: true })
    }
    this.#awayTimer = after(AWAY_SAID_AFTER_MS, say, { unref: true })
  }

  back(): void {
    const awayMs = Date.now() - (this.#awaySince?.getTime() ?? Date.now())
    this.#awayTimer?.cancel()
    if (this.#awaySaid) this.#logger.warn(`server is back after ${(awayMs / 1000).toFixed(1)} s: ${this.#where()}`)
    if (this.#awaySince) emit('flowstone:connection.back', { server: this.#where(), awayMs })
    this.#awaySince = undefined
    this.#awaySaid = false
    this.#reason = undefined
    this.#refusedSaidMs = Number.NEGATIVE_INFINITY
  }

  /** The server refuses the credentials. */
  refused(error: unknown): void {
    const reason = messageOf(error)
    this.#reason = reason
    emit('flowstone:connection.refused', { server: this.#where(), reason })
    if (performance.now() - this.#refusedSaidMs < REFUSED_AGAIN_MS) return
    this.#refusedSaidMs = performance.now()
    this.#logger.error(
      `nats-server at ${this.#where()} refuses the credentials: ${reason}; FlowStone keeps trying. Check the user and its password, creds or nkey.`,
    )
  }

  closed(reason: string | undefined): void {
    this.#awayTimer?.cancel()
    this.#reason = reason
    emit('flowstone:connection.closed', reason === undefined ? {} : { reason })
    if (reason !== undefined) this.#logger.error(`the connection to nats-server is closed for good: ${reason}`)
  }

  /** The server denied a subject: logged once for each permission. */
  denies(operation: string, subject: string): Denied {
    const denied = deniedBy(operation, subject, this.#inboxPrefix)
    const key = `${denied.operation} ${denied.permission}`
    if (!this.#denied.has(key)) {
      this.#denied.set(key, denied)
      emit('flowstone:connection.denied', denied)
      this.#logger.error(`${denialOf(denied)}${consequenceOf(denied)}${remedyOf(denied)}`)
    }
    return denied
  }

  /**
   * Any other error that the server sends, such as a limit of connections or subscriptions: each
   * text once.
   */
  serverError(error: unknown): void {
    const reason = messageOf(error)
    if (this.#once(`server ${reason}`)) this.#logger.error(`nats-server at ${this.#where()} says: ${reason}`)
  }

  /** Whoever reads a stream waits until others have read. */
  crowded(stream: string, { message }: FlowStoneError): void {
    const nowMs = performance.now()
    if (nowMs - (this.#crowded.get(stream) ?? Number.NEGATIVE_INFINITY) < CROWDED_AGAIN_MS) return
    this.#crowded.set(stream, nowMs)
    this.#logger.warn(`${message}. It is tried again until then`)
  }

  /**
   * A message that cannot be read, or whose handling threw: dropped, counted, and logged once for
   * each subscription.
   */
  badMessage(subscription: string, error: unknown): void {
    this.#badMessages += 1
    const reason = messageOf(error)
    emit('flowstone:connection.bad_message', { subject: subscription, reason })
    if (this.#once(`bad ${subscription}`))
      this.#logger.warn(`a message on ${subscription} cannot be read and is dropped: ${reason}`)
  }

  /**
   * A stream refused a message because its storage is full. Logged at once, and every 10 s while
   * appends are tried.
   */
  isFull(stream: string, description: string): void {
    const nowMs = performance.now()
    const known = this.#full.get(stream)
    if (known && nowMs - known.seenMs < FULL_FORGOTTEN_MS) {
      known.seenMs = nowMs
      if (nowMs - this.#fullSaidMs >= FULL_AGAIN_MS) this.#sayFull()
      return
    }
    const full: Full = { sinceMs: nowMs, seenMs: nowMs, limit: description }
    this.#full.set(stream, full)
    void this.#limitOf(stream, description)
      .catch(() => '')
      .then((limit) => {
        if (limit !== '') full.limit = `${description}; ${limit}`
        emit('flowstone:storage.full', { stream, limit: full.limit })
        if (this.#full.get(stream) === full) this.#sayFull()
      })
  }

  /** A stream stored a message. */
  hasRoom(stream: string): void {
    if (this.#full.size === 0) return
    const full = this.#full.get(stream)
    if (!full) return
    this.#full.delete(stream)
    const fullMs = performance.now() - full.sinceMs
    emit('flowstone:storage.room', { stream, fullMs })
    this.#logger.warn(`JetStream stores messages of ${stream} again, after ${(fullMs / 1000).toFixed(1)} s`)
  }

  #sayFull(): void {
    this.#fullSaidMs = performance.now()
    const streams = this.full.map((stream) => `${stream}: ${this.#full.get(stream)?.limit}`)
    this.#logger.error(
      `JetStream storage is full (${streams.join(' · ')}); nothing is lost, and FlowStone continues when there is room`,
    )
  }

  #once(key: string): boolean {
    if (this.#said.has(key) || this.#said.size >= SAID_MAX) return false
    this.#said.add(key)
    return true
  }
}

/** What is denied, in words. */
export function denialOf({ operation, subject, permission }: Denied): string {
  return `not allowed to ${operation} to ${subject}: the NATS user lacks the permission ${operation} ${permission}`
}

export function deniedError(denied: Denied, cause?: unknown): FlowStoneError {
  return new FlowStoneError('denied', `${denialOf(denied)}${remedyOf(denied)}`, { cause })
}

const ofConnection = new WeakMap<NatsConnection, Reports>()

export function reportTo(nc: NatsConnection, reports: Reports): void {
  ofConnection.set(nc, reports)
}

export function reportsOf(nc: NatsConnection): Reports | undefined {
  return ofConnection.get(nc)
}
