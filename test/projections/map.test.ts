import fc from 'fast-check'
import { expect, it } from 'vitest'
import { markDone, markSuspended, newSegment } from '../../projections/scatter/bits.ts'
import {
  changedStates,
  countStates,
  decodeStates,
  encodeStates,
  instanceStates,
} from '../../projections/scatter/map.ts'
import type { BarrierState } from '../../projections/scatter/state.ts'
import { runs } from '../kit/runs.ts'

const states = fc
  .array(fc.tuple(fc.integer({ min: 0, max: 6 }), fc.integer({ min: 1, max: 400 })), { maxLength: 40 })
  .map((parts) => Uint8Array.from(parts.flatMap(([state, length]) => Array<number>(length).fill(state))))

it('the coding of states gives them back, and so do changes on top of what was before', () => {
  fc.assert(
    fc.property(states, states, (before, after) => {
      expect(decodeStates(encodeStates(after))).toEqual(after)
      const grown =
        after.length >= before.length ? after : Uint8Array.from([...after, ...before.subarray(after.length)])
      const change = changedStates(before, grown)
      const held = new Uint8Array(grown.length)
      held.set(before)
      if (change) {
        const of = held.slice(change.from, change.from + change.states.length)
        held.set(decodeStates(encodeStates(change.states), of), change.from)
      }
      expect(held).toEqual(grown)
    }),
    runs(200),
  )
})

it('a million instances in order take few bytes', () => {
  const million = new Uint8Array(1_000_000).fill(2)
  million[500_000] = 3
  expect(encodeStates(million)).toHaveLength(9)
  expect(countStates(million)).toEqual([0, 0, 999_999, 1, 0, 0, 0])
})

const open: BarrierState = {
  seq: 1,
  run: '0-x' as BarrierState['run'],
  asset: 'a',
  status: 'open',
  stored: 70_000,
  keyChunks: 1,
  fedTo: 100,
  fedKeyChunk: 0,
  succeeded: 0,
  failed: 0,
  leases: {
    '0-10-1': { left: 10, keyChunk: 0, fedMs: 0, failures: 0 },
    '10-20-1': { left: 5, to: 15, keyChunk: 0, fedMs: 0, failures: 0 },
    '30-31-2': { left: 1, keyChunk: 0, fedMs: 0, failures: 1, dueMs: 500 },
    '31-32-2': { left: 1, keyChunk: 0, fedMs: 0, failures: 1, dueMs: 50 },
  },
  delayed: 1,
  requeued: [
    { from: 15, to: 20, keyChunk: 0, ordinal: 2, failures: 0, unstarted: true },
    { from: 40, to: 42, keyChunk: 0, ordinal: 2, failures: 1 },
  ],
  deferred: [{ from: 42, to: 43, keyChunk: 0, ordinal: 2, failures: 1 }],
  retries: { 50: [2, 1, 0] },
  leaseSize: 10,
  window: 8,
  workers: {},
  startedMs: 0,
}

it('the state of an instance follows from bits, leases and retries, at the edges of segments too', () => {
  let first = newSegment()
  first = markDone(first, 2, false)
  first = markDone(first, 65_535, true)
  first = markSuspended(first, 60, true)
  const second = markDone(newSegment(), 65_536, false)
  const segmentAt = (n: number) => [first, second][n]
  const range = { from: 0, to: 70_000 }
  const at = instanceStates(open, segmentAt, range, 100)
  const named = (index: number): number | undefined => at[index]
  expect([0, 2, 12, 15, 25].map(named)).toEqual([1, 2, 1, 0, 0])
  expect([30, 31, 41, 42, 50, 60].map(named)).toEqual([4, 1, 4, 4, 4, 5])
  expect([65_534, 65_535, 65_536, 65_537].map(named)).toEqual([0, 3, 2, 0])
  expect([...instanceStates(open, segmentAt, { from: 65_535, to: 65_538 }, 100)]).toEqual([3, 2, 0])
  expect([...instanceStates(open, segmentAt, { from: 1, to: 4 }, 100)]).toEqual([1, 2, 1])
  const closed = { ...open, status: 'cancelled' } as const
  expect([...instanceStates(closed, segmentAt, { from: 59, to: 62 }, 100)]).toEqual([6, 6, 6])
  expect([...instanceStates(closed, segmentAt, { from: 1, to: 3 }, 100)]).toEqual([6, 2])
})
