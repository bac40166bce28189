import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { InvalidError } from '../../streams/errors.ts'
import {
  canonicalKey,
  checkKey,
  compareKeys,
  HashSet,
  normalizeKey,
  sameKey,
  scatterKeyHash,
  scatterKeyNumber,
} from '../../streams/keys.ts'
import { codePoint } from '../kit/any-text.ts'
import { runs } from '../kit/runs.ts'

/** The same value with the members of every object in another order. */
function turned(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(turned)
  if (typeof value !== 'object' || value === null) return value
  const entries = Object.entries(value).map(([name, member]) => [name, turned(member)] as const)
  return Object.fromEntries(entries.toReversed())
}

/** RFC 8785 as it reads, without any short way. */
function plainly(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(plainly).join(',')}]`
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
  return `{${entries.map(([name, member]) => `${JSON.stringify(name)}:${plainly(member)}`).join(',')}}`
}

// JSON.stringify and an object literal disagree on members called __proto__; no key has one.
const keys = fc.jsonValue().filter((value) => !JSON.stringify(value).includes('__proto__'))

const { vectors } = JSON.parse(readFileSync(new URL('../../docs/scatter-keys.json', import.meta.url), 'utf8')) as {
  vectors: { what: string; key: unknown; canonical: string; hash: string }[]
}

describe('the documented vectors', () => {
  it.each(vectors)('$what: $canonical', ({ key, canonical, hash }) => {
    expect(canonicalKey(key)).toBe(canonical)
    expect(scatterKeyHash(key)).toBe(hash)
  })

  it('are those of RFC 8785, where it has some', () => {
    const values = vectors.find(({ what }) => what.includes('section 3.2.2'))
    // As it stands in section 3.2.3, without the line ends that are there for display.
    expect(values?.canonical).toBe(
      String.raw`{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}`,
    )
    const sorted = vectors.find(({ what }) => what.includes('section 3.2.3'))
    expect(Object.values(JSON.parse(sorted?.canonical ?? '{}')).toSorted()).toHaveLength(7)
    const order = ['Carriage Return', 'One', 'Control', 'Latin', 'Euro', 'Emoji', 'Hebrew'].map((name) =>
      sorted?.canonical.indexOf(`"${name}`),
    )
    expect(order).toEqual(order.toSorted((a = -1, b = -1) => a - b))
    expect(order).not.toContain(-1)
  })
})

describe('the hash of a key', () => {
  it.each<[unknown, string, string]>([
    ['a', '"a"', '5271bc5453102389'],
    [{ path: '/a', n: 1 }, '{"n":1,"path":"/a"}', '87d5b8d0ecc58ccc'],
    [[1, 2.5, null, 'é'], '[1,2.5,null,"é"]', '1beca60edde724d9'],
  ])('of %j is that of %s: %s, in any process and language', (key, text, hash) => {
    expect(canonicalKey(key)).toBe(text)
    expect(scatterKeyHash(key)).toBe(hash)
    expect(scatterKeyNumber(key)).toBe(BigInt(`0x${hash}`))
  })
})

