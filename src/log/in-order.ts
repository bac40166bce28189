/** Brings facts of several packs into order, with no more than a pack or two in memory. */
import type { SealedFact } from '../../streams/history.ts'

/** A pack, and the first and the last of the facts that are wanted of it. */
export interface Place {
  readonly n: number
  readonly from: number
  readonly to: number
}

export type ReadFacts = (n: number) => Promise<readonly SealedFact[]>

/**
 * Packs in the order of their facts. It is not that of their numbers: pruning packs anew what
 * stays, and an archive may come in any order.
 */
export async function placesOf(numbers: readonly number[], read: ReadFacts): Promise<Place[]> {
  const [only, ...more] = numbers
  if (only === undefined) return []
  if (more.length === 0) return [{ n: only, from: 0, to: Number.POSITIVE_INFINITY }]
  const places: Place[] = []
  for (const n of numbers) {
    let [from, to] = [Number.POSITIVE_INFINITY, 0]
    for (const { seq } of await read(n)) [from, to] = [Math.min(from, seq), Math.max(to, seq)]
    if (to > 0) places.push({ n, from, to })
  }
  return places.sort((a, b) => a.from - b.from)
}

/** Those behind a sequence, each once. */
export async function* inOrder(places: readonly Place[], read: ReadFacts, after = 0): AsyncGenerator<SealedFact> {
  let held: SealedFact[] = []
  let seen = after
  for (const [i, { n, to }] of places.entries()) {
    if (to > seen) held = [...held, ...(await read(n))].sort((a, b) => a.seq - b.seq)
    // The next pack may have some that come before the last of these.
    const next = places[i + 1]?.from ?? Number.POSITIVE_INFINITY
    const end = held.findIndex(({ seq }) => seq >= next)
    const ready = end < 0 ? held : held.slice(0, end)
    held = end < 0 ? [] : held.slice(end)
    for (const fact of ready) {
      if (fact.seq <= seen) continue
      seen = fact.seq
      yield fact
    }
  }
}
