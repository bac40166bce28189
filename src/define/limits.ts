/** Limits of an asset's code: how they are declared, and what the worker goes by. */

import type { Rate } from '../../projections/limits/rate-cell.ts'
import { InvalidError, messageOf } from '../../streams/errors.ts'
import type { RateLimitSpec, SlotsSpec } from '../../streams/schemas.ts'
import { shown } from '../../streams/shown.ts'
import { type Duration, parseDuration } from '../options/duration.ts'
import { checkBucket, parseRate, type RateOption, type RateSettings, wholeNumber } from '../options/rate.ts'
import { refuseUnknown } from '../options/unknown.ts'

/** A bucket's name, or how it follows from the key of an instance: one limit for each host, say. */
export type BucketName<K> = string | ((key: K) => string)

/**
 * How fast instances start, over all workers. `[10, 'second']` and settings without a bucket: a
 * limit of this scatter alone, `smooth`, so that starts are spaced evenly. With a bucket: shared by
 * all who name it, `flow.limiter` included, and a `window` unless said otherwise.
 */
export type RateLimit<K> = readonly [limit: number, per: RateSettings['per']] | RateLimitSettings<K>

/**
 * A rate limit of an asset, and the bucket that it shares with others. `K` is the type of the
 * scatter key.
 */
export interface RateLimitSettings<K> extends RateSettings {
  readonly bucket?: BucketName<K>
}

/** Slots that are held while the code runs, as of `flow.limiter.withSlot`. */
export interface SlotsSettings<K> {
  readonly bucket: BucketName<K>
  /** How many slots the bucket has. */
  readonly max: number
  /** How many of them one execution takes. Default 1. */
  readonly weight?: number
  /**
   * Default `'10s'`: how soon the slot of a worker that died comes back. An execution whose slot
   * was lost is aborted, and has failed with `slot_lost`.
   */
  readonly lease?: Duration
}

/** Erased: methods, so that narrower keys fit. */
export interface Limits {
  readonly rate?: {
    readonly rate: Rate
    readonly option: RateOption
    readonly perKey: boolean
    bucketOf?(key: unknown): string
  }
  readonly slots?: {
    readonly max: number
    readonly weight: number
    readonly leaseMs: number
    bucketOf(key: unknown): string
  }
}

const LEASE_MS = 10_000
const LEASE_MIN_MS = 500

export function parseRateLimit(
  field: string,
  given: RateLimit<never>,
): { spec: RateLimitSpec; limit: NonNullable<Limits['rate']> } {
  const settings: RateLimitSettings<never> | undefined = isPair(given) ? undefined : given
  if (settings) refuseUnknown(field, settings, ['limit', 'per', 'shape', 'burst', 'bucket'])
  const bucket = settings?.bucket
  const own = bucket === undefined
  // What is this scatter's alone is for pacing.
  const rate = parseRate(field, settings ?? given, own ? 'smooth' : 'window')
  const { shape, limit, periodMs, burst } = rate
  const option: RateSettings = { limit, per: periodMs, shape, ...(shape === 'smooth' ? { burst } : {}) }
  return {
    spec: { shape, limit, periodMs, burst, ...bucketSpec(field, bucket) },
    limit: { rate, option, perKey: typeof bucket === 'function', ...(own ? {} : { bucketOf: bucketOf(bucket) }) },
  }
}

export function parseSlots(
  field: string,
  given: SlotsSettings<never>,
): { spec: SlotsSpec; limit: NonNullable<Limits['slots']> } {
  if (typeof given !== 'object' || given === null)
    throw new InvalidError(`${field} must be { bucket: 'gpu', max: 4 }, got ${shown(given)}`)
  refuseUnknown(field, given, ['bucket', 'max', 'weight', 'lease'])
  const max = wholeNumber(`${field}: max`, given.max, 10_000)
  const weight = wholeNumber(`${field}: weight`, given.weight ?? 1, max)
  const leaseMs = parseDuration(`${field}: lease`, given.lease ?? LEASE_MS)
  if (leaseMs < LEASE_MIN_MS)
    throw new InvalidError(`${field}: lease must be at least ${LEASE_MIN_MS} ms, got ${leaseMs}`)
  return {
    spec: { max, weight, leaseMs, ...bucketSpec(field, given.bucket) },
    limit: { max, weight, leaseMs, bucketOf: bucketOf(given.bucket) },
  }
}

function bucketSpec(field: string, bucket: BucketName<never> | undefined): { bucket?: string; perKey?: true } {
  if (bucket === undefined && field.endsWith('rateLimit')) return {}
  if (typeof bucket === 'function') return { perKey: true }
  try {
    return { bucket: checkBucket(bucket) }
  } catch (error) {
    if (typeof bucket === 'string' && !bucket.isWellFormed()) throw new InvalidError(`${field}: ${messageOf(error)}`)
    throw new InvalidError(
      `${field}: bucket must be text of 1 to 256 characters, or a function of the key, got ${shown(bucket)}`,
    )
  }
}

function bucketOf(bucket: BucketName<never>): (key: never) => string {
  return typeof bucket === 'string' ? () => bucket : bucket
}

function isPair<K>(given: RateLimit<K>): given is readonly [number, RateSettings['per']] {
  return Array.isArray(given)
}
