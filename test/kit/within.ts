/** Limits of time for tests: what takes a second here may take many on a machine that is busy. */
import { availableParallelism, loadavg } from 'node:os'

/** More would let a test that hangs wait for long. */
const BUSY_MAX = 4
const LOOK_MS = 500

/** How many times as long work takes as on a quiet machine, about: 1 to 4. */
export function busy(): number {
  return Math.min(BUSY_MAX, Math.max(1, (loadavg()[0] ?? 0) / availableParallelism()))
}

/** Aborts after `ms` on a quiet machine, and later on a busy one. */
export function within(ms: number): AbortSignal {
  const limit = new AbortController()
  const startedMs = performance.now()
  const look = setInterval(() => {
    const tookMs = performance.now() - startedMs
    if (tookMs < ms * busy()) return
    clearInterval(look)
    limit.abort(new DOMException(`not within ${Math.round(tookMs)} ms`, 'TimeoutError'))
  }, LOOK_MS)
  look.unref()
  return limit.signal
}
