/**
 * `flow.limiter`: rate limits and slots that hold over all processes and hosts of a namespace.
 * Guarantees and limits: docs/limits.md.
 *
 * A bucket is only a name. It exists from its first use, and is deleted when it has been idle so
 * long that it limits nothing. The numbers belong to the call, so a deploy changes a limit by
 * passing another one.
 */

import { counted, decodeRateCell, earliest, type Rate, reserved, settled } from '../../projections/limits/rate-cell.ts'
import {
  alive,
  decodeSlotCell,
  heldWeight,
  queued,
  type SlotCell,
  settledSlots,
  untilMs,
  waitingFor,
} from '../../projections/limits/slot-cell.ts'
import { FlowStoneError, InvalidError } from '../../streams/errors.ts'
import { decodeToken } from '../../streams/ids.ts'
import { jetstreamManager } from '../../streams/jetstream.ts'
import { shown } from '../../streams/shown.ts'
import type { Names } from '../../streams/subjects.ts'
import { ServerClock } from '../log/clock.ts'
import type { Connection } from '../log/connection.ts'
import { type Duration, parseDuration } from '../options/duration.ts'
import { checkBucket, parseRate, type RateOption, wholeNumber } from '../options/rate.ts'
import { checkSignal } from '../options/signal.ts'
import { unlessAborted } from '../options/timer.ts'
import { type OptionNames, refuseUnknown } from '../options/unknown.ts'
import { Cells } from './cells.ts'
import { type CheckResult, Rates, type Wish } from './rates.ts'
import type { Slot } from './slot.ts'
import { type SlotRequest, Slots } from './slots.ts'

/** Options of `limiter.check`, which does not wait for its turn. */
export interface CheckOptions {
  /** How many tokens at once. Default 1; at most the limit, of a smooth rate its burst. */
  readonly n?: number
  /** How long an answer of the server is waited for. Default `'5s'`. */
  readonly maxWait?: Duration
  /**
   * What to do when NATS does not answer within maxWait: `closed` (default) throws FlowStoneError
   * `unreachable`, `open` continues as if there were no limit.
   */
  readonly onUnreachable?: 'closed' | 'open'
}

/** Options of `limiter.take`, which waits for its turn. */
export interface TakeOptions extends CheckOptions {
  /**
   * Longest wait for one's turn. Default `'60s'`. If the turn cannot come in time, RateLimitedError
   * with `retryAfterMs` is thrown, at once if that is known at once.
   */
  readonly maxWait?: Duration
  /** Ends the wait with the signal's reason; the place in the queue is given back. */
  readonly signal?: AbortSignal
  /** Called when its turn is not at once, with the milliseconds until it. */
  readonly onWait?: (waitMs: number) => void
}

/** A rate limit that is in use. Counts are tokens, times are milliseconds. */
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
  /**
   * Tokens that are promised to waiters, each for its own time. Never reports more than the limit.
   */
  readonly waiting: number
  /** When those turns are, the next one first; of a smooth rate at most 100 of them. */
  readonly reservations: readonly { readonly at: Date; readonly tokens: number }[]
  /** When a caller that asks now would get a turn; now, if there is room. */
  readonly nextTurn: Date
}

/** Options that all calls for a slot have. */
export interface SlotOptions {
  /** How many of the bucket's slots it takes. Default 1, at most `max`. */
  readonly weight?: number
  /**
   * Default `'10s'`, at least 500 ms. A slot is renewed while its process lives; a process that
   * dies loses it when the lease has expired. A holder that could not renew for nine tenths of the
   * lease treats the slot as lost.
   */
  readonly lease?: Duration
  /**
   * What it is for, any text of at most 256 characters: `status` shows it beside the slot. Default
   * none.
   */
  readonly by?: string
}

/** Options of `limiter.acquireSlot`, which does not wait for a slot. */
export interface AcquireOptions extends SlotOptions {
  /** How long an answer of the server is waited for. Default `'5s'`. */
  readonly maxWait?: Duration
}

/** Options of `limiter.withSlot`. */
export interface WithSlotOptions extends SlotOptions {
  /** Longest wait for a slot. Default `'30s'`. Then RateLimitedError. */
  readonly maxWait?: Duration
  /** Ends the wait, and aborts the signal that `fn` gets. */
  readonly signal?: AbortSignal
}

/** Slots that are in use. Counts are by weight. */
export interface SlotsStatus {
  /** As it was said by whoever took one last. */
  readonly limit: number
  /** Slots that are held, by weight. */
  readonly count: number
  readonly remaining: number
  readonly utilization: number
  /** Callers that wait, over all processes. */
  readonly waiting: number
  readonly holders: readonly {
    readonly slot: string
    /**
     * What it is for, as far as that was said: of slots of an asset `<run>.<asset>`, of an instance
     * with its index behind.
     */
    readonly by: string | undefined
    readonly weight: number
    readonly fence: number
    readonly ageMs: number
    /** When its lease ends unless it is renewed, in milliseconds from now. */
    readonly leaseMs: number
  }[]
  /** Processes with callers that wait, the next one first; at most 64. */
  readonly queue: readonly {
    readonly process: string
    readonly waiting: number
    /** What its first three callers want it for, as of `holders`. Of the first 16 processes. */
    readonly by: readonly string[]
  }[]
}

