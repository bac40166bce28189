import { describe, expect, it } from 'vitest'
import { onDelivery } from '../../src/worker/pull/requeue.ts'

const idle = { draining: false, aloneWanted: false }
const drains = { draining: true, aloneWanted: false }
const wanted = { draining: false, aloneWanted: true }

describe('a task that comes', () => {
  it.each([
    ['for the first time to a worker with room', 1, {}, idle, 'take'],
    ['again to a worker with room, which reports it as lost', 2, {}, idle, 'take'],
    ['for the first time to one that drains', 1, {}, drains, 'return'],
    ['again to one that drains: as a new message it would have no past', 2, {}, drains, 'leave'],
    ['for the first time beside what wants to run alone', 1, {}, wanted, 'return'],
    ['again beside what wants to run alone: as a new message it would have no past', 2, {}, wanted, 'take'],
    ['and must run alone, too, so it waits its turn', 1, { alone: true }, wanted, 'take'],
    ['and must run alone, to one that drains', 1, { alone: true }, { draining: true, aloneWanted: true }, 'return'],
    [
      'again and must run alone, to one that drains',
      2,
      { alone: true },
      { draining: true, aloneWanted: true },
      'leave',
    ],
  ] as const)('a task that comes %s', (_, count, task, worker, given) => {
    expect(onDelivery({ count, late: false }, task, worker)).toBe(given)
  })

  it.each([idle, drains, wanted])(
    'late for the first time is left to the server: it may be done elsewhere',
    (worker) => {
      expect(onDelivery({ count: 1, late: true }, {}, worker)).toBe('leave')
      expect(onDelivery({ count: 1, late: true }, { alone: true }, worker)).toBe('leave')
    },
  )
})
