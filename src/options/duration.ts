/** Durations as people write them. */
import { InvalidError } from '../../streams/errors.ts'
import { shown } from '../../streams/shown.ts'

/** A number of milliseconds, or text such as `500ms`, `30s`, `15m`, `2h`, `7d`. */
export type Duration = number | `${number}${'ms' | 's' | 'm' | 'h' | 'd'}`

/** Beyond the calendar no schedule can be made of a duration; a year is far within it. */
export const DURATION_MAX_MS = 365 * 86_400_000
const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

export interface DurationBounds {
  /** In milliseconds. Default 0. */
  readonly minMs?: number
  /** In milliseconds. Default 365 days. */
  readonly maxMs?: number
}

/** Milliseconds, within bounds. Throws InvalidError that names `field`. */
export function parseDuration(field: string, value: unknown, bounds: DurationBounds = {}): number {
  const { minMs = 0, maxMs = DURATION_MAX_MS } = bounds
  const ms = millisecondsOf(value)
  if (ms === undefined && typeof value === 'string' && /^\d+(\.\d+)?$/.test(value))
    throw new InvalidError(`${field} needs a unit, such as '${value}s' or '${value}m', got ${shown(value)}`)
  if (ms === undefined)
    throw new InvalidError(
      `${field} must be milliseconds or text such as '500ms', '30s', '15m', '2h', '7d', got ${shown(value)}`,
    )
  if (ms < minMs) throw new InvalidError(`${field} must be at least ${shownMs(minMs)}, got ${shown(value)}`)
  if (ms > maxMs) throw new InvalidError(`${field} must be at most ${shownMs(maxMs)}, got ${shown(value)}`)
  return ms
}

function millisecondsOf(value: unknown): number | undefined {
  if (typeof value === 'number' && Number.isFinite(value) && value >= 0) return Math.round(value)
  const match = typeof value === 'string' ? /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(value.trim()) : null
  const unit = UNIT_MS[match?.[2] ?? '']
  return match?.[1] === undefined || unit === undefined ? undefined : Math.round(Number(match[1]) * unit)
}

function shownMs(ms: number): string {
  const unit = (['d', 'h', 'm', 's'] as const).find(
    (each) => ms >= (UNIT_MS[each] ?? 1) && ms % (UNIT_MS[each] ?? 1) === 0,
  )
  return unit ? `${ms / (UNIT_MS[unit] ?? 1)}${unit}` : `${ms}ms`
}

/**
 * A time limit of a run: 0 for `Infinity`, which is none. Throws InvalidError that names `field`.
 */
export function parseRunTimeout(field: string, value: unknown): number {
  if (value === Number.POSITIVE_INFINITY) return 0
  return parseDuration(field, value, { minMs: 1 })
}

/** `'1s..60s'`: the first wait and the longest one. A single duration is both. */
export function parseRange(field: string, value: unknown): { minMs: number; maxMs: number } {
  const [min, max = min, ...more] = typeof value === 'string' ? value.split('..') : [value]
  if (more.length > 0)
    throw new InvalidError(`${field} must be one duration or two, such as '1s..60s', got ${shown(value)}`)
  const range = { minMs: parseDuration(field, min), maxMs: parseDuration(field, max) }
  if (range.minMs > range.maxMs)
    throw new InvalidError(`${field}: the first wait must not be longer than the longest, got ${shown(value)}`)
  return range
}
