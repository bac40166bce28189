/** What the page of a scatter says. Pure: answers of the API in, parts of sentences out. */
import type { Said } from '../answers.ts'
import type { ErrorGroup, Scatter } from '../api/types.ts'
import { count, counted, duration, moment, percent, rate } from '../format.ts'
import { lineOf } from '../runs.ts'
import { fullAt, isLimit, type Link, mainReason, reasonsOf, waitsForReason } from './reasons.ts'

/** All instances that are known so far. */
export function wholeOf({ total, stored }: Pick<Scatter, 'total' | 'stored'>): number {
  return total ?? stored
}

export function endedOf({ succeeded, failed }: Pick<Scatter, 'succeeded' | 'failed'>): number {
  return succeeded + failed
}

/** How many failures end it, or would have. Undefined: not known. */
export function allowedOf({ failed, failuresLeft }: Scatter): number | undefined {
  return failuresLeft === undefined ? undefined : failed + failuresLeft
}

/** The first few say little of the rest. */
function isMuch(scatter: Scatter): boolean {
  return endedOf(scatter) >= Math.min(1000, wholeOf(scatter) / 20)
}

/** If the rest fails like what has ended. Undefined: nothing has ended, or the total is unknown. */
export function failedAtEnd(scatter: Scatter): number | undefined {
  const ended = endedOf(scatter)
  if (scatter.total === undefined || ended === 0) return undefined
  if (scatter.status !== 'open') return scatter.failed
  return Math.round((scatter.failed / ended) * scatter.total)
}

/** `first` is what matters most; `more` goes on with it. */
export interface ScatterSaid {
  readonly first: readonly Said[]
  readonly more: readonly Said[]
}

/** Will it finish, when about, what fails, why does it wait. */
export function scatterAnswer(scatter: Scatter, errors: readonly ErrorGroup[], now: number, link: Link): ScatterSaid {
  if (scatter.status !== 'open') return closedAnswer(scatter, errors, now)
  const { first, more } = openAnswer(scatter, now, link)
  return { first, more: [...more, ...failsBy(scatter, errors)] }
}

function openAnswer(scatter: Scatter, now: number, link: Link): ScatterSaid {
  const { paused, total, stored, perSecond, pending, succeeded } = scatter
  if (total === undefined && endedOf(scatter) === 0 && !paused)
    return {
      first: [{ text: stored === 0 ? 'Keys are being read. ' : `Keys are being read: ${count(stored)} so far. ` }],
      more: [],
    }
  if (paused) {
    const why = paused.reason === undefined ? '' : `: ${paused.reason}`
    const wait = `${counted(pending, 'instance')} ${pending === 1 ? 'waits' : 'wait'} until somebody resumes it. `
    return { first: [{ text: `Paused since ${moment(paused.since, now)}${why}. ` }], more: [{ text: wait }] }
  }
  if (total !== undefined && pending === 0 && endedOf(scatter) === total) {
    const text = `All ${count(total)} have ended, ${count(succeeded)} of them well. `
    return { first: [{ text }], more: [{ text: 'It is being closed. ' }] }
  }
  const reason = mainReason(reasonsOf(scatter, link))
  const isHeld = reason && (isLimit(reason) || perSecond === 0 || reason.kind === 'worker')
  const more = [...endOf(scatter, now)]
  if (total === undefined) more.push({ text: `Keys are still being read: ${count(stored)} so far. ` })
  if (isHeld) return { first: waitsForReason(reason), more: [{ text: `${fullAt(reason)}. ` }, ...more] }
  return perSecond > 0
    ? { first: [{ text: 'Runs' }], more: [{ text: `, ${rate(perSecond)} a second. ` }, ...more] }
    : { first: [{ text: 'Runs. ' }], more: [{ text: 'Nothing has ended of late. ' }, ...more] }
}

function endOf(scatter: Scatter, now: number): Said[] {
  const { estimatedEnd, deadline, total } = scatter
  const allowed = allowedOf(scatter)
  const expected = failedAtEnd(scatter)
  const isTooMany =
    allowed !== undefined && expected !== undefined && expected > allowed && scatter.failed > 0 && isMuch(scatter)
  if (isTooMany && total !== undefined) {
    const most = allowed === 0 ? 'none may' : `${count(allowed)} may`
    return [{ text: `At this rate it fails: about ${count(expected)} would fail, ${most}. `, tone: 'fail' }]
  }
  if (estimatedEnd === undefined)
    return deadline === undefined ? [] : [{ text: `Its time limit ends it at ${moment(deadline, now)}. ` }]
  const isLate = deadline !== undefined && Date.parse(estimatedEnd) > Date.parse(deadline)
  if (isLate)
    return [
      {
        text: `Its time limit ends it at ${moment(deadline, now)}, before all are done at about ${moment(estimatedEnd, now)}. `,
        tone: 'fail',
      },
    ]
  const leftMs = Math.max(1000, Date.parse(estimatedEnd) - now)
  const isSoon = leftMs < 90_000
  return [
    {
      text: isSoon ? `Done in ${duration(leftMs)}. ` : `Done at about ${moment(estimatedEnd, now)}. `,
    },
  ]
}

function failsBy({ failed }: Scatter, errors: readonly ErrorGroup[]): Said[] {
  return failed === 0 ? [] : [{ text: `${count(failed)} failed`, tone: 'fail' }, ...mostBy(failed, errors)]
}

