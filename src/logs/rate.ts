/**
 * How many lines of `ctx.log` a worker keeps each second. Code that does little but log would else
 * become slower by its lines, and push those of all others out of the stream.
 */

/** Seconds of lines that may come at once. */
const BURST_SECONDS = 2

export class LineRate {
  readonly #perSecond: number
  readonly #nowMs: () => number
  /** Lines that may come now. Less than 0: warnings and errors came besides. */
  #left: number
  #atMs: number

  constructor(perSecond: number, nowMs: () => number = () => performance.now()) {
    this.#perSecond = perSecond
    this.#nowMs = nowMs
    this.#left = perSecond * BURST_SECONDS
    this.#atMs = nowMs()
  }

  /** False: the line is one too many. As many warnings and errors may come besides. */
  takes(isHigh: boolean): boolean {
    if (this.#left < 1) this.#refill()
    const burst = this.#perSecond * BURST_SECONDS
    if (this.#left < (isHigh ? 1 - burst : 1)) return false
    this.#left -= 1
    return true
  }

  /** Only where none are left: most lines need no clock. */
  #refill(): void {
    const nowMs = this.#nowMs()
    const more = ((nowMs - this.#atMs) / 1000) * this.#perSecond
    this.#left = Math.min(this.#left + more, this.#perSecond * BURST_SECONDS)
    this.#atMs = nowMs
  }
}
