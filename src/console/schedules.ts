/** What the page of schedules and events says, and where its lanes have their marks. Pure. */
import type { Said } from './answers.ts'
import type { Occurrence, RefusedMessage, RefusedTrigger, Run, Schedule, Sensor, Subscription } from './api/types.ts'
import { clock, count, counted, duration, moment, shortId } from './format.ts'
import type { UiState } from './words.ts'

export const SPAN_MS = 12 * 3_600_000
/** Marks that would lie on each other are one. */
const MARKS = 64

export type MarkKind = 'fail' | 'missed' | 'skipped' | 'retry' | 'gate' | 'run' | 'wait' | 'off' | 'done' | 'due'

/** The worst of several shows. */
const WORST: readonly MarkKind[] = ['fail', 'missed', 'run', 'gate', 'retry', 'wait', 'skipped', 'off', 'done', 'due']

export interface Mark {
  /** Of the lane: 0 is 12 hours back, 1 is 12 hours on. */
  readonly share: number
  readonly kind: MarkKind
  readonly count: number
  readonly title: string
  /** Of one alone. */
  readonly run: string | undefined
}

const RUN_STATES: Readonly<Record<Run['status'], MarkKind>> = {
  queued: 'wait',
  requested: 'wait',
  running: 'run',
  succeeded: 'done',
  failed: 'fail',
  cancelled: 'off',
}

const MARK_WORDS: Readonly<Record<MarkKind, string>> = {
  fail: 'failed',
  missed: 'missed',
  skipped: 'skipped',
  retry: 'retrying',
  gate: 'at a gate',
  run: 'runs',
  wait: 'waits',
  off: 'cancelled',
  done: 'succeeded',
  due: 'due',
}

interface Point {
  readonly at: number
  readonly kind: MarkKind
  readonly count: number
  readonly run?: string | undefined
  readonly why?: string | undefined
}

/** What became of occurrences, and those that are due, from 12 hours back to 12 hours on. */
export function lane(
  occurrences: readonly Occurrence[],
  next: readonly string[],
  runs: ReadonlyMap<string, Run['status']>,
  now: number,
): Mark[] {
  const past = occurrences.map((one): Point => {
    const status = one.run === undefined ? undefined : runs.get(one.run)
    const kind = one.what === 'fired' ? (status ? RUN_STATES[status] : 'done') : one.what
    return { at: Date.parse(one.last ?? one.at), kind, count: one.count ?? 1, run: one.run, why: one.why }
  })
  const due = next.map((at): Point => ({ at: Date.parse(at), kind: 'due', count: 1 }))
  const places = new Map<number, Point[]>()
  for (const point of [...past, ...due]) {
    const share = (point.at - now + SPAN_MS) / (2 * SPAN_MS)
    if (share < 0 || share > 1) continue
    // What has happened and what is due never share a mark.
    const place = Math.floor(share * MARKS) + (point.kind === 'due' ? 0.5 : 0)
    places.set(place, [...(places.get(place) ?? []), point])
  }
  return [...places.values()].map((points) => markOf(points, now)).toSorted((a, b) => a.share - b.share)
}

function markOf(points: readonly Point[], now: number): Mark {
  const kind = WORST.find((one) => points.some((point) => point.kind === one)) ?? 'done'
  const sum = points.reduce((all, point) => all + point.count, 0)
  const [first] = points.toSorted((a, b) => a.at - b.at)
  const [worst] = points.filter((point) => point.kind === kind)
  const at = first?.at ?? now
  const what = [...Map.groupBy(points, (point) => point.kind)]
    .map(
      ([name, own]) =>
        `${sum === 1 ? '' : `${count(own.reduce((all, one) => all + one.count, 0))} `}${MARK_WORDS[name]}`,
    )
    .join(', ')
  const why = worst?.why === undefined ? '' : `: ${whyWords(worst.why)}`
  return {
    share: (at - now + SPAN_MS) / (2 * SPAN_MS),
    kind,
    count: sum,
    title: `${moment(at, now)}: ${what}${why}`,
    run: sum === 1 || kind === 'fail' || kind === 'run' ? worst?.run : undefined,
  }
}

export function whyWords(why: string): string {
  return why.replaceAll('_', ' ')
}

/** `every 30 min`, or the cron with its zone. */
export function whenWords(when: Schedule['when']): string {
  return 'cron' in when ? `${when.cron}, ${when.timeZone}` : `every ${duration(when.everyMs)}`
}

export interface Last {
  readonly state: UiState
  readonly text: string
  readonly run: string | undefined
}

export function lastOf(schedule: Schedule, runs: ReadonlyMap<string, Run['status']>, now: number): Last {
  const { state, pausedSince, pausedBecause, last, open } = schedule
  if (state === 'paused') {
    const since = pausedSince ? ` since ${moment(pausedSince, now)}` : ''
    return { state: 'off', text: `paused${since}${pausedBecause ? `: ${pausedBecause}` : ''}`, run: undefined }
  }
  const [current] = open
  if (current) return { state: 'run', text: `runs since ${moment(current.at, now)}`, run: current.run }
  if (!last) return { state: 'wait', text: 'nothing yet', run: undefined }
  const when = moment(last.last ?? last.at, now)
  if (last.what === 'missed') return { state: 'fail', text: `missed ${when}`, run: undefined }
  if (last.what === 'skipped')
    return { state: 'off', text: `skipped ${when}${last.why ? `: ${whyWords(last.why)}` : ''}`, run: undefined }
  const status = last.run === undefined ? undefined : runs.get(last.run)
  const kind = status === undefined ? 'done' : RUN_STATES[status]
  const words = status === undefined ? 'started' : MARK_WORDS[kind]
  return {
    state: kind === 'fail' || kind === 'run' || kind === 'off' ? kind : 'done',
    text: `${words} ${when}`,
    run: last.run,
  }
}

