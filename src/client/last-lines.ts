/** How long the last lines of a run that has ended are waited for. */

/** Its workers send them within half a second, and the server takes its time to store them. */
const QUIET_MS = 2000
/** Code that ignores the end of its run may go on logging. */
const MOST_MS = 20_000

export class LastLines {
  readonly #mostMs: number
  #untilMs = 0

  /** `agoMs`: how long ago the run has ended. */
  constructor(nowMs: number, agoMs: number) {
    this.#mostMs = nowMs + MOST_MS - Math.max(0, agoMs)
    this.came(nowMs)
  }

  /** There were lines: more may be on their way. */
  came(nowMs: number): void {
    this.#untilMs = Math.min(nowMs + QUIET_MS, this.#mostMs)
  }

  /** After this time, one more look is the last one. */
  leftMs(nowMs: number): number {
    return Math.max(0, this.#untilMs - nowMs)
  }
}
