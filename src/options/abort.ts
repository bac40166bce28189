/** Many who wait for one signal. */

export type Listener = (reason: unknown) => void

const listening = new WeakMap<AbortSignal, Set<Listener>>()

/**
 * Calls back when the signal is aborted; returns what ends that. One listener for each signal: to
 * add and remove one takes longer than a short instance's whole bookkeeping.
 */
export function onAbort(signal: AbortSignal, listener: Listener): () => void {
  if (signal.aborted) listener(signal.reason)
  let listeners = listening.get(signal)
  if (!listeners) {
    const all = new Set<Listener>()
    listeners = all
    listening.set(signal, all)
    const tellAll = (): void => {
      for (const each of [...all]) each(signal.reason)
    }
    signal.addEventListener('abort', tellAll, { once: true })
  }
  const kept = listeners
  kept.add(listener)
  return () => void kept.delete(listener)
}
