import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { RecentEvents } from '../../src/worker/events/recent.ts'

beforeEach(() => void vi.useFakeTimers({ toFake: ['performance'] }))
afterEach(() => void vi.useRealTimers())

const event = (seq: number, n: number) => ({ seq, key: 'daily', input: { n: { json: n } } })

it('a message is a repeated one for a while after the first, and starts a run again once that may be pruned', () => {
  const recent = new RecentEvents()
  const isRepeated = (seq: number, n: number): boolean => {
    const seen = new Map<string, string>()
    const repeated = recent.isRepeated(event(seq, n), seen)
    recent.remember(seen)
    return repeated
  }
  expect(isRepeated(1, 5)).toBe(false)
  expect(isRepeated(2, 5)).toBe(true)
  expect(isRepeated(3, 6)).toBe(false)
  vi.advanceTimersByTime(59_000)
  expect(isRepeated(4, 5)).toBe(true)
  // A run with a key is kept for three minutes at the least.
  vi.advanceTimersByTime(120_000)
  expect(isRepeated(5, 5)).toBe(false)
  expect(isRepeated(6, 5)).toBe(true)
})

it('a message is a repeated one beside the first in what is not stored yet', () => {
  const recent = new RecentEvents()
  const seen = new Map<string, string>()
  expect([event(1, 5), event(2, 5), event(3, 6)].map((one) => recent.isRepeated(one, seen))).toEqual([
    ...[false, true, false],
  ])
  expect(recent.isRepeated({ ...event(4, 5), refused: 'why' }, seen)).toBe(false)
})
