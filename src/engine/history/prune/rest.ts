/**
 * How long pruning rests after a step, in milliseconds. While facts come, it takes a few hundredths
 * of the time only. While none come it goes on sooner.
 */

const HOT = 32
const QUIET = 4
const MIN_MS = 5
const MAX_MS = 10_000

export class Rest {
  readonly #seqOf: () => number
  #seq: number

  /** `seqOf`: how far the log is folded and stored now. */
  constructor(seqOf: () => number) {
    this.#seqOf = seqOf
    this.#seq = seqOf()
  }

  /** `tookMs`: the step. `maxMs`: the longest rest. */
  after(tookMs: number, maxMs = MAX_MS): number {
    const seq = this.#seqOf()
    const times = seq === this.#seq ? QUIET : HOT
    this.#seq = seq
    return Math.min(maxMs, Math.max(MIN_MS, tookMs * times))
  }
}
