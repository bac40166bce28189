/**
 * Objects of S3 and of what speaks its protocol: their list, and their bytes. By
 * @aws-sdk/client-s3.
 */
import { z } from 'zod'
import { FlowStoneError, InvalidError, TerminalError } from '../../streams/errors.ts'
import { refuseUnknown } from '../options/unknown.ts'
import { partsWithin, within } from '../options/within.ts'
import type { ByteSource } from './byte-source.ts'
import { optionalPackage } from './optional.ts'
import { type ItemReader, itemReader, type ReaderRetry } from './reader.ts'
import { s3ProblemOf, s3StatusOf } from './s3-error.ts'
import { changed } from './source.ts'

/** A client of @aws-sdk/client-s3. */
export interface S3ClientLike {
  /** Sends one command, and brings its output. */
  send(command: object, options?: object): Promise<unknown>
}

/** Options of `readS3Objects`. */
export interface S3ListOptions {
  readonly bucket: string
  /** Only keys that begin with this. Default all. */
  readonly prefix?: string
  /**
   * Default: a new one, set up from the environment as the AWS SDK does it. Give your own for
   * another region, endpoint or credentials.
   */
  readonly client?: S3ClientLike
  readonly retry?: ReaderRetry
}

/** An object of a bucket, as its list names it. */
export interface S3Item {
  readonly bucket: string
  readonly key: string
  /** Bytes. */
  readonly size: number
  /** With its quotes, as S3 gives it. */
  readonly etag: string
}

/** Options of `s3Object`: which object, and with which client it is read. */
export interface S3ObjectOptions {
  readonly bucket: string
  readonly key: string
  readonly client?: S3ClientLike
}

const listed = z.object({
  Contents: z
    .array(z.object({ Key: z.string(), Size: z.number().default(0), ETag: z.string().default('') }))
    .default([]),
  IsTruncated: z.boolean().default(false),
})
const headed = z.object({ ContentLength: z.number(), ETag: z.string() })
const cursors = z.object({ after: z.string() })
type Cursor = z.infer<typeof cursors>
/** A request, or a body, that brings nothing for longer brings nothing any more. */
const SILENCE_MS = 60_000

/** The package, and one client for all that this process reads, unless there is another. */
let shared: S3ClientLike | undefined
async function load(reader: string, client: S3ClientLike | undefined) {
  const sdk = await optionalPackage<typeof import('@aws-sdk/client-s3')>('@aws-sdk/client-s3', reader)
  if (!client) shared ??= new sdk.S3Client({})
  const s3 = client ?? shared
  if (!s3) throw new FlowStoneError('internal', 'no client')
  return { sdk, s3 }
}

/**
 * The list of a bucket's objects, in the order of their keys. The cursor is the last key and no
 * continuation token, for those expire: an object that is put behind the cursor meanwhile is seen,
 * one before it is not. Needs the package @aws-sdk/client-s3.
 *
 *     scatter: () => readS3Objects({ bucket: 'invoices', prefix: '2026/' }),
 *     execute: ({ scatterKey }) => read(scatterKey.bucket, scatterKey.key),
 */
export function readS3Objects(options: S3ListOptions): ItemReader<S3Item> {
  refuseUnknown('readS3Objects', options, ['bucket', 'prefix', 'client', 'retry'])
  const { bucket, prefix, client, retry } = options
  if (typeof bucket !== 'string' || bucket === '') throw new InvalidError('readS3Objects: bucket must be a name')
  return itemReader<S3Item, Cursor>({
    name: `objects of s3://${bucket}/${prefix ?? ''}`,
    position: ({ after }) => `key ${after}`,
    ...(retry ? { retry } : {}),
    async *read(given, signal) {
      const { sdk, s3 } = await load('readS3Objects', client)
      let after = given && cursors.parse(given).after
      for (;;) {
        const command = new sdk.ListObjectsV2Command({
          Bucket: bucket,
          ...(prefix === undefined ? {} : { Prefix: prefix }),
          ...(after === undefined ? {} : { StartAfter: after }),
        })
        const page = listed.parse(
          await ask(s3, command, signal).catch((error: unknown) => refuseMissing(error, `s3://${bucket}`)),
        )
        const items = page.Contents.map(({ Key, Size, ETag }) => ({ bucket, key: Key, size: Size, etag: ETag }))
        after = items.at(-1)?.key
        if (after === undefined) return
        yield { items, cursor: { after }, cursorAt: (i) => ({ after: items[i]?.key ?? '' }) }
        if (!page.IsTruncated) return
      }
    },
  })
}

/**
 * An object of S3 to read lines, JSON lines, CSV or Parquet from: `readCsv(s3Object({ bucket, key
 * }))`. Its ETag tells whether it is still the same. Needs the package @aws-sdk/client-s3.
 */
export function s3Object(options: S3ObjectOptions): ByteSource {
  refuseUnknown('s3Object', options, ['bucket', 'key', 'client'])
  const { bucket, key, client } = options
  for (const [name, value] of Object.entries({ bucket, key }))
    if (typeof value !== 'string' || value === '') throw new InvalidError(`s3Object: ${name} must be a name`)
  const source: ByteSource = {
    name: `s3://${bucket}/${key}`,
    async stat(signal) {
      const { sdk, s3 } = await load('s3Object', client)
      const command = new sdk.HeadObjectCommand({ Bucket: bucket, Key: key })
      const { ContentLength, ETag } = headed.parse(
        await ask(s3, command, signal).catch((error: unknown) => refuseMissing(error, source.name)),
      )
      return { size: ContentLength, version: ETag }
    },
    async *bytes({ from, to }, version, signal) {
      const { sdk, s3 } = await load('s3Object', client)
      const command = new sdk.GetObjectCommand({
        Bucket: bucket,
        Key: key,
        IfMatch: version,
        Range: `bytes=${from}-${to - 1}`,
      })
      const broken = new AbortController()
      const either = AbortSignal.any([signal, broken.signal])
      const answer = await ask(s3, command, either).catch((error: unknown) => {
        if (s3StatusOf(error) === 412) throw changed(source, version, 'another', `byte ${from}`)
        return refuseMissing(error, source.name)
      })
      const body = typeof answer === 'object' && answer !== null && 'Body' in answer ? answer.Body : undefined
      if (!isBytes(body)) throw new FlowStoneError('bad_answer', `${source.name}: S3 gave no stream of bytes`)
      try {
        yield* partsWithin(SILENCE_MS, signal, body)
      } catch (error) {
        broken.abort(error)
        throw error
      }
    },
  }
  return source
}

/** A client that does not look at its signal is not waited for. */
async function ask(s3: S3ClientLike, command: object, signal: AbortSignal): Promise<unknown> {
  return await within(SILENCE_MS, signal, (abortSignal) => s3.send(command, { abortSignal }))
}

function isBytes(body: unknown): body is AsyncIterable<Uint8Array> {
  return typeof body === 'object' && body !== null && Symbol.asyncIterator in body
}

/** What is not there, not allowed, or elsewhere, stays so; all else is worth another try. */
function refuseMissing(error: unknown, what: string): never {
  const status = s3StatusOf(error)
  const message = s3ProblemOf(error)
  if (status === 404 || status === 403 || status === 301)
    throw new TerminalError(`${what} cannot be read (${status}): ${message}`, { cause: error })
  throw status === 400 ? new Error(message, { cause: error }) : error
}