describe('the canonical text of a key', () => {
  it('does not depend on the order of members, at any depth', () => {
    fc.assert(
      fc.property(keys, (key) => {
        expect(canonicalKey(turned(key))).toBe(canonicalKey(key))
        expect(sameKey(turned(key), key)).toBe(true)
      }),
      runs(200),
    )
  })

  it('is JSON after RFC 8785, and stands for the same value', () => {
    fc.assert(
      fc.property(keys, (key) => {
        expect(canonicalKey(key)).toBe(plainly(key))
        // JSON.parse and stringify first: -0 is 0 in JSON.
        expect(JSON.parse(canonicalKey(key))).toEqual(JSON.parse(JSON.stringify(key)))
      }),
      runs(200),
    )
  })

  it('depends on the order of a list, and on types', () => {
    expect(sameKey([1, 2], [2, 1])).toBe(false)
    expect(sameKey(1, '1')).toBe(false)
    expect(sameKey({ a: null }, {})).toBe(false)
    expect(sameKey([], {})).toBe(false)
  })

  it.each<[string, unknown, string]>([
    ['leaves out members that are undefined', { b: undefined, a: 1, c: undefined }, '{"a":1}'],
    ['leaves them out also where the members are not in order', { c: 1, b: undefined, a: 'x' }, '{"a":"x","c":1}'],
    ['has null for what is undefined in a list', [undefined, 1], '[null,1]'],
    ['has null for undefined', undefined, 'null'],
    ['has ISO 8601 for a date', new Date(0), '"1970-01-01T00:00:00.000Z"'],
    ['has ISO 8601 for a date in an object', { at: new Date(0), a: 1 }, '{"a":1,"at":"1970-01-01T00:00:00.000Z"}'],
    ['has base64 for bytes', new Uint8Array([1, 2, 3]), '"AQID"'],
    ['has base64 for bytes in a list', [Buffer.from('hi')], '["aGk="]'],
    ['has 0 for -0', -0, '0'],
    ['has 0 for -0 in an object', { a: -0 }, '{"a":0}'],
    ['has numbers as ECMAScript prints them', [1e21, 1e-7, 100], '[1e+21,1e-7,100]'],
    ['sorts members as text, and not as numbers', { 10: 1, 9: 1, a: 1 }, '{"10":1,"9":1,"a":1}'],
    ['sorts by UTF-16 code units', { '\u{1f600}': 1, '\ufb33': 2 }, '{"\u{1f600}":1,"\ufb33":2}'],
    ['of an empty object is {}', {}, '{}'],
    // biome-ignore lint/suspicious/noSparseArray: this is what is tested
    ['has null for a hole in a list', [, 1], '[null,1]'],
    ['takes an object without a prototype as any other', Object.assign(Object.create(null), { a: 1 }), '{"a":1}'],
    ['keeps what only looks like half a surrogate pair', '\\ud83d', '"\\\\ud83d"'],
    ['keeps whole surrogate pairs', { '\u{1f600}': ['\u{1f600}'] }, '{"\u{1f600}":["\u{1f600}"]}'],
    ['has no escape for what needs none', '\u2028\u007f/', '"\u2028\u007f/"'],
  ])('the canonical text of a key %s', (_, key, text) => {
    expect(canonicalKey(key)).toBe(text)
  })
})

describe('a key', () => {
  const circle: Record<string, unknown> = {}
  circle.self = circle
  let deep: unknown = 1
  for (let i = 0; i < 200; i++) deep = [deep]

  it.each<[string, unknown, RegExp]>([
    ['NaN', Number.NaN, /^key is NaN/],
    ['infinity in a list', [1, Number.POSITIVE_INFINITY], /^key\[1\] is Infinity/],
    ['a function', () => 1, /^key is a function/],
    ['a function in an object', { a: { b: () => 1 } }, /^key\.a\.b is a function/],
    ['a symbol', Symbol('s'), /^key is a symbol/],
    ['a bigint', { n: 1n }, /^key\.n is a bigint/],
    ['NaN in an object', { n: Number.NaN }, /^key\.n is NaN/],
    ['what refers to itself', circle, /refers to itself/],
    ['what is nested too deeply', deep, /nested too deeply/],
    ['a date that is none', new Date(Number.NaN), /^key is an invalid date/],
    ['half a surrogate pair', 'a\ud83d', /^key has half a surrogate pair/],
    ['half a surrogate pair in an object', { a: ['\ude00b'] }, /^key\.a\[0\] has half a surrogate pair/],
    ['half a surrogate pair as a name', { '\ud83d': 1 }, /^key has a member whose name has half a surrogate pair/],
    ['a member __proto__', JSON.parse('{"a":{"__proto__":1}}'), /^key\.a has a member __proto__/],
    ['a URL', { at: new URL('http://example.com') }, /^key\.at is a URL; turn it into text/],
    ['a map', new Map([[1, 2]]), /^key is a Map; turn it into/],
    ['a set', [new Set([1])], /^key\[0\] is a Set; turn it into/],
    ['an error', new Error('x'), /^key is a Error; turn it into/],
    ['numbers as bytes', new Float64Array(1), /^key is a Float64Array; turn it into/],
    ['a pattern', /x/, /^key is a RegExp; turn it into/],
    ['what turns itself into JSON', { toJSON: () => 'x' }, /^key has a toJSON function; call it first/],
  ])('is refused when it is %s, and where is said', (_, key, message) => {
    const refused = () => canonicalKey(key)
    expect(refused).toThrow(InvalidError)
    expect(refused).toThrow(message)
  })
})

