/**
 * `flow.limiter`: rate limits and slots that hold over all processes and hosts of a namespace. Guarantees and limits: docs/limits.md.
 *
 * A bucket is a name and nothing more: it is there once somebody uses it, and goes when it has been idle for long enough to mean nothing. The numbers belong to the
 * call, so a deploy changes a limit by saying another one.
 */
import { jetstreamManager } from '@nats-io/jetstream'
import { counted, decodeRateCell, type Rate, settled } from '../../projections/rate-cell.ts'
import { FlowStoneError } from '../../streams/errors.ts'
import { decodeToken } from '../../streams/ids.ts'
import type { Names } from '../../streams/subjects.ts'
import { type Duration, parseDuration } from '../define/duration.ts'
import { ServerClock } from '../log/clock.ts'
import type { Connection } from '../log/connection.ts'
import { Cells } from './cells.ts'
import { checkBucket, parseRate, type RateOption, wholeNumber } from './rate.ts'
import { type CheckResult, Rates, type Wish } from './rates.ts'

export interface CheckOptions {
  /** How many tokens at once. Default 1; at most the limit, of a smooth rate its burst. */
  readonly n?: number
  /** How long an answer of the server is waited for. Default `'5s'`. */
  readonly maxWait?: Duration
  /** What to do when NATS does not answer within maxWait: `closed` (default) throws FlowStoneError `unreachable`, `open` goes on as if there were no limit. */
  readonly onUnreachable?: 'closed' | 'open'
}

export interface TakeOptions extends CheckOptions {
  /** Longest wait for one's turn. Default `'60s'`. If the turn cannot come in time, RateLimitedError with `retryAfterMs` is thrown, at once if that is known at once. */
  readonly maxWait?: Duration
  /** Ends the wait with the signal's reason; the place in the queue is given back. */
  readonly signal?: AbortSignal
}

export interface RateStatus {
  readonly shape: 'window' | 'smooth'
  /** As it was said by whoever asked last. */
  readonly limit: number
  readonly periodMs: number
  readonly burst: number
  /** Tokens that count against the limit now; of a smooth rate against its burst. */
  readonly count: number
  readonly remaining: number
  /** count / limit; of a smooth rate count / burst. */
  readonly utilization: number
  /** Tokens that are promised to waiters, each for a time of its own; no more than the limit of them are told. */
  readonly waiting: number
}

export interface BucketStatus {
  readonly bucket: string
  /** Undefined where no rate limit of this name is in use. */
  readonly rate: RateStatus | undefined
}

const CHECK_MAX_WAIT = '5s'
const TAKE_MAX_WAIT = '60s'
const CLOCK_FRESH_MS = 10_000
const LIST_MAX = 1000
const SIDE_BY_SIDE = 64

export interface LimiterDeps {
  readonly connection: Connection
  readonly names: Names
  /** Of this process alone. */
  readonly id: string
}

export class Limiter {
  readonly #deps: LimiterDeps
  readonly #cells: Cells
  readonly #rates: Rates
  #writes = 0

  constructor(deps: LimiterDeps) {
    this.#deps = deps
    const { connection, names, id } = deps
    // A clock of its own: that of the server that stamps these cells, and read more often.
    const clock = new ServerClock(connection, names.kvStream(names.limitsBucket), CLOCK_FRESH_MS)
    this.#cells = new Cells(connection, names, clock)
    this.#rates = new Rates(this.#cells, () => `${id}-${(this.#writes++).toString(36)}`)
  }

  /**
   * Takes `n` tokens of a rate limit if they are there now. Does not wait for a turn: `{ allowed: false, waitMs }` says when there will be room, to the millisecond.
   * Throws InvalidError, ConflictError (the bucket is in use with another shape), FlowStoneError `unreachable`.
   */
  async check(bucket: string, rate: RateOption, options: CheckOptions = {}): Promise<CheckResult> {
    return await this.#rates.check(wishOf('check', bucket, rate, options, CHECK_MAX_WAIT), 'check')
  }

  /** As `check`, taking nothing. */
  async peek(bucket: string, rate: RateOption, options: CheckOptions = {}): Promise<CheckResult> {
    return await this.#rates.check(wishOf('peek', bucket, rate, options, CHECK_MAX_WAIT), 'peek')
  }

