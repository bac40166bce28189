/**
 * A schedule, in the first shard.
 *
 *   fact                          → schedule                                              caused by
 *   pipeline.registered           → its timing starts, goes on, changes or ends            worker, client
 *   schedule.due                  → each occurrence is admitted, skipped or missed          engine, by its clock (due.ts)
 *   schedule.fired                → counted                                                engine, with run.requested
 *   schedule.skipped | missed     → counted; an occurrence that was open is open no more    engine
 *   schedule.paused | resumed     → nothing is due any more, or again                      client
 *   schedule.triggered            → an occurrence of its own is admitted                   client
 *   schedule.backfill_requested   → its occurrences wait, and run one after the other        client
 *   run.finished                  → the occurrence is open no more; the next one starts     engine
 *
 *   occurrence: due → waiting (overlap: queue, cancel_running) → open → ended
 *   open: its evaluation runs first, if it has one; then its run. `schedule.fired` and the request of
 *   the run are appended together.
 *
 * An occurrence is fired, skipped or missed: these facts have one place, and the server takes the
 * first. `step` counts what changes what is due: `schedule.due` of an older step means nothing, so
 * no occurrence is decided twice, or by a definition that has changed.
 */

import type { FactOf } from '../../streams/facts.ts'
import { runIdOfSchedule } from '../../streams/ids.ts'
import { forOutsiders } from '../../streams/outside.ts'
import type { ScheduledBy } from '../../streams/schedule-schemas.ts'
import type { ErrorInfo } from '../../streams/schemas.ts'
import type { Effect } from '../effects.ts'
import { concurrencyOf, givenValue } from '../run/concurrency-key.ts'
import { inputOf } from '../run/input.ts'
import type { RunRequest } from '../run/request.ts'
import { type Key, type RunState, stateKey, type View } from '../state.ts'
import type { Occurrence, RecentOccurrence, ScheduleState } from './state.ts'

/** Occurrences that wait for the run before them. One more is skipped. */
export const QUEUE_MAX = 1000
const RECENT_MAX = 20

export type ScheduleFact = FactOf<
  | 'schedule.due'
  | 'schedule.fired'
  | 'schedule.skipped'
  | 'schedule.missed'
  | 'schedule.paused'
  | 'schedule.resumed'
  | 'schedule.triggered'
  | 'schedule.backfill_requested'
>

type Why = FactOf<'schedule.skipped'>['data']['why']

export function needsOfSchedule(view: View, pipeline: string, name: string): Key<unknown>[] {
  const key = stateKey.schedule(pipeline, name)
  const state = view.get(key)
  return state ? [key, stateKey.pipeline(pipeline, state.version)] : [key]
}

export function onScheduleFact(view: View, fact: ScheduleFact): Effect[] {
  const key = stateKey.schedule(fact.ids.pipeline, fact.ids.schedule)
  if (!view.get(key)) return []
  const state = view.edit(key)
  state.seq = fact.seq
  return fold(view, state, fact)
}

function fold(view: View, state: ScheduleState, fact: ScheduleFact): Effect[] {
  switch (fact.name) {
    case 'schedule.due':
      return Number(fact.ids.step) === state.step ? onDue(view, state, fact) : []
    case 'schedule.fired':
      return count(state, { what: 'fired', ...fact.data })
    case 'schedule.missed':
      return count(state, { what: 'missed', ...fact.data })
    case 'schedule.skipped': {
      count(state, { what: 'skipped', ...fact.data })
      if (!state.open[fact.ids.occurrence]) return []
      delete state.open[fact.ids.occurrence]
      return startWaiting(view, state)
    }
    case 'schedule.paused':
      return onPaused(state, fact)
    case 'schedule.resumed':
      return onResumed(view, state, fact)
    case 'schedule.triggered': {
      if (state.removed) return []
      const id = `trigger-${fact.ids.request}`
      return start(view, state, { id, atMs: fact.timeMs, by: 'trigger' })
    }
    case 'schedule.backfill_requested': {
      if (state.removed) return []
      for (const atMs of fact.data.at) state.queue.push({ id: `${atMs}-${fact.ids.request}`, atMs, by: 'backfill' })
      return startWaiting(view, state)
    }
    default:
      return fact satisfies never
  }
}

