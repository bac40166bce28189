/** An archive as Parquet: a row a record, by hyparquet-writer. */
import { type ArchiveRecord, badArchive, checkedRecord } from '../../../streams/archive.ts'
import type { ByteSource } from '../../items/byte-source.ts'
import { optionalPackage } from '../../items/optional.ts'
import { readParquet } from '../../items/parquet.ts'

type Package = typeof import('hyparquet-writer')
type Columns = Parameters<Package['schemaFromColumnData']>[0]['columnData']

/** A group of rows is held in memory. */
const GROUP_ROWS = 10_000
const GROUP_BYTES = 16 * 1024 * 1024

/** All but the first may be null. What has parts is JSON. */
const COLUMNS = [
  { name: 'kind', type: 'STRING', of: ({ kind }: ArchiveRecord) => kind },
  { name: 'shard', type: 'INT32', of: ({ shard }: ArchiveRecord) => shard },
  { name: 'seq', type: 'INT64', of: ({ seq }: ArchiveRecord) => (seq === undefined ? undefined : BigInt(seq)) },
  {
    name: 'time',
    type: 'TIMESTAMP',
    of: ({ time }: ArchiveRecord) => (time === undefined ? undefined : new Date(time)),
  },
  { name: 'subject', type: 'STRING', of: ({ subject }: ArchiveRecord) => subject },
  { name: 'run', type: 'STRING', of: ({ run }: ArchiveRecord) => run },
  { name: 'ids', type: 'STRING', of: ({ ids }: ArchiveRecord) => jsonIn(ids) },
  { name: 'reference', type: 'BOOLEAN', of: ({ reference }: ArchiveRecord) => reference },
  { name: 'type', type: 'STRING', of: ({ type }: ArchiveRecord) => type },
  { name: 'v', type: 'INT32', of: ({ v }: ArchiveRecord) => v },
  { name: 'data', type: 'STRING', of: ({ data }: ArchiveRecord) => jsonIn(data) },
  { name: 'raw', type: 'STRING', of: ({ raw }: ArchiveRecord) => raw },
] as const

function jsonIn(value: unknown): string | undefined {
  return value === undefined ? undefined : JSON.stringify(value)
}

export async function* parquetOf(
  records: AsyncIterable<{ readonly record: ArchiveRecord; readonly line: string }>,
): AsyncGenerator<Uint8Array> {
  const { ByteWriter, ParquetWriter, schemaFromColumnData } = await optionalPackage<Package>(
    'hyparquet-writer',
    'an archive as Parquet',
  )
  const bytes = new ByteWriter()
  const schema = schemaFromColumnData({ columnData: columnsOf([]) })
  const writer = new ParquetWriter({ writer: bytes, schema })
  const taken = (): Uint8Array => {
    const some = Uint8Array.from(bytes.getBytes())
    // The writer counts on its own how much there is before this.
    bytes.index = 0
    return some
  }
  let rows: ArchiveRecord[] = []
  let size = 0
  for await (const { record, line } of records) {
    rows.push(record)
    size += line.length
    if (rows.length < GROUP_ROWS && size < GROUP_BYTES) continue
    await writer.write({ columnData: columnsOf(rows), rowGroupSize: rows.length })
    yield taken()
    rows = []
    size = 0
  }
  if (rows.length > 0) await writer.write({ columnData: columnsOf(rows), rowGroupSize: rows.length })
  await writer.finish()
  yield taken()
}

function columnsOf(rows: readonly ArchiveRecord[]): Columns {
  return COLUMNS.map(({ name, type, of }) => ({
    name,
    type,
    nullable: name !== 'kind',
    data: rows.map((row) => of(row) ?? null),
  }))
}

/** The records of one, in order. */
export async function* parquetRecords(source: ByteSource): AsyncGenerator<ArchiveRecord> {
  for await (const row of readParquet(source)) yield recordOf(row)
}

function recordOf(row: Readonly<Record<string, unknown>>): ArchiveRecord {
  const there = Object.entries(row).filter(([, value]) => value !== null && value !== undefined)
  return checkedRecord(Object.fromEntries(there.map(([name, value]) => [name, fieldOf(name, value)])))
}

function fieldOf(name: string, value: unknown): unknown {
  if (value instanceof Date) return value.toISOString()
  if (name !== 'ids' && name !== 'data') return value
  try {
    return JSON.parse(String(value))
  } catch (cause) {
    throw badArchive(`column ${name} is no JSON`, cause)
  }
}
