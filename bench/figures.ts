/**
 * What a bench finds out, and the two ways to print it: a JSON line a figure for programs, one
 * table for people.
 */

export type Fsync = 'always' | 'default'

export interface Figure {
  readonly bench: string
  /** Size of the job: instances, requests. */
  readonly n: number
  /** The server's `sync_interval`. */
  readonly fsync: Fsync
  readonly value: number
  /** Unit of `value` and `raw`; it also says which of a bench's figures this is (p50, peak RSS). */
  readonly unit: string
  /**
   * The same measured with nothing in between, in the same run; null where there is no such thing.
   */
  readonly raw: number | null
  /** `value / raw`. */
  readonly ratio: number | null
}

/** Makes figures that there is nothing to compare with. */
export function rowsOf(of: Pick<Figure, 'bench' | 'n' | 'fsync'>): (unit: string, value: number) => Figure {
  return (unit, value) => ({ ...of, value, unit, raw: null, ratio: null })
}

export function jsonLine({ bench, n, fsync, value, unit, raw, ratio }: Figure): string {
  return JSON.stringify({ bench, n, fsync, value: rounded(value), unit, raw: rounded(raw), ratio: rounded(ratio) })
}

export function table(figures: readonly Figure[]): string {
  const rows = figures.map(({ bench, n, fsync, value, unit, raw, ratio }) => [
    bench,
    grouped(n),
    fsync,
    grouped(value),
    unit,
    raw === null ? '' : grouped(raw),
    ratio === null ? '' : ratio.toFixed(2),
  ])
  const all = [['bench', 'n', 'fsync', 'value', 'unit', 'raw', 'ratio'], ...rows]
  const widths = all[0]?.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0))) ?? []
  const rightward = new Set([1, 3, 5, 6])
  return all
    .map((row) => {
      const cells = row.map((cell, i) =>
        rightward.has(i) ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0),
      )
      return cells.join('  ').trimEnd()
    })
    .join('\n')
}

/** Four digits that count; more would only be noise. */
function rounded<V extends number | null>(value: V): V | number {
  return value === null ? value : Number(value.toPrecision(4))
}

function grouped(value: number): string {
  return rounded(value).toLocaleString('en-US', { maximumFractionDigits: 3 })
}
