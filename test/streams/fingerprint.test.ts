import { expect, it } from 'vitest'
import { canonicalJson } from '../../streams/fingerprint.ts'

it.each([
  [{ a: 1, b: [{ c: 2, d: null }] }, '{"a":1,"b":[{"c":2,"d":null}]}'],
  [{ b: 1, a: { d: undefined, c: 2 } }, '{"a":{"c":2},"b":1}'],
  [[{ b: 1, a: 2 }], '[{"a":2,"b":1}]'],
  [{ 10: 'x', 9: 'y', a: 'z' }, '{"9":"y","10":"x","a":"z"}'],
  ['text', '"text"'],
  [null, 'null'],
])('canonical JSON of %j has members in the order of their names', (value, text) => {
  expect(canonicalJson(value)).toBe(text)
})
