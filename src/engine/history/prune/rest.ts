/**
 * How long pruning rests after a step, in milliseconds. While facts come, it takes a few hundredths
 * of the time only. It goes on sooner while none come, and while more is sealed than it prunes.
 */

const HOT = 32
const QUIET = 4
const MIN_MS = 5
const MAX_MS = 20_000
/** So many packs go, at least, for each one that is sealed meanwhile. */
const PACKS_PER_SEALED = 1.5

export class Rest {
  readonly #seqOf: () => number
  #seq: number
  #sealed = 0
  #done = 0

  /** `seqOf`: how far the log is folded and stored now. */
  constructor(seqOf: () => number) {
    this.#seqOf = seqOf
    this.#seq = seqOf()
  }

  /** A look begins: from now on packs are counted. */
  begin(): void {
    this.#sealed = 0
    this.#done = 0
  }

  /** A pack was sealed. */
  sealed(): void {
    this.#sealed += 1
  }

  /** A step is done with so many packs. */
  done(packs: number): void {
    this.#done += packs
  }

  /** `tookMs`: the step. `maxMs`: the longest rest. */
  after(tookMs: number, maxMs = MAX_MS): number {
    const seq = this.#seqOf()
    const isBehind = this.#done < this.#sealed * PACKS_PER_SEALED
    const times = seq === this.#seq || isBehind ? QUIET : HOT
    this.#seq = seq
    return Math.min(maxMs, Math.max(MIN_MS, tookMs * times))
  }
}
