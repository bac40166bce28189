import { decode, encodeJson } from '../../streams/codec.ts'
import { FlowStoneError } from '../../streams/errors.ts'
import type { Names } from '../../streams/subjects.ts'
import { zstdDecompressSync } from '../../streams/zstd.ts'
import { unlessAborted } from '../options/timer.ts'
import type { Connection } from './connection.ts'
import { joinParts, partsSaid } from './document-parts.ts'
import { isGone, isPassing, leaderGet, type StoredMessage } from './nats.ts'

/** The content type of documents that are bare bytes. */
export const BYTES = 'application/octet-stream'

/** How a document is compressed, if it is. */
export const ENCODING_HEADER = 'Fs-Encoding'

export function encodeDoc(doc: unknown): Uint8Array<ArrayBuffer> {
  return new Uint8Array(doc instanceof Uint8Array ? doc : encodeJson(doc))
}

export function decodeDoc(key: string, message: StoredMessage): unknown {
  if (message.payload.length === 0 || message.headers.has('KV-Operation') || message.headers.has('Nats-Marker-Reason'))
    return undefined
  const type = message.headers.get('Content-Type')
  const payload =
    message.headers.get(ENCODING_HEADER) === 'zstd' ? zstdDecompressSync(message.payload) : message.payload
  if (type === BYTES || key.startsWith('segment.')) return new Uint8Array(payload)
  return decode(payload, type)
}

/** The bytes of a document that there is, decompressed, and whether they are all it is. */
export function decodeStored(
  key: string,
  { payload, headers }: StoredMessage,
): { readonly bytes: Uint8Array; readonly isBytes: boolean } {
  const bytes = headers.get(ENCODING_HEADER) === 'zstd' ? zstdDecompressSync(payload) : payload
  return { bytes, isBytes: headers.get('Content-Type') === BYTES || key.startsWith('segment.') }
}

/** A document of a state bucket, as its leader has it; undefined when there is none. */
export async function readDoc(
  connection: Connection,
  names: Names,
  bucket: string,
  key: string,
  signal?: AbortSignal,
): Promise<unknown> {
  return (await readStored(connection, names, bucket, key, signal ? { signal } : {})).doc
}

/** As `readDoc`, and undefined at once when the bucket is gone: for who reads the log as well. */
export async function readDocIfAny(
  connection: Connection,
  names: Names,
  bucket: string,
  key: string,
): Promise<unknown> {
  try {
    return (await readStored(connection, names, bucket, key, { isBound: true })).doc
  } catch (error) {
    if (isGone(error)) return undefined
    throw error
  }
}

export interface Stored {
  readonly doc: unknown
  /** In how many messages. */
  readonly parts: number
  readonly bytes: number
}

/**
 * `isBound`: one that is gone is lost, which is thrown as `no_stream`; else it may be gone for a
 * moment, while it is rebuilt.
 */
export async function readStored(
  connection: Connection,
  names: Names,
  bucket: string,
  key: string,
  { signal, isBound = false }: { readonly signal?: AbortSignal; readonly isBound?: boolean },
): Promise<Stored> {
  const read = async (of: string): Promise<StoredMessage | undefined> => {
    const query = { last_by_subj: names.kvSubject(bucket, of) }
    return await connection.read((nc) => leaderGet(nc, names.kvStream(bucket), query), signal)
  }
  for (let attempt = 1; ; attempt++) {
    try {
      const message = await read(key)
      if (!message) return { doc: undefined, parts: 1, bytes: 0 }
      const parts = partsSaid(message)
      const whole = parts === 1 ? message : await joinParts(key, message, read)
      // Undefined: one of its parts is of another checkpoint than the others, which are on their
      // way.
      if (whole) return { doc: decodeDoc(key, whole), parts, bytes: whole.payload.length }
      if (attempt >= 40) throw new FlowStoneError('unreadable', `key ${key} of bucket ${bucket} is not whole`)
      await unlessAborted(connection.ready(Math.min(100 * attempt, 1000)), signal)
    } catch (cause) {
      signal?.throwIfAborted()
      if (cause instanceof FlowStoneError && (cause.code === 'denied' || cause.code === 'unreadable')) throw cause
      if (isBound && isGone(cause)) throw cause
      // What may pass was asked for long enough.
      if (attempt >= 20 || connection.isClosed || isPassing(cause))
        throw new FlowStoneError('unreadable', `key ${key} of bucket ${bucket} could not be read`, { cause })
      await unlessAborted(connection.ready(100 * attempt), signal)
    }
  }
}
