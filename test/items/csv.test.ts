import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import { readCsv } from '../../src/items/index.ts'
import { InvalidError } from '../../streams/errors.ts'
import { runs } from '../kit/runs.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { rejection } from '../kit/stage.ts'
import { expectReadsOn, readAll } from './kit.ts'

const scratch = scratchFolder()
afterAll(() => scratch[Symbol.dispose]())

let files = 0
function fileOf(content: string | Uint8Array, ending = 'csv'): string {
  const path = join(scratch.path, `${files++}.${ending}`)
  writeFileSync(path, content)
  return path
}

describe('rows of CSV', () => {
  it.each<[string, string, object[]]>([
    [
      'are objects by the names in the first row',
      'id,name\n1,a\n2,b\n',
      [
        { id: '1', name: 'a' },
        { id: '2', name: 'b' },
      ],
    ],
    ['may hold delimiters, quotes and line ends', 'a,b\n"x,y","1\r\n""2"""\n', [{ a: 'x,y', b: '1\r\n"2"' }]],
    ['end with CRLF, and need no end at the last one', 'a\r\n1\r\n2', [{ a: '1' }, { a: '2' }]],
    ['come without a byte order mark', '\ufeffa\n1\n', [{ a: '1' }]],
    [
      'may be of any script',
      'a,b\né,日本\n😀,x\n',
      [
        { a: 'é', b: '日本' },
        { a: '😀', b: 'x' },
      ],
    ],
    ['are none under a header alone', 'a,b\n', []],
    ['are none in an empty file', '', []],
    ['are not made of empty lines', 'a\n\n1\n\n', [{ a: '1' }]],
  ])('rows of CSV %s', async (_, text, expected) => {
    expect(await expectReadsOn(readCsv(fileOf(text)))).toEqual(expected)
  })

  it('take the names that are given, other delimiters and comments', async () => {
    const options = { columns: ['a', 'b'], delimiter: ';', comment: '#', trim: true }
    expect(await expectReadsOn(readCsv(fileOf('# x\n1 ; 2\n3;4\n'), options))).toEqual([
      { a: '1', b: '2' },
      { a: '3', b: '4' },
    ])
  })

  it('are those that were written, whatever they hold, from whatever cursor', async () => {
    const field = fc.string({ unit: fc.constantFrom('a', ',', '"', '\n', '\r\n', 'é', ' ', '😀'), maxLength: 5 })
    const quoted = (text: string) => `"${text.replaceAll('"', '""')}"`
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(field, field), { maxLength: 8 }),
        fc.constantFrom('\n', '\r\n'),
        async (rows, end) => {
          const text = ['a,b', ...rows.map((row) => row.map(quoted).join(','))].join(end)
          expect(await expectReadsOn(readCsv(fileOf(text)))).toEqual(rows.map(([a, b]) => ({ a, b })))
        },
      ),
      runs(30),
    )
  })

  it('of a packed file with many rows come in chunks, and are read on', async () => {
    const rows = Array.from({ length: 2500 }, (_, i) => ({ id: String(i), text: `row "${i}"\nof many` }))
    const text = `id,text\n${rows.map(({ id, text: cell }) => `${id},"${cell.replaceAll('"', '""')}"`).join('\n')}`
    const reader = readCsv(fileOf(gzipSync(text), 'csv.gz'))
    expect(await readAll(reader)).toEqual(rows)
    const sizes: number[] = []
    for await (const { items, cursor } of reader.read(undefined, new AbortController().signal)) {
      sizes.push(items.length)
      expect(await readAll(reader, cursor)).toEqual(rows.slice(sizes.reduce((a, b) => a + b)))
    }
    expect(sizes).toEqual([1000, 1000, 500])
  })

  it('are refused where the text is no CSV, and where is said', async () => {
    const error = await rejection(readAll(readCsv(fileOf('a,b\n1,2\n3,4,5\n'))))
    expect(error).toBeInstanceOf(InvalidError)
    expect(error.message).toMatch(/behind byte 8 is no CSV: Invalid Record Length/)
  })

  it('are refused where one is too long, as behind a quote that is never closed', async () => {
    const error = await rejection(readAll(readCsv(fileOf(`a\n1\n"${'x,\n'.repeat(1_000_000)}`))))
    expect(error).toBeInstanceOf(InvalidError)
    expect(error.message).toMatch(/behind byte 4 is no CSV: Max Record Size/)
  })
})
