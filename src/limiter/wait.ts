/** Waits for a time of the server's clock, and for no longer than a caller wants. */
import type { ServerClock } from '../log/clock.ts'
import { after, atMost, sleep, type Timer } from '../options/timer.ts'

/** A long wait ends this early to read the clock again: the clock's bounds widen with time. */
const AHEAD_MS = 100
const LONG_MS = 5000

/**
 * Resolves when the server's clock has certainly reached `atMs`. Rejects with the signal's reason
 * when the signal is aborted.
 */
export async function untilServerTime(
  clock: ServerClock,
  atMs: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  for (let left = atMs - clock.atLeast(); left > 0; left = atMs - clock.atLeast()) {
    await sleep(left > LONG_MS ? left - AHEAD_MS : left, signal)
    // This fails while the server is away. The bounds that are known stay true.
    if (left > LONG_MS)
      await atMost(
        AHEAD_MS / 2,
        clock.ready().catch(() => undefined),
      )
  }
}

export type Outcome<T> = { readonly value: T } | 'late'

/**
 * Resolves with what `begin` settles. Rejects with the reason when the signal is aborted. Resolves
 * with `late` when it takes longer. In the last two cases it calls `drop`, at once: what is granted
 * after that goes back. `within` of the options would make three objects for each caller.
 */
export function settledWithin<T>(
  ms: number,
  signal: AbortSignal | undefined,
  begin: (settle: (value: T | Error) => void) => void,
  drop: () => void,
): Promise<Outcome<T>> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason)
      return
    }
    let timer: Timer | undefined
    const onAbort = (): void => {
      end()
      drop()
      reject(signal?.reason)
    }
    const end = (): void => {
      timer?.cancel()
      signal?.removeEventListener('abort', onAbort)
    }
    timer = after(Math.ceil(ms), () => {
      end()
      drop()
      resolve('late')
    })
    signal?.addEventListener('abort', onAbort, { once: true })
    begin((value) => {
      end()
      if (value instanceof Error) reject(value)
      else resolve({ value })
    })
  })
}
