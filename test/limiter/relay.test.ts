import { expect, it } from 'vitest'
import { questionIn } from '../../src/limiter/relay.ts'
import { encodeMsgpack } from '../../streams/codec.ts'

const rate = { shape: 'window', limit: 5, periodMs: 1000, burst: 5 } as const
const asking = (...asks: unknown[]) => questionIn(encodeMsgpack({ bucket: 'b', rate, untilMs: 1, asks }))

it('a question is read with each of its parts', () => {
  const check = { kind: 'check', n: 5 } as const
  expect(asking([2, check], [1, { kind: 'give back', n: 9, atMs: 3 }])?.asks).toEqual([
    check,
    check,
    { kind: 'give back', n: 9, atMs: 3 },
  ])
})

it.each(['check', 'peek', 'wait'])('%s of more than the limit ever has at once is no question', (kind) => {
  expect(asking([1, { kind, n: 6, maxWaitMs: 1 }])).toBeUndefined()
  expect(asking([1, { kind, n: 5, maxWaitMs: 1 }])).toBeDefined()
})

it.each([[[[0, { kind: 'check', n: 1 }]]], [[[1, { kind: 'check', n: 0.5 }]]], [[[1, { kind: 'take', n: 1 }]]]])(
  '%j is no question',
  (asks) => {
    expect(asking(...asks)).toBeUndefined()
  },
)
