/** Rates and bucket names as callers write them. */

import type { Rate } from '../../projections/limits/rate-cell.ts'
import { InvalidError } from '../../streams/errors.ts'
import { shown } from '../../streams/shown.ts'
import { checkText } from '../../streams/text.ts'
import { type Duration, parseDuration } from './duration.ts'

/** The period of a rate: a word, or a duration such as `'10s'`. */
export type Per = 'second' | 'minute' | 'hour' | 'day' | Duration

/** `[60, 'minute']`, or the same with names and more to say. */
export type RateOption = readonly [limit: number, per: Per] | RateSettings

/** A rate: so many tokens in a period. */
export interface RateSettings {
  /** Tokens in a period: 1 to 10,000,000. */
  readonly limit: number
  /**
   * The period: `'second'`, `'minute'`, `'hour'`, `'day'`, or any duration from 10 ms to 365 days.
   */
  readonly per: Per
  /**
   * `window` (default): all of the limit at once when idle, and in any stretch of a period never
   * more than the limit. Exact to the millisecond up to a limit of 160; above that a token may come
   * back late by a hundredth of the period. `smooth` (default when `burst` is said): paced, one
   * token each period / limit (GCRA); in any stretch of a period at most limit + burst - 1.
   */
  readonly shape?: 'window' | 'smooth'
  /**
   * Of `smooth`: how many tokens may be taken at once after a pause. Default 1, at most the limit.
   */
  readonly burst?: number
}

const PER_MS: Readonly<Record<string, number>> = { second: 1000, minute: 60_000, hour: 3_600_000, day: 86_400_000 }
export const LIMIT_MAX = 10_000_000
export const PERIOD_MIN_MS = 10
export const PERIOD_MAX_MS = 365 * 86_400_000
export const BUCKET_MAX = 256

/** Throws InvalidError that names `field` and what is wrong with it. */
export function parseRate(field: string, option: RateOption, usual: Rate['shape'] = 'window'): Rate {
  const given: unknown = option
  if (!Array.isArray(given) && (typeof given !== 'object' || given === null))
    throw new InvalidError(`${field} must be [60, 'minute'] or { limit: 60, per: 'minute' }, got ${shown(given)}`)
  const { limit, per, shape, burst }: { [K in keyof RateSettings]?: unknown } = Array.isArray(given)
    ? { limit: given[0], per: given[1] }
    : given
  const limitOk = wholeNumber(`${field}: limit`, limit, LIMIT_MAX)
  const periodMs = (typeof per === 'string' ? PER_MS[per] : undefined) ?? parsePeriod(`${field}: per`, per)
  if (shape !== undefined && shape !== 'window' && shape !== 'smooth')
    throw new InvalidError(`${field}: shape must be window or smooth, got ${shown(shape)}`)
  if (shape === 'window' && burst !== undefined)
    throw new InvalidError(`${field}: burst goes with shape smooth; a window lets its whole limit through at once`)
  if ((shape ?? (burst === undefined ? usual : 'smooth')) === 'window')
    return { shape: 'window', limit: limitOk, periodMs, burst: limitOk }
  return { shape: 'smooth', limit: limitOk, periodMs, burst: wholeNumber(`${field}: burst`, burst ?? 1, limitOk) }
}

export function checkBucket(bucket: unknown): string {
  if (typeof bucket === 'string' && bucket.length > 0 && bucket.length <= BUCKET_MAX) return checkText('bucket', bucket)
  throw new InvalidError(`bucket must be text of 1 to ${BUCKET_MAX} characters, got ${shown(bucket)}`)
}

/** A whole number from 1 to `max`. */
export function wholeNumber(field: string, value: unknown, max: number): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= max) return value
  throw new InvalidError(`${field} must be a whole number from 1 to ${max}, got ${shown(value)}`)
}

function parsePeriod(field: string, per: unknown): number {
  let ms: number
  try {
    ms = parseDuration(field, per)
  } catch (cause) {
    throw new InvalidError(
      `${field} must be second, minute, hour, day or a duration such as '10s', got ${shown(per)}`,
      {
        cause,
      },
    )
  }
  if (ms >= PERIOD_MIN_MS && ms <= PERIOD_MAX_MS) return ms
  throw new InvalidError(`${field} must be from ${PERIOD_MIN_MS} ms to 365 days, got ${shown(per)}`)
}
