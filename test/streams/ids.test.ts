import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { InvalidError } from '../../streams/errors.ts'
import {
  assetName,
  barrierId,
  checkName,
  decodeToken,
  encodeToken,
  hash64,
  hashBytes64,
  newRunId,
  parseBarrierId,
  parseRunId,
  runId,
  runIdForKey,
  shardOf,
} from '../../streams/ids.ts'
import { codePoint } from '../kit/any-text.ts'
import { runs } from '../kit/runs.ts'

describe('xxh64', () => {
  // Of the reference implementation (xxhsum -H1), seed 0.
  it.each([
    ['', 'ef46db3751d8e999'],
    ['a', 'd24ec4f1a98c6e5b'],
    ['abc', '44bc2cf5ad770999'],
    ['Nobody inspects the spammish repetition', 'fbcea83c8a378bf1'],
  ])('of “%s” is %s', (text, hash) => {
    expect(hash64(text)).toBe(hash)
    expect(hashBytes64(new TextEncoder().encode(text))).toBe(hash)
  })

  it('is always 16 digits', () => {
    for (let i = 0; i < 2000; i++) expect(hash64(`${i}`)).toMatch(/^[0-9a-f]{16}$/)
  })
})

describe('run ids', () => {
  it('of a key are the same from any process, in any release', () => {
    expect(runIdForKey('order-4711', 1)).toBe(`0-k${hash64('key:1:order-4711')}${hash64('key:1:order-4711#')}`)
    // Written down here once: other processes and other languages rely on it.
    expect(runIdForKey('order-4711', 8)).toMatchInlineSnapshot(`"1-k1177df5566a77e214ff4db9ec5fad3e0"`)
  })

  it('fall into their partition', () => {
    fc.assert(
      fc.property(fc.string(), fc.integer({ min: 1, max: 64 }), (key, shards) => {
        const { id, shard } = parseRunId(runIdForKey(key, shards))
        expect(shard).toBe(shardOf(`key:1:${key}`, shards))
        expect(id.startsWith(`${shard}-`) && shard < shards).toBe(true)
      }),
      runs(200),
    )
  })

  it('that are new sort by time', () => {
    const times = [1_700_000_000_000, 1_700_000_000_001, 1_800_000_000_000]
    const ids = times.map((ms) => newRunId(ms, 'abc', 1))
    expect(ids.toSorted()).toEqual(ids)
  })

  it.each(['', 'x', '0', '0-', '12345-a', 'a-b', '0-a.b', '0-a b', '0-a*', `0-${'a'.repeat(81)}`])(
    '“%s” is none',
    (text) => {
      expect(() => parseRunId(text)).toThrow(InvalidError)
    },
  )

  it('make a scatter’s id with an asset, and come back from it', () => {
    const id = barrierId(runId(3, 'r-1'), assetName('a'))
    expect(parseBarrierId(id)).toEqual({ run: '3-r-1', asset: 'a', shard: 3 })
    for (const bad of ['0-r1', '0-r1.', '0-r1.a.b', 'x.a']) expect(() => parseBarrierId(bad)).toThrow(InvalidError)
  })
})

describe('names', () => {
  it.each(['a', 'A_b-9', '_', '-', 'x'.repeat(128)])('%s may be one', (name) =>
    expect(checkName('queue', name)).toBe(name),
  )

  it.each([
    ['', '""'],
    ['a.b', '"a.b"'],
    ['ü', '"ü"'],
    ['a b', '"a b"'],
    ['*', '"*"'],
    ['x'.repeat(129), 'xxx'],
    [undefined, 'undefined'],
    [7, 'number'],
  ])('%s may not, and the error says which field it is', (name, got) => {
    expect(() => checkName('queue', name)).toThrow(InvalidError)
    expect(() => checkName('queue', name)).toThrow(/^queue must be 1 to 128 characters of A-Z a-z 0-9 _ -/)
    expect(() => checkName('queue', name)).toThrow(got)
  })
})

describe('tokens', () => {
  const text = fc.oneof(
    fc.string({ unit: codePoint }),
    fc.string({ unit: 'grapheme' }),
    fc.stringMatching(/^[A-Za-z0-9_-]*$/),
    fc.string().map(encodeToken),
  )

  it('come back as they were, fit into a subject, and no two texts meet', () => {
    fc.assert(
      fc.property(text, text, (a, b) => {
        expect(decodeToken(encodeToken(a))).toBe(a)
        expect(encodeToken(a)).toMatch(/^[A-Za-z0-9_-]+$/)
        expect(encodeToken(a) === encodeToken(b)).toBe(a === b)
      }),
      runs(500),
    )
  })

  it.each([
    ['', '_'],
    ['a', 'a'],
    ['_a', '_X2E'],
    ['2024/01', '_MjAyNC8wMQ'],
    ['a.b', '_YS5i'],
  ])('of “%s” is %s', (plain, token) => {
    expect(encodeToken(plain)).toBe(token)
  })
})
