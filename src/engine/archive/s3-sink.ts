/**
 * An object of S3 that is written part by part: it is there when all of it is. A small one is put
 * at once.
 */
import { z } from 'zod'
import { FlowStoneError } from '../../../streams/errors.ts'
import { optionalPackage } from '../../items/optional.ts'
import type { S3ClientLike, S3ObjectOptions } from '../../items/s3.ts'
import { s3ProblemOf } from '../../items/s3-error.ts'
import { within } from '../../options/within.ts'

type Sdk = typeof import('@aws-sdk/client-s3')

const PART_BYTES = 8 * 1024 * 1024
/** A request that takes longer gets no answer any more. */
const REQUEST_MS = 300_000
const ABORT_MS = 10_000
/** S3 takes 10,000 parts: later ones are larger. */
const LARGER_EACH = 1000
const begun = z.object({ UploadId: z.string() })
const stored = z.object({ ETag: z.string() })

/** One for all archives of this process: each has connections of its own. */
let shared: S3ClientLike | undefined

export class S3Sink {
  readonly #sdk: Sdk
  readonly #client: S3ClientLike
  readonly #signal: AbortSignal | undefined
  readonly #at: { readonly Bucket: string; readonly Key: string }
  readonly #parts: { readonly ETag: string; readonly PartNumber: number }[] = []
  #upload: string | undefined
  #held: Uint8Array[] = []
  #bytes = 0

  private constructor(
    sdk: Sdk,
    client: S3ClientLike,
    { bucket, key }: S3ObjectOptions,
    signal: AbortSignal | undefined,
  ) {
    this.#sdk = sdk
    this.#client = client
    this.#signal = signal
    this.#at = { Bucket: bucket, Key: key }
  }

  /** `signal`: nobody waits for the archive any more. */
  static async open(options: S3ObjectOptions, signal?: AbortSignal): Promise<S3Sink> {
    const sdk = await optionalPackage<Sdk>('@aws-sdk/client-s3', 'an archive in S3')
    if (!options.client) shared ??= new sdk.S3Client({})
    return new S3Sink(sdk, options.client ?? shared ?? new sdk.S3Client({}), options, signal)
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.#held.push(bytes)
    this.#bytes += bytes.length
    if (this.#bytes >= PART_BYTES * 2 ** Math.floor(this.#parts.length / LARGER_EACH)) await this.#part()
  }

  async commit(): Promise<void> {
    if (this.#upload === undefined) {
      await this.#send(new this.#sdk.PutObjectCommand({ ...this.#at, Body: this.#take() }))
      return
    }
    if (this.#bytes > 0) await this.#part()
    const MultipartUpload = { Parts: this.#parts }
    await this.#send(
      new this.#sdk.CompleteMultipartUploadCommand({ ...this.#at, UploadId: this.#upload, MultipartUpload }),
    )
  }

  /** What it cannot take away is no object: a rule of the bucket for unfinished uploads does. */
  async abort(): Promise<void> {
    this.#take()
    if (this.#upload === undefined) return
    const command = new this.#sdk.AbortMultipartUploadCommand({ ...this.#at, UploadId: this.#upload })
    await within(ABORT_MS, undefined, (signal) => this.#client.send(command, { abortSignal: signal })).catch(
      () => undefined,
    )
  }

  async #part(): Promise<void> {
    const { UploadId } =
      this.#upload === undefined
        ? begun.parse(await this.#send(new this.#sdk.CreateMultipartUploadCommand(this.#at)))
        : { UploadId: this.#upload }
    this.#upload = UploadId
    const PartNumber = this.#parts.length + 1
    const command = new this.#sdk.UploadPartCommand({ ...this.#at, UploadId, PartNumber, Body: this.#take() })
    this.#parts.push({ ...stored.parse(await this.#send(command)), PartNumber })
  }

  #take(): Uint8Array {
    const body = Buffer.concat(this.#held)
    this.#held = []
    this.#bytes = 0
    return body
  }

  async #send(command: object): Promise<unknown> {
    try {
      return await within(REQUEST_MS, this.#signal, (signal) => this.#client.send(command, { abortSignal: signal }))
    } catch (cause) {
      const { Bucket, Key } = this.#at
      throw new FlowStoneError('archive_failed', `s3://${Bucket}/${Key} cannot be written: ${s3ProblemOf(cause)}`, {
        cause,
      })
    }
  }
}
