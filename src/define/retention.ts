/** `retention`: how long runs are kept after their end. */
import { InvalidError } from '../../streams/errors.ts'
import type { RetentionSpec } from '../../streams/retention.ts'
import { shown } from '../../streams/shown.ts'
import { type Duration, parseDuration } from '../options/duration.ts'
import { refuseUnknown } from '../options/unknown.ts'

interface Ages {
  /** How long after its end a run is kept, such as `'90d'`. `'never'`: it is never pruned. */
  readonly runs?: Duration | 'never'
  /** The same of runs that failed. Default: as `runs`. */
  readonly failed?: Duration | 'never'
}

/**
 * How long runs are kept, of a pipeline or of a namespace: `{ runs: '90d', failed: '180d' }`. A run
 * that is older is pruned, unless something still needs it: see docs/retention.md.
 */
export interface RetentionOptions extends Ages {
  /**
   * A run that made one of so many newest values of an asset and partition is kept, whatever its
   * age. Without `runs`, older runs that succeeded are pruned.
   */
  readonly perAsset?: { readonly keepLast: number }
}

/** How long runs of one asset are kept, and how many of its values. */
export interface AssetRetention extends Ages {
  /** A run that made one of so many newest values of the asset in a partition is kept. */
  readonly keepLast?: number
}

const BOUNDS = { minMs: 1000, maxMs: 100 * 365 * 86_400_000 }
const KEEP_MAX = 1_000_000

/** Throws InvalidError that names the field. */
export function parseRetention(at: string, given: unknown): RetentionSpec {
  const retention: RetentionOptions = Object(mustBeObject(at, given))
  refuseUnknown(at, retention, ['runs', 'failed', 'perAsset'])
  const { perAsset } = retention
  if (perAsset === undefined) return parseAges(at, retention)
  refuseUnknown(`${at}: perAsset`, mustBeObject(`${at}: perAsset`, perAsset), ['keepLast'])
  return { ...parseAges(at, retention), keepLast: parseKeepLast(`${at}: perAsset: keepLast`, perAsset.keepLast) }
}

/** The same for an asset. */
export function parseAssetRetention(at: string, given: unknown): RetentionSpec {
  const retention: AssetRetention = Object(mustBeObject(at, given))
  refuseUnknown(at, retention, ['runs', 'failed', 'keepLast'])
  const { keepLast } = retention
  if (keepLast === undefined) return parseAges(at, retention)
  return { ...parseAges(at, retention), keepLast: parseKeepLast(`${at}: keepLast`, keepLast) }
}

function mustBeObject(at: string, given: unknown): object {
  if (typeof given === 'object' && given !== null && !Array.isArray(given)) return given
  throw new InvalidError(`${at} must be an object such as { runs: '90d' }, got ${shown(given)}`)
}

function parseAges(at: string, { runs, failed }: Ages): RetentionSpec {
  return {
    ...(runs === undefined ? {} : { runsMs: parseAge(`${at}: runs`, runs) }),
    ...(failed === undefined ? {} : { failedMs: parseAge(`${at}: failed`, failed) }),
  }
}

function parseAge(at: string, given: unknown): number {
  return given === 'never' ? 0 : parseDuration(at, given, BOUNDS)
}

function parseKeepLast(at: string, given: unknown): number {
  if (typeof given === 'number' && Number.isInteger(given) && given >= 1 && given <= KEEP_MAX) return given
  throw new InvalidError(`${at} must be a whole number from 1 to ${KEEP_MAX}, got ${shown(given)}`)
}
