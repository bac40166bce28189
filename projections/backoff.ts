/**
 * Exponential backoff with jitter that needs no random numbers: spread comes from a hash of what is
 * retried, so a replay decides the same.
 */
import { hash64 } from '../streams/ids.ts'
import type { RetrySpec } from '../streams/schemas.ts'

/**
 * Milliseconds before the attempt that follows `failures` failures: min, 3·min, 9·min … capped at
 * max (the original's 5, 15, 45 s), of which the upper quarter is spread by `seed`.
 */
export function backoffMs(retry: RetrySpec, failures: number, seed: string): number {
  // 40: beyond any cap, and still a number (0 times infinity is none).
  const full = Math.min(retry.backoffMaxMs, retry.backoffMinMs * 3 ** Math.min(40, Math.max(0, failures - 1)))
  const spread = Number.parseInt(hash64(seed).slice(0, 8), 16) / 0xffffffff
  return Math.round(full * (0.75 + 0.25 * spread))
}
