/** What there is to say of a scatter: counts, rate, and why what waits is waiting. */

import { PACE_MS } from '../../projections/scatter/lease.ts'
import { parseLeaseId } from '../../projections/scatter/lease-id.ts'
import type { BarrierState } from '../../projections/scatter/state.ts'
import { counted } from '../../streams/amounts.ts'
import type { AssetSpec, ScatterSpec } from '../../streams/schemas.ts'
import { type ErrorView, viewOfError } from '../../streams/thrown.ts'
import { ableOf, missingWorker, NO_WORKERS, type SeenWorkers } from './seen-workers.ts'

/**
 * All that are stored are counted once: `succeeded + failed + leased + suspended + waitingForRetry
 * + waiting + cancelled`.
 */
export interface ScatterStatus {
  readonly id: string
  readonly status: BarrierState['status']
  /** Unknown until the scatter function has given all its keys. */
  readonly total: number | undefined
  /** Keys stored so far. */
  readonly stored: number
  readonly succeeded: number
  readonly failed: number
  /** Of `failed`: those whose last attempt ran out of time. */
  readonly timedOut: number
  /** Stored and neither succeeded nor failed. */
  readonly pending: number
  /** Of `pending`: in a lease on the queue, or in a worker's hands. */
  readonly leased: number
  /** Of `leased`: those whose code runs now, as far as workers answer. */
  readonly running: number
  /** Of `pending`: waiting at a signal gate, or going on from one. */
  readonly suspended: number
  /** Of `pending`: failed or lost before, and to be tried again. */
  readonly waitingForRetry: number
  /** Of `pending`: not in a lease yet, or handed back unbegun. */
  readonly waiting: number
  /** Of a cancelled or failed scatter: what never ended. */
  readonly cancelled: number
  /** Values on the log or in the object store. */
  readonly resultsStored: number
  /**
   * What `redrive` would run again: all that did not succeed of a closed scatter whose keys are all
   * known.
   */
  readonly redrivable: number
  /**
   * Finished instances in percent of the total, rounded down to tenths; 0 while the total is
   * unknown, or 0.
   */
  readonly progress: number
  /** Finished instances a second: of late while it is open, on the whole when it is closed. */
  readonly perSecond: number
  /** When it will be done at this rate; undefined when unknown, paused or done. */
  readonly estimatedEnd: Date | undefined
  /** When `totalTimeout` ends it. */
  readonly deadline: Date | undefined
  /** How many more may fail before the scatter fails; undefined while that is unknown. */
  readonly failuresLeft: number | undefined
  /** Set while it is paused. */
  readonly paused: { readonly since: Date; readonly reason: string | undefined } | undefined
  readonly startedAt: Date
  readonly closedAt: Date | undefined
  /** The first error of an instance, or why it failed. */
  readonly error: ErrorView | undefined
  /**
   * What runs longest, at most five: instances, with the worker that has them; or leases that have
   * been out longest, where no worker tells.
   */
  readonly longest: readonly LongRunning[]
  /** Why what waits is waiting. Empty when nothing waits. */
  readonly waitingFor: readonly string[]
}

/** Instances that a worker has been at for long: which, since when, and which worker. */
export interface LongRunning {
  /** Instances [from, to). */
  readonly from: number
  readonly to: number
  readonly since: Date
  readonly worker: string | undefined
}

export interface StatusInput {
  readonly id: string
  readonly barrier: BarrierState
  readonly spec: AssetSpec | undefined
  readonly pipeline: string
  /** Instances of the whole scatter, where this one runs some of them again. */
  readonly whole?: number | undefined
  readonly version: string
  /** What workers of the pipeline answered just now; undefined where none were asked. */
  readonly seen: SeenWorkers | undefined
  readonly nowMs: number
}

