/**
 * Assets whose keys come from item readers, slowly enough to die in the middle. The environment
 * says where they read. What they read is noted.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { S3Client } from '@aws-sdk/client-s3'
import pg from 'pg'
import { asset, pipeline } from '../../../src/index.ts'
import { fileSource } from '../../../src/items/file.ts'
import { type ByteSource, batch, readLines, readPostgres, readS3Objects } from '../../../src/items/index.ts'
import { note, quick, total, work } from './pipelines.ts'

const PIECE_BYTES = 16 * 1024
const PAUSE_MS = 20

/** The file in small pieces with a pause before each, and a note of each. */
function slowly(source: ByteSource): ByteSource {
  return {
    name: source.name,
    stat: (signal) => source.stat(signal),
    async *bytes(range, version, signal) {
      note(`from ${range.from}`)
      for await (const bytes of source.bytes(range, version, signal)) {
        for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
          await sleep(PAUSE_MS)
          const piece = bytes.subarray(at, at + PIECE_BYTES)
          note(`read ${piece.length}`)
          yield piece
        }
      }
    },
  }
}

const lines = () => readLines(slowly(fileSource(process.env.KILL_FILE ?? 'nowhere'))).map(Number)

/** A number in each line of a file. */
export const reading = asset('reading', {
  retry: quick,
  scatter: lines,
  execute: ({ index }) => index,
  gather: (results) => total(results),
})

/**
 * The same in batches. The value of an instance is the sum of its items, each checked to be the
 * next one.
 */
export const batches = asset('batches', {
  retry: quick,
  scatter: () => batch(lines(), { maxItems: 20 }),
  // Then whoever takes over looks at the last key chunk only.
  scatterOptions: { duplicates: 'allow' },
  execute: ({ scatterKey: { items }, index }) => {
    if (items.some((item, i) => item !== index * 20 + i)) throw new Error(`batch ${index} begins with ${items[0]}`)
    return index
  },
  gather: (results) =>
    total(
      (async function* () {
        for await (const { index, value } of results) yield { key: index, index, value }
      })(),
    ),
})

/** The list of a bucket whose keys are numbers from 1000 on. */
export const objects = asset('objects', {
  retry: quick,
  scatter: () => {
    const client = new S3Client({
      endpoint: process.env.KILL_S3 ?? '',
      region: 'us-east-1',
      forcePathStyle: true,
      credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
    })
    return readS3Objects({ bucket: 'things', client }).map(({ key }) => Number(key) - 1000)
  },
  execute: ({ index }) => work(index),
  gather: (results) => total(results),
})

/** Rows of a table, a hundred at a time. */
export const rows = asset('rows', {
  retry: quick,
  scatter: async () => {
    const client = new pg.Client({ connectionString: process.env.KILL_POSTGRES })
    // The server may go away under it.
    client.on('error', () => undefined)
    await client.connect()
    const slow = {
      query: async (text: string, values: unknown[]) => {
        await sleep(2 * PAUSE_MS)
        note(`page ${values.join()}`)
        return await client.query(text, values)
      },
    }
    return readPostgres({ query: 'SELECT id FROM numbers', key: 'id', pageSize: 100, client: slow }).map(({ id }) =>
      Number(id),
    )
  },
  execute: ({ index }) => work(index),
  gather: (results) => total(results),
})

export const reads = pipeline('reads', [reading, batches, objects, rows])