/** The error that most fail by. */
function mostBy(failed: number, errors: readonly ErrorGroup[]): Said[] {
  const [first] = errors
  if (!first) return [{ text: '. ' }]
  const by = failed === 1 ? 'by' : errors.length === 1 ? 'all by' : 'most by'
  return [{ text: `, ${by} ` }, { text: first.code, mono: true }, { text: '. ' }]
}

function closedAnswer(scatter: Scatter, errors: readonly ErrorGroup[], now: number): ScatterSaid {
  const { status, failed, succeeded, cancelled, startedAt, closedAt, error, perSecond } = scatter
  const all = wholeOf(scatter)
  const took = closedAt === undefined ? '' : ` in ${duration(Date.parse(closedAt) - Date.parse(startedAt))}`
  const when = closedAt === undefined ? '' : ` at ${moment(closedAt, now)}`
  const never: Said[] = cancelled === 0 ? [] : [{ text: `${count(cancelled)} never ended. ` }]
  const atRate = perSecond > 0 ? `${rate(perSecond)} a second on the whole. ` : ''
  if (status === 'completed') {
    const text = all === 0 ? 'It has no instances.' : `${all === 1 ? 'It' : `All ${count(all)}`} succeeded${took}. `
    return { first: [{ text }], more: [{ text: `Done${when}. ${atRate}` }] }
  }
  if (status === 'partial_failure')
    return {
      first: [
        { text: `Done${when}: ${count(succeeded)} succeeded, ` },
        { text: `${count(failed)} failed`, tone: 'fail' },
      ],
      more: mostBy(failed, errors),
    }
  if (status === 'failed')
    return {
      first: [{ text: `Failed${when}: ${error ? lineOf(error) : 'too many failed'}. `, tone: 'fail' }],
      more: [...failsBy(scatter, errors), ...never],
    }
  return {
    first: [{ text: `Cancelled${when}. ` }],
    more: [{ text: `${count(succeeded)} had succeeded. ` }, ...never, ...failsBy(scatter, errors)],
  }
}

export interface Meter {
  /** Shares of the meter: 0 to 1. */
  readonly failed: number
  readonly expected: number
  readonly mark: number
  readonly text: string
}

/** The scale ends beyond the threshold. Undefined: there is no share to show. */
export function meterOf(scatter: Scatter): Meter | undefined {
  const allowed = allowedOf(scatter)
  if (allowed === undefined || allowed === 0) return undefined
  const mark = 0.8
  const place = (n: number): number => Math.min(1, (n / allowed) * mark)
  const expected = failedAtEnd(scatter)
  const all = wholeOf(scatter)
  const text =
    scatter.status !== 'open'
      ? `${count(Math.max(0, allowed - scatter.failed))} more could have failed.`
      : expected === undefined || !isMuch(scatter)
        ? 'How it ends at this rate is not known yet.'
        : `At this rate ${percent(expected, all, 2)} at the end.`
  return {
    failed: place(scatter.failed),
    expected: place(Math.max(scatter.failed, isMuch(scatter) ? (expected ?? 0) : 0)),
    mark,
    text,
  }
}

/** What is said beside the threshold where nothing may fail, or it is not known. */
export function thresholdText(scatter: Scatter): string {
  const allowed = allowedOf(scatter)
  if (allowed === undefined)
    return scatter.total === undefined
      ? 'of a share of all keys, which are still being read'
      : 'how many may is not known'
  if (allowed === 0) return scatter.status === 'open' ? 'none may: the first one ends it' : 'none was allowed to'
  return `${count(allowed)} allowed`
}

/** `a1b2c3d4 of 12` and `ffff0000 of 7` are one error: as the API groups them. */
export function isOfGroup(
  group: Pick<ErrorGroup, 'code' | 'message'>,
  error: { code: string; message: string },
): boolean {
  return group.code === error.code && withoutNumbers(group.message) === withoutNumbers(error.message)
}

function withoutNumbers(message: string): string {
  return message.replaceAll(/[0-9a-f]{8,}|\d+/gi, '#')
}

export interface Seen {
  readonly at: number
  readonly perSecond: number
  readonly isHeld: boolean
}

const SEEN_MAX = 1500

/** One more look at an open scatter: for the curve of its rate, and the time lost to limits. */
export function withSeen(seen: readonly Seen[], scatter: Scatter, now: number, link: Link): readonly Seen[] {
  const last = seen.at(-1)
  if (scatter.status !== 'open' || (last && now - last.at < 500)) return seen
  const isHeld = reasonsOf(scatter, link).some(isLimit)
  return [...seen.slice(-(SEEN_MAX - 1)), { at: now, perSecond: scatter.perSecond, isHeld }]
}

/** How much of the time that this page has seen went by while limits held instances up. */
export function lostToLimits(seen: readonly Seen[]): { readonly lostMs: number; readonly seenMs: number } {
  let lostMs = 0
  for (const [i, { at, isHeld }] of seen.entries()) {
    const next = seen[i + 1]
    if (next && isHeld) lostMs += next.at - at
  }
  const [first] = seen
  return { lostMs, seenMs: first ? (seen.at(-1)?.at ?? first.at) - first.at : 0 }
}
