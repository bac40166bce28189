/**
 * Whether the engine is as fast as it was, in ratios to raw. Pure: what was measured comes in, what
 * to do comes out.
 */

/** Written by `npm run bench:guard -- --record`. */
export interface Recorded {
  /** The day, as 2026-11-28. */
  readonly date: string
  readonly machine: string
  /** Rate of the engine in that of raw, by the name of the measurement. */
  readonly ratios: Readonly<Record<string, number>>
}

/** Ratios below so much of the recorded one are slower for a reason, and not by chance. */
export const FLOOR = 2 / 3
/** Ratios above so much of the recorded one make the guard blind: half of that would still pass. */
const CEILING = 4 / 3

export interface Verdict {
  readonly name: string
  /** Median of the repeats. */
  readonly ratio: number
  /** `unsure`: below the floor, but more repeats are to come. */
  readonly status: 'holds' | 'unsure' | 'fell'
  /** For people: what was measured, and what to do. */
  readonly message: string
}

/**
 * Judges the ratios of all repeats so far. Each repeat measures raw and engine one after the other,
 * so both meet the same noise. The median leaves out the repeats that met more of it.
 */
export function judge(
  name: string,
  ratios: readonly number[],
  { date, ratios: known }: Recorded,
  isLast: boolean,
): Verdict {
  const recorded = known[name]
  if (recorded === undefined)
    throw new Error(`bench/guard/recorded.json has no ratio of "${name}". Record it: npm run bench:guard -- --record`)
  const ratio = medianOf(ratios)
  const floor = recorded * FLOOR
  const found = `${name}: ${ratio.toFixed(2)} of raw, median of ${ratios.length} repeats`
  if (ratio >= floor) {
    const hint = ratio > recorded * CEILING ? '. It is faster now: record it with npm run bench:guard -- --record' : ''
    return { name, ratio, status: 'holds', message: `${found}; ${recorded.toFixed(2)} on ${date}${hint}` }
  }
  if (!isLast) return { name, ratio, status: 'unsure', message: `${found}; below ${floor.toFixed(2)}, measuring more` }
  const message =
    `${found}, is below ${floor.toFixed(2)}: two thirds of the ${recorded.toFixed(2)} recorded on ${date}. ` +
    'Find the change that slowed it down: run npm run bench:guard on the commits before. ' +
    'If the cost is wanted, record anew with npm run bench:guard -- --record, and say why in the commit.'
  return { name, ratio, status: 'fell', message }
}

/** What to record: the median of each measurement, rounded to three digits. */
export function recordOf(measured: ReadonlyMap<string, readonly number[]>, date: string, machine: string): Recorded {
  const ratios: Record<string, number> = {}
  for (const [name, values] of measured) ratios[name] = Number(medianOf(values).toPrecision(3))
  return { date, machine, ratios }
}

/** Of an even number of values, the mean of the two in the middle. */
function medianOf(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const [low, high] = [sorted[Math.floor((sorted.length - 1) / 2)], sorted[Math.floor(sorted.length / 2)]]
  if (low === undefined || high === undefined) throw new Error('a median of nothing')
  return (low + high) / 2
}
