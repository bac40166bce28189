/**
 * The barrier's memory of which instances are done: segments of 65,536 bits, so that a write costs
 * 8 KiB whatever the size of the scatter.
 */

import { stateKey, type View } from '../state.ts'
import type { BarrierState, Segment } from './state.ts'

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

export function isSuspended(segment: Segment, index: number): boolean {
  return segment.length > 2 * SEGMENT_BYTES && has(segment, 2 * SEGMENT_INSTANCES + (index % SEGMENT_INSTANCES))
}

/**
 * Marks an instance done. Returns the segment to keep, which is a new, longer one when the first
 * failure in it is marked.
 */
export function markDone(segment: Segment, index: number, failed: boolean): Segment {
  const bit = index % SEGMENT_INSTANCES
  set(segment, bit, true)
  if (!failed) return segment
  const wide = widened(segment, 2)
  set(wide, SEGMENT_INSTANCES + bit, true)
  return wide
}

/** Marks that an instance waits at a gate, or does no more. Returns the segment to keep. */
export function markSuspended(segment: Segment, index: number, waits: boolean): Segment {
  const wide = widened(segment, 3)
  set(wide, 2 * SEGMENT_INSTANCES + (index % SEGMENT_INSTANCES), waits)
  return wide
}

function widened(segment: Segment, planes: number): Segment {
  if (segment.length >= planes * SEGMENT_BYTES) return segment
  const wide = new Uint8Array(planes * SEGMENT_BYTES)
  wide.set(segment)
  return wide
}

function set(bytes: Uint8Array, bit: number, on: boolean): void {
  const byte = bytes[bit >> 3] ?? 0
  bytes[bit >> 3] = on ? byte | (1 << (bit & 7)) : byte & ~(1 << (bit & 7))
}

export class Bits {
  readonly #view: View
  readonly #barrier: BarrierState
  readonly #segments = new Map<number, Uint8Array>()
  /** Those that the view has been given by this step. */
  readonly #stored = new Map<number, Uint8Array>()

  constructor(view: View, barrier: BarrierState) {
    this.#view = view
    this.#barrier = barrier
  }

  isDone(index: number): boolean {
    return isDone(this.#segment(segmentOf(index)), index)
  }

  mark(index: number, failed: boolean): void {
    const n = segmentOf(index)
    this.#store(n, markDone(this.#segment(n), index, failed))
  }

  isSuspended(index: number): boolean {
    return isSuspended(this.#segment(segmentOf(index)), index)
  }

  suspend(index: number, waits: boolean): void {
    const n = segmentOf(index)
    this.#store(n, markSuspended(this.#segment(n), index, waits))
  }

  /** Once for a segment, and again only when a longer one takes its place. */
  #store(n: number, segment: Uint8Array): void {
    if (this.#stored.get(n) === segment) return
    this.#stored.set(n, segment)
    this.#segments.set(n, segment)
    this.#view.put(this.#key(n), segment)
  }

  #segment(n: number): Uint8Array {
    let segment = this.#segments.get(n)
    if (!segment) {
      segment = this.#view.get(this.#key(n)) ?? newSegment()
      this.#segments.set(n, segment)
    }
    return segment
  }

  #key(n: number): ReturnType<typeof stateKey.segment> {
    return stateKey.segment(this.#barrier.run, this.#barrier.asset, n)
  }
}