/** What starts next, what did not? */
export function schedulesAnswer(schedules: readonly Schedule[], sensors: readonly Sensor[], now: number): Said[] {
  if (schedules.length === 0 && sensors.length === 0) return [{ text: 'No schedule.' }]
  const due = schedules
    .filter(({ next, state }) => next !== undefined && state === 'active')
    .toSorted((a, b) => Date.parse(a.next ?? '') - Date.parse(b.next ?? ''))
  const [first] = due
  const said: Said[] = first?.next
    ? [{ text: `Next is ${first.schedule} at ${moment(first.next, now)}.` }]
    : [{ text: 'No schedule is due.' }]
  const missed = schedules.reduce((sum, one) => sum + one.missed, 0)
  const skipped = schedules.reduce((sum, one) => sum + one.skipped, 0)
  if (missed > 0)
    said.push({ text: ` ${counted(missed, 'start')} ${missed === 1 ? 'was' : 'were'} missed`, tone: 'fail' })
  if (skipped > 0)
    said.push({
      text:
        missed > 0
          ? `, ${count(skipped)} skipped`
          : ` ${counted(skipped, 'start')} ${skipped === 1 ? 'was' : 'were'} skipped`,
    })
  if (missed + skipped > 0) said.push({ text: '.' })
  const broken = sensors.filter(({ error }) => error !== undefined)
  if (broken.length > 0)
    said.push({ text: ` ${counted(broken.length, 'sensor')} ${broken.length === 1 ? 'fails' : 'fail'}.`, tone: 'fail' })
  return said
}

/** Of what was missed and skipped last, why. */
export function missedWords(schedules: readonly Schedule[]): string {
  const lasts = schedules.flatMap(({ schedule, last }) =>
    last && last.what !== 'fired'
      ? [`${schedule} ${last.what} ${clock(last.at, false)}${last.why ? ` (${whyWords(last.why)})` : ''}`]
      : [],
  )
  const paused = schedules.filter(({ state }) => state === 'paused')
  const also =
    paused.length === 0
      ? []
      : [`${paused.map(({ schedule }) => schedule).join(', ')} ${paused.length === 1 ? 'is' : 'are'} paused`]
  const text = [...lasts, ...also].slice(0, 4).join('. ')
  return text === '' ? '' : `${text}.`
}

export interface SensorLine {
  readonly state: UiState
  readonly text: string
}

export function sensorLine({ state, error, last, pausedBecause, failures }: Sensor, now: number): SensorLine {
  if (state === 'paused') return { state: 'off', text: pausedBecause ? `paused: ${pausedBecause}` : 'paused' }
  if (error) return { state: 'fail', text: `${counted(failures, 'failure')}: ${error.message}` }
  if (state === 'evaluating') return { state: 'run', text: 'looks now' }
  return last
    ? { state: 'done', text: `looked ${duration(now - Date.parse(last))} ago` }
    : { state: 'wait', text: 'has not looked yet' }
}

export function subscriptionLine({ state, waiting, reader }: Subscription): SensorLine {
  if (state === 'no_stream') return { state: 'fail', text: 'its stream is not there' }
  if (state === 'idle') return { state: 'late', text: 'no worker reads it' }
  if (waiting !== undefined && waiting > 0) return { state: 'run', text: `${count(waiting)} wait` }
  return { state: 'done', text: reader ? `read by ${shortId(reader, 12)}` : 'read' }
}

export interface RefusedRow {
  readonly id: string
  readonly at: string
  readonly reason: string
  readonly from: string
  /** Of a message, which can be taken again. */
  readonly message: RefusedMessage | undefined
  /** Of a trigger. */
  readonly trigger: RefusedTrigger | undefined
}

/** Newest first. */
export function refusedRows(messages: readonly RefusedMessage[], triggers: readonly RefusedTrigger[]): RefusedRow[] {
  const rows = [
    ...messages.map(
      (message): RefusedRow => ({
        id: `${message.pipeline}/${message.subscription}/${message.seq}`,
        at: message.at,
        reason: message.reason,
        from: `${message.subscription}, message ${count(message.seq)} of ${message.stream}`,
        message,
        trigger: undefined,
      }),
    ),
    ...triggers.map(
      (one): RefusedRow => ({
        id: `trigger ${one.id}`,
        at: one.at,
        reason: one.reason,
        from: `trigger of ${one.pipeline === undefined ? '' : `${one.pipeline}/`}${one.asset}`,
        message: undefined,
        trigger: one,
      }),
    ),
  ]
  return rows.toSorted((a, b) => Date.parse(b.at) - Date.parse(a.at))
}
