import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { parquetWriteBuffer } from 'hyparquet-writer'
import { afterAll, describe, expect, it } from 'vitest'
import { readParquet, s3Object } from '../../src/items/index.ts'
import { InvalidError } from '../../streams/errors.ts'
import { startS3 } from '../kit/s3.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { rejection } from '../kit/stage.ts'
import { expectReadsOn, readAll } from './kit.ts'

const scratch = scratchFolder()
afterAll(() => scratch[Symbol.dispose]())

const ROWS = 100
const ids = Array.from({ length: ROWS }, (_, i) => BigInt(i) + (i === 7 ? 2n ** 60n : 0n))
const names = Array.from({ length: ROWS }, (_, i) => (i % 9 === 0 ? null : `name ${i}`))
const content = new Uint8Array(
  parquetWriteBuffer({
    columnData: [
      { name: 'id', data: ids, type: 'INT64' },
      { name: 'name', data: names, type: 'STRING' },
      { name: 'at', data: Array.from({ length: ROWS }, (_, i) => new Date(i * 1000)), type: 'TIMESTAMP' },
    ],
    rowGroupSize: 30,
  }),
)
const path = join(scratch.path, 'rows.parquet')
writeFileSync(path, content)

describe('rows of Parquet', () => {
  it('are objects by column, from whatever cursor, over the bounds of row groups', async () => {
    const rows = await expectReadsOn(readParquet(path))
    expect(rows).toHaveLength(ROWS)
    expect(rows[1]).toEqual({ id: 1, name: 'name 1', at: new Date(1000) })
    expect(rows[9]?.name ?? null).toBeNull()
    // Beyond what a number holds exactly.
    expect(rows[7]?.id).toBe(String(2n ** 60n + 7n))
  })

  it('come in chunks of a row group', async () => {
    const sizes: number[] = []
    for await (const { items } of readParquet(path).read(undefined, new AbortController().signal))
      sizes.push(items.length)
    expect(sizes).toEqual([30, 30, 30, 10])
  })

  it('have the columns that are asked for', async () => {
    expect((await readAll(readParquet(path, { columns: ['name'] })))[1]).toEqual({ name: 'name 1' })
    expect((await rejection(readAll(readParquet(path, { columns: ['nam'] })))).message).toMatch(
      /has no column nam; it has id, name, at/,
    )
  })

  it('of an object of S3 are read by ranges, and of no row group that lies before the cursor', async () => {
    await using s3 = await startS3('b')
    // Larger than what is fetched of the end at once, to find the metadata.
    const data = Array.from({ length: 40 }, () => randomBytes(30_000).toString('hex'))
    const columnData = [{ name: 'text', data, type: 'STRING' as const }]
    s3.objects.set('large.parquet', new Uint8Array(parquetWriteBuffer({ columnData, rowGroupSize: 10 })))
    const reader = readParquet(s3Object({ bucket: 'b', key: 'large.parquet', client: s3.client }))
    const cursors = []
    for await (const { cursor } of reader.read(undefined, new AbortController().signal)) cursors.push(cursor)
    s3.asked.length = 0
    expect(await readAll(reader, cursors[2])).toEqual(data.slice(30).map((text) => ({ text })))
    const froms = s3.asked.flatMap((line) => /bytes=(\d+)/.exec(line)?.[1] ?? []).map(Number)
    expect(froms.length).toBeGreaterThan(1)
    expect(Math.min(...froms)).toBeGreaterThan(30 * 30_000)
  })

  it('are refused where the file is no Parquet', async () => {
    const other = join(scratch.path, 'other.parquet')
    writeFileSync(other, gzipSync('no parquet at all, whatever its name says'))
    const error = await rejection(readAll(readParquet(other)))
    expect(error).toBeInstanceOf(InvalidError)
    expect(error.message).toMatch(/is no Parquet file/)
  })
})
