import { getEventListeners } from 'node:events'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import type { Connection } from '../../src/log/connection.ts'
import { Deliveries } from '../../src/worker/events/deliveries.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

it('a reader that waits for messages for long leaves nothing behind at its signal', async () => {
  const subscription = { unsubscribe: () => undefined, drain: async () => undefined }
  const connection = {
    ...{ nc: { subscribe: () => subscription }, isClosed: false, isUp: true },
    ...{ onReconnect: () => () => undefined, tell: () => undefined },
  } as unknown as Connection
  const deliveries = new Deliveries(connection, 'S', 'C')
  const { signal } = new AbortController()
  for (let i = 0; i < 20; i++) {
    const taking = deliveries.take(10, signal)
    await vi.advanceTimersByTimeAsync(10_000)
    expect(await taking).toEqual([])
  }
  expect(getEventListeners(signal, 'abort')).toHaveLength(0)
  await deliveries.close()
})
