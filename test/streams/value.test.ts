import { isDeepStrictEqual } from 'node:util'
import { runInNewContext } from 'node:vm'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decodeMsgpack, encodeMsgpack } from '../../streams/codec.ts'
import { InvalidError } from '../../streams/errors.ts'
import { encodeValue, jsonCopy, measure, snapshot } from '../../streams/value.ts'
import { runs } from '../kit/runs.ts'

const members = (n: number): Record<string, number> =>
  Object.fromEntries(Array.from({ length: n }, (_, i) => [`member ${i}`, i]))

describe('a value', () => {
  const kept: [string, unknown][] = [
    ['-0', -0],
    ['NaN', Number.NaN],
    ['undefined', undefined],
    ['undefined members', { a: undefined, b: [undefined] }],
    ['a bigint', 1n],
    ['a large bigint', -(2n ** 200n)],
    ['an embedding', new Float32Array([0.5, -1.25, 3])],
    ['doubles', new Float64Array([Math.PI])],
    ['16-bit numbers', new Int16Array([-1, 2])],
    ['64-bit numbers', new BigUint64Array([2n ** 64n - 1n])],
    ['a view into a buffer', new Float32Array(new ArrayBuffer(32), 8, 2)],
    ['bytes', new Uint8Array([1, 2])],
    ['a buffer of bytes', new Uint8Array([7]).buffer],
    [
      'a Map',
      new Map<unknown, unknown>([
        ['a', { b: 1n }],
        [{ key: 'too' }, new Set([1])],
      ]),
    ],
    ['a Set', new Set(['a', null, -0])],
    ['a date', new Date(1234567890123)],
    ['no date', new Date(Number.NaN)],
    ['text of all kinds', 'aé漢🙂'],
  ]
  it.each(kept)('comes back as it was: %s', (_, given) => {
    for (const whole of [given, [given], { a: { b: [given, 1] } }, new Map([[1, given]])]) {
      expect(isDeepStrictEqual(decodeMsgpack(encodeValue(whole)), whole)).toBe(true)
      expect(isDeepStrictEqual(decodeMsgpack(encodeMsgpack(['x', snapshot(whole), 1])), ['x', whole, 1])).toBe(true)
      expect(measure(whole)).toBeGreaterThanOrEqual(typeof given === 'string' ? 0 : encodeValue(whole).length)
    }
  })

  it('comes back as it was: 70,000 members', () => {
    const given = { all: members(70_000) }
    expect(isDeepStrictEqual(decodeMsgpack(encodeValue(given)), given)).toBe(true)
  })

  it('of another realm comes back as one of this', () => {
    const given: unknown = runInNewContext(
      '({ d: new Date(5), m: new Map([[1, [2]]]), f: new Float32Array([1]), b: new Uint8Array([3]), l: [{ a: 1 }] })',
    )
    const wanted = {
      d: new Date(5),
      m: new Map([[1, [2]]]),
      f: new Float32Array([1]),
      b: new Uint8Array([3]),
      l: [{ a: 1 }],
    }
    expect(isDeepStrictEqual(decodeMsgpack(encodeValue(given)), wanted)).toBe(true)
  })

  it('is what it was when it was given, whatever is done to it afterwards', () => {
    const list = [1]
    const taken = snapshot({ list })
    list.push(2)
    expect(decodeMsgpack(encodeMsgpack([taken]))).toEqual([{ list: [1] }])
  })

  it('that cannot be read is refused with the place', () => {
    const { proxy, revoke } = Proxy.revocable({}, {})
    revoke()
    const trap = new Proxy(
      {},
      {
        ownKeys: () => {
          throw new Error('hands off')
        },
      },
    )
    const getter = {
      get x(): number {
        throw new Error('relation not loaded')
      },
    }
    expect(() => encodeValue({ a: [proxy] })).toThrow(/^value\.a\[0\] cannot be read: /)
    expect(() => encodeValue({ a: trap })).toThrow('value.a cannot be read: hands off')
    expect(() => encodeValue([getter])).toThrow('value[0].x cannot be read: relation not loaded')
    expect(() => encodeValue([getter])).toThrow(InvalidError)
  })

  it('with a hole, a name with half a surrogate pair, or too many levels is refused with the place', () => {
    expect(() => encodeValue({ a: new Array(1) })).toThrow('value.a[0] is a hole in the list; put null there')
    expect(() => encodeValue({ a: { 'x\ud800': 1 } })).toThrow(
      'value.a has a member whose name has half a surrogate pair',
    )
    let deep: unknown = 1
    for (let i = 0; i < 10_000; i++) deep = { a: deep }
    expect(() => encodeValue(deep)).toThrow(/^value\.a\.a.{150,250} is nested deeper than 200 levels/)
    let fine: unknown = 1
    for (let i = 0; i < 199; i++) fine = [fine]
    expect(decodeMsgpack(encodeValue(fine))).toEqual(fine)
  })
})

