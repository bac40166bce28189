import { expect, it } from 'vitest'
import { parseDate } from '../../src/options/date.ts'

it.each([
  ['2026-11-23', '2026-11-23T00:00:00.000Z'],
  [' 2026-11-23T08:00Z ', '2026-11-23T08:00:00.000Z'],
  ['2026-11-23 08:00:01.5Z', '2026-11-23T08:00:01.500Z'],
  ['2026-11-23T08:00:00+02:00', '2026-11-23T06:00:00.000Z'],
  ['2024-02-29', '2024-02-29T00:00:00.000Z'],
])('the text %j is a date', (text, expected) => {
  expect(new Date(parseDate(text) ?? Number.NaN).toISOString()).toBe(expected)
})

it.each([
  ...['', ' ', '1', '5', '2026', '2026-11', '11/23/2026', 'Nov 23 2026', 'call 1', '2026-11-23T25:00Z'],
  ...['2026-02-30', '2023-02-29', '2026-13-01', '2026-00-10', '2026-11-00', '2026-11-23T08:00Zx', '2026-11-23x'],
])('the text %j is no date, whatever Date makes of it', (text) => {
  expect(parseDate(text)).toBeUndefined()
})
