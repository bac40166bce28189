/**
 * Where an archive is written to: a file, a stream such as standard output, an object of S3. What
 * is not committed is not there: a file has another name until then, and an object is made of its
 * parts at the end.
 */
import { randomBytes } from 'node:crypto'
import { type FileHandle, mkdir, open, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { Writable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { FlowStoneError, InvalidError, messageOf } from '../../../streams/errors.ts'
import type { ByteSource } from '../../items/byte-source.ts'
import { fileSource } from '../../items/file.ts'
import { type S3ClientLike, s3Object } from '../../items/s3.ts'
import { S3Sink } from './s3-sink.ts'

export interface Sink {
  write(bytes: Uint8Array): Promise<void>
  /** From then on it is there. */
  commit(): Promise<void>
  /** Takes away what was written. */
  abort(): Promise<void>
}

/** A place as users name it. */
export interface Place {
  /** Path, `s3://bucket/key`, or `-` for a stream. Its ending says the format. */
  readonly name: string
  readonly sink: () => Promise<Sink>
  readonly source: () => ByteSource
}

/**
 * `to`: a path, a `file:` URL, an `s3://bucket/key` address. `signal`: ends what is asked of S3.
 */
export function placeOf(at: string, to: string, client?: S3ClientLike, signal?: AbortSignal): Place {
  if (typeof to !== 'string' || to === '')
    throw new InvalidError(`${at} must be a path, a file: URL, or s3://BUCKET/KEY`)
  if (to.startsWith('s3:')) {
    const [, bucket, key] = /^s3:\/\/([^/]+)\/(.+)$/.exec(to) ?? []
    if (bucket === undefined || key === undefined)
      throw new InvalidError(`${at}: ${to} must name a bucket and a key: s3://BUCKET/KEY`)
    const options = { bucket, key, ...(client ? { client } : {}) }
    return {
      name: to,
      sink: async () => await S3Sink.open(options, signal),
      source: () => readOfS3(s3Object(options), signal),
    }
  }
  if (/^[a-z][a-z0-9+.-]+:\/\//i.test(to) && !to.startsWith('file:'))
    throw new InvalidError(`${at}: ${to} is no place that is known; give a path, a file: URL, or s3://BUCKET/KEY`)
  const path = to.startsWith('file:') ? pathOf(at, to) : to
  return { name: path, sink: async () => await FileSink.open(path), source: () => fileSource(path) }
}

/** What fails names the object. `signal`: nobody waits for it any more. */
function readOfS3(source: ByteSource, signal: AbortSignal | undefined): ByteSource {
  const both = (own: AbortSignal): AbortSignal => (signal ? AbortSignal.any([own, signal]) : own)
  const named = (cause: unknown): unknown =>
    cause instanceof FlowStoneError
      ? cause
      : new FlowStoneError('archive_failed', `${source.name} cannot be read: ${messageOf(cause)}`, { cause })
  return {
    name: source.name,
    stat: async (own) =>
      await source.stat(both(own)).catch((cause: unknown) => {
        throw named(cause)
      }),
    async *bytes(range, version, own) {
      try {
        yield* source.bytes(range, version, both(own))
      } catch (cause) {
        throw named(cause)
      }
    },
  }
}

/** `file:///a/b`, and `file:a/b` for a path from here. */
function pathOf(at: string, url: string): string {
  if (!url.startsWith('file:/')) return url.slice('file:'.length)
  try {
    return fileURLToPath(url)
  } catch (cause) {
    throw new InvalidError(`${at}: ${url} is no address of a file`, { cause })
  }
}

/** Under another name until it is whole and on the disk. */
class FileSink implements Sink {
  readonly #path: string
  readonly #part: string
  readonly #file: FileHandle

  private constructor(path: string, part: string, file: FileHandle) {
    this.#path = path
    this.#part = part
    this.#file = file
  }

  static async open(path: string): Promise<FileSink> {
    await mkdir(dirname(path), { recursive: true })
    const part = `${path}.${randomBytes(4).toString('hex')}.part`
    return new FileSink(path, part, await open(part, 'wx'))
  }

  async write(bytes: Uint8Array): Promise<void> {
    await this.#file.writeFile(bytes)
  }

  async commit(): Promise<void> {
    await this.#file.sync()
    await this.#file.close()
    await rename(this.#part, this.#path)
    await syncFolder(dirname(this.#path))
  }

  async abort(): Promise<void> {
    await this.#file.close().catch(() => undefined)
    await rm(this.#part, { force: true })
  }
}

/** The name is on the disk then, too. Not all systems can. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r').catch(() => undefined)
  await folder?.sync().catch(() => undefined)
  await folder?.close()
}

/** Whoever reads it sees by the last line whether it is whole. */
export function streamSink(stream: Writable): Sink {
  // An error that nobody listens to would end the process. It comes to who writes, too.
  const ignore = (): void => undefined
  stream.on('error', ignore)
  return {
    write: async (bytes) =>
      await new Promise((resolve, reject) => {
        const closed = (): void =>
          reject(new FlowStoneError('archive_failed', 'the stream was closed before all of the archive was written'))
        stream.once('close', closed)
        stream.write(bytes, (error) => {
          stream.off('close', closed)
          if (error) reject(error)
          else resolve()
        })
      }),
    commit: async () => void stream.off('error', ignore),
    abort: async () => undefined,
  }
}