describe('a reference that is to be JSON', () => {
  it('is copied, or refused with the place of what JSON would change', () => {
    const given = { id: 'x', parts: [1, null, { ok: true }] }
    expect(jsonCopy(given, 'ref')).toEqual(given)
    expect(jsonCopy(given, 'ref')).not.toBe(given)
    const cases: [unknown, string][] = [
      [{ at: new Date(0) }, 'ref.at '],
      [{ n: [0, Number.NaN] }, 'ref.n[1] '],
      [{ n: 1n }, 'ref.n '],
      [{ bytes: new Uint8Array(1) }, 'ref.bytes '],
      [undefined, 'ref '],
    ]
    for (const [bad, place] of cases) expect(() => jsonCopy(bad, 'ref')).toThrow(place)
  })
})

class Model {
  readonly id = 1
  toJSON(): string {
    return 'something else'
  }
}

class Hider {
  readonly #secret = 1
  get secret(): number {
    return this.#secret
  }
}

class Lister {
  [Symbol.iterator](): Iterator<string> {
    return this.#letters.values()
  }
  readonly #letters = ['a']
}

function* letters(): Generator<string> {
  yield 'a'
}

async function* slowLetters(): AsyncGenerator<string> {
  yield 'a'
}

describe('measure', () => {
  const circle: { up?: unknown } = {}
  circle.up = circle
  const refused: [string, unknown, RegExp][] = [
    ['a function', () => 1, /is a function, which cannot be stored/],
    ['a symbol', Symbol('x'), /is a symbol, which cannot be stored/],
    ['a promise', Promise.resolve(), /is a Promise; await it/],
    ['an error', new TypeError('x'), /is TypeError; store a plain object/],
    ['a DataView', new DataView(new ArrayBuffer(1)), /is DataView; store its bytes as Uint8Array/],
    ['half a surrogate pair', 'cut \ud83d', /has half a surrogate pair/],
    ['an object of a class with toJSON', new Model(), /is a Model, which would not come back as one/],
    ['a boxed text', new String('x'), /is a String, which would be stored empty/],
    ['a list with other members', 'ab'.match(/a/), /is a list with a member "index" besides its elements/],
    ['a URL', new URL('http://example.com'), /is a URL, which would be stored empty; turn it into text/],
    ['a response', new Response('x'), /is a Response, which would be stored empty/],
    ['a pattern', /x/, /is a RegExp, which would be stored empty/],
    ['a generator', letters(), /is a Generator, which would be stored empty; store the list of what it gives/],
    ['an async generator', slowLetters(), /is a AsyncGenerator, which would be stored empty/],
    ['an iterator', [1].values(), /is a Array Iterator, which would be stored empty/],
    ['entries', new Map([[1, 2]]).entries(), /is a Map Iterator, which would be stored empty/],
    ['a class that hides what it lists', new Lister(), /is a Lister, which would be stored empty/],
    ['a class that hides what it holds', new Hider(), /is a Hider, which would be stored empty/],
  ]
  it.each(refused)('refuses %s and says where it is', (_, given, why) => {
    const places: [unknown, string][] = [
      [given, 'value'],
      [[0, given], 'value[1]'],
      [{ items: [{ callback: given }] }, 'value.items[0].callback'],
    ]
    for (const [whole, place] of places) {
      expect(() => measure(whole)).toThrow(InvalidError)
      expect(() => measure(whole)).toThrow(why)
      expect(() => measure(whole)).toThrow(`${place} `)
      expect(() => encodeValue(whole)).toThrow(`${place} `)
    }
    expect(() => measure([given], 'key[3]')).toThrow('key[3][0] ')
  })

  it('refuses a member __proto__, which would come back under another name', () => {
    const given: unknown = JSON.parse('{"a":[{"__proto__":1}]}')
    expect(() => measure(given)).toThrow('value.a[0] has a member __proto__, which cannot be stored')
  })

  it('refuses what contains itself, and takes what is only used twice', () => {
    expect(() => measure({ a: circle })).toThrow('value.a.up refers back to a value that contains it')
    const shared = { x: 1 }
    expect(() => measure([shared, shared, { shared }])).not.toThrow()
  })

  it('is near what the value takes when encoded, and not below by much', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.dictionary(
            // Refused, as a test of its own says.
            fc.string({ unit: 'grapheme-ascii' }).filter((key) => key !== '__proto__'),
            fc.oneof(fc.string({ unit: 'grapheme-ascii' }), fc.integer()),
          ),
        ),
        (given) => {
          expect(measure(given)).toBeGreaterThanOrEqual(encodeMsgpack(given).length)
        },
      ),
      runs(100),
    )
  })
})
