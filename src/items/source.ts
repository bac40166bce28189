/**
 * Bytes that can be read from any position: a local file, an object of S3. What readers of lines,
 * CSV and Parquet read from.
 */

import { pipeline, Readable } from 'node:stream'
import { createBrotliDecompress, createGunzip } from 'node:zlib'
import { z } from 'zod'
import { TerminalError } from '../../streams/errors.ts'
import { createZstdDecompress } from '../../streams/zstd.ts'
import type { ByteSource } from './byte-source.ts'
import { fileSource } from './file.ts'

/** The part of a cursor that every reader of bytes has: of which version of the source it is. */
export const versioned = z.looseObject({ version: z.string() })

/** A path, a `file:` URL, or a source as it is. */
export function sourceOf(from: string | URL | ByteSource): ByteSource {
  return typeof from === 'string' || from instanceof URL ? fileSource(from) : from
}

/** Its version now. Throws TerminalError when that is not the one the cursor is of. */
export async function openSource(
  source: ByteSource,
  cursor: { readonly version: string } | undefined,
  position: () => string,
  signal: AbortSignal,
): Promise<{ readonly size: number; readonly version: string }> {
  const now = await source.stat(signal)
  if (cursor && cursor.version !== now.version) throw changed(source, cursor.version, now.version, position())
  return now
}

export function changed(source: ByteSource, before: string, now: string, position: string): TerminalError {
  return new TerminalError(
    `${source.name} was changed while it was read (it was ${before}, now it is ${now}), behind ${position}; what was read and what is there now are two lists. Materialize the asset anew`,
  )
}

const DECOMPRESSORS: Readonly<Record<string, () => NodeJS.ReadWriteStream>> = {
  gz: createGunzip,
  gzip: createGunzip,
  zst: createZstdDecompress,
  zstd: createZstdDecompress,
  br: createBrotliDecompress,
}

function endingOf({ name }: ByteSource): string {
  return name.slice(name.lastIndexOf('.') + 1).toLowerCase()
}

/**
 * The content from a position on. What is compressed can only be entered at its beginning: it is
 * unpacked again up to there, and thrown away.
 */
export async function* contentOf(
  source: ByteSource,
  from: number,
  { size, version }: { readonly size: number; readonly version: string },
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const ending = endingOf(source)
  const make = Object.hasOwn(DECOMPRESSORS, ending) ? DECOMPRESSORS[ending] : undefined
  // Up to where it ended when it was opened: what grows on is found out at its end, and not read
  // for ever.
  if (!make) {
    if (from < size) yield* source.bytes({ from, to: size }, version, signal)
    return
  }
  if (size === 0) return
  const packed = Readable.from(source.bytes({ from: 0, to: size }, version, signal))
  // An error comes out of the last stream, where it is waited for.
  const unpacked = pipeline(packed, make(), () => undefined)
  let left = from
  for await (const bytes of unpacked) {
    if (!(bytes instanceof Uint8Array)) continue
    if (bytes.length <= left) left -= bytes.length
    else {
      yield left === 0 ? bytes : bytes.subarray(left)
      left = 0
    }
  }
}
