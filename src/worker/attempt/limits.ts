/**
 * Limits at the start of user code: slots and rates that hold over all workers. Code waits for them
 * without a local slot, so that it keeps nothing else from running. Only few wait at a time, and
 * not for long. The rest goes back to the queue until its turn may have come. So a worker that dies
 * takes little with it, and instances of a slow bucket do not block those of another.
 */

import { InvalidError, RateLimitedError } from '../../../streams/errors.ts'
import type { Limits } from '../../define/limits.ts'
import type { Limiter } from '../../limiter/limiter.ts'
import { lateMs } from '../../limiter/rate-bucket.ts'
import type { Slot } from '../../limiter/slot.ts'
import { isUnreachable } from '../../log/unreachable.ts'
import { checkBucket } from '../../options/rate.ts'
import { type ComeAgain, comeAgain, type Disposition, DONE, HandBack, NOT_BEGUN } from '../pull/disposition.ts'
import type { InFlightTask, Waits } from '../pull/in-flight-task.ts'
import { Seat, type Slots } from '../pull/slots.ts'

/** A turn within this time is waited for here, without a local slot. */
const HOLD_MS = 5000
/** Others could use the slot meanwhile. */
const HOLD_WITH_SLOT_MS = 1000
/** So short a wait is not worth giving the local slot up. */
const BRIEF_MS = 20
const LONGER_MAX = 4
const BACK_MIN_MS = 100
const BACK_MAX_MS = 300_000
/** What runs alone keeps a whole worker waiting. */
const ALONE_HOLD_MS = 30_000
/** How long what needs a slot stays away when too many wait here. */
const SLOT_BACK_MS = 2000
/** NATS did not answer: that is no fault of the code. */
const UNREACHABLE_MS = 1000
const LAPSES_MAX = 2
const WAITING_MIN = 32

/** Counts what waits in this process. */
export class LimitWaiters {
  readonly #most: number
  readonly #forRoom = new Set<() => void>()
  #count = 0

  constructor(concurrency: number) {
    this.#most = Math.max(WAITING_MIN, 4 * concurrency)
  }

  /** `most`: if more may wait than usual. */
  isFull(most = 0): boolean {
    return this.#count >= Math.max(this.#most, most)
  }

  async wait<T>(waiting: () => Promise<T>): Promise<T> {
    this.#count += 1
    try {
      return await waiting()
    } finally {
      this.#count -= 1
      const [first] = this.#forRoom
      first?.()
    }
  }

  /** Resolves when another one may wait, and after `maxMs` anyway. */
  async room(maxMs: number, most: number): Promise<void> {
    if (!this.isFull(most)) return
    await new Promise<void>((resolve) => {
      const end = (): void => {
        clearTimeout(timer)
        this.#forRoom.delete(end)
        resolve()
      }
      const timer = setTimeout(end, maxMs)
      this.#forRoom.add(end)
    })
  }
}

export interface LimitedStart {
  readonly limits: Limits
  readonly limiter: Limiter
  readonly waiters: LimitWaiters
  readonly local: Slots
  readonly key: unknown
  /** The bucket of a rate that names none. */
  readonly ownBucket: string
  /** For who asks who holds a slot: run and asset. */
  readonly by: string
  /** Called with what it waits for, and with `undefined` when it waits no more. */
  readonly tell?: (waits: Waits | undefined) => void
  /** How often it was begun, this time included. */
  readonly ordinal: number
  /** Nothing else runs in this process as long as this does, waiting included. */
  readonly alone: boolean
  readonly signal: AbortSignal
  /**
   * For what waits: aborted with `signal`, and also when nothing more of its scatter is to be
   * begun.
   */
  readonly waiting: AbortSignal
  /** Asks for its turn without a local slot. `most`: so many may wait here at a time. */
  readonly ahead?: { readonly most: number }
  /** Called when its turn at the rate has come. */
  readonly onTurn?: () => void
}

/** What `code` came to, or that its turn is too far off, and it was not run. */
export type Limited<T> = { readonly kind: 'ran'; readonly result: T } | ComeAgain

/**
 * Runs `code` once all limits let it, with a signal that is also aborted when its slot is lost.
 * Begins with a local slot in hand, unless it asks `ahead`; ends with none. Rejects with the reason
 * of `waiting` when that is aborted first.
 */
export async function runLimited<T>(
  start: LimitedStart,
  code: (signal: AbortSignal) => T | Promise<T>,
): Promise<Limited<T>> {
  const place = new Seat(start.local, start.ahead === undefined)
  let slot: Slot | undefined
  try {
    // Without slots it is counted among those that wait at once, before the next one begins.
    const taken = start.limits.slots ? await takeSlot(start, place, start.limits.slots) : undefined
    if (taken?.kind === 'come_again') return taken
    slot = taken?.slot
    const later = await takeTurn(start, place, slot ? HOLD_WITH_SLOT_MS : HOLD_MS)
    if (later) return later
    // Paused meanwhile, or cancelled: not begun, however its turn came.
    start.waiting.throwIfAborted()
    // It was lost while this waited for its turn: nothing was run, and another slot may be free.
    if (slot && !slot.isHeld) return comeAgain(slot.bucket, UNREACHABLE_MS)
    start.tell?.(undefined)
    return { kind: 'ran', result: await code(slot ? AbortSignal.any([start.signal, slot.signal]) : start.signal) }
  } finally {
    place.give()
    await slot?.releaseSoon()
  }
}

