/** Instances whose rate limit had no room, and that a worker handed back: when they come again. */

import type { ScatterContext } from './context.ts'
import type { BarrierState } from './state.ts'

/**
 * They come a little faster than the limit lets them start, so that it never waits for one of them,
 * and few come in vain.
 */
const FASTER = 1.25

/**
 * Milliseconds from now. Each behind the one before: how many there are is known here, and to no
 * worker. Of a limit by key nothing is known here either; the worker's word holds.
 */
export function comeAgainMs(
  { spec }: Pick<ScatterContext, 'spec'>,
  barrier: BarrierState,
  retryAfterMs: number,
  nowMs: number,
): number {
  const rate = spec.scatter?.rateLimit
  if (!rate || rate.perKey || retryAfterMs === 0) return retryAfterMs
  const behindMs = (barrier.pacedMs ?? 0) + rate.periodMs / (rate.limit * FASTER)
  barrier.pacedMs = Math.ceil(Math.max(nowMs + retryAfterMs, behindMs))
  return barrier.pacedMs - nowMs
}