export function statusOf(input: StatusInput): ScatterStatus {
  const { id, barrier, spec, nowMs } = input
  const { workers } = input.seen ?? NO_WORKERS
  const { succeeded, failed, stored, total, paused } = barrier
  const done = succeeded + failed
  const open = barrier.status === 'open'
  const counts = countsOf(barrier, nowMs)
  const running = Math.min(
    counts.leased,
    workers.reduce((sum, worker) => sum + worker.running, 0),
  )
  const perSecond = open ? recentRate(barrier, nowMs) : rate(done, (barrier.closedMs ?? nowMs) - barrier.startedMs)
  const left = total === undefined ? undefined : total - done
  const estimable = open && !paused && left !== undefined && perSecond > 0
  return {
    id,
    status: barrier.status,
    total,
    stored,
    succeeded,
    failed,
    timedOut: barrier.timedOut ?? 0,
    pending: open ? stored - done : 0,
    leased: counts.leased,
    running,
    suspended: open ? (barrier.suspended ?? 0) : 0,
    waitingForRetry: open ? counts.retries : 0,
    waiting: open ? counts.unfed : 0,
    cancelled: open ? 0 : Math.max(0, (total ?? stored) - done),
    resultsStored: succeeded,
    redrivable: open || total !== stored ? 0 : stored - succeeded,
    progress: total ? Math.floor((done / total) * 1000) / 10 : 0,
    perSecond: Math.round(perSecond * 100) / 100,
    estimatedEnd: estimable ? new Date(nowMs + (left / perSecond) * 1000) : undefined,
    deadline: barrier.deadlineMs === undefined ? undefined : new Date(barrier.deadlineMs),
    failuresLeft: spec && failuresLeft(spec, barrier.failed, input.whole ?? total),
    paused: paused && { since: new Date(paused.sinceMs), reason: paused.reason },
    startedAt: new Date(barrier.startedMs),
    closedAt: barrier.closedMs === undefined ? undefined : new Date(barrier.closedMs),
    error: barrier.error && viewOfError(barrier.error),
    longest: longestOf(input),
    waitingFor: open ? reasonsOf(input, counts, running) : [],
  }
}

interface Counts {
  /** In leases that may run now. */
  readonly leased: number
  /** In leases that wait for their time. */
  readonly delayed: number
  /** Milliseconds until the first of those. */
  readonly nextMs: number
  /** All that will run again: these, those that are due, and those that are deferred. */
  readonly retries: number
  /** Of a batch that is retried when the first pass has ended. */
  readonly deferred: number
  readonly unfed: number
}

function countsOf(barrier: BarrierState, nowMs: number): Counts {
  const leases = Object.values(barrier.leases)
  const delayed = leases.filter(({ dueMs }) => dueMs !== undefined && dueMs > nowMs)
  const inRanges = (ranges: readonly { from: number; to: number }[]): number =>
    ranges.reduce((n, { from, to }) => n + to - from, 0)
  const unfed = barrier.stored - barrier.fedTo + inRanges(barrier.requeued.filter(({ unstarted: wide }) => wide))
  const leased = leases.reduce((n, { left }) => n + left, 0) - delayed.length
  const suspended = barrier.suspended ?? 0
  // Ranges of what is to be run again may lie over what is done, so they cannot be added up; the
  // rest can.
  const retries = Math.max(0, barrier.stored - barrier.succeeded - barrier.failed - leased - unfed - suspended)
  return {
    leased,
    delayed: delayed.length,
    nextMs: Math.max(0, Math.round(Math.min(...delayed.map(({ dueMs }) => dueMs ?? nowMs)) - nowMs)),
    retries,
    deferred: Math.min(retries - delayed.length, inRanges(barrier.deferred ?? [])),
    unfed,
  }
}

function rate(done: number, elapsedMs: number): number {
  return (done / Math.max(1, elapsedMs)) * 1000
}

/** Of the last seconds; a scatter that has come to a halt slows down to nothing. */
function recentRate({ pace, succeeded, failed, startedMs }: BarrierState, nowMs: number): number {
  const done = succeeded + failed
  if (!pace) return rate(done, nowMs - startedMs)
  const elapsedMs = nowMs - pace.sinceMs
  const now = rate(done - pace.done, elapsedMs)
  if (pace.perSecond === undefined) return now
  const weight = Math.min(1, elapsedMs / PACE_MS)
  return pace.perSecond * (1 - weight) + now * weight
}

function longestOf({ barrier, seen, nowMs }: StatusInput): LongRunning[] {
  const { workers } = seen ?? NO_WORKERS
  const reported = workers.flatMap(({ worker, oldest }) =>
    oldest.map(([index, sinceMs]) => ({ from: index, to: index + 1, sinceMs, worker })),
  )
  const out = Object.entries(barrier.leases).flatMap(([id, { fedMs, dueMs, to }]) => {
    const range = parseLeaseId(id)
    if (!range || (dueMs !== undefined && dueMs > nowMs)) return []
    return [{ from: range.from, to: to ?? range.to, sinceMs: dueMs ?? fedMs, worker: undefined }]
  })
  return (reported.length > 0 ? reported : out)
    .sort((a, b) => a.sinceMs - b.sinceMs)
    .slice(0, 5)
    .map(({ from, to, sinceMs, worker }) => ({ from, to, since: new Date(sinceMs), worker }))
}

