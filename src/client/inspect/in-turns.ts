const SIDE_BY_SIDE = 64

/** Asks about all of them, some at a time. */
export async function inTurns<T, R>(all: readonly T[], ask: (one: T) => Promise<R>): Promise<R[]> {
  const results: R[] = []
  for (let i = 0; i < all.length; i += SIDE_BY_SIDE)
    results.push(...(await Promise.all(all.slice(i, i + SIDE_BY_SIDE).map(ask))))
  return results
}
