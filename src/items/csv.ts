/** Rows of CSV, by csv-parse. A cursor is the position of the byte behind a row. */
import { pipeline, Readable } from 'node:stream'
import type { Options } from 'csv-parse'
import { z } from 'zod'
import { FlowStoneError, InvalidError, messageOf } from '../../streams/errors.ts'
import { type OptionNames, refuseUnknown } from '../options/unknown.ts'
import type { ByteSource } from './byte-source.ts'
import { optionalPackage } from './optional.ts'
import { type ItemReader, itemReader, type ReaderRetry } from './reader.ts'
import { changed, contentOf, openSource, sourceOf, versioned } from './source.ts'

/** Options of `readCsv`. */
export interface CsvOptions {
  /** Names of the columns. Default: the first row has them. */
  readonly columns?: readonly string[]
  /** What stands between fields. Default `,`. */
  readonly delimiter?: string
  /**
   * What stands around fields that hold delimiters or line ends; false: nothing does. Default `"`.
   */
  readonly quote?: string | false
  /** Lines that begin with this are skipped. Default: none are. */
  readonly comment?: string
  /**
   * Longest row, in bytes. Default 1 MiB: a quote that is never closed must not swallow the file.
   */
  readonly maxRowBytes?: number
  /** Whether white space around fields is dropped. Default false. */
  readonly trim?: boolean
  readonly retry?: ReaderRetry
}

const cursors = versioned.extend({ at: z.int().min(0), columns: z.array(z.string()) })
type Cursor = z.infer<typeof cursors>

const row = z.object({
  record: z.record(z.string(), z.string()),
  info: z.object({ bytes: z.int(), columns: z.array(z.object({ name: z.string() })) }),
})
const CHUNK_ROWS = 1000
export const MAX_ROW_BYTES = 1024 * 1024

const OPTIONS: OptionNames<CsvOptions> = {
  columns: true,
  delimiter: true,
  quote: true,
  comment: true,
  maxRowBytes: true,
  trim: true,
  retry: true,
}

/**
 * The rows of a CSV text (UTF-8, with or without a byte order mark, any line ends), each as an
 * object of texts by column. `.gz`, `.zst` and `.br` are unpacked. Needs the package csv-parse.
 *
 *     scatter: () => readCsv('/data/orders.csv').map(({ id }) => ({ id: Number(id) }))
 */
export function readCsv(
  from: string | URL | ByteSource,
  options: CsvOptions = {},
): ItemReader<Readonly<Record<string, string>>> {
  refuseUnknown('readCsv', options, OPTIONS)
  const source = sourceOf(from)
  const name = `CSV rows of ${source.name}`
  const { columns, delimiter, quote, comment, trim, maxRowBytes = MAX_ROW_BYTES, retry } = options
  return itemReader<Readonly<Record<string, string>>, Cursor>({
    name,
    position: ({ at }) => `byte ${at}`,
    ...(retry ? { retry } : {}),
    async *read(given, signal) {
      const { parse, CsvError } = await optionalPackage<typeof import('csv-parse')>('csv-parse', 'readCsv')
      const cursor = given && cursors.parse(given)
      const opened = await openSource(source, cursor, () => `byte ${cursor?.at}`, signal)
      const { version } = opened
      const begin = cursor?.at ?? 0
      const names = cursor?.columns ?? columns
      const settings: Options = {
        // The names were in the first row, which is behind us when there is a cursor.
        columns: names ? [...names] : true,
        bom: begin === 0,
        info: true,
        skip_empty_lines: true,
        max_record_size: maxRowBytes,
        ...(delimiter === undefined ? {} : { delimiter }),
        ...(quote === undefined ? {} : { quote }),
        ...(comment === undefined ? {} : { comment }),
        ...(trim === undefined ? {} : { trim }),
      }
      // What fails in the source comes out of the parser, where it is waited for.
      const rows = pipeline(Readable.from(contentOf(source, begin, opened, signal)), parse(settings), () => undefined)
      let at = begin
      let header: string[] = [...(names ?? [])]
      let items: Record<string, string>[] = []
      let ends: number[] = []
      const chunk = () => {
        const done = { items, ends, header }
        items = []
        ends = []
        return {
          items: done.items,
          cursor: { at, columns: header, version },
          cursorAt: (i: number) => ({ at: done.ends[i] ?? at, columns: done.header, version }),
        }
      }
      try {
        for await (const found of rows) {
          const { record, info } = row.parse(found)
          header = info.columns.map((column) => column.name)
          at = begin + info.bytes
          items.push(record)
          ends.push(at)
          if (items.length >= CHUNK_ROWS) yield chunk()
        }
      } catch (error) {
        if (error instanceof CsvError)
          throw new InvalidError(`${source.name}: behind byte ${at} is no CSV: ${messageOf(error)}`, { cause: error })
        if (error instanceof z.ZodError)
          throw new FlowStoneError('internal', `csv-parse gave no row: ${messageOf(error)}`, { cause: error })
        throw error
      }
      if (items.length > 0) yield chunk()
      const now = await source.stat(signal)
      if (now.version !== version) throw changed(source, version, now.version, `byte ${at}`)
    },
  })
}
