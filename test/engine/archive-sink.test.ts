import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Readable, Writable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { verifiedArchive } from '../../src/engine/archive/read.ts'
import type { RecordSource } from '../../src/engine/archive/records.ts'
import { placeOf, streamSink } from '../../src/engine/archive/sink.ts'
import { writeArchive } from '../../src/engine/archive/write.ts'
import { archived } from '../../src/engine/history/prune/archiving.ts'
import { verifyArchives } from '../../src/engine/proof/archive.ts'
import type { S3ClientLike } from '../../src/items/s3.ts'
import { type ArchiveRecord, positionRecord } from '../../streams/archive.ts'
import { proofHeadLine } from '../../streams/proof-file.ts'
import { namesOf } from '../../streams/subjects.ts'
import { startS3 } from '../kit/s3.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const MB = 1024 * 1024

async function* broken(): AsyncGenerator<ArchiveRecord> {
  yield { kind: 'archive', raw: 'x'.repeat(9 * MB) }
  throw new Error('the server is away')
}

describe('an archive in S3', () => {
  it('is uploaded in parts, and is there when all of them are', async () => {
    await using s3 = await startS3('kept')
    const sink = await placeOf('to', 's3://kept/a/b', s3.client).sink()
    for (let i = 0; i < 20; i++) {
      await sink.write(new Uint8Array(MB).fill(i))
      expect(s3.objects.size).toBe(0)
    }
    await sink.commit()
    const stored = s3.objects.get('a/b')
    expect(stored?.length).toBe(20 * MB)
    expect(Array.from({ length: 20 }, (_, i) => stored?.[i * MB])).toEqual(Array.from({ length: 20 }, (_, i) => i))
    expect(s3.asked.filter((line) => line.startsWith('part'))).toEqual([1, 2, 3].map((n) => `part ${n} a/b`))
  })

  it('that cannot be written is named, and leaves neither an object nor an upload', async () => {
    await using s3 = await startS3('kept')
    const place = placeOf('to', 's3://kept/a/b', s3.client)
    const written = writeArchive(broken(), { name: place.name, sink: await place.sink(), format: 'jsonl' })
    expect((await rejection(written)).message).toBe('the server is away')
    expect([s3.objects.size, s3.uploads.size, s3.asked]).toEqual([0, 0, ['post a/b', 'part 1 a/b', 'delete a/b']])
    const other = await placeOf('to', 's3://other/a', s3.client).sink()
    await other.write(new Uint8Array(1))
    expect(await rejection(other.commit())).toMatchObject({
      code: 'archive_failed',
      message: expect.stringContaining('s3://other/a'),
    })
  })
})

describe('an archive in S3 that gets no answer', () => {
  it('leaves no request behind when nobody waits for it any more', async () => {
    await using s3 = await startS3('kept')
    const answer = Promise.withResolvers<void>()
    s3.hold = () => answer.promise
    let open = 0
    const client: S3ClientLike = {
      send: async (command, options) => {
        open += 1
        try {
          return await s3.client.send(command as never, options as never)
        } finally {
          open -= 1
        }
      },
    }
    const source = { connection: { isClosed: false }, names: namesOf('ns'), shards: 1 } as unknown as RecordSource
    const what = { shard: 0, runs: [], places: new Map(), factsOf: new Map(), endedMs: 0 }
    const waits = async (): Promise<void> => {
      for await (const ms of archived(source, { to: 's3://kept/a', client }, what, 300)) await sleep(ms)
    }
    const { code, message } = await rejection(waits())
    expect([code, message]).toEqual(['archive_failed', expect.stringContaining('it is not stored after 300 ms')])
    await until('its request has ended', () => open === 0)
    answer.resolve()
  })
})

describe('an archive in S3 that is read', () => {
  it.each(['a.jsonl', 'a.jsonl.zst'])('is named when the bucket stops answering: %s', async (key) => {
    await using s3 = await startS3('kept')
    const address = `s3://kept/${key}`
    s3.failNext = 1
    expect(await rejection(verifiedArchive(placeOf('import', address, s3.client).source()))).toMatchObject({
      code: 'archive_failed',
      message: expect.stringContaining(`${address} cannot be read`),
    })
    const left = new AbortController()
    const told: AbortSignal[] = []
    const client: S3ClientLike = {
      send: async (_command, options) => {
        told.push((options as { abortSignal: AbortSignal }).abortSignal)
        left.abort(new Error('nobody waits'))
        return await new Promise(() => undefined)
      },
    }
    const source = placeOf('import', address, client, left.signal).source()
    expect((await rejection(verifiedArchive(source))).message).toBe(`${address} cannot be read: nobody waits`)
    expect(told.map(({ aborted }) => aborted)).toEqual([true])
  })
})

describe('an archive in a stream', () => {
  it('that fails is an error of the export, and of nothing else', async () => {
    const failing = new Writable({
      highWaterMark: MB,
      write: (_bytes, _encoding, done) => void setImmediate(done, new Error('no space left')),
    })
    const one: ArchiveRecord = { kind: 'archive', raw: 'x' }
    const written = writeArchive(Readable.from([one]), { name: '', sink: streamSink(failing), format: 'jsonl' })
    expect((await rejection(written)).message).toBe('no space left')
  })

  it('that is destroyed while it is full is an error, too', { timeout: 10_000 }, async () => {
    const stuck = new Writable({ highWaterMark: 1, write: () => void setImmediate(() => stuck.destroy()) })
    const one: ArchiveRecord = { kind: 'archive', raw: 'x' }
    const written = writeArchive(Readable.from([one]), { name: '', sink: streamSink(stuck), format: 'jsonl' })
    expect(await rejection(written)).toMatchObject({ code: 'archive_failed' })
  })
})

it('an archive with positions is checked by a proof, which says nothing of them', async () => {
  using scratch = scratchFolder()
  const [archive, blocks] = [join(scratch.path, 'all.jsonl'), join(scratch.path, 'all.proof')]
  const head: ArchiveRecord = { kind: 'archive', data: { v: 2, namespace: 'shop', shards: 1, at: '' } }
  const records = Readable.from([head, positionRecord('schedule.p.s', { seq: 1 })])
  await writeArchive(records, { name: archive, sink: await placeOf('to', archive).sink(), format: 'jsonl' })
  writeFileSync(blocks, proofHeadLine({ namespace: 'shop', shards: 1 }))
  const [report] = await verifyArchives({
    archives: [placeOf('from', archive).source()],
    blocks: placeOf('blocks', blocks).source(),
    keys: [],
    checkpoints: [],
  })
  expect(report?.findings.map(({ problem }) => problem)).toEqual(['no_proof'])
})

describe('an archive in a file', () => {
  it('has its name when it is whole, and leaves nothing when it is not', async () => {
    using scratch = scratchFolder()
    const path = join(scratch.path, 'folder', 'a.jsonl')
    const place = placeOf('to', path)
    const written = writeArchive(broken(), { name: place.name, sink: await place.sink(), format: 'jsonl' })
    expect((await rejection(written)).message).toBe('the server is away')
    expect(readdirSync(join(scratch.path, 'folder'))).toEqual([])
    const sink = await place.sink()
    await sink.write(new Uint8Array([104, 105]))
    expect(existsSync(path)).toBe(false)
    await sink.commit()
    expect(readFileSync(path, 'utf8')).toBe('hi')
    expect(readdirSync(join(scratch.path, 'folder'))).toEqual(['a.jsonl'])
  })
})
