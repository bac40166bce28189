/** The instances of a barrier: which are done, and which wait to be leased again. */

import { stateKey } from '../state.ts'
import type { BarrierContext } from './context.ts'
import { LEASE_SIZE_MAX } from './lease-id.ts'
import type { BarrierState, RequeuedRange } from './state.ts'

/** Small documents: each failure writes one of them anew. */
export const FAILURES_PER_CHUNK = 1024

/**
 * Adds one instance that waits to be leased again. A range holds all of its instances that are not
 * done, and begins and ends with one. So it grows over what is done, and a lease leaves only a few
 * ranges, wherever its failures are.
 */
export function addToRanges(context: BarrierContext, ranges: RequeuedRange[], one: RequeuedRange): void {
  const last = ranges.at(-1)
  const alike =
    last &&
    !last.unstarted &&
    last.keyChunk === one.keyChunk &&
    last.ordinal === one.ordinal &&
    last.failures === one.failures &&
    last.lost === one.lost &&
    last.gates === one.gates
  if (!alike || one.from < last.to || one.to - last.from > LEASE_SIZE_MAX || !allDone(context, last.to, one.from)) {
    ranges.push(one)
    return
  }
  last.to = one.to
  if (one.dueMs !== undefined) last.dueMs = Math.max(last.dueMs ?? 0, one.dueMs)
}

function allDone({ bits }: BarrierContext, from: number, to: number): boolean {
  for (let index = from; index < to; index++) if (!bits.isDone(index)) return false
  return true
}

/** Whether an instance waits to be leased again, whatever its older leases still say. */
export function isDue(barrier: BarrierState, index: number): boolean {
  const holds = (range: RequeuedRange): boolean => index >= range.from && index < range.to
  return barrier.requeued.some(holds) || (barrier.deferred?.some(holds) ?? false)
}

/** False when it was not there. */
export function dropFromWaiting(context: BarrierContext, barrier: BarrierState, index: number): boolean {
  if (barrier.requeued.length === 0 && !barrier.deferred) return false
  for (const ranges of [barrier.requeued, barrier.deferred ?? []]) {
    const at = ranges.findIndex((range) => index >= range.from && index < range.to)
    const range = ranges[at]
    if (!range) continue
    const isDone = (i: number): boolean => context.bits.isDone(i)
    let left = index
    while (left > range.from && isDone(left - 1)) left -= 1
    let right = index + 1
    while (right < range.to && isDone(right)) right += 1
    const parts = [
      { ...range, to: left },
      { ...range, from: right },
    ].filter((part) => part.from < part.to)
    ranges.splice(at, 1, ...parts)
    return true
  }
  return false
}

/**
 * An instance has failed for good, and why: by the error in the outcomes at `seq`, or because its
 * worker died. False if it was done already.
 */
export function markFailed(
  context: BarrierContext,
  barrier: BarrierState,
  index: number,
  why: { readonly seq: number } | { readonly seq: number; readonly lostAt: number },
): boolean {
  if (!markOnce(context, index, true)) return false
  barrier.failed += 1
  const key = stateKey.failures(barrier.run, barrier.asset, Math.floor(index / FAILURES_PER_CHUNK))
  const chunk = context.view.edit(key, () => ({ seq: why.seq, at: [] }))
  chunk.seq = why.seq
  chunk.at.push('lostAt' in why ? [index, 0, why.lostAt] : [index, why.seq])
  return true
}

/** What to say of an instance whose last attempt lost its worker. */
export function lostError(index: number, attempt: number): { code: string; message: string } {
  return { code: 'worker_lost', message: `the worker died while it ran instance ${index}, attempt ${attempt}` }
}

/** Sets an instance's bit; false if it was set already. */
export function markOnce({ bits }: BarrierContext, index: number, failed: boolean): boolean {
  if (bits.isDone(index)) return false
  bits.mark(index, failed)
  return true
}
