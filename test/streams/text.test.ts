import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { nearest } from '../../streams/did-you-mean.ts'
import { checkText, cut, printable } from '../../streams/text.ts'
import { codePoint } from '../kit/any-text.ts'
import { runs } from '../kit/runs.ts'

it('a text is cut without cutting a character in two, whatever it is', () => {
  fc.assert(
    fc.property(fc.string({ unit: codePoint }), fc.string(), fc.nat({ max: 12 }), (whole, other, max) => {
      for (const text of [whole + other, other + whole, `${whole}\ud800`]) {
        const short = cut(text, max)
        expect(short.isWellFormed()).toBe(true)
        expect(short.length).toBeLessThanOrEqual(max)
        expect(text.toWellFormed().startsWith(short)).toBe(true)
        expect(short.length).toBeGreaterThanOrEqual(Math.min(text.length, max) - 1)
      }
    }),
    runs(100),
  )
  expect(cut('a🙂b', 2, '…')).toBe('a…')
  expect(cut('a🙂b', 4, '…')).toBe('a🙂b')
})

it('half a surrogate pair is refused with the name of the field', () => {
  expect(checkText('key', 'a🙂')).toBe('a🙂')
  for (const half of ['\ud800', 'a\udc00', '\udc00\ud800'])
    expect(() => checkText('key', half)).toThrow('key has half a surrogate pair')
})

it('no other code cuts texts of others by itself', () => {
  const files = ['src', 'projections', 'streams'].flatMap((root) =>
    readdirSync(root, { recursive: true, encoding: 'utf8' }).map((file) => join(root, file)),
  )
  const cutting = /(message|reason|comment|text|stack|value|error\))\)?\.slice\(0, [A-Z\d]/
  const found = files.filter((file) => /\.tsx?$/.test(file) && cutting.test(readFileSync(file, 'utf8')))
  // They cut what they have checked to be of ASCII, or bytes.
  expect(
    found.filter((file) => !['src/gates/token.ts', 'streams/text.ts', 'src/http/shared/recorded.ts'].includes(file)),
  ).toEqual([])
})

describe('what is printed', () => {
  it.each([
    ['an escape sequence', '\u001b[2J', '\\u001b[2J'],
    ['one of C1', '\u009b2J\u0085', '\\u009b2J\\u0085'],
    ['delete', '\u007f', '\\u007f'],
    ['marks that turn text around', 'a\u202egpj.exe\u2066', 'a\\u202egpj.exe\\u2066'],
    ['separators of lines', 'a\u2028b\r\n', 'a\\u2028b\\r\\n'],
    ['hidden tags', '\u{e0041}', '\\udb40\\udc41'],
    ['a space of no width', 'a\u200bb', 'a\\u200bb'],
  ])('shows %s as an escape', (_, text, shown) => {
    expect(printable(text)).toBe(shown)
    expect(JSON.parse(printable(JSON.stringify(text)))).toBe(text)
  })

  it('is left alone where it is text', () => {
    const text = 'Zürich 東京 שלום 👩‍🚀'
    expect(printable(text)).toBe(text)
    expect(printable('two\n\tlines', { lines: true })).toBe('two\n\tlines')
  })
})

it('near names leave out assets that nobody may name, those of sensors and schedules', () => {
  expect(nearest('zzzzzzzz', ['report', 'sensor__look'])).toBe('; there are: report')
  expect(nearest('sensor_look', ['report', 'sensor__look'])).toBe('; there are: report')
  expect(nearest('my_asset', ['my__asset'])).toBe('; did you mean my__asset?')
})
