/**
 * Judges what processes wrote down about limits, each by a clock that all of them share (one host).
 * Nobody can say at which moment a grant was made, only between which two: so a bound is broken
 * only where it is broken whichever moments are true.
 */

/** A grant was made, at the earliest and at the latest. */
export interface Grant {
  readonly fromMs: number
  readonly toMs: number
  readonly n: number
}

/**
 * Tokens that were granted within some stretch of a period for certain: the most there are of any
 * such stretch.
 */
export function worstStretch(grants: readonly Grant[], periodMs: number): number {
  const sorted = grants.toSorted((a, b) => a.fromMs - b.fromMs)
  let worst = 0
  for (const [i, { fromMs }] of sorted.entries()) {
    let sum = 0
    for (let k = i; k < sorted.length; k++) {
      const grant = sorted[k]
      if (!grant || grant.fromMs >= fromMs + periodMs) break
      if (grant.toMs < fromMs + periodMs) sum += grant.n
    }
    worst = Math.max(worst, sum)
  }
  return worst
}

/** A slot was used from one moment to another, for certain. */
export interface Use {
  readonly fromMs: number
  readonly toMs: number
  readonly weight: number
}

/** The most that was used at some moment. */
export function worstOverlap(uses: readonly Use[]): number {
  const edges = uses.flatMap(({ fromMs, toMs, weight }) => [
    { atMs: fromMs, by: weight },
    { atMs: toMs, by: -weight },
  ])
  // Where one ends as another begins, they do not overlap.
  edges.sort((a, b) => a.atMs - b.atMs || a.by - b.by)
  let now = 0
  let worst = 0
  for (const { by } of edges) {
    now += by
    worst = Math.max(worst, now)
  }
  return worst
}

/**
 * Slots that were taken: a holder that had its slot before another asked has the lower fence.
 * Returns the pairs for which this is not so.
 */
export function fencesOutOfOrder(
  taken: readonly { readonly askedMs: number; readonly toldMs: number; readonly fence: number }[],
): [number, number][] {
  const wrong: [number, number][] = []
  for (const a of taken) {
    for (const b of taken) if (a !== b && a.toldMs < b.askedMs && a.fence >= b.fence) wrong.push([a.fence, b.fence])
  }
  return wrong
}
