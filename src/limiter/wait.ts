/** Waiting: for a time of the server, and for no longer than a caller wants. */
import type { ServerClock } from '../log/clock.ts'
import { after, atMost, sleep, type Timer } from '../options/timer.ts'

/** Long waits end this much early, to read the clock again: its bounds give way with time. */
const AHEAD_MS = 100
const LONG_MS = 5000

/**
 * Resolves once the server's clock says `atMs` for certain. Rejects with the signal's reason when
 * that is aborted.
 */
export async function untilServerTime(
  clock: ServerClock,
  atMs: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  for (let left = atMs - clock.atLeast(); left > 0; left = atMs - clock.atLeast()) {
    await sleep(left > LONG_MS ? left - AHEAD_MS : left, signal)
    // In vain while the server is away; what is known goes on being true.
    if (left > LONG_MS)
      await atMost(
        AHEAD_MS / 2,
        clock.ready().catch(() => undefined),
      )
  }
}

export type Outcome<T> = { readonly value: T } | 'late'

/**
 * What `begin` brings, unless it is aborted (rejects with the reason) or takes longer (`late`).
 * `drop` is called in both cases.
 */
export function within<T>(
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
