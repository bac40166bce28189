/**
 * Rows of Parquet, by hyparquet. A cursor is the number of a row; row groups are read whole, one at
 * a time.
 */
import { brotliDecompressSync, gunzipSync } from 'node:zlib'
import { z } from 'zod'
import { InvalidError, messageOf } from '../../streams/errors.ts'
import { zstdDecompressSync } from '../../streams/zstd.ts'
import { refuseUnknown } from '../options/unknown.ts'
import type { ByteSource } from './byte-source.ts'
import { optionalPackage } from './optional.ts'
import { type ItemReader, itemReader, type ReaderRetry } from './reader.ts'
import { openSource, sourceOf, versioned } from './source.ts'

/** Options of `readParquet`. */
export interface ParquetOptions {
  /** Columns to read. Default all. */
  readonly columns?: readonly string[]
  readonly retry?: ReaderRetry
}

const cursors = versioned.extend({ row: z.int().min(0) })
type Cursor = z.infer<typeof cursors>
type Row = Readonly<Record<string, unknown>>

/**
 * The rows of a Parquet file, each as an object by column. A row group is held in memory at a time.
 * Whole numbers of 64 bits are numbers where those are exact, and texts beyond. Compressed with
 * snappy, gzip, zstd, brotli or not at all. Needs the package hyparquet.
 *
 *     scatter: () => readParquet('/data/trips.parquet', { columns: ['id', 'from', 'to'] })
 */
export function readParquet(from: string | URL | ByteSource, options: ParquetOptions = {}): ItemReader<Row> {
  refuseUnknown('readParquet', options, ['columns', 'retry'])
  const source = sourceOf(from)
  const { columns, retry } = options
  return itemReader<Row, Cursor>({
    name: `Parquet rows of ${source.name}`,
    position: ({ row }) => `row ${row}`,
    ...(retry ? { retry } : {}),
    async *read(given, signal) {
      const { parquetMetadataAsync, parquetReadObjects, parquetSchema } = await optionalPackage<
        typeof import('hyparquet')
      >('hyparquet', 'readParquet')
      const cursor = given && cursors.parse(given)
      const { size, version } = await openSource(source, cursor, () => `row ${cursor?.row}`, signal)
      const slice = async (start: number, end = size): Promise<ArrayBuffer> => {
        const bytes = new Uint8Array(end - start)
        let at = 0
        for await (const part of source.bytes({ from: start, to: end }, version, signal)) {
          bytes.set(part.subarray(0, bytes.length - at), at)
          at += part.length
        }
        if (at < bytes.length) throw new Error(`${source.name} ends at byte ${start + at}, and not at ${size}`)
        return bytes.buffer
      }
      const file = { byteLength: size, slice }
      const metadata = await parquetMetadataAsync(file).catch((error: unknown) => {
        // A part that cannot be had is worth another try; what is no Parquet stays none.
        if (error instanceof Error && /parquet/.test(error.message))
          throw new InvalidError(`${source.name} is no Parquet file: ${messageOf(error)}`, { cause: error })
        throw error
      })
      const known = parquetSchema(metadata).children.map(({ element }) => element.name)
      const strange = columns?.find((column) => !known.includes(column))
      if (strange !== undefined)
        throw new InvalidError(`readParquet: ${source.name} has no column ${strange}; it has ${known.join(', ')}`)

      let end = 0
      for (const group of metadata.row_groups) {
        const begin = end
        end += Number(group.num_rows)
        const first = Math.max(begin, cursor?.row ?? 0)
        if (first >= end) continue
        signal.throwIfAborted()
        const rows = await parquetReadObjects({
          file,
          metadata,
          rowStart: first,
          rowEnd: end,
          compressors,
          ...(columns ? { columns: [...columns] } : {}),
        })
        yield {
          items: rows.map((row) =>
            Object.fromEntries(Object.entries(row).map(([name, value]) => [name, plain(value)])),
          ),
          cursor: { row: end, version },
          cursorAt: (i) => ({ row: first + i + 1, version }),
        }
      }
    },
  })
}

const compressors = {
  GZIP: (bytes: Uint8Array) => gunzipSync(bytes),
  ZSTD: (bytes: Uint8Array) => zstdDecompressSync(bytes),
  BROTLI: (bytes: Uint8Array) => brotliDecompressSync(bytes),
}

/** A key is made of what JSON knows, dates and bytes. */
function plain(value: unknown): unknown {
  if (typeof value === 'bigint') return Number.isSafeInteger(Number(value)) ? Number(value) : String(value)
  if (Array.isArray(value)) return value.map(plain)
  if (typeof value !== 'object' || value === null || value instanceof Date || ArrayBuffer.isView(value)) return value
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, plain(member)]))
}
