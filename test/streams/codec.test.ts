import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  CONTENT_TYPE,
  decode,
  decodeMsgpack,
  encodeJson,
  encodeMsgpack,
  isJsonSafe,
  measure,
} from '../../streams/codec.ts'
import { InvalidError } from '../../streams/errors.ts'

/** What the wire keeps: all but -0, which MessagePack has no place for. */
const value = fc.letrec((tie) => ({
  any: fc.oneof(
    { depthSize: 'small' },
    fc.string({ unit: 'grapheme' }),
    fc.double().map((n) => (Object.is(n, -0) ? 0 : n)),
    fc.integer(),
    fc.maxSafeInteger(),
    fc.boolean(),
    fc.constant(null),
    fc.constant(undefined),
    fc.date({ noInvalidDate: true }),
    fc.uint8Array({ maxLength: 40 }),
    fc.array(tie('any'), { maxLength: 5 }),
    fc.dictionary(
      fc.string().filter((key) => key !== '__proto__'),
      tie('any'),
      { maxKeys: 5, noNullPrototype: true },
    ),
  ),
})).any

describe('MessagePack', () => {
  it('gives every value back that measure lets through', () => {
    fc.assert(
      fc.property(value, (given) => {
        expect(measure(given)).toBeGreaterThan(0)
        expect(decodeMsgpack(encodeMsgpack(given))).toStrictEqual(given)
      }),
      { numRuns: 500 },
    )
  })

  it('does not write on bytes it gave out before', () => {
    const first = encodeMsgpack({ a: 'first' })
    const copy = Uint8Array.from(first)
    for (let i = 0; i < 1000; i++) encodeMsgpack({ a: `later ${i}` })
    expect(first).toEqual(copy)
  })

  it('gives bytes as Uint8Array, also out of a Buffer', () => {
    const bytes = Buffer.from(encodeMsgpack({ raw: new Uint8Array([1, 2]) }))
    expect(decodeMsgpack(bytes)).toStrictEqual({ raw: new Uint8Array([1, 2]) })
  })

  it('says why a value cannot be encoded', () => {
    const circle: { self?: unknown } = {}
    circle.self = circle
    expect(() => encodeMsgpack(circle)).toThrow(
      /^value cannot be encoded: it refers to itself, or is nested too deeply/,
    )
  })
})

describe('JSON', () => {
  it('gives back what isJsonSafe says it does', () => {
    fc.assert(
      fc.property(value, (given) => {
        if (isJsonSafe(given)) expect(decode(encodeJson(given), CONTENT_TYPE.json)).toStrictEqual(given)
      }),
      { numRuns: 500 },
    )
  })

  const unsafe: [string, unknown][] = [
    ['undefined', undefined],
    ['NaN', Number.NaN],
    ['infinity', Number.POSITIVE_INFINITY],
    ['-0', -0],
    ['a bigint', 1n],
    ['a function', () => 1],
    ['a symbol', Symbol('x')],
    ['a date', new Date(0)],
    ['bytes', new Uint8Array(1)],
    ['a map', new Map()],
    ['a hole in an array', new Array(1)],
    ['a key __proto__', JSON.parse('{"__proto__":1}')],
    ['an instance of a class', new (class Point {})()],
  ]
  it.each(unsafe)('is not safe for %s, at any depth', (_, given) => {
    for (const at of [given, [given], { a: { b: [given] } }]) expect(isJsonSafe(at)).toBe(false)
  })

  it.each([[null], [''], [0], [[]], [{}], [{ a: [1, 'x', null, { b: true }] }], [Object.create(null)]])(
    'is safe for %j',
    (given) => {
      expect(isJsonSafe(given)).toBe(true)
    },
  )

  it('is not safe for what is nested without end', () => {
    const circle: unknown[] = []
    circle.push(circle)
    expect(isJsonSafe(circle)).toBe(false)
  })
})

class Hider {
  readonly #secret = 1
  get secret(): number {
    return this.#secret
  }
}

describe('measure', () => {
  const circle: { up?: unknown } = {}
  circle.up = circle
  const refused: [string, unknown, RegExp][] = [
    ['a bigint', 1n, /is a bigint, which cannot be stored; use a number or a string/],
    ['a function', () => 1, /is a function, which cannot be stored/],
    ['a symbol', Symbol('x'), /is a symbol, which cannot be stored/],
    ['a promise', Promise.resolve(), /is a Promise; await it/],
    ['a map', new Map(), /is a Map; turn it into an object/],
    ['a set', new Set(), /is a Set; turn it into an object/],
    ['an error', new TypeError('x'), /is TypeError; store a plain object/],
    ['another typed array', new Float64Array(1), /is Float64Array; store a plain object, or bytes as Uint8Array/],
    ['an ArrayBuffer', new ArrayBuffer(1), /is ArrayBuffer/],
    ['a URL', new URL('http://example.com'), /is a URL, which would be stored empty; turn it into text/],
    ['a response', new Response('x'), /is a Response, which would be stored empty/],
    ['a pattern', /x/, /is a RegExp, which would be stored empty/],
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
      expect(() => measure(whole)).toThrow(`${place} is `)
    }
    expect(() => measure([given], 'key[3]')).toThrow('key[3][0] is ')
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
      { numRuns: 200 },
    )
  })
})
