import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { CONTENT_TYPE, decode, decodeMsgpack, encodeJson, encodeMsgpack } from '../../streams/codec.ts'
import { isJsonSafe } from '../../streams/value.ts'
import { runs } from '../kit/runs.ts'

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
  it('gives every value back', () => {
    fc.assert(
      fc.property(value, (given) => {
        expect(decodeMsgpack(encodeMsgpack(given))).toStrictEqual(given)
      }),
      runs(200),
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
      runs(200),
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