function onDue(view: View, state: ScheduleState, { data }: FactOf<'schedule.due'>): Effect[] {
  const [era] = state.eras
  if (!era) return []
  state.step += 1
  era.fromMs = data.upToMs
  era.pauses = era.pauses.filter(({ toMs }) => toMs === undefined || toMs > data.upToMs)
  if (data.ends) state.eras.shift()
  const effects: Effect[] = []
  const ids = (ms: number) => ({ pipeline: state.pipeline, schedule: state.name, occurrence: String(ms) })
  if (data.skipped) {
    const { firstMs, lastMs, count } = data.skipped
    const skipped = { why: 'paused', atMs: firstMs, lastMs, count } as const
    effects.push({ do: 'fact', fact: { name: 'schedule.skipped', ids: ids(firstMs), data: skipped } })
  }
  if (data.missed) {
    const { firstMs, lastMs, count, why } = data.missed
    const missed = { why, atMs: firstMs, lastMs, count }
    effects.push({ do: 'fact', fact: { name: 'schedule.missed', ids: ids(firstMs), data: missed } })
  }
  for (const atMs of data.at) effects.push(...admit(view, state, { id: String(atMs), atMs }))
  return [...effects, lookAgain(state)]
}

/** An occurrence that is due: what the overlap policy says. */
function admit(view: View, state: ScheduleState, occurrence: Occurrence): Effect[] {
  const open = openInTurn(state)
  const waiting = state.queue.filter(inTurn)
  const { overlap } = state.spec
  if ((open.length === 0 && waiting.length === 0) || overlap === 'allow') return start(view, state, occurrence)
  switch (overlap) {
    case 'skip':
      return [skip(state, occurrence, 'overlap')]
    case 'queue':
      if (waiting.length >= QUEUE_MAX) return [skip(state, occurrence, 'queue_full')]
      state.queue.push(occurrence)
      return []
    case 'cancel_running': {
      state.queue = [...state.queue.filter((one) => !inTurn(one)), occurrence]
      return [...waiting.map((one) => skip(state, one, 'superseded')), ...open.flatMap((one) => cancel(one))]
    }
    default:
      return overlap satisfies never
  }
}

function cancel(one: ScheduleState['open'][string]): Effect[] {
  if (one.cancelling) return []
  one.cancelling = true
  const data = { reason: 'the next occurrence of its schedule is due' }
  return [{ do: 'fact', fact: { name: 'run.cancel_requested', ids: { run: one.evaluation ?? one.run }, data } }]
}

/** Backfills are beside the others: they do not keep tonight's run from starting. */
function inTurn({ by }: { readonly by?: string }): boolean {
  return by !== 'backfill'
}

function openInTurn(state: ScheduleState): ScheduleState['open'][string][] {
  return Object.values(state.open).filter(inTurn)
}

/** Starts what waited for a run that has ended. */
export function startWaiting(view: View, state: ScheduleState): Effect[] {
  const effects: Effect[] = []
  const isFree = (kind: (one: { by?: string }) => boolean): boolean =>
    state.spec.overlap === 'allow' || !Object.values(state.open).some(kind)
  for (let again = true; again; ) {
    again = false
    for (const kind of [inTurn, (one: { by?: string }) => !inTurn(one)]) {
      if (kind === inTurn && state.paused) continue
      const next = isFree(kind) ? state.queue.find(kind) : undefined
      if (!next) continue
      state.queue = state.queue.filter((one) => one !== next)
      effects.push(...start(view, state, next))
      again = true
    }
  }
  return effects
}

/** Starts the run of an occurrence, or first the one that says what it is asked for with. */
function start(view: View, state: ScheduleState, occurrence: Occurrence): Effect[] {
  const { pipeline, name, version, spec } = state
  const { id, atMs, by } = occurrence
  const run = runIdOfSchedule('schedule', pipeline, name, id)
  const of = { name, occurrence: id, atMs, ...(by ? { by } : {}) }
  if (spec.evaluates !== undefined) {
    const evaluation = runIdOfSchedule('schedule', pipeline, name, id, 'evaluation')
    state.open[id] = { atMs, run, evaluation, ...(by ? { by } : {}) }
    const data = evaluationRequest(
      { pipeline, version },
      spec.evaluates,
      { json: { atMs } },
      { schedule: { ...of, evaluates: true } },
    )
    return [{ do: 'fact', fact: { name: 'run.requested', ids: { run: evaluation }, data } }]
  }
  const registered = view.get(stateKey.pipeline(pipeline, version))
  const given = registered ? inputOf(registered, spec.target, {}) : { reason: `version ${version} is not registered` }
  state.open[id] = { atMs, run, ...(by ? { by } : {}) }
  if ('reason' in given) return [skip(state, occurrence, 'refused', { code: 'refused', message: given.reason })]
  const { stored } = given
  const concurrency = registered && concurrencyOf(registered, { input: (one) => givenValue(stored?.[one]) })
  const request = {
    ...requestOf(view, state, of),
    ...(stored ? { input: stored } : {}),
    ...(concurrency ? { concurrency } : {}),
  }
  return [
    {
      do: 'start_run',
      fired: fired(state, occurrence, run),
      request: { name: 'run.requested', ids: { run }, data: request },
    },
  ]
}