  /**
   * Waits for its turn, first come, first served over all processes, and takes `n` tokens. A place in the queue is a time, fixed when it is asked for, so nobody polls.
   * Throws RateLimitedError, and what `check` throws.
   */
  async take(bucket: string, rate: RateOption, options: TakeOptions = {}): Promise<void> {
    await this.#rates.take(wishOf('take', bucket, rate, options, TAKE_MAX_WAIT))
  }

  /** Waits for its turn as `take` does, then runs `fn` and brings what it brings. */
  async withLimit<T>(
    bucket: string,
    rate: RateOption,
    fn: () => T | Promise<T>,
    options: TakeOptions = {},
  ): Promise<T> {
    await this.#rates.take(wishOf('withLimit', bucket, rate, options, TAKE_MAX_WAIT))
    return await fn()
  }

  /** What is known of a bucket, by the server. */
  async status(bucket: string): Promise<BucketStatus> {
    checkBucket(bucket)
    const { clock } = this.#cells
    await clock.ready()
    const found = await this.#cells.read(this.#cells.key('rate', bucket))
    if (!found) throw new FlowStoneError('unreachable', `limit ${bucket} could not be read: NATS does not answer`)
    const cell = found.payload && decodeRateCell(found.payload)
    return { bucket, rate: cell && rateStatus(settled(cell, found.timeMs), clock.now()) }
  }

  /** Buckets in use, by name. `prefix`: only those that start so. At most `limit` (default and most: 1,000). Meant for people, not for loops. */
  async list(options: { prefix?: string; limit?: number } = {}): Promise<BucketStatus[]> {
    const limit = wholeNumber('list: limit', options.limit ?? LIST_MAX, LIST_MAX)
    const { connection, names } = this.#deps
    const jsm = await jetstreamManager(connection.nc)
    const root = names.kvSubject(names.limitsBucket, '')
    const info = await jsm.streams.info(names.kvStream(names.limitsBucket), { subjects_filter: `${root}>` })
    const buckets = new Set<string>()
    for (const subject of Object.keys(info.state.subjects ?? {})) {
      const [, token] = subject.slice(root.length).split('.')
      const bucket = decodeToken(token ?? '')
      if (bucket.startsWith(options.prefix ?? '')) buckets.add(bucket)
    }
    const wanted = [...buckets].toSorted()
    const found: BucketStatus[] = []
    for (let i = 0; i < wanted.length && found.length < limit; i += SIDE_BY_SIDE) {
      const some = await Promise.all(wanted.slice(i, i + SIDE_BY_SIDE).map((bucket) => this.status(bucket)))
      // What was reset or has expired leaves a marker for a while.
      found.push(...some.filter(({ rate }) => rate !== undefined))
    }
    return found.slice(0, limit)
  }

  /**
   * Forgets what a bucket holds: its whole limit may be taken at once. Waiters keep the times they were promised.
   */
  async reset(bucket: string): Promise<void> {
    checkBucket(bucket)
    await this.#cells.remove(this.#cells.key('rate', bucket))
  }
}

function wishOf(call: string, bucket: string, option: RateOption, options: TakeOptions, maxWait: Duration): Wish {
  checkBucket(bucket)
  const at = `limiter.${call} of ${bucket}`
  const rate = parseRate(`${at}: rate`, option)
  const n = wholeNumber(`${at}: n`, options.n ?? 1, rate.burst)
  const { onUnreachable = 'closed', signal } = options
  return {
    bucket,
    rate,
    n,
    maxWaitMs:
      options.maxWait === Number.POSITIVE_INFINITY
        ? Number.POSITIVE_INFINITY
        : parseDuration(`${at}: maxWait`, options.maxWait ?? maxWait),
    signal,
    onUnreachable,
  }
}

function rateStatus(cell: Parameters<typeof counted>[0], nowMs: number): RateStatus {
  const { shape, limit, periodMs, burst }: Rate = cell.rate
  const { count, waiting } = counted(cell, nowMs)
  const most = shape === 'smooth' ? burst : limit
  return { shape, limit, periodMs, burst, count, remaining: most - count, utilization: count / most, waiting }
}
