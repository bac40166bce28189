/**
 * Compression of what stands in facts and in the object store: Zstandard, where that makes it
 * smaller. A field beside the bytes says so.
 */

import { promisify } from 'node:util'
import { FlowStoneError, messageOf } from './errors.ts'
import { constants, zstdCompress, zstdCompressSync, zstdDecompress, zstdDecompressSync } from './zstd.ts'

export type Encoding = 'zstd'

/**
 * Less than this is not worth the try. The same holds for a list of small items with less than this
 * altogether. A try takes some 30 microseconds, whatever its size.
 */
const SQUEEZE_MIN_BYTES = 512
const LIST_MIN_BYTES = 4096
/** What saves less than a tenth costs its readers more than it is worth. */
const WORTH_IT = 0.9
/** The fastest level: 90 KB take it a tenth of a millisecond. */
const OPTIONS = { params: { [constants.ZSTD_c_compressionLevel]: 1 } }
/**
 * What a list in a fact holds at the most. Key chunks are closed at 200 KiB and reports at 256 KiB,
 * counted by UTF-16 units, of which each may take three bytes. The item that exceeds the limit may
 * be as large again.
 */
export const LIST_MAX_BYTES = 2 * 1024 * 1024

export interface Squeezed {
  readonly bytes: Uint8Array<ArrayBuffer>
  readonly encoding?: Encoding
}

/** At once, for what is about as large as a message: a list of so many items. */
export function squeeze(bytes: Uint8Array<ArrayBuffer>, items = 1): Squeezed {
  if (bytes.length < Math.min(SQUEEZE_MIN_BYTES * Math.max(1, items), LIST_MIN_BYTES)) return { bytes }
  return smaller(bytes, zstdCompressSync(bytes, { ...OPTIONS, pledgedSrcSize: bytes.length }))
}

/** Beside the event loop, for what may be large. */
export async function squeezeLarge(bytes: Uint8Array<ArrayBuffer>): Promise<Squeezed> {
  if (bytes.length < SQUEEZE_MIN_BYTES) return { bytes }
  return smaller(bytes, await promisify(zstdCompress)(bytes, OPTIONS))
}

function smaller(bytes: Uint8Array<ArrayBuffer>, squeezed: Uint8Array<ArrayBuffer>): Squeezed {
  return squeezed.length < bytes.length * WORTH_IT ? { bytes: squeezed, encoding: 'zstd' } : { bytes }
}

/**
 * Of a list in a fact. Throws `undecodable` for what is damaged, or would hold more than
 * `LIST_MAX_BYTES`.
 */
export function unsqueeze(bytes: Uint8Array, encoding: Encoding | undefined): Uint8Array {
  if (encoding === undefined) return bytes
  try {
    // Room for all of it at once, where it says how much it is. Else it comes in pieces.
    const chunkSize = Math.min(LIST_MAX_BYTES, Math.max(CHUNK_MIN, contentSize(bytes) ?? CHUNK_USUAL))
    return zstdDecompressSync(bytes, { maxOutputLength: LIST_MAX_BYTES, chunkSize })
  } catch (cause) {
    throw undecodable(cause, LIST_MAX_BYTES)
  }
}

/** Node's least, and what it takes by itself. */
const CHUNK_MIN = 64
const CHUNK_USUAL = 16 * 1024
const FRAME = 0xfd2fb528

/** What the head of a frame says of its content (RFC 8878), where it is one of the usual kinds. */
function contentSize(bytes: Uint8Array): number | undefined {
  if (bytes.length < 10) return undefined
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const descriptor = bytes[4] ?? 0
  const isSingle = (descriptor & 0x20) !== 0
  if (view.getUint32(0, true) !== FRAME || !isSingle || (descriptor & 0x03) !== 0) return undefined
  if (descriptor >> 6 === 1) return view.getUint16(5, true) + 0x100
  return descriptor >> 6 === 2 ? view.getUint32(5, true) : undefined
}

/** `plainBytes`: how many there must be, as was said where the value was stored. */
export async function unsqueezeLarge(
  bytes: Uint8Array,
  encoding: Encoding | undefined,
  plainBytes: number,
): Promise<Uint8Array> {
  if (encoding === undefined) return bytes
  if (!Number.isSafeInteger(plainBytes) || plainBytes < 1)
    throw new FlowStoneError('undecodable', 'compressed bytes do not say how many they are')
  try {
    return await promisify(zstdDecompress)(bytes, { maxOutputLength: plainBytes })
  } catch (cause) {
    throw undecodable(cause, plainBytes)
  }
}

function undecodable(cause: unknown, max: number): FlowStoneError {
  const over =
    cause instanceof RangeError
      ? `hold more than the ${max} bytes that may be there`
      : `are damaged: ${messageOf(cause)}`
  return new FlowStoneError('undecodable', `compressed bytes ${over}`, { cause })
}
