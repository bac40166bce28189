/** Tiles as rows, and in words. Pure. */
import { count } from '../format.ts'
import type { BarPart } from '../runs.ts'
import { FAILED, GATE, RETRYING, SHOWN_ORDER, sumOf, UI_STATES, WAITING, wordOf } from './states.ts'

export interface SegmentRow {
  readonly tile: number
  readonly from: number
  readonly to: number
  readonly counts: readonly number[]
}

/** Most failures first, then what is retried or waits at a gate, then in order. */
export function worstFirst(rows: readonly SegmentRow[]): readonly number[] {
  const of = ({ counts }: SegmentRow, state: number): number => counts[state] ?? 0
  return rows
    .toSorted(
      (a, b) =>
        of(b, FAILED) - of(a, FAILED) ||
        of(b, RETRYING) - of(a, RETRYING) ||
        of(b, GATE) - of(a, GATE) ||
        a.tile - b.tile,
    )
    .map(({ tile }) => tile)
}

/** `keys 280,000 to 289,999`. */
export function keysText(from: number, to: number): string {
  return to - from <= 1 ? `key ${count(from)}` : `keys ${count(from)} to ${count(to - 1)}`
}

/** `8,236 succeeded`, `1,764 failed` and so on: what there is, the loudest first. */
export function countTexts(counts: readonly number[]): { readonly state: number; readonly text: string }[] {
  return SHOWN_ORDER.toReversed().flatMap((state) => {
    const n = counts[state] ?? 0
    return n === 0 ? [] : [{ state, text: `${count(n)} ${wordOf(state)}` }]
  })
}

/** As a live line reads it. */
export function segmentText({ tile, from, to, counts }: SegmentRow): string {
  const what = countTexts(counts)
    .map(({ text }) => text)
    .join(', ')
  return `Segment ${tile}, ${keysText(from, to)}: ${what === '' ? 'no keys yet' : what}`
}

export function barOf(counts: readonly number[]): BarPart[] {
  const all = Math.max(1, sumOf(counts))
  return SHOWN_ORDER.filter((state) => state !== WAITING).map((state) => ({
    state: UI_STATES[state] ?? 'wait',
    share: (counts[state] ?? 0) / all,
  }))
}
