/** Numbers that look like chance, and are the same for the same seed. */
export type Random = () => number

export function seeded(seed: number): Random {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}

/** One of them, by weight. */
export function oneOf<T extends string>(random: Random, weights: Readonly<Partial<Record<T, number>>>): T {
  const entries = Object.entries(weights) as [T, number][]
  let dice = random() * entries.reduce((sum, [, weight]) => sum + weight, 0)
  for (const [what, weight] of entries) {
    dice -= weight
    if (dice < 0) return what
  }
  throw new Error('nothing to choose from')
}

/** Seeds as a list: `3,5,100..199`. */
export function seedsIn(text: string): number[] {
  return text.split(',').flatMap((part) => {
    const [from = 0, to = from] = part.split('..').map(Number)
    return Array.from({ length: to - from + 1 }, (_, i) => from + i)
  })
}
