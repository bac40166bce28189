import { utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { brotliCompressSync, gzipSync, zstdCompressSync } from 'node:zlib'
import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import { type ByteSource, readJsonLines, readLines } from '../../src/items/index.ts'
import { InvalidError, TerminalError } from '../../streams/errors.ts'
import { runs } from '../kit/runs.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { rejection } from '../kit/stage.ts'
import { cursorsOf, expectReadsOn, readAll } from './kit.ts'

const scratch = scratchFolder()
afterAll(() => scratch[Symbol.dispose]())

let files = 0
function fileOf(content: string | Uint8Array, ending = 'txt'): string {
  const path = join(scratch.path, `${files++}.${ending}`)
  writeFileSync(path, content)
  return path
}

/** A source in memory whose bytes come in pieces of any size. */
function inPieces(content: Uint8Array, size: number, name = 'memory.txt'): ByteSource & { from: number[] } {
  const from: number[] = []
  return {
    name,
    from,
    stat: async () => ({ size: content.length, version: 'one' }),
    async *bytes(range) {
      from.push(range.from)
      for (let at = range.from; at < range.to; at += size) yield content.subarray(at, Math.min(range.to, at + size))
    },
  }
}

describe('lines', () => {
  it.each<[string, string, string[]]>([
    ['end with LF', 'a\nb\n', ['a', 'b']],
    ['end with CRLF', 'a\r\nb\r\n', ['a', 'b']],
    ['need no end at the last one', 'a\nb', ['a', 'b']],
    ['keep a CR that is within', 'a\rb\nc\r', ['a\rb', 'c']],
    ['come without a byte order mark', '\ufeffa\nb', ['a', 'b']],
    ['keep such a mark further on', 'a\n\ufeffb', ['a', '\ufeffb']],
    ['are none in an empty file', '', []],
    ['are none in a file of a byte order mark', '\ufeff', []],
    ['leave out empty ones', '\n\na\n\r\n\nb\n\n', ['a', 'b']],
    ['may be of any script', 'zażółć\n日本語\n😀\n', ['zażółć', '日本語', '😀']],
  ])('lines %s', async (_, text, expected) => {
    expect(await expectReadsOn(readLines(fileOf(text)))).toEqual(expected)
  })

  it('keep empty ones where that is wanted', async () => {
    expect(await expectReadsOn(readLines(fileOf('\na\r\n\r\n\nb'), { keepEmpty: true }))).toEqual([
      '',
      'a',
      '',
      '',
      'b',
    ])
  })

  it('are those of the text, however its bytes come, from whatever cursor', async () => {
    const line = fc.string({ unit: 'grapheme', maxLength: 12 }).map((text) => text.replaceAll(/[\r\n]/g, '.'))
    const text = fc
      .array(fc.tuple(line, fc.constantFrom('\n', '\r\n', '\n\n')), { maxLength: 12 })
      .chain((lines) => fc.tuple(fc.constant(lines), fc.boolean()))
    await fc.assert(
      fc.asyncProperty(text, fc.integer({ min: 1, max: 9 }), async ([lines, isOpen], size) => {
        const whole = lines.map(([content, end]) => content + end).join('')
        const bytes = Buffer.from(isOpen ? `${whole}last` : whole)
        const found = await expectReadsOn(readLines(inPieces(bytes, size)))
        const plain = (isOpen ? `${whole}last` : whole).replace(/^\ufeff/, '').split('\n')
        expect(found).toEqual(plain.map((one) => one.replace(/\r$/, '')).filter((one) => one !== ''))
      }),
      runs(60),
    )
  })

  it('are read on from the byte behind the last one, and not from the beginning', async () => {
    const source = inPieces(Buffer.from('aa\nbb\ncc\n'), 4)
    const [[first]] = (await cursorsOf(readLines(source))) as [[unknown, number]]
    source.from.length = 0
    expect(await readAll(readLines(source), first)).toEqual(['bb', 'cc'])
    expect(source.from).toEqual([3])
  })

  it.each<[string, (text: string) => Uint8Array]>([
    ['gz', gzipSync],
    ['zst', zstdCompressSync],
    ['br', brotliCompressSync],
  ])('of a .%s file are unpacked, and read on from any of them', async (ending, pack) => {
    const list = Array.from({ length: 50 }, (_, i) => `line ${i} é`)
    expect(await expectReadsOn(readLines(fileOf(pack(list.join('\n')), ending)))).toEqual(list)
  })

  it('of a torn .gz file fail, and where is said', async () => {
    const text = Array.from({ length: 30_000 }, (_, i) => `line ${i}`).join('\n')
    const path = fileOf(gzipSync(text).subarray(0, 50_000), 'gz')
    const error = await rejection(readAll(readLines(path, { retry: { maxAttempts: 2, backoff: 1 } })))
    expect(error.code).toBe('source_failed')
    expect(error.message).toMatch(/reading failed 2 times in a row, behind byte \d+: unexpected end of file/)
  })

  it('of a large file come in chunks, none of them large', async () => {
    const list = Array.from({ length: 100_000 }, (_, i) => `https://example.com/${i}`)
    let count = 0
    let longest = 0
    for await (const { items } of readLines(fileOf(list.join('\n'))).read(undefined, new AbortController().signal)) {
      count += items.length
      longest = Math.max(longest, items.length)
    }
    expect(count).toBe(100_000)
    expect(longest).toBeLessThan(10_000)
  })

  it('are refused when one is too long, and where is said', async () => {
    const error = await rejection(readAll(readLines(fileOf(`a\n${'x'.repeat(300_000)}\n`))))
    expect(error).toBeInstanceOf(InvalidError)
    expect(error.message).toMatch(/the line at byte 2 is longer than 204800 bytes/)
  })

  it('are refused when one is no UTF-8, and where is said', async () => {
    const path = fileOf(Buffer.concat([Buffer.from('a\nbé\n'), Buffer.from([0xff, 0xfe, 10])]))
    expect((await rejection(readAll(readLines(path)))).message).toMatch(/the line at byte 6 is no UTF-8/)
  })

  it('of a file that was changed under the cursor are refused, and where is said', async () => {
    const path = fileOf('a\nb\nc\n')
    const reader = readLines(path)
    const [[first]] = (await cursorsOf(reader)) as [[unknown, number]]
    utimesSync(path, new Date(), new Date(Date.now() + 5000))
    const error = await rejection(readAll(reader, first))
    expect(error).toBeInstanceOf(TerminalError)
    expect(error.message).toMatch(
      /was changed while it was read \(it was 6 bytes of .*, now it is 6 bytes of .*\), behind byte 2/,
    )
  })

  it('of a file that is changed while it is read are refused at its end', async () => {
    const path = fileOf(Array.from({ length: 50_000 }, (_, i) => `line ${i}`).join('\n'))
    const reading = (async () => {
      let isChanged = false
      for await (const _ of readLines(path)) {
        if (!isChanged) writeFileSync(path, 'short', { flag: 'a' })
        isChanged = true
      }
    })()
    expect((await rejection(reading)).message).toMatch(/was changed while it was read/)
  })

  it('of a file that is not there are refused at once', async () => {
    const error = await rejection(readAll(readLines(join(scratch.path, 'nowhere.txt'))))
    expect(error.message).toMatch(/there is no file .*nowhere\.txt on this worker/)
    expect((await rejection(readAll(readLines(scratch.path)))).message).toMatch(/is no file/)
  })
})

describe('JSON lines', () => {
  it('are values, and empty lines none', async () => {
    const path = fileOf('{"a":1}\r\n\n[1,"é"]\nnull\n"x"', 'jsonl')
    expect(await expectReadsOn(readJsonLines(path))).toEqual([{ a: 1 }, [1, 'é'], null, 'x'])
  })

  it('name the place of what is none', async () => {
    const error = await rejection(readAll(readJsonLines(fileOf('{"a":1}\n{"a":\n'))))
    expect(error).toBeInstanceOf(InvalidError)
    expect(error.message).toMatch(/the line at byte 8 is no JSON/)
  })

  it('may be changed and left out on their way, and cursors stay right', async () => {
    const path = fileOf(Array.from({ length: 30 }, (_, i) => JSON.stringify({ i })).join('\n'))
    const reader = readJsonLines(path)
      .map((value) => Number((value as { i: number }).i))
      .filter((i) => i % 3 === 0)
      .map((i) => `#${i}`)
    expect(await expectReadsOn(reader)).toEqual(['#0', '#3', '#6', '#9', '#12', '#15', '#18', '#21', '#24', '#27'])
  })
})
