import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { Parts } from '../../src/client/parts.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

it('a close waits for an engine that cannot store what it has for some seconds, and no longer', async () => {
  const parts = new Parts()
  await parts.add({ stop: () => new Promise<never>(() => undefined) })
  let closed = false
  let leftMs = 0
  void parts.stop().then((ms) => {
    closed = true
    leftMs = ms
  })
  await vi.advanceTimersByTimeAsync(9000)
  expect(closed).toBe(false)
  await vi.advanceTimersByTimeAsync(1100)
  expect(closed).toBe(true)
  expect(leftMs, 'what is stored behind it has the rest of that time').toBe(500)
})

it('what has started when its flow is closed is stopped, and says so', async () => {
  const parts = new Parts()
  await parts.stop()
  const stop = vi.fn(async () => undefined)
  await expect(parts.add({ stop })).rejects.toMatchObject({ code: 'closed' })
  expect(stop).toHaveBeenCalledOnce()
})