/** What is in use under a name: a rate limit, slots, or both. */
export interface BucketStatus {
  readonly bucket: string
  /** Undefined where no rate limit of this name is in use. */
  readonly rate: RateStatus | undefined
  /** Undefined where no slots of this name are in use. */
  readonly slots: SlotsStatus | undefined
}

const CHECK_OPTIONS: OptionNames<CheckOptions> = { n: true, maxWait: true, onUnreachable: true }
const TAKE_OPTIONS: OptionNames<TakeOptions> = { ...CHECK_OPTIONS, signal: true, onWait: true }
const ACQUIRE_OPTIONS: OptionNames<AcquireOptions> = { weight: true, lease: true, by: true, maxWait: true }
const WITH_SLOT_OPTIONS: OptionNames<WithSlotOptions> = { ...ACQUIRE_OPTIONS, signal: true }
export const CHECK_MAX_WAIT = '5s'
export const TAKE_MAX_WAIT = '60s'
const CLOCK_FRESH_MS = 10_000
export const ACQUIRE_MAX_WAIT = '5s'
export const SLOT_MAX_WAIT = '30s'
export const LEASE = '10s'
export const LEASE_MIN_MS = 500
export const SLOTS_MAX = 10_000
const BY_MAX = 256
const LIST_MAX = 1000
const SIDE_BY_SIDE = 64

export interface LimiterDeps {
  readonly connection: Connection
  readonly names: Names
  /** Of this process alone. */
  readonly id: string
  /** Throws `no_namespace`: what only looks makes nothing. */
  readonly found: () => Promise<unknown>
  /** Taking makes the namespace, as a worker does. */
  readonly foundOrMade: () => Promise<unknown>
}

/** `flow.limiter`: rate limits and slots that all processes of a namespace share. */
export class Limiter {
  readonly #deps: LimiterDeps
  readonly #cells: Cells
  readonly #rates: Rates
  readonly #slots: Slots
  #writes = 0

  constructor(deps: LimiterDeps) {
    this.#deps = deps
    const { connection, names, id } = deps
    // A clock of its own: that of the server that stamps these cells, and read more often.
    const clock = new ServerClock(connection, names.kvStream(names.limitsBucket), CLOCK_FRESH_MS)
    this.#cells = new Cells(connection, names, clock)
    const writer = (): string => `${id}-${(this.#writes++).toString(36)}`
    this.#rates = new Rates(this.#cells, id, writer)
    this.#slots = new Slots(this.#cells, id, writer)
  }

  /**
   * Takes `n` tokens of a rate limit if they are there now. Does not wait for a turn: `{ allowed:
   * false, waitMs }` says when there will be room, to the millisecond. Throws InvalidError,
   * ConflictError (the bucket is in use with another shape), FlowStoneError `unreachable`.
   */
  async check(bucket: string, rate: RateOption, options: CheckOptions = {}): Promise<CheckResult> {
    const wish = wishOf('check', bucket, rate, options, CHECK_MAX_WAIT)
    await this.#deps.foundOrMade()
    return await this.#rates.check(wish, 'check')
  }

  /** As `check`, taking nothing. */
  async peek(bucket: string, rate: RateOption, options: CheckOptions = {}): Promise<CheckResult> {
    const wish = wishOf('peek', bucket, rate, options, CHECK_MAX_WAIT)
    await this.#deps.found()
    return await this.#rates.check(wish, 'peek')
  }

  /**
   * Waits for its turn, first come, first served over all processes, and takes `n` tokens. A place
   * in the queue is a time, fixed at the request, so no client polls. Throws RateLimitedError, and
   * the errors of `check`.
   */
  async take(bucket: string, rate: RateOption, options: TakeOptions = {}): Promise<void> {
    const wish = wishOf('take', bucket, rate, options, TAKE_MAX_WAIT)
    await this.#deps.foundOrMade()
    await this.#rates.take(wish)
  }

  /** Waits for its turn as `take` does, then runs `fn` and brings what it brings. */
  async withLimit<T>(
    bucket: string,
    rate: RateOption,
    fn: () => T | Promise<T>,
    options: TakeOptions = {},
  ): Promise<T> {
    const wish = wishOf('withLimit', bucket, rate, options, TAKE_MAX_WAIT)
    checkFunction('withLimit', bucket, fn)
    await this.#deps.foundOrMade()
    await this.#rates.take(wish)
    return await fn()
  }

