/** Durations as people write them. */
import { InvalidError } from '../../streams/errors.ts'

/** A number of milliseconds, or text such as `500ms`, `30s`, `15m`, `2h`, `7d`. */
export type Duration = number | `${number}${'ms' | 's' | 'm' | 'h' | 'd'}`

const RANGE_MAX_MS = 365 * 86_400_000
const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** Milliseconds. Throws InvalidError that names `field`. */
export function parseDuration(field: string, value: unknown): number {
  if (typeof value === 'number' && Number.isFinite(value) && value >= 0) return Math.round(value)
  const match = typeof value === 'string' ? /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(value.trim()) : null
  const unit = UNIT_MS[match?.[2] ?? '']
  if (match?.[1] !== undefined && unit !== undefined) return Math.round(Number(match[1]) * unit)
  throw new InvalidError(
    `${field} must be milliseconds or text such as '500ms', '30s', '15m', '2h', '7d', got ${JSON.stringify(value)}`,
  )
}

/** `'1s..60s'`: the first wait and the longest one. A single duration is both. */
export function parseRange(field: string, value: unknown): { minMs: number; maxMs: number } {
  const [min, max = min] = typeof value === 'string' ? value.split('..') : [value]
  const range = { minMs: parseDuration(field, min), maxMs: parseDuration(field, max) }
  // Beyond the calendar no schedule can be made of it.
  if (range.maxMs > RANGE_MAX_MS) throw new InvalidError(`${field} must be at most 365d, got ${JSON.stringify(value)}`)
  if (range.minMs > range.maxMs)
    throw new InvalidError(`${field}: the first wait must not be longer than the longest, got ${JSON.stringify(value)}`)
  return range
}
