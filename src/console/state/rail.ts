/** The time rail: which stretch of time it shows, and where a moment is on it. Pure. */
import type { RailPoint } from '../api/types.ts'

export interface Stretch {
  readonly from: number
  readonly to: number
}

const MINUTE = 60_000
const HOUR = 60 * MINUTE
/** Of the present: the shortest that shows all there is, else the last one. */
const SPANS = [10 * MINUTE, 30 * MINUTE, 2 * HOUR] as const
export const LONGEST_MS = SPANS[2]
/** The right end of the rail is the present: who lets go there wants to be live. */
const LIVE_SHARE = 0.995
export const STEP_MS = 30_000
export const PAGE_MS = 600_000

/** `firstFact`: the oldest of the last two hours. A moment before that is put into the middle. */
export function stretchOf(now: number, at: number | undefined, firstFact: number | undefined): Stretch {
  const age = firstFact === undefined ? LONGEST_MS : now - firstFact
  const span = SPANS.find((one) => one >= age) ?? LONGEST_MS
  if (at === undefined || at >= now - span) return { from: now - span, to: now }
  if (at >= now - LONGEST_MS) return { from: now - LONGEST_MS, to: now }
  return { from: at - HOUR, to: Math.min(now, at + HOUR) }
}

export function shareOf(time: number, { from, to }: Stretch): number {
  return Math.max(0, Math.min(1, (time - from) / (to - from)))
}

/** Undefined: the present. */
export function timeOf(share: number, { from, to }: Stretch, now: number): number | undefined {
  const isPresent = share > LIVE_SHARE && to >= now - STEP_MS
  return isPresent ? undefined : Math.round(from + Math.max(0, Math.min(1, share)) * (to - from))
}

/** What a key does on the rail. `at: undefined`: the present. Undefined: another key. */
export function keyOn(
  key: string,
  at: number | undefined,
  now: number,
): { readonly at: number | undefined } | undefined {
  const by = {
    ArrowLeft: -STEP_MS,
    ArrowDown: -STEP_MS,
    ArrowRight: STEP_MS,
    ArrowUp: STEP_MS,
    PageDown: -PAGE_MS,
    PageUp: PAGE_MS,
  }[key]
  if (key === 'End') return { at: undefined }
  if (by === undefined) return undefined
  const next = (at ?? now) + by
  return { at: next >= now ? undefined : next }
}

export interface RailBar {
  /** 0 to 1, by the square root: one fact is seen beside a thousand. */
  readonly height: number
  readonly failed: boolean
  readonly from: number
}

export function barsOf(points: readonly RailPoint[]): RailBar[] {
  const most = Math.max(1, ...points.map(({ facts }) => facts))
  return points.map(({ from, facts, failed }) => ({
    height: facts === 0 ? 0 : Math.max(0.1, Math.sqrt(facts / most)),
    failed,
    from: new Date(from).getTime(),
  }))
}
