/** Holds a rate, so that whoever works on the same server is not disturbed. */
import { setTimeout as sleep } from 'node:timers/promises'

export class Pace {
  readonly #perSecond: number
  readonly #signal: AbortSignal | undefined
  #startedMs = performance.now()
  #count = 0

  constructor(perSecond: number, signal: AbortSignal | undefined) {
    this.#perSecond = perSecond
    this.#signal = signal
  }

  /** So many were read. Waits until they may have been; rejects when nobody wants it any more. */
  async took(count: number): Promise<void> {
    this.#signal?.throwIfAborted()
    this.#count += count
    const dueMs = this.#startedMs + (this.#count / this.#perSecond) * 1000
    const aheadMs = dueMs - performance.now()
    if (aheadMs > 1) await sleep(aheadMs, undefined, this.#signal ? { signal: this.#signal } : {})
    // What was not used in a slow moment is not made up for.
    else if (aheadMs < -1000) {
      this.#startedMs = performance.now()
      this.#count = 0
    }
  }
}