function reasonsOf(
  { barrier, spec, pipeline, version, seen = NO_WORKERS }: StatusInput,
  counts: Counts,
  running: number,
): string[] {
  const reasons: string[] = []
  const { paused } = barrier
  if (paused) {
    const why = paused.reason === undefined ? '' : ` (${paused.reason})`
    reasons.push(`somebody to resume it: paused since ${new Date(paused.sinceMs).toISOString()}${why}`)
  }
  const queue = spec?.scatter?.queue ?? spec?.queue ?? 'default'
  const wanted = spec && { pipeline, version, queue, spec }
  const serving = wanted ? ableOf(seen, wanted) : []
  const idle = counts.leased - running
  const maxConcurrent = spec?.scatter?.maxConcurrent
  if (idle > 0 && !paused) {
    const slots = serving.reduce((sum, worker) => sum + worker.slots, 0)
    const isBusy = serving.every(({ free }) => free === 0)
    if (serving.length === 0)
      reasons.push(
        (wanted && missingWorker(seen, wanted)) ?? `a worker: none answers that serves queue ${pipeline}/${queue}`,
      )
    else if (maxConcurrent !== undefined && running >= maxConcurrent)
      reasons.push(`its limit: maxConcurrent of ${maxConcurrent} is used up; ${idle} leased instances wait their turn`)
    else if ((spec?.scatter?.rateLimit || spec?.scatter?.slots) && !(isBusy && isFree(spec.scatter, seen)))
      reasons.push(...limitsOf(spec.scatter, `${idle} leased instances wait their turn`, seen.nextTurn))
    else if (isBusy)
      reasons.push(`a slot: ${idle} leased instances wait; slots: ${slots}, of ${counted(serving.length, 'worker')}`)
  }
  if (counts.unfed > 0 && !paused) reasons.push(`room: ${counts.unfed} instances are fed to workers as others end`)
  const suspended = barrier.suspended ?? 0
  if (suspended > 0) reasons.push(`a signal, or a run: ${suspended} instances wait`)
  if (counts.delayed > 0) {
    // A worker returns an instance whose turn is far off. It is redelivered like a retry.
    const wait = `${counts.delayed} instances wait their turn, or a retry delay, the next for ${counts.nextMs} ms`
    if (spec?.scatter?.rateLimit || spec?.scatter?.slots) reasons.push(...limitsOf(spec.scatter, wait, seen.nextTurn))
    else reasons.push(`a retry delay: ${counts.delayed} instances, the next in ${counts.nextMs} ms`)
  }
  if (counts.deferred > 0)
    reasons.push(`the end of the first pass: ${counts.deferred} failed instances are retried together then`)
  if (barrier.total === undefined) reasons.push('keys: the scatter function has not given all of them')
  return reasons
}

/** Its rate limit holds nothing up. Of slots nobody knows whom they hold up. */
function isFree({ slots }: ScatterSpec, { hasRoom }: SeenWorkers): boolean {
  return slots === undefined && hasRoom === true
}

function limitsOf({ rateLimit, slots }: ScatterSpec, wait: string, nextTurn: Date | undefined): string[] {
  const turn = nextTurn === undefined ? '' : `; the next turn is at ${nextTurn.toISOString()}`
  const named = ({ bucket, perKey }: { bucket?: string | undefined; perKey?: boolean | undefined }): string =>
    perKey ? ', a bucket for each key' : bucket === undefined ? '' : `, bucket ${bucket}`
  return [
    ...(rateLimit
      ? [`its rate limit: ${rateLimit.limit} in ${rateLimit.periodMs} ms${named(rateLimit)}${turn}; ${wait}`]
      : []),
    ...(slots ? [`its slots: ${slots.max} at a time${named(slots)}; ${wait}`] : []),
  ]
}

function failuresLeft(spec: AssetSpec, failed: number, total: number | undefined): number | undefined {
  if (spec.scatter?.failureMode !== 'partial') return 0
  const { threshold } = spec.scatter
  if ('count' in threshold) return Math.max(0, threshold.count - failed)
  return total === undefined ? undefined : Math.max(0, Math.floor(threshold.fraction * total + 1e-9) - failed)
}
