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

it('a reader takes no more messages than it has room for, also when what it asked for comes late', async () => {
  const heard = new Map<string, (error: null, message: object) => void>()
  const nc = {
    options: {},
    subscribe: (subject: string, { callback }: { callback: (error: null, message: object) => void }) => {
      heard.set(subject.slice(subject.lastIndexOf('.') + 1), callback)
      return { unsubscribe: () => undefined, drain: async () => undefined }
    },
  }
  const connection = {
    ...{ nc, isClosed: false, isUp: true },
    ...{ onReconnect: () => () => undefined, tell: () => undefined },
  } as unknown as Connection
  const deliveries = new Deliveries(connection, 'S', 'C')
  const { signal } = new AbortController()
  const taking = deliveries.take(5, signal)
  // Nothing came to the request for what is there, so the next message is asked for, too.
  await vi.advanceTimersByTimeAsync(2500)
  for (let seq = 1; seq <= 6; seq++) {
    const reply = `$JS.ACK.S.C.1.${seq}.${seq}.0.${6 - seq}`
    heard.get(seq === 1 ? 'block' : 'quick')?.(null, { subject: 's', data: Buffer.of(), reply })
  }
  expect((await taking).map(({ streamSeq }) => streamSeq)).toEqual([1, 2, 3, 4, 5])
  expect((await deliveries.take(5, signal)).map(({ streamSeq }) => streamSeq)).toEqual([6])
  await deliveries.close()
})