  /**
   * Takes a slot if one is free and nobody waits for it. At most `max` are held at a time, over all
   * processes, by weight. The slot is renewed until it is released or its process dies. Call it
   * with another `max` to change that: it shrinks as holders leave.
   *
   * No lease can prevent this: a stalled process (SIGSTOP, a long garbage collection, a sleeping
   * machine) may act once more on a slot that others have by then. `slot.signal` is aborted and
   * `slot.isHeld` is false before others may have it, but running code does not look. Pass
   * `slot.fence` to the protected resource, and let that refuse lower fences.
   */
  async acquireSlot(bucket: string, max: number, options: AcquireOptions = {}): Promise<Slot | 'at_capacity'> {
    const wish = slotWish('acquireSlot', bucket, max, options, options.maxWait ?? ACQUIRE_MAX_WAIT)
    await this.#deps.foundOrMade()
    return await this.#slots.acquire({ ...wish, waits: false, signal: undefined })
  }

  /** Gives a slot back, as `slot.release` does. */
  async releaseSlot(slot: Slot): Promise<void> {
    const given: unknown = slot
    if (typeof given !== 'object' || given === null || !('release' in given))
      throw new InvalidError(`limiter.releaseSlot takes a slot, got ${shown(slot)}`)
    await slot.release()
  }

  /**
   * Waits for a slot, as `withSlot` does, and gives it to be released by the caller.
   */
  async takeSlot(bucket: string, max: number, options: WithSlotOptions = {}): Promise<Slot> {
    const wish = slotWish('takeSlot', bucket, max, options, options.maxWait ?? SLOT_MAX_WAIT)
    await this.#deps.foundOrMade()
    const slot = await this.#slots.acquire({ ...wish, waits: true, signal: options.signal })
    if (slot === 'at_capacity') throw new FlowStoneError('internal', 'a caller that waits got at_capacity')
    return slot
  }

  /**
   * Waits for a slot, runs `fn` with it, and gives it back, also when `fn` throws. Processes are
   * served in the order of their coming. When the slot is lost meanwhile, or `signal` is aborted,
   * the signal that `fn` gets is, and `withSlot` throws at once: FlowStoneError `slot_lost`, or the
   * signal's reason. Of fencing, see `acquireSlot`.
   */
  async withSlot<T>(
    bucket: string,
    max: number,
    fn: (slot: Slot, signal: AbortSignal) => T | Promise<T>,
    options: WithSlotOptions = {},
  ): Promise<T> {
    checkFunction('withSlot', bucket, fn)
    const slot = await this.takeSlot(bucket, max, options)
    const { signal } = options
    try {
      signal?.throwIfAborted()
      slot.throwIfLost()
      const both = signal ? AbortSignal.any([signal, slot.signal]) : slot.signal
      return await unlessAborted(fn(slot, both), both)
    } finally {
      await slot.releaseSoon()
    }
  }

  /** What is known of a bucket, by the server. */
  async status(bucket: string): Promise<BucketStatus> {
    checkBucket(bucket)
    await this.#deps.found()
    const cells = this.#cells
    await cells.clock.ready()
    const [rate, slots] = await Promise.all([
      cells.read(cells.key('rate', bucket)),
      cells.read(cells.key('slots', bucket)),
    ])
    if (!rate || !slots)
      throw new FlowStoneError('unreachable', `limit ${bucket} could not be read: NATS does not answer`)
    const nowMs = cells.clock.now()
    const rateCell = rate.payload && decodeRateCell(rate.payload)
    const slotCell = slots.payload && decodeSlotCell(slots.payload)
    return {
      bucket,
      rate: rateCell && rateStatus(settled(rateCell, rate.timeMs), nowMs),
      slots: slotCell && slotsStatus(settledSlots(slotCell, slots.timeMs, slots.seq), nowMs),
    }
  }

