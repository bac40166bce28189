/**
 * The map of a scatter: the state of each instance, 3 bits each, run-length coded. A million
 * instances in order take some KiB, and a change of it a few bytes.
 *
 * Coding: for each run of instances in the same state a number `(length - 1) * 8 + state`, seven
 * bits a byte, the lowest first; the eighth bit says that more follow.
 */
import { isDone, SEGMENT_INSTANCES, segmentOf } from './bits.ts'
import { parseLeaseId } from './lease-id.ts'
import type { BarrierState, RequeuedRange, Segment } from './state.ts'

/** The place of a state in this list is its number on the map. */
export const INSTANCE_STATES = [
  /** Its key is stored, and it is in no lease. */
  'waiting',
  /** In a lease: on the queue, or in a worker's hands. */
  'running',
  'done',
  'failed',
  /** Failed or lost before, and to be tried again. */
  'retrying',
  /** At a signal gate. */
  'gate',
  /** The scatter ended before it had. */
  'cancelled',
  /** Only in changes: as it was before. */
  'unchanged',
] as const
export type InstanceState = (typeof INSTANCE_STATES)[number]

const [WAITING, RUNNING, DONE, FAILED, RETRYING, GATE, CANCELLED, UNCHANGED] = [0, 1, 2, 3, 4, 5, 6, 7] as const
const SEGMENT_BYTES = SEGMENT_INSTANCES / 8

export interface MapRange {
  /** Instances [from, to). */
  readonly from: number
  readonly to: number
}

/** One byte for each instance of the range. `segmentAt`: the bits of a segment, if any are set. */
export function instanceStates(
  barrier: Readonly<BarrierState>,
  segmentAt: (n: number) => Segment | undefined,
  { from, to }: MapRange,
  nowMs: number,
): Uint8Array {
  const states = new Uint8Array(Math.max(0, to - from))
  const fill = (begin: number, end: number, state: number): void => {
    if (end > from && begin < to) states.fill(state, Math.max(begin, from) - from, Math.min(end, to) - from)
  }
  if (barrier.status === 'open') fillOpen(barrier, fill, nowMs)
  else states.fill(CANCELLED)
  for (let n = segmentOf(from); n * SEGMENT_INSTANCES < to; n++) {
    const segment = segmentAt(n)
    if (segment) fillSegment(states, from, segment, n)
  }
  return states
}

/** What is open and not done: retries first, because one of them may be in a lease. */
function fillOpen(
  { requeued, deferred = [], retries, leases }: Readonly<BarrierState>,
  fill: (begin: number, end: number, state: number) => void,
  nowMs: number,
): void {
  const again = ({ failures, lost, unstarted }: RequeuedRange): number =>
    failures > 0 || lost || !unstarted ? RETRYING : WAITING
  for (const range of requeued) fill(range.from, range.to, again(range))
  for (const range of deferred) fill(range.from, range.to, RETRYING)
  for (const index of Object.keys(retries)) fill(Number(index), Number(index) + 1, RETRYING)
  for (const [id, { to, dueMs }] of Object.entries(leases)) {
    const lease = parseLeaseId(id)
    if (lease) fill(lease.from, to ?? lease.to, dueMs !== undefined && dueMs > nowMs ? RETRYING : RUNNING)
  }
}

/** Byte by byte of the bits: most are all done, or not at all. */
function fillSegment(states: Uint8Array, from: number, segment: Segment, n: number): void {
  const start = n * SEGMENT_INSTANCES
  const end = Math.min(SEGMENT_INSTANCES, from + states.length - start)
  const [failedAt, suspendedAt] = [SEGMENT_BYTES, 2 * SEGMENT_BYTES]
  for (let at = Math.max(0, from - start) >> 3; at << 3 < end; at++) {
    const [done, failed, suspended] = [segment[at], segment[failedAt + at], segment[suspendedAt + at]]
    if (!done && !suspended) continue
    for (let bit = 0; bit < 8; bit++) {
      const place = start + (at << 3) + bit - from
      if (place < 0 || place >= states.length) continue
      const mask = 1 << bit
      if (((done ?? 0) & mask) !== 0) states[place] = ((failed ?? 0) & mask) === 0 ? DONE : FAILED
      else if (((suspended ?? 0) & mask) !== 0 && states[place] !== CANCELLED) states[place] = GATE
    }
  }
}

/** The states as runs: see the head of this file. */
export function encodeStates(states: Uint8Array): Uint8Array {
  const bytes: number[] = []
  for (let i = 0; i < states.length; ) {
    const state = states[i] ?? 0
    let end = i + 1
    while (end < states.length && states[end] === state) end++
    put(bytes, (end - i - 1) * 8 + state)
    i = end
  }
  return Uint8Array.from(bytes)
}

/** By division: a run of many millions has more than 32 bits. */
function put(bytes: number[], number: number): void {
  let rest = number
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128)
  bytes.push(rest)
}

/** What `encodeStates` made, again. `before`: the states that changes are of. */
export function decodeStates(bytes: Uint8Array, before?: Uint8Array): Uint8Array {
  const runs: [length: number, state: number][] = []
  let length = 0
  for (let i = 0; i < bytes.length; ) {
    let number = 0
    for (let factor = 1; ; factor *= 128) {
      const byte = bytes[i++] ?? 0
      number += (byte & 127) * factor
      if (byte < 128) break
    }
    const run: [number, number] = [Math.floor(number / 8) + 1, number % 8]
    runs.push(run)
    length += run[0]
  }
  const states = new Uint8Array(length)
  if (before) states.set(before.subarray(0, length))
  let at = 0
  for (const [count, state] of runs) {
    if (state !== UNCHANGED) states.fill(state, at, at + count)
    at += count
  }
  return states
}

/**
 * What is other than before, from the first such instance to the last; undefined where nothing is.
 * What was not there before is a change.
 */
export function changedStates(
  before: Uint8Array,
  after: Uint8Array,
): { readonly from: number; readonly states: Uint8Array } | undefined {
  let from = 0
  while (from < after.length && from < before.length && before[from] === after[from]) from++
  let end = after.length
  while (end > from && end <= before.length && before[end - 1] === after[end - 1]) end--
  if (end <= from) return undefined
  const states = after.slice(from, end)
  for (let i = 0; i < states.length && from + i < before.length; i++)
    if (before[from + i] === states[i]) states[i] = UNCHANGED
  return { from, states }
}

/** How many there are of each state, by its number. */
export function countStates(states: Uint8Array, from = 0, to = states.length): number[] {
  const counts = new Array<number>(INSTANCE_STATES.length - 1).fill(0)
  for (let i = from; i < to; i++) {
    const state = states[i] ?? 0
    counts[state] = (counts[state] ?? 0) + 1
  }
  return counts
}

/** The indexes of a segment that failed, in order. */
export function failedIn(segment: Segment, n: number): number[] {
  const found: number[] = []
  if (segment.length <= SEGMENT_BYTES) return found
  for (let at = 0; at < SEGMENT_BYTES; at++) {
    const byte = segment[SEGMENT_BYTES + at] ?? 0
    for (let bit = 0; byte !== 0 && bit < 8; bit++) {
      const index = n * SEGMENT_INSTANCES + at * 8 + bit
      if ((byte & (1 << bit)) !== 0 && isDone(segment, index)) found.push(index)
    }
  }
  return found
}
