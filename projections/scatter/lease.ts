/**
 * Leases: ranges of instances that go to a worker as one task. How they are named, how large they
 * are cut, and how many are out.
 */

import type { AssetSpec } from '../../streams/schemas.ts'
import type { LimitedQueueName } from '../../streams/subjects.ts'
import type { Effect } from '../effects.ts'
import type { RunState } from '../state.ts'
import { instanceQueue, leaseEffect } from '../tasks.ts'
import type { ScatterContext } from './context.ts'
import { LEASE_SIZE_MAX, leaseId, parseLeaseId } from './lease-id.ts'
import type { BarrierState, Lease } from './state.ts'

/**
 * A lease should take a worker about this long; one of a limited queue longer, because between two
 * of them its place stands empty for a moment.
 */
const LEASE_TARGET_MS = 80
const LIMITED_LEASE_TARGET_MS = 150
/** The shortest lease worth its messages, near the end of a scatter. */
const LEASE_MIN_MS = 10
const LIMITED_LEASE_MIN_MS = 30
const LEASE_MIN_UNKNOWN = 8
/** What a lease of the usual size counts for how long an instance takes, beside those before. */
const NEWEST_WEIGHT = 0.3
/**
 * Most leases of one barrier on WORK at a time, and most instances of it that wait for a delayed
 * retry before feeding stops.
 */
export const WINDOW_MAX = 4096
/** A lease that waited less than this on WORK shows that workers have room. */
const IDLE_WAIT_MS = 50
const WORKER_SEEN_MS = 60_000

export function limitedQueueOf(run: RunState, spec: AssetSpec): LimitedQueueName {
  return { pipeline: run.pipeline, ...instanceQueue(spec), run: run.id, asset: spec.name }
}

/**
 * Guided: the nearer the end, the smaller the leases, so that no worker holds a long one while the
 * others stand idle. `returned`: instances that are leased again.
 *
 * A small scatter is one lease at first: if its instances are quick, more would only be messages.
 * If they are slow, the worker soon returns what it has not begun, and that is shared.
 */
export function cutSize({ spec }: ScatterContext, barrier: BarrierState, returned = 0): number {
  const workers = Math.max(1, Object.keys(barrier.workers).length, spec.scatter?.maxConcurrent ?? 1)
  const left = barrier.stored - barrier.fedTo + returned
  const isFirst = barrier.fedTo === 0 && returned === 0 && spec.scatter?.maxConcurrent === undefined
  const share = isFirst ? left : Math.ceil(left / (2 * workers))
  const worthwhile =
    barrier.perInstanceMs === undefined
      ? LEASE_MIN_UNKNOWN
      : Math.ceil(
          (spec.scatter?.maxConcurrent ? LIMITED_LEASE_MIN_MS : LEASE_MIN_MS) / Math.max(barrier.perInstanceMs, 0.01),
        )
  const size = Math.max(1, Math.min(barrier.leaseSize, Math.max(share, worthwhile)))
  // The first leases of a limited queue begin in the same moment. With equal lengths they would
  // also end, be reported and be followed by others all at once. So their lengths differ.
  const alike = spec.scatter?.maxConcurrent !== undefined && barrier.perInstanceMs === undefined
  return alike ? Math.ceil((size * (2 + (barrier.fedTo % 7))) / 8) : size
}

/** With maxConcurrent the number of leases out is not found out but given. */
export function fixedWindow({ spec }: ScatterContext): boolean {
  return spec.scatter?.maxConcurrent !== undefined
}

