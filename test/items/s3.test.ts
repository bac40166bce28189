import { gzipSync } from 'node:zlib'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { readCsv, readJsonLines, readLines, readS3Objects, s3Object } from '../../src/items/index.ts'
import type { S3ClientLike } from '../../src/items/s3.ts'
import { TerminalError } from '../../streams/errors.ts'
import { type S3Server, startS3 } from '../kit/s3.ts'
import { rejection } from '../kit/stage.ts'
import { cursorsOf, expectReadsOn, readAll } from './kit.ts'

let s3: S3Server
beforeEach(async () => {
  s3 = await startS3('things')
})
afterEach(() => s3[Symbol.asyncDispose]())

const bytes = (text: string): Uint8Array => Buffer.from(text)
const retry = { backoff: 1 } as const

describe('the list of a bucket', () => {
  it('is read page by page, in the order of keys, from whatever cursor', async () => {
    for (let i = 0; i < 2500; i++) s3.objects.set(`in/${String(i).padStart(4, '0')}`, bytes('x'.repeat(i % 7)))
    s3.objects.set('out/1', bytes(''))
    const reader = readS3Objects({ bucket: 'things', prefix: 'in/', client: s3.client })
    const all = await readAll(reader)
    expect(all.map(({ key }) => key)).toEqual([...s3.objects.keys()].slice(0, 2500))
    expect(all[5]).toEqual({
      bucket: 'things',
      key: 'in/0005',
      size: 5,
      etag: expect.stringMatching(/^"[0-9a-f]{32}"$/),
    })
    expect(s3.asked).toEqual(['list after=', 'list after=in/0999', 'list after=in/1999'])
    for (const [cursor, before] of (await cursorsOf(reader)).filter((_, i) => i % 311 === 0))
      expect(await readAll(reader, cursor)).toEqual(all.slice(before))
  })

  it('goes on behind the last page when the server fails', async () => {
    for (let i = 0; i < 1500; i++) s3.objects.set(String(1000 + i), bytes(''))
    const reader = readS3Objects({ bucket: 'things', client: s3.client, retry })
    const found: string[] = []
    for await (const { key } of reader) if (found.push(key) === 500) s3.failNext = 3
    expect(found).toHaveLength(1500)
    expect(s3.asked).toEqual(['list after=', 'list after=1999'])
  })

  it('of a bucket that is not there is refused at once', async () => {
    const error = await rejection(readAll(readS3Objects({ bucket: 'nothing', client: s3.client, retry })))
    expect(error).toBeInstanceOf(TerminalError)
    expect(error.message).toMatch(/^s3:\/\/nothing cannot be read \(404\)/)
  })
})

