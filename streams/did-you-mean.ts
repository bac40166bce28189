/** "Did you mean": for errors about names. */
import { isInternalAsset } from './ids.ts'

function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      next.push(
        Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)),
      )
    }
    row = next
  }
  return row[b.length] ?? 0
}

/**
 * `; did you mean x?`, or the names there are when none is near, ready to stand behind a message.
 * Assets of hooks, schedules and sensors (`sensor__…`) are nobody's to name.
 */
export function nearest(wrong: string, names: readonly string[]): string {
  const named = names.filter((name) => !isInternalAsset(name))
  const ranked = named
    .map((name) => ({ name, d: distance(wrong.slice(0, 64).toLowerCase(), name.toLowerCase()) }))
    .sort((a, b) => a.d - b.d)
  const best = ranked[0]
  if (!best) return ''
  if (best.d <= Math.max(2, Math.floor(best.name.length / 3))) return `; did you mean ${best.name}?`
  const shown = named.slice(0, 10).join(', ')
  return `; there are: ${shown}${named.length > 10 ? ', …' : ''}`
}