describe('keys', () => {
  it('become plain values with their members in order, the same for the same', () => {
    const key = { b: new Date(0), a: [undefined, new Uint8Array([1])], c: undefined }
    expect(normalizeKey(key)).toEqual({ a: [null, 'AQ=='], b: '1970-01-01T00:00:00.000Z' })
    expect(Object.keys(Object(normalizeKey({ b: 1, a: 1 })))).toEqual(['a', 'b'])
    fc.assert(
      fc.property(keys, (one) => {
        expect(JSON.stringify(normalizeKey(turned(one)))).toBe(JSON.stringify(normalizeKey(one)))
        expect(sameKey(normalizeKey(one), one)).toBe(true)
      }),
      runs(100),
    )
  })

  it('have an order, and it is that of their texts', () => {
    expect([{ b: 1 }, 'b', 2, [1], 'a', { a: 2 }, 10].toSorted(compareKeys)).toEqual([
      'a',
      'b',
      10,
      2,
      [1],
      { a: 2 },
      { b: 1 },
    ])
    expect(compareKeys({ a: 1, b: 2 }, { b: 2, a: 1 })).toBe(0)
  })

  it('are checked without their text just as with it', () => {
    fc.assert(
      fc.property(fc.jsonValue({ stringUnit: codePoint }), fc.constantFrom('', '\ud83d', '\ude00'), (value, half) => {
        const key = { value, half }
        const refused = (check: (key: unknown) => unknown): boolean => {
          try {
            check(key)
            return false
          } catch (error) {
            if (error instanceof InvalidError) return true
            throw error
          }
        }
        expect(refused(checkKey)).toBe(refused(canonicalKey))
        if (half !== '') expect(refused(checkKey)).toBe(true)
      }),
      runs(100),
    )
  })
})

describe('a set of hashes', () => {
  it('says of each whether it is new, as a Set does, also past its first size', () => {
    const hash = fc.oneof(
      fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      // Those that meet in one slot, and repeat.
      fc.bigInt({ min: 1n, max: 40n }).map((n) => n * 2n ** 32n + 5n),
    )
    fc.assert(
      fc.property(fc.array(hash, { maxLength: 3000, size: 'max' }), (hashes) => {
        const set = new HashSet()
        const model = new Set<bigint>()
        for (const one of hashes) {
          // 0 is taken for 1: one hash in 2^64.
          const known = one === 0n ? 1n : one
          if (set.add(one) !== !model.has(known)) return false
          model.add(known)
          if (set.size !== model.size) return false
        }
        return true
      }),
      runs(20),
    )
  })

  it('finds again every one of 100,000 after it has grown', () => {
    const set = new HashSet()
    for (let i = 0; i < 100_000; i++) if (!set.add(scatterKeyNumber(i))) throw new Error(`${i} is taken for known`)
    for (let i = 0; i < 100_000; i++) if (set.add(scatterKeyNumber(i))) throw new Error(`${i} is forgotten`)
    expect(set.size).toBe(100_000)
  })
})
