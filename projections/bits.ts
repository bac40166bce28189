/** The barrier's memory of which instances are done: segments of 65,536 bits, so that a write costs 8 KiB whatever the size of the scatter. */
import type { Segment } from './state.ts'

export const SEGMENT_INSTANCES = 65_536
const SEGMENT_BYTES = SEGMENT_INSTANCES / 8

export function segmentOf(index: number): number {
  return Math.floor(index / SEGMENT_INSTANCES)
}

export function newSegment(): Segment {
  return new Uint8Array(SEGMENT_BYTES)
}

function has(bytes: Uint8Array, bit: number): boolean {
  return ((bytes[bit >> 3] ?? 0) & (1 << (bit & 7))) !== 0
}

export function isDone(segment: Segment, index: number): boolean {
  return has(segment, index % SEGMENT_INSTANCES)
}

export function isFailed(segment: Segment, index: number): boolean {
  return segment.length > SEGMENT_BYTES && has(segment, SEGMENT_INSTANCES + (index % SEGMENT_INSTANCES))
}

/** Marks an instance done. Returns the segment to keep, which is a new, longer one when the first failure in it is marked. */
export function markDone(segment: Segment, index: number, failed: boolean): Segment {
  const bit = index % SEGMENT_INSTANCES
  segment[bit >> 3] = (segment[bit >> 3] ?? 0) | (1 << (bit & 7))
  if (!failed) return segment
  let wide = segment
  if (segment.length === SEGMENT_BYTES) {
    wide = new Uint8Array(SEGMENT_BYTES * 2)
    wide.set(segment)
  }
  const at = SEGMENT_BYTES + (bit >> 3)
  wide[at] = (wide[at] ?? 0) | (1 << (bit & 7))
  return wide
}
