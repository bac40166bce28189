import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { atMost, every, sleep, after as startTimer } from '../../src/options/timer.ts'

const DAY_MS = 86_400_000

beforeEach(() => {
  vi.useFakeTimers()
})
afterEach(() => {
  vi.useRealTimers()
})

describe('a timer', () => {
  it.each([0, 1, 25 * DAY_MS, 60 * DAY_MS, 365 * DAY_MS])('of %i ms fires then and not before', (ms) => {
    const fired = vi.fn()
    startTimer(ms, fired)
    vi.advanceTimersByTime(Math.max(0, ms - 1))
    expect(fired).toHaveBeenCalledTimes(ms === 0 ? 1 : 0)
    vi.advanceTimersByTime(1)
    expect(fired).toHaveBeenCalledTimes(1)
  })

  it('of Infinity never fires, and keeps nothing', () => {
    const fired = vi.fn()
    startTimer(Number.POSITIVE_INFINITY, fired)
    expect(vi.getTimerCount()).toBe(0)
  })

  it.each([10, 60 * DAY_MS])('of %i ms that is cancelled does not fire', (ms) => {
    const fired = vi.fn()
    const timer = startTimer(ms, fired)
    vi.advanceTimersByTime(ms - 1)
    timer.cancel()
    timer.cancel()
    vi.advanceTimersByTime(2 * ms)
    expect(fired).not.toHaveBeenCalled()
    expect(vi.getTimerCount()).toBe(0)
  })

  it('needs a number', () => {
    expect(() => startTimer(Number.NaN, () => undefined)).toThrow(RangeError)
    expect(() => every(Number.NaN, () => undefined)).toThrow(RangeError)
  })

  it.each([10, 30 * DAY_MS])('that repeats every %i ms fires each time, until it is cancelled', (ms) => {
    const fired = vi.fn()
    const timer = every(ms, fired)
    vi.advanceTimersByTime(ms - 1)
    expect(fired).toHaveBeenCalledTimes(0)
    vi.advanceTimersByTime(2 * ms)
    expect(fired).toHaveBeenCalledTimes(2)
    timer.cancel()
    vi.advanceTimersByTime(2 * ms)
    expect(fired).toHaveBeenCalledTimes(2)
    expect(vi.getTimerCount()).toBe(0)
  })
})

describe('sleep', () => {
  it('takes as long as it says, a month too', async () => {
    const done = vi.fn()
    void sleep(30 * DAY_MS).then(done)
    await vi.advanceTimersByTimeAsync(30 * DAY_MS - 1)
    expect(done).not.toHaveBeenCalled()
    await vi.advanceTimersByTimeAsync(1)
    expect(done).toHaveBeenCalledTimes(1)
  })

  it('ends with the reason of its signal, and leaves no timer', async () => {
    const abort = new AbortController()
    const sleeping = sleep(DAY_MS, abort.signal)
    abort.abort(new Error('enough'))
    await expect(sleeping).rejects.toThrow('enough')
    await expect(sleep(DAY_MS, abort.signal)).rejects.toThrow('enough')
    expect(vi.getTimerCount()).toBe(0)
  })
})

describe('atMost', () => {
  it('brings what is in time, and leaves no timer', async () => {
    expect(await atMost(1000, Promise.resolve('value'))).toBe('value')
    await expect(atMost(1000, Promise.reject(new Error('no')))).rejects.toThrow('no')
    expect(vi.getTimerCount()).toBe(0)
  })

  it('brings late what is not', async () => {
    const waiting = atMost(1000, new Promise(() => undefined))
    await vi.advanceTimersByTimeAsync(1000)
    expect(await waiting).toBe('late')
  })
})
