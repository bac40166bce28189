import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decodeMsgpack, encodeMsgpack } from '../../streams/codec.ts'
import { squeeze } from '../../streams/compress.ts'
import { ListReader, ListWriter, readList } from '../../streams/list.ts'
import { encodeValue } from '../../streams/value.ts'

const values = fc.anything({
  withDate: true,
  withBigInt: true,
  withMap: true,
  withSet: true,
  withTypedArray: true,
  maxDepth: 4,
})

/** Undefined for what cannot be stored. */
function bytesOf(value: unknown): Uint8Array | undefined {
  try {
    return encodeValue(value)
  } catch {
    return undefined
  }
}

function listOf(given: readonly unknown[]): Uint8Array<ArrayBuffer> {
  const writer = new ListWriter()
  for (const value of given) writer.add(value)
  const list = writer.list().slice()
  writer.end()
  return list
}

describe('a list writer', () => {
  it('gives the bytes that its values have by themselves, one after the other', () => {
    fc.assert(
      fc.property(fc.array(values, { maxLength: 40 }), (given) => {
        const writer = new ListWriter()
        for (const value of given) {
          const bytes = bytesOf(value)
          if (!bytes) {
            const before = writer.count
            expect(() => writer.add(value)).toThrow('value')
            expect(writer.count).toBe(before)
            continue
          }
          expect(writer.add(value)).toBe(bytes.length)
          expect(Buffer.from(writer.last).equals(bytes)).toBe(true)
        }
        writer.end()
      }),
    )
  })

  it.each([0, 1, 15, 16, 65_535, 65_536])('gives a list of %i values as msgpackr does', (count) => {
    const given = Array.from({ length: count }, (_, i) => i)
    expect(Buffer.from(listOf(given)).equals(encodeMsgpack(given))).toBe(true)
  })

  it.each([
    ['text of every length of head', ['', 'a', 'é'.repeat(16), 'x'.repeat(31), 'x'.repeat(32), '日'.repeat(100)]],
    ['numbers of every width', [0, -0, 127, 128, 256, 65_536, 2 ** 32, -1, -33, -129, -32_769, -(2 ** 31) - 1, 0.1]],
    ['what is too large to be written quickly', ['x'.repeat(10_000), Array.from({ length: 500 }, (_, i) => i)]],
    ['members in any order', [{ b: 1, a: { 2: [], 10: null } }, { a: undefined }]],
  ])('keeps %s', (_, given) => {
    expect(decodeMsgpack(listOf(given))).toEqual(given)
  })

  it('takes values away from its front and its end', () => {
    const writer = new ListWriter()
    for (const value of ['a', 'bb', 'ccc', 'dddd']) writer.add(value)
    writer.undo()
    expect(decodeMsgpack(writer.list(2))).toEqual(['a', 'bb'])
    writer.drop(2)
    writer.add('e')
    expect(decodeMsgpack(writer.list())).toEqual(['ccc', 'e'])
    expect([writer.count, writer.size]).toEqual([2, 6])
    writer.end()
  })

  it('names the place of what cannot be stored, and adds nothing', () => {
    const writer = new ListWriter()
    expect(() => writer.add({ a: [1, () => 1] }, 'key', 7)).toThrow('key[7].a[1]')
    const thrower = Object.defineProperty({}, 'b', { enumerable: true, get: () => expect.unreachable() })
    expect(() => writer.add(thrower)).toThrow('value.b cannot be read')
    expect(decodeMsgpack(writer.list())).toEqual([])
    writer.end()
  })
})

describe('a list reader', () => {
  it('gives each value, in any order of asking', () => {
    const value = values.filter((given) => bytesOf(given) !== undefined)
    fc.assert(
      fc.property(fc.array(value, { maxLength: 200, size: 'max' }), fc.array(fc.nat(220)), (given, asked) => {
        const reader = new ListReader(listOf(given))
        const all: unknown = decodeMsgpack(listOf(given))
        if (!Array.isArray(all)) throw new Error('no list')
        expect(reader.count).toBe(given.length)
        for (const k of [...asked, ...given.keys()]) expect(reader.item(k)).toEqual(all[k])
      }),
    )
  })

  it('reads a compressed field, and one that holds the values themselves', () => {
    const given = Array.from({ length: 1000 }, (_, i) => ({ id: `item-${i}` }))
    const { bytes, encoding } = squeeze(listOf(given), given.length)
    expect(encoding).toBe('zstd')
    for (const reader of [readList(bytes, encoding), readList(given, undefined)])
      expect([reader.count, reader.item(999), reader.item(0)]).toEqual([1000, given[999], given[0]])
  })

  it('outlives the message that its field is of', () => {
    const field = listOf(['a', 'b'])
    const reader = readList(field, undefined)
    field.fill(0xc0)
    expect(reader.item(1)).toBe('b')
  })

  it.each([
    ['no list', encodeMsgpack({ a: 1 })],
    ['nothing', new Uint8Array()],
    ['fewer values than it says', new Uint8Array([0x93, 1, 2])],
    ['a text that is cut', new Uint8Array([0x91, 0xa5, 0x61])],
    ['more values than there are bytes', new Uint8Array([0xdd, 0xff, 0xff, 0xff, 0xff, 1])],
  ])('refuses %s', (_, bytes) => {
    expect(() => {
      const reader = new ListReader(bytes)
      for (let k = 0; k < reader.count; k++) reader.item(k)
    }).toThrow(expect.objectContaining({ code: 'undecodable' }))
  })
})
