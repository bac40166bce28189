/** Reads archives, and checks that they are whole. */
import {
  type ArchiveFoot,
  type ArchiveHead,
  type ArchiveRecord,
  ArchiveTally,
  badArchive,
  checkFoot,
  headIn,
  lineOf,
  recordIn,
} from '../../../streams/archive.ts'
import { FlowStoneError, InvalidError, messageOf } from '../../../streams/errors.ts'
import type { ByteSource } from '../../items/byte-source.ts'
import { contentOf } from '../../items/source.ts'
import { isParquet } from './ending.ts'
import { parquetRecords } from './parquet.ts'

/** A line that is longer is none. */
const LINE_MAX_BYTES = 256 * 1024 * 1024
const NEWLINE = 10

/** All records between head and foot. Throws `bad_archive` at its end if it is not whole. */
export async function* recordsOf(source: ByteSource): AsyncGenerator<ArchiveRecord, ArchiveFoot> {
  const tally = new ArchiveTally()
  let foot: ArchiveFoot | undefined
  let isFirst = true
  for await (const { record, line } of isParquet(source.name) ? rowsOf(source) : recordLinesOf(source)) {
    if (foot) throw badArchive('something stands behind its end')
    if (isFirst) headIn(record)
    isFirst = false
    if (record.kind === 'end') {
      foot = tally.foot()
      checkFoot(record, foot)
      continue
    }
    tally.add(record, line)
    yield record
  }
  if (!foot) throw badArchive('it has no end: whoever wrote it was stopped, or a part of it is missing')
  return foot
}

/** Reads all of it. Throws `bad_archive`, with its name. */
export async function verifiedArchive(
  source: ByteSource,
): Promise<{ readonly head: ArchiveHead; readonly foot: ArchiveFoot }> {
  try {
    const records = recordsOf(source)
    let head: ArchiveHead | undefined
    for (;;) {
      const { done, value } = await records.next()
      if (done) {
        if (!head) throw badArchive('it is empty')
        return { head, foot: value }
      }
      head ??= headIn(value)
    }
  } catch (cause) {
    throw named(source, cause)
  }
}

function named({ name }: ByteSource, cause: unknown): unknown {
  if (cause instanceof InvalidError && cause.cause instanceof Error && 'syscall' in cause.cause)
    return new InvalidError(`there is no archive ${name}`, { cause: cause.cause })
  if (!(cause instanceof FlowStoneError) || cause.code !== 'bad_archive') return cause
  return new FlowStoneError('bad_archive', `${name}: ${cause.message}`, { cause })
}

async function* rowsOf(source: ByteSource): AsyncGenerator<{ readonly record: ArchiveRecord; readonly line: string }> {
  for await (const record of parquetRecords(source)) yield { record, line: lineOf(record) }
}

async function* recordLinesOf(
  source: ByteSource,
): AsyncGenerator<{ readonly record: ArchiveRecord; readonly line: string }> {
  for await (const line of linesOf(source)) yield { record: recordIn(line), line }
}

/** Each with its newline. Throws `bad_archive` for a file that is torn. */
export async function* linesOf(source: ByteSource): AsyncGenerator<string> {
  const ended = new AbortController()
  const { signal } = ended
  let held: Uint8Array[] = []
  let size = 0
  try {
    const stat = await source.stat(signal)
    for await (const bytes of contentOf(source, 0, stat, signal)) {
      let from = 0
      for (let to = bytes.indexOf(NEWLINE); to >= 0; to = bytes.indexOf(NEWLINE, from)) {
        held.push(bytes.subarray(from, to + 1))
        from = to + 1
        const line = Buffer.concat(held).toString('utf8')
        held = []
        size = 0
        yield line
      }
      if (from < bytes.length) held.push(bytes.subarray(from))
      size += bytes.length - from
      if (size > LINE_MAX_BYTES) throw badArchive(`a line has more than ${LINE_MAX_BYTES} bytes`)
    }
  } catch (cause) {
    if (cause instanceof FlowStoneError || !isTorn(cause)) throw cause
    throw badArchive(`it cannot be unpacked: ${messageOf(cause)}`, cause)
  } finally {
    ended.abort()
  }
  if (size > 0) throw badArchive('its last line has no end')
}

/** What is compressed and was cut, or damaged. */
function isTorn(error: unknown): boolean {
  const code: unknown = error instanceof Error && 'code' in error ? error.code : undefined
  return typeof code === 'string' && (code.startsWith('Z_') || code.startsWith('ZSTD_') || code.startsWith('ERR_ZSTD'))
}
