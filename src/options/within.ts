/** Waits that end by themselves, whatever the one who is waited for does. */
import { after, unlessAborted } from './timer.ts'

/**
 * What `ask` brings; an error after `ms` without an answer, and the signal's reason as soon as that
 * is aborted. Then the signal of `ask` is aborted, and it is not waited for.
 */
export async function within<T>(
  ms: number,
  signal: AbortSignal | undefined,
  ask: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const late = new AbortController()
  const timer = after(ms, () => late.abort(new Error(`no answer within ${ms / 1000} s`)))
  const any = signal ? AbortSignal.any([signal, late.signal]) : late.signal
  try {
    return await unlessAborted(ask(any), any)
  } finally {
    timer.cancel()
  }
}

/**
 * The parts of `source`. An error when one takes longer than `ms`, and the signal's reason as soon
 * as that is aborted. A stream is destroyed then. The time that the reader takes between two parts
 * does not count.
 */
export async function* partsWithin<T>(
  ms: number,
  signal: AbortSignal | undefined,
  source: AsyncIterable<T>,
): AsyncGenerator<T> {
  const parts = source[Symbol.asyncIterator]()
  let isOver = false
  try {
    for (;;) {
      const part = await within(ms, signal, () => parts.next())
      isOver = part.done === true
      if (part.done) return
      yield part.value
    }
  } catch (error) {
    isOver = true
    // A generator that waits takes no `return`: nobody waits for that.
    parts.return?.().catch(() => undefined)
    if ('destroy' in source && typeof source.destroy === 'function') source.destroy()
    throw error
  } finally {
    if (!isOver) await parts.return?.()
  }
}
