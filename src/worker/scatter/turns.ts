/** Keys that are there at once must not keep signs of life and time limits from their turn. */
import { setImmediate as nextTurn } from 'node:timers/promises'

/** Without a turn for others, keys are taken for about this long at the most. */
export const TAKE_MS = 10

export class Turns {
  #sinceMs = performance.now()

  /** Lets others have theirs, if it is time. */
  async give(): Promise<void> {
    if (performance.now() - this.#sinceMs < TAKE_MS) return
    await nextTurn()
    this.#sinceMs = performance.now()
  }
}
