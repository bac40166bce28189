/** `retention` of an engine: how long runs are kept, and where they are archived to after that. */
import { InvalidError } from '../../streams/errors.ts'
import type { RetentionSpec } from '../../streams/retention.ts'
import { parseRetention, type RetentionOptions } from '../define/retention.ts'
import type { S3ClientLike } from '../items/s3.ts'
import { refuseUnknown } from '../options/unknown.ts'
import { parseArchiveTarget } from './archive/receipt.ts'

/** Where runs are archived to. */
export interface ArchivePlace {
  /** `s3://BUCKET/PREFIX`, or `file:FOLDER`. */
  readonly to: string
  /** A client of @aws-sdk/client-s3. Default: one that is set up from the environment. */
  readonly client?: S3ClientLike
}

/** How long runs are kept, of a namespace. */
export interface EngineRetention extends RetentionOptions {
  /**
   * Where runs of all pipelines are archived to before they are pruned: `s3://BUCKET/PREFIX`, or
   * `file:FOLDER`. Only what the archive confirms is pruned. Default: nothing is archived.
   */
  readonly archive?: string | ArchivePlace
}

interface Settings {
  readonly retention: RetentionSpec
  readonly archive: ArchivePlace | undefined
}

/** Throws InvalidError that names the field. */
export function parseEngineRetention(at: string, given: EngineRetention | undefined): Settings {
  if (given === undefined) return { retention: {}, archive: undefined }
  if (typeof given !== 'object' || given === null || Array.isArray(given))
    return { retention: parseRetention(at, given), archive: undefined }
  const { archive, ...ages } = given
  return {
    retention: parseRetention(at, ages),
    archive: archive === undefined ? undefined : parseArchivePlace(`${at}: archive`, archive),
  }
}

function parseArchivePlace(at: string, given: string | ArchivePlace): ArchivePlace {
  if (typeof given !== 'object' || given === null) return { to: parseArchiveTarget(at, given) }
  refuseUnknown(at, given, ['to', 'client'])
  const { to, client } = given
  if (client !== undefined && typeof client.send !== 'function')
    throw new InvalidError(`${at}: client must be an S3Client of @aws-sdk/client-s3`)
  return { to: parseArchiveTarget(`${at}: to`, to), ...(client ? { client } : {}) }
}
