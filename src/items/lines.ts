/** Lines of text and JSON lines. A cursor is the position of the byte behind a line. */
import { isUtf8 } from 'node:buffer'
import { z } from 'zod'
import { InvalidError, messageOf } from '../../streams/errors.ts'
import { refuseUnknown } from '../options/unknown.ts'
import type { ByteSource } from './byte-source.ts'
import { type ItemReader, itemReader, type ReaderRetry } from './reader.ts'
import { changed, contentOf, openSource, sourceOf, versioned } from './source.ts'

/** Options of `readLines` and `readJsonLines`. */
export interface LinesOptions {
  /** Whether empty lines are items too. Default false. */
  readonly keepEmpty?: boolean
  /** Longest line, in bytes. Default 200 KiB, the longest key. */
  readonly maxLineBytes?: number
  readonly retry?: ReaderRetry
}

export const MAX_LINE_BYTES = 200 * 1024
const LINE_FEED = 10
const CARRIAGE_RETURN = 13
const BYTE_ORDER_MARK = Buffer.from([0xef, 0xbb, 0xbf])

const cursors = versioned.extend({ at: z.int().min(0) })
type Cursor = z.infer<typeof cursors>

/**
 * The lines of a UTF-8 text, without their ends (LF or CRLF; the last one needs none) and without a
 * byte order mark. `.gz`, `.zst` and `.br` are unpacked. To read on from a position costs nothing
 * in a plain text; a compressed one is unpacked again up to there, and no line of it is given
 * twice.
 *
 *     scatter: () => readLines('/data/urls.txt')
 */
export function readLines(from: string | URL | ByteSource, options: LinesOptions = {}): ItemReader<string> {
  refuseUnknown('readLines', options, ['keepEmpty', 'maxLineBytes', 'retry'])
  return lines('lines', sourceOf(from), options, (line) => line)
}

/**
 * One JSON value for each line; empty lines are none. With a schema:
 * `readJsonLines(path).map((value) => Order.parse(value))`.
 */
export function readJsonLines(
  from: string | URL | ByteSource,
  options: Omit<LinesOptions, 'keepEmpty'> = {},
): ItemReader<unknown> {
  refuseUnknown('readJsonLines', options, ['maxLineBytes', 'retry'])
  const source = sourceOf(from)
  const parse = (line: string, at: number): unknown => {
    try {
      return JSON.parse(line)
    } catch (error) {
      throw new InvalidError(`${source.name}: the line at byte ${at} is no JSON: ${messageOf(error)}`, { cause: error })
    }
  }
  return lines('JSON lines', source, { ...options, keepEmpty: false }, parse)
}

function lines<T>(
  what: string,
  source: ByteSource,
  { keepEmpty = false, maxLineBytes = MAX_LINE_BYTES, retry }: LinesOptions,
  parse: (line: string, at: number) => T,
): ItemReader<T> {
  return itemReader<T, Cursor>({
    name: `${what} of ${source.name}`,
    position: ({ at }) => `byte ${at}`,
    ...(retry ? { retry } : {}),
    async *read(given, signal) {
      const cursor = given && cursors.parse(given)
      const opened = await openSource(source, cursor, () => `byte ${cursor?.at}`, signal)
      const { version } = opened
      /** Position of the first byte of `rest`. */
      let at = cursor?.at ?? 0
      let rest: Uint8Array = Buffer.alloc(0)

      const cut = (bytes: Buffer, isLast: boolean) => {
        const items: T[] = []
        const ends: number[] = []
        let begin = at === 0 && bytes.subarray(0, 3).equals(BYTE_ORDER_MARK) ? 3 : 0
        const whole = isLast ? bytes.length : bytes.lastIndexOf(LINE_FEED) + 1
        if (whole > 0 && !isUtf8(bytes.subarray(begin, whole))) throw notUtf8(source, bytes, at, begin, whole)
        while (begin < whole) {
          const feed = bytes.indexOf(LINE_FEED, begin)
          const next = feed < 0 ? whole : feed + 1
          let end = feed < 0 ? whole : feed
          if (end > begin && bytes[end - 1] === CARRIAGE_RETURN) end -= 1
          if (end - begin > maxLineBytes) throw tooLong(source, at + begin, maxLineBytes)
          if (end > begin || keepEmpty) {
            items.push(parse(bytes.toString('utf8', begin, end), at + begin))
            ends.push(at + next)
          }
          begin = next
        }
        at += whole
        rest = bytes.subarray(whole)
        // Behind a line, and its line feed. Behind the last one there is nothing.
        return { items, cursor: { at, version }, cursorAt: (i: number) => ({ at: ends[i] ?? at, version }) }
      }
      for await (const bytes of contentOf(source, at, opened, signal)) {
        if (rest.length > maxLineBytes + BYTE_ORDER_MARK.length + 1) throw tooLong(source, at, maxLineBytes)
        yield cut(
          rest.length === 0 ? Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length) : Buffer.concat([rest, bytes]),
          false,
        )
      }
      if (rest.length > 0) yield cut(Buffer.from(rest), true)
      const now = await source.stat(signal)
      if (now.version !== version) throw changed(source, version, now.version, `byte ${at}`)
    },
  })
}

function tooLong(source: ByteSource, at: number, max: number): InvalidError {
  return new InvalidError(
    `${source.name}: the line at byte ${at} is longer than ${max} bytes; raise maxLineBytes, and make a shorter key of it with .map()`,
  )
}

function notUtf8(source: ByteSource, bytes: Buffer, at: number, begin: number, whole: number): InvalidError {
  let from = begin
  for (let feed = bytes.indexOf(LINE_FEED, from); feed >= 0 && feed < whole; feed = bytes.indexOf(LINE_FEED, from)) {
    if (!isUtf8(bytes.subarray(from, feed))) break
    from = feed + 1
  }
  return new InvalidError(`${source.name}: the line at byte ${at + from} is no UTF-8`)
}
