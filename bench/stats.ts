/** Quantiles, without interpolation: every figure is one that was measured. */

export function quantile(values: readonly number[], q: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  const found = sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(q * sorted.length) - 1))]
  if (found === undefined) throw new Error('a quantile of nothing')
  return found
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5)
}