/** What its run is asked for with, but for what its own code says. */
function requestOf(view: View, { pipeline, version, spec }: ScheduleState, schedule: ScheduledBy): RunRequest {
  const upstream = view.get(stateKey.pipeline(pipeline, version))?.upstream ?? 'all'
  return { pipeline, version, target: spec.target, upstream, schedule }
}

/** The request of an evaluation, of a schedule or sensor. `given`: what the code gets. */
export function evaluationRequest(
  { pipeline, version }: { readonly pipeline: string; readonly version: string },
  asset: string,
  given: NonNullable<RunRequest['input']>[string],
  of: Pick<RunRequest, 'schedule' | 'sensor'>,
): RunRequest {
  return { pipeline, version, target: asset, upstream: 'all', input: { [givenOf(asset)]: given }, ...of }
}

/** The input of an internal asset. */
export function givenOf(asset: string): string {
  return `${asset}__given`
}

function fired(
  { pipeline, name }: ScheduleState,
  { id, atMs, by }: Occurrence,
  run: string,
): Extract<Effect, { do: 'start_run' }>['fired'] {
  const ids = { pipeline, schedule: name, occurrence: id }
  return { name: 'schedule.fired', ids, data: { atMs, run, ...(by ? { by } : {}) } }
}

/** `schedule.skipped` for one occurrence. */
export function skip(
  { pipeline, name }: Pick<ScheduleState, 'pipeline' | 'name'>,
  { id, atMs, by }: Occurrence,
  why: Why,
  error?: ErrorInfo,
): Extract<Effect, { do: 'fact' }> {
  const ids = { pipeline, schedule: name, occurrence: id }
  const data = { why, atMs, ...(by ? { by } : {}), ...(error ? { error: forOutsiders(error) } : {}) }
  return { do: 'fact', fact: { name: 'schedule.skipped', ids, data } }
}

/** A run of a schedule has ended, or the run that says what it is asked for with. */
export function onScheduledRunFinished(
  view: View,
  of: RunState,
  schedule: ScheduledBy,
  fact: FactOf<'run.finished'>,
): Effect[] {
  const key = stateKey.schedule(of.pipeline, schedule.name)
  const known = view.get(key)?.open[schedule.occurrence]
  if (!known || (known.evaluation ?? known.run) !== of.id) return []
  const state = view.edit(key)
  const one = state.open[schedule.occurrence] ?? known
  state.seq = fact.seq
  if (!schedule.evaluates) {
    delete state.open[schedule.occurrence]
    return startWaiting(view, state)
  }
  const { status, value, error } = fact.data
  const { atMs, by } = schedule
  const occurrence: Occurrence = { id: schedule.occurrence, atMs, ...(by ? { by } : {}) }
  // Skipping it, once that is on the log, makes room for the next one.
  if (one.cancelling || status === 'cancelled')
    return [skip(state, occurrence, one.cancelling ? 'superseded' : 'cancelled')]
  if (!value) return [skip(state, occurrence, 'evaluation_failed', error)]
  delete one.evaluation
  const { evaluates: _, ...mine } = schedule
  const request = requestOf(view, state, mine)
  return [
    {
      do: 'start_evaluated',
      value,
      fired: fired(state, occurrence, one.run),
      request: { name: 'run.requested', ids: { run: one.run }, data: request },
      refused: skip(state, occurrence, 'refused').fact as Extract<Effect, { do: 'start_evaluated' }>['refused'],
    },
  ]
}

function onPaused(state: ScheduleState, { timeMs, data }: FactOf<'schedule.paused'>): Effect[] {
  if (state.paused || state.removed) return []
  state.paused = { sinceMs: timeMs, ...(data.reason === undefined ? {} : { reason: data.reason }) }
  state.step += 1
  state.eras.at(-1)?.pauses.push({ fromMs: timeMs })
  return [lookAgain(state)]
}

function onResumed(view: View, state: ScheduleState, { timeMs }: FactOf<'schedule.resumed'>): Effect[] {
  if (!state.paused) return []
  delete state.paused
  state.step += 1
  for (const { pauses } of state.eras) for (const pause of pauses) pause.toMs ??= timeMs
  return [...startWaiting(view, state), lookAgain(state)]
}

export function lookAgain({ pipeline, name }: Pick<ScheduleState, 'pipeline' | 'name'>): Effect {
  return { do: 'alarm', key: stateKey.schedule(pipeline, name) }
}

function count(state: ScheduleState, one: RecentOccurrence): Effect[] {
  state.counts[one.what] += one.count ?? 1
  state.recent = [one, ...state.recent].slice(0, RECENT_MAX)
  return []
}
