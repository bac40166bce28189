/**
 * Feeding: what goes to workers next, so that they always have enough and never all of it. Cut from
 * facts alone, so a replay cuts the same leases.
 */

import { instanceRetry } from '../attempts.ts'
import { backoffMs } from '../backoff.ts'
import type { Effect } from '../effects.ts'
import { stateKey, type View } from '../state.ts'
import type { BarrierContext } from './context.ts'
import { addToRanges } from './instances.ts'
import { cutSize, fixedWindow, leaseOne, newLease, type RetryContext } from './lease.ts'
import type { BarrierState } from './state.ts'

export const CHUNKS_PER_LIST = 256
/**
 * Fewest instances out at a time, so that short leases of slow instances reach every slot of a few
 * workers.
 */
export const OPEN_MIN = 512
/**
 * Instances that are retried one by one at a time. More wait in `requeued`, a range for each lease
 * they came from, so that the document stays small.
 */
export const AGAIN_MAX = 2048
/** While this many ranges wait, nothing new is leased. */
const REQUEUED_MAX = 2048
/** Ranges of `requeued` that one fact may feed from: so far needs() loads. */
export const REQUEUED_STEP = 4
/**
 * Most separate stretches of failed instances that wait for the first pass to be over; the document
 * must stay small.
 */
export const DEFERRED_MAX = 4096

/**
 * With `strategy: batch`: once nothing else is to be done (or before, when too many stretches
 * wait), what failed is due again, all of it together.
 */
function releaseParked(context: BarrierContext, barrier: BarrierState, nowMs: number): void {
  const { deferred } = barrier
  if (!deferred || deferred.length === 0) return
  const passOver =
    barrier.total !== undefined &&
    barrier.fedTo === barrier.stored &&
    barrier.requeued.length === 0 &&
    Object.keys(barrier.leases).length === 0
  if (!passOver && deferred.length < DEFERRED_MAX) return
  delete barrier.deferred
  for (const range of deferred) {
    const wait = backoffMs(instanceRetry(context.spec), range.failures, `${barrier.run}.${barrier.asset}`)
    barrier.requeued.push({ ...range, dueMs: nowMs + wait })
  }
}

/**
 * Leases one instance again: now or after a wait; or puts it to those that wait, when as many are
 * out as may be, or while nothing is begun.
 */
export function leaseAgain(
  context: BarrierContext,
  barrier: BarrierState,
  index: number,
  behind: RetryContext,
  nowMs: number,
  waitMs: number,
): Effect[] {
  if (!barrier.paused && Object.keys(barrier.retries).length < AGAIN_MAX)
    return [leaseOne(context, barrier, index, behind, nowMs, waitMs)]
  addToRanges(context, barrier.requeued, { ...behind, from: index, to: index + 1, dueMs: nowMs + waitMs })
  return []
}

/**
 * Keeps the window full: first what is due again, one by one, then new instances in leases of the
 * present size.
 */
export function feed(context: BarrierContext, barrier: BarrierState, nowMs: number): Effect[] {
  if (barrier.paused) return []
  const effects: Effect[] = []
  releaseParked(context, barrier, nowMs)
  let open = Object.keys(barrier.leases).length - barrier.delayed - (barrier.saturated ?? 0)
  let again = Object.keys(barrier.retries).length
  let ranges = 0
  const window = Math.max(barrier.window, fixedWindow(context) ? 0 : Math.ceil(OPEN_MIN / barrier.leaseSize))
  const lastChunk = Math.floor(barrier.fedKeyChunk / CHUNKS_PER_LIST) + 1
  while (open < window) {
    const head = barrier.requeued[0]
    if (head && again < AGAIN_MAX && ranges < REQUEUED_STEP) {
      const { from, to: _, dueMs, ...behind } = head
      if (head.unstarted) {
        const to = Math.min(from + cutSize(context, barrier, head.to - from), head.to)
        effects.push(newLease(context, barrier, { ...behind, from, to }, nowMs, 0))
        head.from = to
        if (to === head.to) {
          barrier.requeued.shift()
          // What comes behind it may lie in segments that are not loaded.
          ranges += 1
        }
        open += 1
        continue
      }
      const waitMs = Math.max(0, (dueMs ?? nowMs) - nowMs)
      do head.from += 1
      while (head.from < head.to && context.bits.isDone(head.from))
      if (head.from >= head.to) {
        barrier.requeued.shift()
        ranges += 1
      }
      effects.push(leaseOne(context, barrier, from, behind, nowMs, waitMs))
      again += 1
    } else {
      // What waits goes first; but while as much of it is out as may be, new instances need not
      // wait for it.
      if (head && (again < AGAIN_MAX || barrier.requeued.length >= REQUEUED_MAX)) break
      if (barrier.fedTo >= barrier.stored) break
      // So far needs() has loaded. An engine that has more at hand must not go on: one that has
      // just started would cut other leases. The next fact goes on; leases are outstanding, so
      // there is a next fact.
      if (Math.floor(barrier.fedKeyChunk / CHUNKS_PER_LIST) > lastChunk) break
      const keyChunk = keyChunkAt(context.view, barrier)
      if (!keyChunk) break
      const end = Math.min(barrier.fedTo + cutSize(context, barrier), keyChunk[0] + keyChunk[1])
      effects.push(
        newLease(
          context,
          barrier,
          { from: barrier.fedTo, to: end, keyChunk: keyChunk[0], ordinal: 1, failures: 0 },
          nowMs,
          0,
        ),
      )
      barrier.fedTo = end
      if (end === keyChunk[0] + keyChunk[1]) barrier.fedKeyChunk += 1
    }
    open += 1
  }
  return effects
}

function keyChunkAt(view: View, barrier: BarrierState): [number, number] | undefined {
  const chunk = view.get(
    stateKey.keyChunks(barrier.run, barrier.asset, Math.floor(barrier.fedKeyChunk / CHUNKS_PER_LIST)),
  )
  return chunk?.keyChunks[barrier.fedKeyChunk % CHUNKS_PER_LIST]
}
