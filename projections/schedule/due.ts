/**
 * What the clock means for a schedule: which occurrences are decided now, or when there is
 * something to decide. The engine asks, and what it hears becomes the fact `schedule.due`. No fold
 * asks this, because time zone data change.
 *
 * Of the occurrences that are due, `catchUp` takes the newest ones, and the others are missed. The
 * newest of all is always taken while it is late by at most ON_TIME_MS.
 */
import type { DraftOf } from '../../streams/facts.ts'
import type { ScheduleSpec } from '../../streams/schedule-schemas.ts'
import { jitterOf, occurrencesAfter } from './occurrences.ts'
import type { Era, ScheduleState } from './state.ts'

/** An engine takes over within this time. */
export const ON_TIME_MS = 10_000
/** Occurrences that one fact decides, and runs that it starts. More take more facts. */
export const DECIDED_MAX = 2000
export const STARTED_MAX = 100

type DueData = DraftOf<'schedule.due'>['data']

/** `fact`: to be appended now. `atMs`: nothing is to be done before. Neither: nothing at all. */
export interface Look {
  readonly fact?: DraftOf<'schedule.due'>
  readonly atMs?: number
}

export function lookAt(state: ScheduleState, nowMs: number): Look {
  const [era] = state.eras
  if (!era) return {}
  const { toMs: limit = Number.POSITIVE_INFINITY } = era
  const ids = { pipeline: state.pipeline, schedule: state.name, step: String(state.step) }
  const decided = (data: Omit<DueData, 'fromMs' | 'nowMs'>): Look => ({
    fact: { name: 'schedule.due', ids, data: { fromMs: era.fromMs, nowMs, ...data } },
  })
  const next = occurrencesAfter(era.timing, era.fromMs).next()
  if (next.done || next.value > limit)
    return era.toMs === undefined ? {} : decided({ upToMs: era.toMs, at: [], ends: true })
  const first = next.value
  const pause = pauseAt(era, first)
  if (pause) {
    const end = Math.min(pause.toMs ?? Number.POSITIVE_INFINITY, limit)
    if (end === Number.POSITIVE_INFINITY) return {}
    const { taken } = take(era, (ms) => ms <= end)
    return decided({ upToMs: taken.at(-1) ?? first, at: [], skipped: rangeOf(taken, first) })
  }
  if (era.toMs !== undefined) {
    const { taken } = take(era, (ms) => ms <= limit && !pauseAt(era, ms))
    return decided({ upToMs: taken.at(-1) ?? first, at: [], missed: { ...rangeOf(taken, first), why: 'changed' } })
  }
  const dueMs = (ms: number): number => ms + jitterOf(state.spec.jitterMs, state.pipeline, state.name, ms)
  if (dueMs(first) > nowMs) return { atMs: dueMs(first) }
  const { taken, more } = take(era, (ms) => dueMs(ms) <= nowMs && !pauseAt(era, ms))
  const at = caughtUp(state.spec, taken, more, nowMs, dueMs)
  const missed = taken.slice(0, taken.length - at.length)
  const started = at.slice(0, STARTED_MAX)
  return decided({
    upToMs: started.at(-1) ?? missed.at(-1) ?? first,
    at: started,
    ...(missed.length === 0 ? {} : { missed: { ...rangeOf(missed, first), why: 'late' as const } }),
  })
}

/** Those of the occurrences that are due that get a run: the newest ones. */
function caughtUp(
  { catchUp }: ScheduleSpec,
  taken: readonly number[],
  more: boolean,
  nowMs: number,
  dueMs: (ms: number) => number,
): readonly number[] {
  if (catchUp === 'all') return taken
  const newest = more ? undefined : taken.at(-1)
  const isOnTime = newest !== undefined && nowMs - dueMs(newest) <= ON_TIME_MS
  const only = newest === undefined ? [] : [newest]
  if (catchUp === 'last') return only
  const least = isOnTime ? only : []
  if (catchUp === 'none') return least
  const from = taken.findIndex((ms) => ms >= nowMs - catchUp.withinMs)
  return from < 0 ? least : taken.slice(from)
}

/** The next occurrences while they are wanted. `more`: there were too many of them. */
function take(era: Era, wanted: (ms: number) => boolean): { taken: number[]; more: boolean } {
  const taken: number[] = []
  for (const ms of occurrencesAfter(era.timing, era.fromMs)) {
    if (!wanted(ms)) break
    if (taken.length >= DECIDED_MAX) return { taken, more: true }
    taken.push(ms)
  }
  return { taken, more: false }
}

function pauseAt({ pauses }: Era, ms: number): Era['pauses'][number] | undefined {
  return pauses.find(({ fromMs, toMs }) => ms > fromMs && (toMs === undefined || ms <= toMs))
}

function rangeOf(taken: readonly number[], first: number): { firstMs: number; lastMs: number; count: number } {
  return { firstMs: first, lastMs: taken.at(-1) ?? first, count: Math.max(1, taken.length) }
}
