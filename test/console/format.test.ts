import { expect, it } from 'vitest'
import * as f from '../../src/console/format.ts'
import { plain } from '../../src/console/plain.ts'

it('counts are exact, and a share is neither nothing nor all unless it is', () => {
  expect(f.count(750_666)).toBe('750,666')
  expect(f.counted(1, 'run')).toBe('1 run')
  expect(f.counted(0, 'run')).toBe('0 runs')
  expect(f.percent(1, 1_000_000)).toBe('0.1 %')
  expect(f.percent(999_999, 1_000_000)).toBe('99.9 %')
  expect(f.percent(999_999, 1_000_000, 0)).toBe('99 %')
  expect(f.percent(10, 10, 0)).toBe('100 %')
  expect(f.percent(0, 10)).toBe('0.0 %')
  expect(f.percent(0, 0)).toBe('0 %')
})

it('durations have one unit that fits', () => {
  const said = [0, 420, 1000, 48_000, 3_720_000, 18_720_000, 46 * 3_600_000].map(f.duration)
  expect(said).toEqual(['0 ms', '420 ms', '1 s', '48 s', '62 min', '5.2 h', '2 days'])
  expect(f.duration(-5)).toBe('0 ms')
})

it('a time is of the day, with the date when it is another day', () => {
  const now = new Date(2026, 10, 28, 14, 32, 8)
  expect(f.clock(now)).toBe('14:32:08')
  expect(f.moment(now, now.getTime())).toBe('14:32')
  expect(f.moment(new Date(2026, 10, 27, 9, 5), now.getTime())).toBe('27 Nov 09:05')
  expect(f.moment(new Date(2025, 10, 27, 9, 5), now.getTime())).toBe('27 Nov 2025 09:05')
  expect(f.utc('2026-11-28T14:32:08.120Z')).toBe('2026-11-28 14:32:08.120 UTC')
  expect(f.relative(now.getTime() + 720_000, now.getTime())).toBe('in 12 min')
  expect(f.relative(now.getTime() - 720_000, now.getTime())).toBe('12 min ago')
})

it('whatever users put somewhere becomes a text', () => {
  expect([undefined, null, 'a', 1, { $bigint: '1' }, ['<b>']].map(f.valueText)).toEqual([
    '',
    'null',
    'a',
    '1',
    '{"$bigint":"1"}',
    '["<b>"]',
  ])
  expect(f.bytes(14_336)).toBe('14 KiB')
})

it('texts of the API stand on a page without ids, and with times of the day', () => {
  const now = Date.parse('2026-11-29T11:40:00.000Z')
  const until = f.moment('2026-11-29T12:23:57.008Z', now)
  const text =
    'Run 0-mx1r6a9a-8345c05e77c82fc4 waits. check_it waits for an approval at gate 0-mx1r6a9a-8345c05e77c82fc4.check_it.a1n1 until 2026-11-29T12:23:57.008Z; without one, it fails.'
  expect(plain(text, now)).toBe(`Waits. check_it waits for an approval until ${until}; without one, it fails.`)
  expect(plain('pages scatters to 4000 instances.', now)).toBe('pages scatters to 4000 instances.')
  expect(plain('scatter 0-mx1r6a9a-8345c05e77c82fc4.pages', now)).toBe('scatter pages')
})