/** The same for an attempt of a plain asset, which is aborted when its slot is lost. */
export async function runLimitedAttempt(
  shared: { readonly limiter: Limiter; readonly waiters: LimitWaiters; readonly slots: Slots },
  held: InFlightTask,
  limits: Limits,
  run: () => Promise<Disposition>,
): Promise<Disposition> {
  const { limiter, waiters, slots: local } = shared
  const { signal } = held.abort
  const { run: runId, asset, alone = false } = held.task
  const start = {
    limits,
    limiter,
    waiters,
    local,
    key: undefined,
    ownBucket: `${runId}.${asset}`,
    by: `${runId}.${asset}`,
    tell: (waits: Waits | undefined) => {
      held.waits = waits
    },
    ordinal: 1,
    alone,
    signal,
    waiting: signal,
  }
  let begun = false
  try {
    const limited = await runLimited(start, async (both) => {
      begun = true
      const onAbort = (): void => held.abort.abort(both.reason)
      both.addEventListener('abort', onAbort, { once: true })
      return await run().finally(() => both.removeEventListener('abort', onAbort))
    })
    if (limited.kind === 'ran') return limited.result
    if (!signal.aborted) return limited
  } catch (error) {
    if (begun || !signal.aborted) throw error
  }
  // It never began: what was cancelled has ended, and what stops hands it back.
  return signal.reason instanceof HandBack ? NOT_BEGUN : DONE
}

type SlotTaken = { readonly kind: 'taken'; readonly slot: Slot } | ComeAgain

async function takeSlot(start: LimitedStart, place: Seat, slots: NonNullable<Limits['slots']>): Promise<SlotTaken> {
  const { limiter, key } = start
  const { max, weight, leaseMs: lease } = slots
  const bucket = bucketFor('slots', slots.bucketOf, key)
  try {
    const slot = await limiter.acquireSlot(bucket, max, { weight, lease, by: start.by })
    if (slot !== 'at_capacity') return { kind: 'taken', slot }
  } catch (error) {
    if (isUnreachable(error)) return comeAgain(bucket, UNREACHABLE_MS)
    throw error
  }
  place.give()
  return await waitForSlot(start, bucket, slots)
}

async function waitForSlot(
  start: LimitedStart,
  bucket: string,
  { max, weight, leaseMs: lease }: NonNullable<Limits['slots']>,
): Promise<SlotTaken> {
  const { limiter, waiters, waiting } = start
  if (waiters.isFull()) return comeAgain(bucket, SLOT_BACK_MS * (0.5 + Math.random()))
  const options = {
    weight,
    lease,
    by: start.by,
    signal: waiting,
    maxWait: start.alone ? ALONE_HOLD_MS : Number.POSITIVE_INFINITY,
  }
  try {
    start.tell?.({ for: 'slot', bucket })
    return { kind: 'taken', slot: await waiters.wait(() => limiter.takeSlot(bucket, max, options)) }
  } catch (error) {
    if (error instanceof RateLimitedError || isUnreachable(error)) return comeAgain(bucket, SLOT_BACK_MS)
    throw error
  }
}

/** Undefined: it is its turn, and a local slot is in hand. */
async function takeTurn(start: LimitedStart, place: Seat, holdMs: number): Promise<ComeAgain | undefined> {
  const { limits, limiter, waiters, key, ownBucket, waiting } = start
  if (!limits.rate) {
    await place.take(waiting)
    return undefined
  }
  const { rate, option } = limits.rate
  const { bucketOf } = limits.rate
  const bucket = bucketOf ? bucketFor('rateLimit', bucketOf, key) : ownBucket
  for (let lapses = 0; ; lapses++) {
    const maxWait = waiters.isFull(start.ahead?.most) ? BRIEF_MS : holdMs
    const onWait = (waitMs: number): void => {
      start.tell?.({ for: 'rate', bucket, untilMs: performance.now() + waitMs })
      if (waitMs > BRIEF_MS) place.give()
    }
    try {
      await waiters.wait(() => limiter.take(bucket, option, { maxWait, signal: waiting, onWait }))
    } catch (error) {
      if (isUnreachable(error)) return comeAgain(bucket, UNREACHABLE_MS)
      if (!(error instanceof RateLimitedError)) throw error
      // Before its turn may come, and not with all the others. How many others there are for a key
      // is known to nobody; it shows by how often it was in vain.
      const longer = limits.rate.perKey ? Math.min(LONGER_MAX, start.ordinal) : 1
      const delayMs = (error.retryAfterMs ?? BACK_MIN_MS) * (0.5 + Math.random() / 2) * longer
      return comeAgain(bucket, Math.min(BACK_MAX_MS, Math.max(BACK_MIN_MS, delayMs)))
    }
    start.onTurn?.()
    start.tell?.({ for: 'room' })
    const turnMs = performance.now()
    await place.take(waiting)
    // No local slot was free when its turn came: by now it would be a burst.
    if (performance.now() - turnMs <= lateMs(rate) || lapses >= LAPSES_MAX) return undefined
  }
}

/**
 * What the user's function brings may be anything. A limit without a name would be nobody's, and so
 * would hold nothing.
 */
function bucketFor(option: string, bucketOf: (key: unknown) => unknown, key: unknown): string {
  try {
    return checkBucket(bucketOf(key))
  } catch (error) {
    if (!(error instanceof InvalidError)) throw error
    throw new InvalidError(`${option}: bucket must bring the name of a bucket for every key: ${error.message}`)
  }
}
