import { expect, it } from 'vitest'
import { barsOf, keyOn, shareOf, stretchOf, timeOf } from '../../src/console/state/rail.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const now = Date.parse('2026-11-28T14:32:08.000Z')

it('the rail shows the shortest stretch that holds all facts, and at most two hours', () => {
  expect(stretchOf(now, undefined, now - 3 * MINUTE)).toEqual({ from: now - 10 * MINUTE, to: now })
  expect(stretchOf(now, undefined, now - 20 * MINUTE)).toEqual({ from: now - 30 * MINUTE, to: now })
  expect(stretchOf(now, undefined, now - 9 * HOUR)).toEqual({ from: now - 2 * HOUR, to: now })
  expect(stretchOf(now, undefined, undefined)).toEqual({ from: now - 2 * HOUR, to: now })
})

it('a moment that is longer ago is in the middle, and one nearby keeps the present at the end', () => {
  const at = now - 5 * HOUR
  expect(stretchOf(now, at, now - 3 * MINUTE)).toEqual({ from: at - HOUR, to: at + HOUR })
  expect(stretchOf(now, now - HOUR, now - 3 * MINUTE)).toEqual({ from: now - 2 * HOUR, to: now })
})

it('a place on the rail is a time and back, and its end is the present', () => {
  const stretch = { from: now - 2 * HOUR, to: now }
  const time = timeOf(0.25, stretch, now)
  expect(time).toBe(now - 1.5 * HOUR)
  expect(shareOf(time ?? 0, stretch)).toBe(0.25)
  expect(timeOf(0.999, stretch, now)).toBeUndefined()
  expect(timeOf(-1, stretch, now)).toBe(stretch.from)
  const past = { from: now - 9 * HOUR, to: now - 7 * HOUR }
  expect(timeOf(1, past, now)).toBe(past.to)
})

it('keys move half a minute or ten, never behind the present', () => {
  expect(keyOn('ArrowLeft', undefined, now)).toEqual({ at: now - 30_000 })
  expect(keyOn('PageDown', now - MINUTE, now)).toEqual({ at: now - 11 * MINUTE })
  expect(keyOn('ArrowRight', now - 10_000, now)).toEqual({ at: undefined })
  expect(keyOn('End', now - HOUR, now)).toEqual({ at: undefined })
  expect(keyOn('x', now, now)).toBeUndefined()
})

it('one fact is seen beside a thousand, and none is not', () => {
  const point = (facts: number) => ({
    from: '2026-11-28T14:00:00Z',
    to: '2026-11-28T14:01:00Z',
    facts,
    failed: facts === 1,
  })
  expect(barsOf([point(0), point(1), point(1000)]).map(({ height, failed }) => [height, failed])).toEqual([
    [0, false],
    [0.1, true],
    [1, false],
  ])
})
