/**
 * When a schedule is due: the moments after another one, in order. A pure function, but for the
 * time zone data of Node, which change with the laws of countries. So folds never ask it: what it
 * gave stands in facts.
 *
 * croner says which times on the wall a cron names. What becomes of those that do not exist, and of
 * those that exist twice, is decided here.
 */
import { Cron } from 'croner'
import { hash64 } from '../../streams/ids.ts'
import type { CronTiming, ScheduleTiming } from '../../streams/schedule-schemas.ts'
import { zoneOf } from './time-zone.ts'

const TIME_MAX = 8.64e15
/** No clock is set back by more. */
const SET_BACK_MAX_MS = 3 * 3_600_000

/** The moments after `afterMs`, in milliseconds since 1970. Ends where the calendar does. */
export function occurrencesAfter(timing: ScheduleTiming, afterMs: number): Generator<number> {
  return 'everyMs' in timing ? everyAfter(timing, afterMs) : cronAfter(timing, afterMs)
}

export function nextOccurrence(timing: ScheduleTiming, afterMs: number): number | undefined {
  const next = occurrencesAfter(timing, afterMs).next()
  return next.done ? undefined : next.value
}

/** The first `count` moments after `afterMs`. */
export function someOccurrences(timing: ScheduleTiming, afterMs: number, count: number): number[] {
  const found: number[] = []
  for (const ms of occurrencesAfter(timing, afterMs)) {
    if (found.length >= count) break
    found.push(ms)
  }
  return found
}

/** How much later than its moment an occurrence starts: always the same, and evenly spread. */
export function jitterOf(jitterMs: number, pipeline: string, schedule: string, atMs: number): number {
  if (jitterMs === 0) return 0
  return Number(BigInt(`0x${hash64(`${pipeline}/${schedule}/${atMs}`)}`) % BigInt(jitterMs))
}

function* everyAfter({ everyMs, anchorMs }: { everyMs: number; anchorMs: number }, afterMs: number): Generator<number> {
  for (let k = Math.floor((afterMs - anchorMs) / everyMs) + 1; ; k++) {
    const ms = anchorMs + k * everyMs
    if (ms > TIME_MAX) return
    yield ms
  }
}

function* cronAfter({ cron, timeZone, dst }: CronTiming, afterMs: number): Generator<number> {
  const zone = zoneOf(timeZone)
  const pattern = patternOf(cron)
  // Where clocks will be set back soon, earlier times on the wall come again.
  let wall = afterMs + Math.min(zone.offset(afterMs), zone.offset(afterMs + SET_BACK_MAX_MS))
  let last = afterMs
  /** Moments that are known, and may come after others that are not known yet. */
  let waiting: number[] = []
  for (;;) {
    const next = pattern.nextRun(new Date(wall))
    if (next) wall = next.getTime()
    const { at, gapEnd } = next ? zone.momentsOf(wall) : { at: [] }
    const first = at[0] ?? gapEnd
    if (at.length > 0) waiting.push(...(dst.overlap === 'first' ? at.slice(0, 1) : at))
    else if (gapEnd !== undefined && dst.gap === 'after') waiting.push(gapEnd)
    waiting.sort((a, b) => a - b)
    // No later time on the wall comes before the first moment of this one.
    while (waiting[0] !== undefined && (first === undefined || waiting[0] <= first)) {
      const [ms = 0] = waiting
      waiting = waiting.slice(1)
      if (ms <= last) continue
      last = ms
      yield ms
    }
    if (!next) return
  }
}

const patterns = new Map<string, Cron>()
const PATTERNS_MAX = 1000

/** Throws for what is no cron. */
export function patternOf(cron: string): Cron {
  let pattern = patterns.get(cron)
  if (!pattern) {
    if (patterns.size >= PATTERNS_MAX) patterns.clear()
    pattern = new Cron(cron, { utcOffset: 0 })
    patterns.set(cron, pattern)
  }
  return pattern
}