  /**
   * Buckets in use, by name. `prefix`: only those that start so. At most `limit` (default and most:
   * 1,000). Meant for people, not for loops.
   */
  async list(options: { prefix?: string; limit?: number } = {}): Promise<BucketStatus[]> {
    refuseUnknown('limiter.list', options, ['prefix', 'limit'])
    const limit = wholeNumber('list: limit', options.limit ?? LIST_MAX, LIST_MAX)
    await this.#deps.found()
    const { connection, names } = this.#deps
    const jsm = await jetstreamManager(connection.nc)
    const root = names.kvSubject(names.limitsBucket, '')
    const stream = names.kvStream(names.limitsBucket)
    const info = await connection.read(() => jsm.streams.info(stream, { subjects_filter: `${root}>` }))
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
      found.push(...some.filter(({ rate, slots }) => rate ?? slots))
    }
    return found.slice(0, limit)
  }

  /**
   * Forgets what a bucket holds. Its whole limit may be taken at once, though waiters keep the
   * times they were promised. Its slots are free at once, and their holders hear that they are lost
   * when they renew them: for so long there may be more than `max`.
   */
  async reset(bucket: string): Promise<void> {
    checkBucket(bucket)
    await this.#deps.found()
    await this.#cells.remove(this.#cells.key('rate', bucket))
    await this.#cells.remove(this.#cells.key('slots', bucket))
  }

  /** Gives back the slots that are still held here. `flow.close()` does it. */
  async close(): Promise<void> {
    await Promise.all([this.#rates.close(), this.#slots.close()])
  }
}

function wishOf(call: string, bucket: string, option: RateOption, options: TakeOptions, maxWait: Duration): Wish {
  checkBucket(bucket)
  const at = `limiter.${call} of ${bucket}`
  refuseUnknown(at, options, call === 'check' || call === 'peek' ? CHECK_OPTIONS : TAKE_OPTIONS)
  const rate = parseRate(`${at}: rate`, option)
  const n = wholeNumber(`${at}: n`, options.n ?? 1, rate.burst)
  const { onUnreachable = 'closed', signal, onWait } = options
  checkSignal(`${at}: signal`, signal)
  return {
    bucket,
    rate,
    n,
    maxWaitMs: waitMs(`${at}: maxWait`, options.maxWait ?? maxWait),
    signal,
    onUnreachable,
    onWait,
  }
}

function rateStatus(cell: Parameters<typeof counted>[0], nowMs: number): RateStatus {
  const { shape, limit, periodMs, burst }: Rate = cell.rate
  const { count, waiting } = counted(cell, nowMs)
  const most = shape === 'smooth' ? burst : limit
  const reservations = reserved(cell, nowMs).map(([atMs, tokens]) => ({ at: new Date(atMs), tokens }))
  const nextTurn = new Date(earliest(cell, cell.rate, 1, nowMs) ?? nowMs)
  const taken = { count, remaining: most - count, utilization: count / most, waiting }
  return { shape, limit, periodMs, burst, ...taken, reservations, nextTurn }
}

function slotWish(
  call: string,
  bucket: string,
  max: number,
  options: SlotOptions & { readonly signal?: AbortSignal },
  maxWait: Duration,
): Omit<SlotRequest, 'waits' | 'signal'> {
  checkBucket(bucket)
  const at = `limiter.${call} of ${bucket}`
  refuseUnknown(at, options, call === 'acquireSlot' ? ACQUIRE_OPTIONS : WITH_SLOT_OPTIONS)
  checkSignal(`${at}: signal`, options.signal)
  const most = wholeNumber(`${at}: max`, max, SLOTS_MAX)
  const leaseMs = parseDuration(`${at}: lease`, options.lease ?? LEASE)
  if (leaseMs < LEASE_MIN_MS) throw new InvalidError(`${at}: lease must be at least ${LEASE_MIN_MS} ms, got ${leaseMs}`)
  return {
    bucket,
    max: most,
    weight: wholeNumber(`${at}: weight`, options.weight ?? 1, most),
    leaseMs,
    ...(options.by === undefined ? {} : { by: saidBy(at, options.by) }),
    maxWaitMs: waitMs(`${at}: maxWait`, maxWait),
  }
}

function checkFunction(call: string, bucket: string, fn: unknown): void {
  if (typeof fn === 'function') return
  throw new InvalidError(`limiter.${call} of ${shown(bucket)}: fn must be a function, got ${shown(fn)}`)
}

function saidBy(at: string, by: unknown): string {
  if (typeof by === 'string' && by.length <= BY_MAX && by.isWellFormed()) return by
  throw new InvalidError(`${at}: by must be text of at most ${BY_MAX} characters`)
}

/** `Infinity` is no duration, and a fine bound. */
function waitMs(field: string, maxWait: Duration): number {
  return maxWait === Number.POSITIVE_INFINITY ? maxWait : parseDuration(field, maxWait)
}

function slotsStatus(cell: SlotCell, nowMs: number): SlotsStatus {
  const count = heldWeight(cell, nowMs)
  return {
    limit: cell.max,
    count,
    remaining: Math.max(0, cell.max - count),
    utilization: cell.max === 0 ? 0 : count / cell.max,
    waiting: waitingFor(cell, nowMs),
    holders: alive(cell, nowMs).map((holder) => ({
      slot: holder.id,
      by: holder.by === '' ? undefined : holder.by,
      weight: holder.weight,
      fence: holder.fence,
      ageMs: Math.max(0, nowMs - holder.sinceMs),
      leaseMs: untilMs(holder) - nowMs,
    })),
    queue: queued(cell, nowMs).map(({ process, waiting, by }) => ({ process, waiting, by })),
  }
}
