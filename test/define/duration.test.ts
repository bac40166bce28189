import { describe, expect, it } from 'vitest'
import { parseDuration, parseRange } from '../../src/options/duration.ts'
import { InvalidError } from '../../streams/errors.ts'

describe('a duration', () => {
  it.each([
    ['500ms', 500],
    ['30s', 30_000],
    ['1.5s', 1500],
    ['15m', 900_000],
    ['2h', 7_200_000],
    ['7d', 604_800_000],
    [' 1s ', 1000],
    [0, 0],
    [1250, 1250],
  ])('%s is %i ms', (text, ms) => expect(parseDuration('timeout', text)).toBe(ms))

  it.each([
    ['', '""'],
    ['-1s', '"-1s"'],
    ['1w', '"1w"'],
    ['s', '"s"'],
    ['1 s', '"1 s"'],
    [-1, '-1'],
    [Number.NaN, 'NaN'],
    [Number.POSITIVE_INFINITY, 'Infinity'],
    [10n, '10n'],
    [() => 1, 'a function'],
    [Symbol('s'), 'Symbol(s)'],
    [{ of: 10n }, 'an object that cannot be shown'],
    [undefined, 'undefined'],
    [null, 'null'],
  ])('%s is none, and the error names field, forms and what came', (value, got) => {
    expect(() => parseDuration('asset a: timeout', value)).toThrow(InvalidError)
    expect(() => parseDuration('asset a: timeout', value)).toThrow(
      /^asset a: timeout must be milliseconds or text such as '500ms'/,
    )
    expect(() => parseDuration('asset a: timeout', value)).toThrow(`got ${got}`)
  })
})

it('a number as text lacks its unit', () => {
  for (const value of ['30', '1.5', '0'])
    expect(() => parseDuration('--timeout', value)).toThrow(
      `--timeout needs a unit, such as '${value}s' or '${value}m', got "${value}"`,
    )
})

describe('the bounds of a duration', () => {
  it.each(['366d', '9999999d', 1e300, Number.MAX_SAFE_INTEGER])('%s is longer than a year, and refused', (value) =>
    expect(() => parseDuration('drainTimeout', value)).toThrow(
      `drainTimeout must be at most 365d, got ${JSON.stringify(value)}`,
    ),
  )

  it('can be other ones', () => {
    const bounds = { minMs: 500, maxMs: 86_400_000 }
    expect(parseDuration('ackWait', '1d', bounds)).toBe(86_400_000)
    expect(() => parseDuration('ackWait', '25h', bounds)).toThrow('ackWait must be at most 1d, got "25h"')
    expect(() => parseDuration('ackWait', 499, bounds)).toThrow('ackWait must be at least 500ms, got 499')
  })
})

describe('a range', () => {
  it.each([
    ['1s..60s', 1000, 60_000],
    ['1s..1s', 1000, 1000],
    ['5s', 5000, 5000],
    [250, 250, 250],
  ])('%s is from %i to %i ms', (text, minMs, maxMs) => expect(parseRange('backoff', text)).toEqual({ minMs, maxMs }))

  it('goes up', () => {
    expect(() => parseRange('backoff', '60s..1s')).toThrow(
      'backoff: the first wait must not be longer than the longest, got "60s..1s"',
    )
  })

  it.each(['..', '1s..', '..1s', '1s...2s', 'a..b', '1s..2s..3s', '1s..400d'])('%s is none', (text) =>
    expect(() => parseRange('backoff', text)).toThrow(InvalidError),
  )
})
