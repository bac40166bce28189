/** Writes records as an archive: lines, perhaps compressed, or Parquet. */
import { pipeline, Readable } from 'node:stream'
import { createGzip } from 'node:zlib'
import { type ArchiveFoot, type ArchiveRecord, ArchiveTally, lineOf } from '../../../streams/archive.ts'
import { InvalidError } from '../../../streams/errors.ts'
import { shown } from '../../../streams/shown.ts'
import { createZstdCompress } from '../../../streams/zstd.ts'
import { checkLines, isParquet, packingOf } from './ending.ts'
import { parquetOf } from './parquet.ts'
import type { Sink } from './sink.ts'

const FORMATS = ['jsonl', 'parquet'] as const
/** How an archive is written: JSON lines, or Parquet. */
export type ArchiveFormat = (typeof FORMATS)[number]

/** Lines are handed on in pieces of about this size. */
const PIECE_BYTES = 64 * 1024

const ADVICE =
  "end the name in .jsonl, .jsonl.gz, .jsonl.zst or .parquet, or give format: 'jsonl' for lines under another name"

/**
 * By the ending of the name, unless it is said; a stream has no name. Throws InvalidError for a
 * name that says something else.
 */
export function formatOf(at: string, name: string, said: unknown): ArchiveFormat {
  const format = FORMATS.find((one) => one === said)
  if (said !== undefined && !format)
    throw new InvalidError(`${at}: format must be jsonl or parquet, got ${shown(said)}`)
  if (name === '') return format ?? 'jsonl'
  if (format === undefined && isParquet(name)) return 'parquet'
  if (format !== 'parquet') checkLines(`${at}: to`, name, ADVICE, [], format === 'jsonl')
  else if (!isParquet(name))
    throw new InvalidError(`${at}: to: ${name} must end in .parquet, as its format is: import goes by the ending`)
  return format ?? 'jsonl'
}

/** All of it, and its foot. What was written is taken away when it fails. */
export async function writeArchive(
  records: AsyncIterable<ArchiveRecord>,
  { name, sink, format }: { readonly name: string; readonly sink: Sink; readonly format: ArchiveFormat },
): Promise<ArchiveFoot> {
  const tally = new ArchiveTally()
  let foot: ArchiveFoot | undefined
  async function* whole(): AsyncGenerator<{ readonly record: ArchiveRecord; readonly line: string }> {
    for await (const record of records) {
      const line = lineOf(record)
      tally.add(record, line)
      yield { record, line }
    }
    foot = tally.foot()
    const last: ArchiveRecord = { kind: 'end', data: foot }
    yield { record: last, line: lineOf(last) }
  }
  try {
    const bytes = format === 'parquet' ? parquetOf(whole()) : compressed(name, pieces(whole()))
    for await (const piece of bytes) await sink.write(piece)
    await sink.commit()
  } catch (error) {
    await sink.abort()
    throw error
  }
  return foot ?? tally.foot()
}

async function* pieces(lines: AsyncIterable<{ readonly line: string }>): AsyncGenerator<Uint8Array> {
  let held: string[] = []
  let size = 0
  for await (const { line } of lines) {
    held.push(line)
    size += line.length
    if (size < PIECE_BYTES) continue
    yield Buffer.from(held.join(''))
    held = []
    size = 0
  }
  yield Buffer.from(held.join(''))
}

/** Packed, where the name says so. */
export async function* compressed(name: string, bytes: AsyncGenerator<Uint8Array>): AsyncGenerator<Uint8Array> {
  const packing = packingOf(name)
  if (packing === undefined) {
    yield* bytes
    return
  }
  const make = packing === 'gzip' ? createGzip : createZstdCompress
  // An error comes out of the last stream, where it is waited for.
  const packed: AsyncIterable<unknown> = pipeline(Readable.from(bytes), make(), () => undefined)
  for await (const piece of packed) if (piece instanceof Uint8Array) yield piece
}
