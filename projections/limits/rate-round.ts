/**
 * A round: what callers of one process asked of one bucket since the last one, answered in the
 * order of their asking, and carried by one update of the cell.
 *
 * Pure: cell, questions and a lower bound of the server's time in; answers and the next cell out.
 * Answers count only once the cell is stored.
 */
import { earliest, giveBack, make, type Rate, type RateCell, readied, reserve } from './rate-cell.ts'

export type Ask =
  /** Now or not at all. */
  | { readonly kind: 'check'; readonly n: number }
  /** As `check`, taking nothing. */
  | { readonly kind: 'peek'; readonly n: number }
  /** Now, or at a fixed time within `maxWaitMs`. */
  | { readonly kind: 'wait'; readonly n: number; readonly maxWaitMs: number }
  | { readonly kind: 'give back'; readonly n: number; readonly atMs: number }

export type Answer =
  | { readonly is: 'granted' }
  | { readonly is: 'reserved'; readonly atMs: number }
  /** Room is there after `waitMs`, if nobody else comes first. */
  | { readonly is: 'refused'; readonly waitMs: number }
  /** Its turn is too far off to be reserved: ask again in `waitMs`. */
  | { readonly is: 'far'; readonly waitMs: number }
  /** Depends on what this round writes: ask again after it. */
  | { readonly is: 'next round' }
  | { readonly is: 'done' }

export interface Round {
  readonly cell: RateCell
  readonly answers: readonly Answer[]
  /** Whether the cell must be stored before the answers count. */
  readonly changed: boolean
}

/**
 * Reservations reach at most this far ahead. What a process reserved dies with it, unused and
 * counted, so this is the most that the others wait for nothing. Who comes later than that waits in
 * its process, and asks again when its turn is near enough.
 */
export const AHEAD_MAX_MS = 30_000

export function round(given: RateCell, rate: Rate, asks: readonly Ask[], nowMs: number, write: string): Round {
  const cell: RateCell = { ...given, grants: [...given.grants] }
  let changed = false
  let closed = false
  const answers = asks.map((ask): Answer => {
    // Order is kept: behind one who must wait for this write nobody is answered.
    if (closed) return { is: 'next round' }
    if (ask.kind === 'give back') {
      changed = giveBack(cell, rate, ask.n, ask.atMs) || changed
      return { is: 'done' }
    }
    const atMs = earliest(cell, rate, ask.n, nowMs)
    if (atMs === undefined) {
      closed = true
      return { is: 'next round' }
    }
    if (atMs <= nowMs) {
      if (ask.kind === 'peek') return { is: 'granted' }
      make(cell, ask.n)
      changed = true
      return { is: 'granted' }
    }
    const waitMs = atMs - nowMs
    if (ask.kind !== 'wait' || waitMs > ask.maxWaitMs) return { is: 'refused', waitMs }
    if (waitMs > AHEAD_MAX_MS) return { is: 'far', waitMs: waitMs - AHEAD_MAX_MS / 2 }
    reserve(cell, rate, ask.n, atMs)
    changed = true
    return { is: 'reserved', atMs }
  })
  return { cell: changed ? readied(cell, rate, nowMs, write) : cell, answers, changed }
}
