/** `flow.schedules`: look at schedules, and act on them. */
import { createHash, randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { nextOccurrence, occurrencesAfter, someOccurrences } from '../../projections/schedule/occurrences.ts'
import type { RecentOccurrence, ScheduleState } from '../../projections/schedule/state.ts'
import { stateKey } from '../../projections/state.ts'
import { FlowStoneError, InvalidError } from '../../streams/errors.ts'
import { type Fact, type FactDraft, factPath } from '../../streams/facts.ts'
import { runIdOfSchedule } from '../../streams/ids.ts'
import { jetstreamManager } from '../../streams/jetstream.ts'
import type { ScheduleTiming } from '../../streams/schedule-schemas.ts'
import { shown } from '../../streams/shown.ts'
import { readDoc } from '../log/documents.ts'
import { factEntry } from '../log/entries.ts'
import { isSealed, sealedUnder } from '../log/history.ts'
import { leaderGet } from '../log/nats.ts'
import { factOf } from '../log/read-fact.ts'
import { parseDate } from '../options/date.ts'
import { refuseUnknown } from '../options/unknown.ts'
import { docsUnder, findDoc } from './by-name.ts'
import { Run } from './run.ts'
import type { RunDeps } from './run-view.ts'
import { untilFoldedNow } from './values.ts'

/** A schedule, as far as the state bucket knows. */
export interface ScheduleView {
  /** `<pipeline>/<schedule>`: what the other calls take. */
  readonly name: string
  readonly pipeline: string
  readonly schedule: string
  /** The asset that its runs make. */
  readonly target: string
  readonly when: ScheduleWhen
  /** `removed`: the newest version of the pipeline has it no more. */
  readonly state: 'active' | 'paused' | 'removed'
  readonly pausedSince?: Date
  readonly pausedBecause?: string
  /** What became of the last occurrence. */
  readonly last: OccurrenceView | undefined
  /** Nominal time of the next occurrence. */
  readonly next: Date | undefined
  /** Runs that have not ended, with their nominal times. */
  readonly open: readonly { readonly at: Date; readonly run: string; readonly evaluating: boolean }[]
  /** Occurrences that wait for the runs before them. */
  readonly waiting: number
  readonly fired: number
  readonly skipped: number
  readonly missed: number
}

/** When a schedule is due. */
export type ScheduleWhen =
  | {
      readonly cron: string
      readonly timeZone: string
      readonly gap: 'after' | 'skip'
      readonly overlap: 'first' | 'both'
    }
  | { readonly everyMs: number; readonly anchor: Date }

/** What became of an occurrence, or of several in a row. */
export interface OccurrenceView {
  readonly what: 'fired' | 'skipped' | 'missed'
  /** Its nominal time; of several, that of the first. */
  readonly at: Date
  /** Of several: the nominal time of the last, and how many there are. */
  readonly last?: Date
  readonly count?: number
  readonly run?: string
  /** Why it was skipped or missed. */
  readonly why?: string
  readonly error?: { readonly code: string; readonly message: string }
  /** It was asked for out of its turn. */
  readonly by?: 'trigger' | 'backfill'
}

/** What `flow.schedules.trigger` takes. */
export interface TriggerOptions {
  /** The same key starts no second run. */
  readonly key?: string
}

/** What `flow.schedules.backfill` takes. */
export interface BackfillOptions {
  /** The first nominal time that may be among them. */
  readonly from: Date | string
  /** Up to here, this moment not included. */
  readonly to: Date | string
  /** The same key asks for nothing twice. */
  readonly key?: string
}

const BACKFILL_MAX = 1000
const PREVIEW_MAX = 1000
const ANSWER_MS = 10_000
const LOOK_MS = 20
const READ_AHEAD = 64

/** See `flow.schedules`. */
export class Schedules {
  readonly #deps: RunDeps

  constructor(deps: RunDeps) {
    this.#deps = deps
  }

  /** All schedules, by name. `removed`: also those that no pipeline has any more. */
  async list(options: { readonly removed?: boolean } = {}): Promise<ScheduleView[]> {
    refuseUnknown('schedules.list', options, ['removed'])
    const docs = await docsUnder<ScheduleState>(this.#deps, stateKey.schedule('', '').split('.')[0] ?? '')
    const nowMs = this.#deps.clock.now()
    return docs.filter(({ removed }) => options.removed === true || !removed).map((doc) => viewOf(doc, nowMs))
  }

  /** One schedule. `name`: `<pipeline>/<schedule>`, or the schedule if only one pipeline has it. */
  async get(name: string): Promise<ScheduleView> {
    return viewOf(await this.#find('schedules.get', name), this.#deps.clock.now())
  }

  /** Nominal times of the next occurrences, whether it is paused or not. Starts nothing. */
  async preview(name: string, count = 10): Promise<Date[]> {
    if (!Number.isInteger(count) || count < 1 || count > PREVIEW_MAX)
      throw new InvalidError(`schedules.preview: count must be a whole number from 1 to ${PREVIEW_MAX}`)
    const { spec } = await this.#find('schedules.preview', name)
    const nowMs = Math.floor(this.#deps.clock.now())
    return someOccurrences(spec.timing, nowMs, count).map((ms) => new Date(ms))
  }

  /** Nothing is due any more, until `resume`. Occurrences of that time are skipped. */
  async pause(name: string, reason?: string): Promise<void> {
    const data = reason === undefined ? {} : { reason }
    await this.#say('schedules.pause', name, (ids) => ({ name: 'schedule.paused', ids, data }))
  }

  /** What is due from now on starts again. */
  async resume(name: string): Promise<void> {
    await this.#say('schedules.resume', name, (ids) => ({ name: 'schedule.resumed', ids, data: {} }))
  }

  /**
   * Starts a run now, whether the schedule is paused or one of its runs is open. The functions of
   * the schedule get the present time. Throws FlowStoneError `not_started` when they fail.
   */
  async trigger(name: string, options: TriggerOptions = {}): Promise<Run> {
    refuseUnknown('schedules.trigger', options, ['key'])
    const { pipeline, name: schedule } = await this.#find('schedules.trigger', name)
    const request = requestOf('schedules.trigger', options.key)
    const occurrence = `trigger-${request}`
    const id = runIdOfSchedule('schedule', pipeline, schedule, occurrence)
    // An import brings the run, and not what led to it.
    if (options.key !== undefined && (await isSealed(this.#deps, id))) return new Run(this.#deps, id)
    const ids = { pipeline, schedule, request }
    const isNew = await this.#append({ name: 'schedule.triggered', ids, data: {} })
    await this.#untilStarted(pipeline, schedule, occurrence)
    return new Run(this.#deps, id, { isNew })
  }

  /**
   * Starts the runs of occurrences that are over, by the timing of today: one after the other, or
   * at once with `overlap: 'allow'`. At most 1,000. Also of those that were fired before. Returns
   * their nominal times.
   */
  async backfill(name: string, options: BackfillOptions): Promise<Date[]> {
    refuseUnknown('schedules.backfill', options, ['from', 'to', 'key'])
    const [fromMs, toMs] = [dateOf('from', options.from), dateOf('to', options.to)]
    if (fromMs >= toMs) throw new InvalidError('schedules.backfill: from must be before to')
    if (toMs > this.#deps.clock.now())
      throw new InvalidError('schedules.backfill: to must not be in the future: that is what the schedule is for')
    const { pipeline, name: schedule, spec } = await this.#find('schedules.backfill', name)
    const at: number[] = []
    for (const ms of occurrencesAfter(spec.timing, fromMs - 1)) {
      if (ms >= toMs) break
      if (at.length >= BACKFILL_MAX)
        throw new InvalidError(`schedules.backfill: there are more than ${BACKFILL_MAX} occurrences; do it in parts`)
      at.push(ms)
    }
    const ids = { pipeline, schedule, request: requestOf('schedules.backfill', options.key) }
    if (at.length > 0) await this.#append({ name: 'schedule.backfill_requested', ids, data: { at } })
    return at.map((ms) => new Date(ms))
  }

  /**
   * What became of its occurrences, newest first, at most `limit` (default 100). Meant for people,
   * not for loops.
   */
  async occurrences(name: string, options: { readonly limit?: number } = {}): Promise<OccurrenceView[]> {
    refuseUnknown('schedules.occurrences', options, ['limit'])
    const { pipeline, name: schedule } = await this.#find('schedules.occurrences', name)
    const { connection, names, docs } = this.#deps
    const upTo = (await docs.past?.seqOf(0)) ?? Number.POSITIVE_INFINITY
    const stream = names.log(0)
    const jsm = await jetstreamManager(connection.nc)
    const filter = names.fact(0, `schedule.${pipeline}.${schedule}.at.>`)
    const info = await connection.read(() => jsm.streams.info(stream, { subjects_filter: filter }))
    const read = async (subject: string): Promise<{ seq: number; view: OccurrenceView }[]> => {
      const message = await connection.read((nc) => leaderGet(nc, stream, { last_by_subj: subject }))
      const fact = message && factOf(names, 0, message)
      if (fact?.name !== 'schedule.fired' && fact?.name !== 'schedule.skipped' && fact?.name !== 'schedule.missed')
        return []
      const what = ({ 'schedule.fired': 'fired', 'schedule.skipped': 'skipped', 'schedule.missed': 'missed' } as const)[
        fact.name
      ]
      return [{ seq: fact.seq, view: occurrenceOf({ what, ...fact.data }) }]
    }
    const subjects = Object.keys(info.state.subjects ?? {})
    const found: { seq: number; view: OccurrenceView }[] = []
    for (let i = 0; i < subjects.length; i += READ_AHEAD)
      found.push(...(await Promise.all(subjects.slice(i, i + READ_AHEAD).map(read))).flat())
    return found
      .filter(({ seq }) => seq <= upTo)
      .toSorted((a, b) => b.seq - a.seq)
      .slice(0, options.limit ?? 100)
      .map(({ view }) => view)
  }

  async #find(at: string, name: string): Promise<ScheduleState> {
    return await findDoc<ScheduleState>(this.#deps, at, 'schedule', name)
  }

  async #say(
    at: string,
    name: string,
    fact: (ids: { pipeline: string; schedule: string }) => FactDraft,
  ): Promise<void> {
    const { pipeline, name: schedule } = await this.#find(at, name)
    await this.#append(fact({ pipeline, schedule }))
    // Who asks next sees it, if an engine is there.
    await untilFoldedNow(this.#deps, 0)
  }

  async #append(fact: FactDraft): Promise<boolean> {
    const { names, logOf, by } = this.#deps
    // A key may have been used long ago.
    if (await sealedUnder(this.#deps, 0, factPath(fact.name, fact.ids))) return false
    return (await logOf(0).appendOnce(factEntry(names, 0, fact, by))) === 'stored'
  }

  async #sealedEnd(pipeline: string, schedule: string, occurrence: string): Promise<Fact | undefined> {
    const ids = { pipeline, schedule, occurrence }
    const [fired, skipped] = await Promise.all(
      (['schedule.fired', 'schedule.skipped'] as const).map((name) => sealedUnder(this.#deps, 0, factPath(name, ids))),
    )
    return fired ?? skipped
  }

  /** Until it is decided; its code may wait for a worker for longer. */
  async #untilStarted(pipeline: string, schedule: string, occurrence: string): Promise<void> {
    const { connection, names } = this.#deps
    const filter = names.fact(0, factPath('schedule.fired', { pipeline, schedule, occurrence }).replace(/[^.]+$/, '*'))
    const untilMs = performance.now() + ANSWER_MS
    for (;;) {
      const message = await connection.read((nc) => leaderGet(nc, names.log(0), { last_by_subj: filter }))
      const fact = message ? factOf(names, 0, message) : await this.#sealedEnd(pipeline, schedule, occurrence)
      if (fact?.name === 'schedule.fired') return
      if (fact?.name === 'schedule.skipped') {
        const { why, error } = fact.data
        throw new FlowStoneError(
          'not_started',
          `schedule ${pipeline}/${schedule} started no run (${why})${error ? `: ${error.message}` : ''}`,
        )
      }
      if (performance.now() > untilMs) {
        const doc = await readDoc(connection, names, names.stateBucket(0), stateKey.schedule(pipeline, schedule))
        if ((doc as ScheduleState | undefined)?.open[occurrence]) return
        throw new FlowStoneError(
          'no_engine',
          `no engine has answered within ${ANSWER_MS / 1000} s; it decides when one is active`,
        )
      }
      await sleep(LOOK_MS)
    }
  }
}

function viewOf(doc: ScheduleState, nowMs: number): ScheduleView {
  const { pipeline, name, spec, removed, paused, recent, counts, open, queue, eras } = doc
  const afterMs = Math.max(Math.floor(nowMs), eras.at(-1)?.fromMs ?? 0)
  const next = removed || paused ? undefined : nextOccurrence(spec.timing, afterMs)
  const [last] = recent
  return {
    name: `${pipeline}/${name}`,
    pipeline,
    schedule: name,
    target: spec.target,
    when: whenOf(spec.timing),
    state: removed ? 'removed' : paused ? 'paused' : 'active',
    ...(paused ? { pausedSince: new Date(paused.sinceMs) } : {}),
    ...(paused?.reason === undefined ? {} : { pausedBecause: paused.reason }),
    last: last && occurrenceOf(last),
    next: next === undefined ? undefined : new Date(next),
    open: Object.values(open).map(({ atMs, run, evaluation }) => ({
      at: new Date(atMs),
      run: evaluation ?? run,
      evaluating: evaluation !== undefined,
    })),
    waiting: queue.length,
    ...counts,
  }
}

function whenOf(timing: ScheduleTiming): ScheduleWhen {
  if ('everyMs' in timing) return { everyMs: timing.everyMs, anchor: new Date(timing.anchorMs) }
  const { cron, timeZone, dst } = timing
  return { cron, timeZone, ...dst }
}

function occurrenceOf({ what, atMs, lastMs, count, run, why, error, by }: RecentOccurrence): OccurrenceView {
  return {
    what,
    at: new Date(atMs),
    ...(lastMs === undefined ? {} : { last: new Date(lastMs) }),
    ...(count === undefined ? {} : { count }),
    ...(run === undefined ? {} : { run }),
    ...(why === undefined ? {} : { why }),
    ...(error === undefined ? {} : { error }),
    ...(by === undefined ? {} : { by }),
  }
}

function requestOf(at: string, key: string | undefined): string {
  if (key === undefined) return randomBytes(8).toString('hex')
  if (typeof key !== 'string' || key === '') throw new InvalidError(`${at}: key must be text that is not empty`)
  return `k${createHash('sha256').update(key).digest('hex').slice(0, 32)}`
}

function dateOf(field: string, value: unknown): number {
  const ms = value instanceof Date ? value.getTime() : typeof value === 'string' ? parseDate(value) : undefined
  if (ms !== undefined && Number.isInteger(ms)) return ms
  throw new InvalidError(
    `schedules.backfill: ${field} must be a date, such as '2026-11-01T00:00:00Z', got ${shown(value)}`,
  )
}
