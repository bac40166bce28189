import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { FlowsAt } from '../../src/http/api/flow-at.ts'
import type { ApiFlow } from '../../src/http/api/route.ts'

const read = (): undefined => undefined
/** Counts how often it is asked for a time. */
const asked = vi.fn(() => new Proxy({}, { get: () => read }))
const flow = { at: asked, namespace: 'ns', shards: 1 } as unknown as ApiFlow
const now = new Date('2026-01-02')
const at = (n: number): Date => new Date(n)

beforeEach(() => {
  vi.useFakeTimers({ now })
  asked.mockClear()
})
afterEach(() => vi.useRealTimers())

it('what was read for a moment is kept for a minute, of four moments', () => {
  const flows = new FlowsAt(flow, undefined)
  const first = flows.at(at(1))
  expect(flows.at(at(1))).toBe(first)
  for (const n of [2, 3, 4]) flows.at(at(n))
  expect(asked).toHaveBeenCalledTimes(4)
  flows.at(at(5))
  expect(flows.at(at(1))).not.toBe(first)
  asked.mockClear()
  vi.advanceTimersByTime(60_000)
  for (const n of [3, 4, 5]) flows.at(at(n))
  expect(asked).toHaveBeenCalledTimes(3)
})

it('nothing is kept of a moment that was just now, nor once all is closed', () => {
  const closing = new AbortController()
  const flows = new FlowsAt(flow, closing.signal)
  expect(flows.at(now)).not.toBe(flows.at(now))
  const kept = flows.at(at(1))
  closing.abort()
  expect(flows.at(at(1))).not.toBe(kept)
  expect(flows.at(at(1))).not.toBe(flows.at(at(1)))
})