export function adapt(
  barrier: BarrierState,
  lease: Lease,
  size: number,
  heldMs: number,
  nowMs: number,
  fixed: boolean,
): void {
  const per = heldMs / size
  // A lease that was handed back after few instances says little of the others: its worker may have
  // been held up.
  const weight = NEWEST_WEIGHT * Math.min(1, size / barrier.leaseSize)
  barrier.perInstanceMs =
    barrier.perInstanceMs === undefined ? per : barrier.perInstanceMs * (1 - weight) + per * weight
  const targetMs = fixed ? LIMITED_LEASE_TARGET_MS : LEASE_TARGET_MS
  const ideal = Math.floor(targetMs / Math.max(barrier.perInstanceMs, 0.01))
  barrier.leaseSize = Math.max(1, Math.min(ideal, barrier.leaseSize * 4, LEASE_SIZE_MAX))
  const waitedMs = nowMs - Math.max(lease.fedMs, lease.dueMs ?? 0) - heldMs
  if (waitedMs < IDLE_WAIT_MS && barrier.window < WINDOW_MAX && !fixed) barrier.window += 1
  for (const [worker, seenMs] of Object.entries(barrier.workers))
    if (nowMs - seenMs > WORKER_SEEN_MS) delete barrier.workers[worker]
}

/** What an instance brings along to its next lease. */
export interface RetryContext {
  readonly keyChunk: number
  readonly ordinal: number
  readonly failures: number
  readonly lost?: true
  readonly gates?: number
}

/** How long a pace is measured. */
export const PACE_MS = 5000

/** The rate of late: each stretch of some seconds counts as much as all before it. */
export function keepPace(barrier: BarrierState, nowMs: number): void {
  const pace = barrier.pace ?? { sinceMs: barrier.startedMs, done: 0 }
  barrier.pace = pace
  const elapsedMs = nowMs - pace.sinceMs
  if (elapsedMs < PACE_MS) return
  const done = barrier.succeeded + barrier.failed
  const perSecond = ((done - pace.done) / elapsedMs) * 1000
  barrier.pace = {
    sinceMs: nowMs,
    done,
    perSecond: pace.perSecond === undefined ? perSecond : (pace.perSecond + perSecond) / 2,
  }
}

export function leaseOne(
  context: ScatterContext,
  barrier: BarrierState,
  index: number,
  behind: RetryContext,
  nowMs: number,
  waitMs: number,
): Effect {
  barrier.retries[index] = [behind.ordinal, behind.failures, behind.keyChunk]
  return newLease(context, barrier, { ...behind, from: index, to: index + 1 }, nowMs, waitMs)
}

export function newLease(
  context: ScatterContext,
  barrier: BarrierState,
  cut: RetryContext & { readonly from: number; readonly to: number },
  nowMs: number,
  waitMs: number,
): Effect {
  const lease: Lease = { left: cut.to - cut.from, keyChunk: cut.keyChunk, fedMs: nowMs, failures: cut.failures }
  if (cut.lost) lease.lost = true
  if (cut.gates !== undefined) lease.gates = cut.gates
  if (waitMs > 0) {
    lease.dueMs = nowMs + waitMs
    barrier.delayed += 1
  }
  const id = leaseId(cut.from, cut.to, cut.ordinal)
  barrier.leases[id] = lease
  return leaseEffect(context, barrier, id)
}

/** The lease that an instance is in now. */
export function holderOf(barrier: BarrierState, index: number): string | undefined {
  return Object.keys(barrier.leases).find((id) => {
    const range = parseLeaseId(id)
    return range !== undefined && index >= range.from && index < (barrier.leases[id]?.to ?? range.to)
  })
}

export function returnSome(barrier: BarrierState, id: string | undefined, count: number): void {
  const lease = id === undefined ? undefined : barrier.leases[id]
  if (id === undefined || !lease) return
  lease.left -= count
  if (lease.left <= 0) endLease(barrier, id)
}

export function endLease(barrier: BarrierState, id: string): void {
  const lease = barrier.leases[id]
  if (!lease) return
  if (lease.dueMs !== undefined) barrier.delayed -= 1
  if (lease.to !== undefined) barrier.saturated = (barrier.saturated ?? 1) - 1
  delete barrier.leases[id]
}