describe('an object', () => {
  it('is read as lines, JSON lines and CSV, packed ones too, from whatever cursor', async () => {
    s3.objects.set('a.txt', bytes('one\ntwo\nthree'))
    s3.objects.set('a.jsonl.gz', gzipSync('{"a":1}\n{"a":2}\n'))
    s3.objects.set('a.csv', bytes('id,name\n1,x\n2,"y\ny"\n'))
    const of = (key: string) => s3Object({ bucket: 'things', key, client: s3.client })
    expect(await expectReadsOn(readLines(of('a.txt')))).toEqual(['one', 'two', 'three'])
    expect(await expectReadsOn(readJsonLines(of('a.jsonl.gz')))).toEqual([{ a: 1 }, { a: 2 }])
    expect(await expectReadsOn(readCsv(of('a.csv')))).toEqual([
      { id: '1', name: 'x' },
      { id: '2', name: 'y\ny' },
    ])
  })

  it('is asked for from the cursor on, also after its body broke off', async () => {
    const text = Array.from({ length: 20_000 }, (_, i) => `line ${i}`).join('\n')
    s3.objects.set('big.txt', bytes(text))
    s3.tearNext = 1
    const reader = readLines(s3Object({ bucket: 'things', key: 'big.txt', client: s3.client }), { retry })
    expect(await readAll(reader)).toEqual(text.split('\n'))
    const gets = s3.asked.filter((line) => line.startsWith('get'))
    expect(gets).toHaveLength(2)
    const again = Number(/bytes=(\d+)-/.exec(gets[1] ?? '')?.[1])
    expect(again).toBeGreaterThan(text.length / 4)
    expect(again).toBeLessThanOrEqual(text.length / 2)
  })

  it('that was changed under the cursor is refused, and where is said', async () => {
    s3.objects.set('a.txt', bytes('one\ntwo\n'))
    const reader = readLines(s3Object({ bucket: 'things', key: 'a.txt', client: s3.client }))
    const [[first]] = (await cursorsOf(reader)) as [[unknown, number]]
    s3.objects.set('a.txt', bytes('one\ndue\n'))
    const error = await rejection(readAll(reader, first))
    expect(error).toBeInstanceOf(TerminalError)
    expect(error.message).toMatch(/s3:\/\/things\/a\.txt was changed while it was read .*behind byte 4/)
  })

  it.each([
    [
      301,
      TerminalError,
      /^s3:\/\/things\/a\.txt cannot be read \(301\): the bucket is in another region: set AWS_REGION/,
    ],
    [400, Error, /: the request is refused: look at the region \(AWS_REGION\) and the credentials/],
    [403, TerminalError, /^s3:\/\/things\/a\.txt cannot be read \(403\): access is denied: look at the credentials/],
    [404, TerminalError, /^s3:\/\/things\/a\.txt cannot be read \(404\): there is no such object, or no such bucket/],
  ])('says what %i means, where S3 has no words for it', async (httpStatusCode, kind, says) => {
    const failure = Object.assign(new Error('UnknownError'), { $metadata: { httpStatusCode } })
    const client = { send: () => Promise.reject(failure) }
    const error = await rejection(readAll(readLines(s3Object({ bucket: 'things', key: 'a.txt', client }), { retry })))
    expect(error).toBeInstanceOf(kind)
    expect(error.message).toMatch(says)
  })

  it('that is not there is refused at once, and one that fails is given up in the end', async () => {
    const of = (key: string) => readLines(s3Object({ bucket: 'things', key, client: s3.client }), { retry })
    expect((await rejection(readAll(of('none')))).message).toMatch(/s3:\/\/things\/none cannot be read \(404\)/)
    s3.failNext = 5
    expect((await rejection(readAll(of('none')))).message).toMatch(
      /lines of s3:\/\/things\/none: reading failed 5 times in a row, at the beginning: /,
    )
    expect(s3.failNext).toBe(0)
  })
})

describe('an S3 that takes a request and never answers', () => {
  afterEach(() => void vi.useRealTimers())

  it.each(['list', 'head', 'get', 'body'])('is left after a minute, and its signal aborted: %s', async (silent) => {
    const told: AbortSignal[] = []
    const asked = Promise.withResolvers<void>()
    const stuck = (signal: AbortSignal): Promise<never> => {
      told.push(signal)
      asked.resolve()
      return new Promise(() => undefined)
    }
    const client: S3ClientLike = {
      send: async (command, options) => {
        const { abortSignal } = options as { abortSignal: AbortSignal }
        const kind = /List|Head|Get/.exec(command.constructor.name)?.[0].toLowerCase()
        if (kind === silent) return await stuck(abortSignal)
        if (kind === 'head') return { ContentLength: 3, ETag: '"a"' }
        return { Body: { [Symbol.asyncIterator]: () => ({ next: () => stuck(abortSignal) }) } }
      },
    }
    const once = { retry: { maxAttempts: 1 } }
    const reader =
      silent === 'list'
        ? readS3Objects({ bucket: 'things', client, ...once })
        : readLines(s3Object({ bucket: 'things', key: 'a', client }), once)
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    const error = rejection(readAll<unknown>(reader))
    await asked.promise
    await vi.advanceTimersByTimeAsync(60_000)
    expect(await error).toMatchObject({
      code: 'source_failed',
      message: expect.stringContaining('no answer within 60 s'),
    })
    expect(told.map(({ aborted }) => aborted)).toEqual([true])
  })
})
