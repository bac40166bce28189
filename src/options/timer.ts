/**
 * Timers of any length. `setTimeout` fires after 1 ms when it is given more than 2³¹−1 ms (some
 * 24.8 days), and `setInterval` then fires all the time. Timers whose length a caller says are made
 * here.
 */

/** The longest time that one timer of Node can wait, in milliseconds. */
const TIMER_MAX_MS = 2 ** 31 - 1

export interface TimerOptions {
  /** Whether the process may end while the timer waits. Default: it may not. */
  readonly unref?: boolean
}

/** A timer that waits. */
export interface Timer {
  /** Safe to call twice, and after it fired. */
  cancel(): void
}

/** Calls `then` once, `ms` from now. `Infinity` is never. Less than 0 is as soon as possible. */
export function after(ms: number, then: () => void, { unref = false }: TimerOptions = {}): Timer {
  if (Number.isNaN(ms)) throw new RangeError('a timer needs a number of milliseconds')
  if (ms === Number.POSITIVE_INFINITY) return { cancel: () => undefined }
  let handle: NodeJS.Timeout
  const wait = (leftMs: number): void => {
    if (leftMs <= TIMER_MAX_MS) handle = setTimeout(then, leftMs)
    else {
      const sinceMs = performance.now()
      handle = setTimeout(() => wait(leftMs - (performance.now() - sinceMs)), TIMER_MAX_MS)
    }
    if (unref) handle.unref()
  }
  wait(ms)
  return { cancel: () => clearTimeout(handle) }
}

/** Calls `then` again and again, `ms` apart, until it is cancelled. */
export function every(ms: number, then: () => void, { unref = false }: TimerOptions = {}): Timer {
  if (Number.isNaN(ms)) throw new RangeError('a timer needs a number of milliseconds')
  if (ms <= TIMER_MAX_MS) {
    const handle = setInterval(then, ms)
    if (unref) handle.unref()
    return { cancel: () => clearInterval(handle) }
  }
  let timer: Timer
  const next = (): void => {
    timer = after(ms, fire, { unref })
  }
  const fire = (): void => {
    next()
    then()
  }
  next()
  return { cancel: () => timer.cancel() }
}

/** Resolves `ms` from now. Rejects with the signal's reason as soon as that is aborted. */
export function sleep(ms: number, signal?: AbortSignal, options: TimerOptions = {}): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason)
      return
    }
    const onAbort = (): void => {
      timer.cancel()
      reject(signal?.reason)
    }
    const timer = after(
      Math.ceil(ms),
      () => {
        signal?.removeEventListener('abort', onAbort)
        resolve()
      },
      options,
    )
    signal?.addEventListener('abort', onAbort, { once: true })
  })
}

/**
 * The result of the promise, or `late` after `ms`. Leaves no timer behind. A late promise continues
 * by itself, and its failure is ignored.
 */
export async function atMost<T>(ms: number, promise: Promise<T>): Promise<T | 'late'> {
  const late = Promise.withResolvers<'late'>()
  const timer = after(ms, () => late.resolve('late'))
  try {
    return await Promise.race([promise, late.promise])
  } finally {
    timer.cancel()
    promise.catch(() => undefined)
  }
}

/**
 * What `result` brings, or the signal's reason as soon as that is aborted. What runs on is not
 * waited for, and its failure is not looked at.
 */
export function unlessAborted<T>(result: T | Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return Promise.resolve(result)
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason)
    if (signal.aborted) onAbort()
    signal.addEventListener('abort', onAbort, { once: true })
    Promise.resolve(result)
      .then(resolve, reject)
      .finally(() => signal.removeEventListener('abort', onAbort))
  })
}
