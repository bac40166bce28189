/**
 * Decisions about facts that an engine folded before: nearly all stand on the log, a few facts
 * later. To append each again would be refused, and would cost as much as to store it. So they wait
 * here until their place on the log is seen, or until the next checkpoint needs them carried out.
 */
import type { Effect } from '../../../projections/effects.ts'
import { isRepeatable } from '../../../streams/facts.ts'
import { placeAt, placeOf } from '../../../streams/places.ts'

export interface HeldDecision {
  readonly effect: Effect
  /** Server time of the fact that led to it. */
  readonly timeMs: number
}

export class DecidedBefore {
  readonly #held = new Map<string, HeldDecision>()

  /** A fact of the log. `path`: where it stands; undefined for no fact. */
  see(path: string | undefined): void {
    if (path !== undefined && this.#held.size > 0) this.#held.delete(placeAt(path))
  }

  /** Says whether the decision waits here. Others are carried out at once. */
  hold(effect: Effect, timeMs: number): boolean {
    if (effect.do !== 'fact' || isRepeatable(effect.fact.name)) return false
    this.#held.set(placeOf(effect.fact), { effect, timeMs })
    return true
  }

  /** What waits, to be carried out. It waits here no more. */
  take(): HeldDecision[] {
    const held = [...this.#held.values()]
    this.#held.clear()
    return held
  }
}
