/**
 * The barrier of a scatter: who is done, what is leased, what comes next, and when it is over.
 *
 *   state   fact               → state                                                    caused by
 *   (none)  scatter.started    → open                                                     worker (scatter task)
 *   open    scatter.items      → open, more instances stored; leases are fed              worker
 *   open    scatter.sized      → open, total fixed; closes if all are done (also 0)       worker
 *   open    scatter.outcomes   → open, instances done, or leased again; closes at the last  worker
 *   open    scatter.split      → open, the lease's rest is leased again one by one        worker that was given it a second time, or drains
 *   open    scatter.cancel_requested → open, scatter.closed (cancelled) is decided           client
 *   open    scatter.closed     → completed | partial_failure | failed | cancelled         engine, once
 *   closed  anything           → unchanged
 *
 * An instance is: not stored → unfed → leased (or waiting for a retry, or due in `refeed`) → done (succeeded or failed). Done is a bit, set once: an
 * outcome that arrives again, or from an older lease, changes nothing. An instance fails when its attempts are used up, not before.
 *
 * Leases are cut here, from the facts alone, so an engine that folds the same facts again cuts the same leases with the same ids.
 */

import type { Fact, FactOf } from '../streams/facts.ts'
import type { AssetName } from '../streams/ids.ts'
import type { AssetSpec, ErrorInfo, RetrySpec, ScatterStatus } from '../streams/schemas.ts'
import type { LaneName } from '../streams/subjects.ts'
import type { LeaseTask } from '../streams/tasks.ts'
import { backoffMs } from './backoff.ts'
import { isDone, markDone, newSegment, segmentOf } from './bits.ts'
import type { Command } from './commands.ts'
import { type BarrierState, type Lease, type Refeed, type RunState, stateKey, type View } from './state.ts'

export const SLABS_PER_CHUNK = 256

/** A lease should take a worker about this long. */
const LEASE_TARGET_MS = 60
export const LEASE_SIZE_MAX = 1000
const LEASE_SIZE_START = 16
const WINDOW_START = 8
/** Fewest instances out at a time, so that the first leases, and short ones of slow instances, reach every slot of a few workers. */
const OPEN_MIN = 128
/** Instances that are retried one by one at a time; more wait in `refeed`, a range for each lease they came from, so that the document stays small. */
export const AGAIN_MAX = 2048
/** While this many ranges wait, nothing new is leased. */
const REFEED_MAX = 2048
/** Ranges of `refeed` that one fact may feed from: so far needs() loads. */
export const REFEED_STEP = 4
/** The shortest lease worth its messages, near the end of a scatter. */
const LEASE_MIN_MS = 5
const LEASE_MIN_UNKNOWN = 8
/** Most leases of one barrier on WORK at a time, and most instances of it that wait for a delayed retry before feeding stops. */
export const WINDOW_MAX = 4096
/** A lease that waited less than this on WORK shows that workers have room. */
const IDLE_WAIT_MS = 50
/** Most separate stretches of failed instances that wait for the first pass to be over; the document must stay small. */
export const PARKED_MAX = 4096
const WORKER_SEEN_MS = 60_000

export interface BarrierContext {
  readonly view: View
  /** The segments that this step reads and writes, taken from the view once and put back once. */
  readonly bits?: Bits
  readonly run: RunState
  readonly spec: AssetSpec
}

export function leaseId(from: number, to: number, ordinal: number): string {
  return `${from}-${to}-${ordinal}`
}

export function parseLeaseId(id: string): { from: number; to: number; ordinal: number } | undefined {
  const match = /^(\d{1,15})-(\d{1,15})-(\d{1,9})$/.exec(id)
  const [from = 0, to = 0, ordinal = 0] = match?.slice(1).map(Number) ?? []
  // Wider ones are never cut, and would reach beyond the segments that needs() loads.
  return to > from && to - from <= LEASE_SIZE_MAX && ordinal >= 1 ? { from, to, ordinal } : undefined
}

export function startBarrier({ view, run, spec }: BarrierContext, fact: FactOf<'scatter.started'>): Command[] {
  const key = stateKey.barrier(fact.ids.run, fact.ids.asset)
  if (view.get(key)) return []
  const maxConcurrent = spec.scatter?.maxConcurrent
  view.put(key, {
    seq: fact.seq,
    run: run.id,
    asset: fact.ids.asset,
    status: 'open',
    stored: 0,
    slabs: 0,
    fedTo: 0,
    fedSlab: 0,
    succeeded: 0,
    failed: 0,
    leases: {},
    delayed: 0,
    refeed: [],
    again: {},
    leaseSize: LEASE_SIZE_START,
    // A lane needs as many leases again in reserve as may be out, so that a worker never waits for the engine.
    window: maxConcurrent === undefined ? WINDOW_START : Math.min(WINDOW_MAX, 2 * maxConcurrent),
    workers: {},
    startedMs: fact.timeMs,
  })
  if (maxConcurrent === undefined) return []
  const lane = laneOf(run, spec)
  const lanesKey = stateKey.lanes(lane.pipeline, lane.queue)
  const lanes = view.get(lanesKey) ?? { seq: fact.seq, lanes: {} }
  lanes.seq = fact.seq
  lanes.lanes[`${lane.run}.${lane.asset}`] = { priority: lane.priority, maxConcurrent }
  view.put(lanesKey, lanes)
  return [{ do: 'open_lane', lane, maxConcurrent }]
}

export function laneOf(run: RunState, spec: AssetSpec): LaneName {
  const queue = spec.scatter?.queue ?? spec.queue
  const priority = spec.scatter?.priority ?? spec.priority
  return { pipeline: run.pipeline, queue, priority, run: run.id, asset: spec.name }
}

type BarrierFact = FactOf<'scatter.items' | 'scatter.sized' | 'scatter.outcomes' | 'scatter.split'>

/** Folds a fact into an open barrier and decides what follows: leases to enqueue, or the end. */
export function stepBarrier(given: BarrierContext, fact: BarrierFact): Command[] {
  const { view } = given
  const key = stateKey.barrier(fact.ids.run, fact.ids.asset)
  const barrier = view.get(key)
  if (!barrier || barrier.status !== 'open') return []
  barrier.seq = fact.seq
  view.put(key, barrier)

  const bits = new Bits(view, barrier)
  const context = { ...given, bits }
  const commands: Command[] = []
  switch (fact.name) {
    case 'scatter.items':
      storeSlab(context, barrier, fact)
      break
    case 'scatter.sized':
      barrier.total ??= fact.data.total
      break
    case 'scatter.outcomes':
      commands.push(...takeOutcomes(context, barrier, fact))
      break
    case 'scatter.split':
      commands.push(...splitLease(context, barrier, fact))
      break
    default:
      fact satisfies never
  }
  const end = barrier.closing ? undefined : endOf(context, barrier)
  if (end) {
    barrier.closing = true
    commands.splice(0, commands.length, closeCommand(barrier, end))
  } else if (barrier.closing) commands.length = 0
  else commands.push(...feed(context, barrier, fact.timeMs))
  bits.put()
  return commands
}

class Bits {
  readonly #view: View
  readonly #barrier: BarrierState
  readonly #segments = new Map<number, Uint8Array>()
  readonly #changed = new Set<number>()

  constructor(view: View, barrier: BarrierState) {
    this.#view = view
    this.#barrier = barrier
  }

  isDone(index: number): boolean {
    return isDone(this.#segment(segmentOf(index)), index)
  }

  mark(index: number, failed: boolean): void {
    const n = segmentOf(index)
    this.#segments.set(n, markDone(this.#segment(n), index, failed))
    this.#changed.add(n)
  }

  put(): void {
    for (const n of this.#changed) {
      const segment = this.#segments.get(n)
      if (segment) this.#view.put(this.#key(n), segment)
    }
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

/** scatter.closed: the last word. */
export function closeBarrier({ view, run, spec }: BarrierContext, fact: FactOf<'scatter.closed'>): Command[] {
  const key = stateKey.barrier(fact.ids.run, fact.ids.asset)
  const barrier = view.get(key)
  if (!barrier || barrier.status !== 'open') return []
  barrier.seq = fact.seq
  barrier.status = fact.data.status
  barrier.closedMs = fact.timeMs
  if (fact.data.error) barrier.error = fact.data.error
  // What was on its way is of no interest any more; the document stays small for as long as the run is kept.
  barrier.leases = {}
  barrier.refeed = []
  delete barrier.parked
  barrier.again = {}
  barrier.delayed = 0
  barrier.workers = {}
  view.put(key, barrier)
  if (spec.scatter?.maxConcurrent === undefined) return []
  const lane = laneOf(run, spec)
  const lanesKey = stateKey.lanes(lane.pipeline, lane.queue)
  const lanes = view.get(lanesKey)
  if (lanes) {
    lanes.seq = fact.seq
    delete lanes.lanes[`${lane.run}.${lane.asset}`]
    view.put(lanesKey, lanes)
  }
  return [{ do: 'close_lane', lane }]
}

export function closeCommand(barrier: BarrierState, end: { status: ScatterStatus; error?: ErrorInfo }): Command {
  return {
    do: 'fact',
    fact: {
      name: 'scatter.closed',
      ids: { run: barrier.run, asset: barrier.asset as AssetName },
      data: {
        run: barrier.run,
        asset: barrier.asset,
        status: end.status,
        ...(barrier.total === undefined ? {} : { total: barrier.total }),
        succeeded: barrier.succeeded,
        failed: barrier.failed,
        ...(end.error ? { error: end.error } : {}),
      },
    },
  }
}

/** How instances of an asset are retried: their own rule where there is one, else the asset's. */
export function instanceRetry(spec: AssetSpec): RetrySpec {
  return spec.scatter?.retry ?? spec.retry
}

/**
 * Whether it is over. A threshold given as a fraction is measured against the total, so it is looked at from the moment the total is known; one given as a count
 * from the first failure on.
 */
function endOf(
  { spec }: BarrierContext,
  barrier: BarrierState,
): { status: ScatterStatus; error?: ErrorInfo } | undefined {
  const { failed, succeeded, total, error: cause } = barrier
  const partial = spec.scatter?.failureMode === 'partial'
  if (failed > 0) {
    const why = cause?.message ?? 'unknown error'
    if (!partial) {
      const message = `an instance failed, and failureMode is all_or_nothing: ${why}`
      return { status: 'failed', error: { code: cause?.code ?? 'instance_failed', message } }
    }
    const threshold = spec.scatter?.threshold ?? { fraction: 0 }
    const allowed =
      'count' in threshold ? threshold.count : total === undefined ? undefined : threshold.fraction * total
    // A hair of tolerance: 0.02 of 50 is 1, whatever the doubles say.
    if (allowed !== undefined && failed > allowed + 1e-9) {
      const limit = 'count' in threshold ? `${threshold.count} instances` : `${threshold.fraction} of ${total}`
      return {
        status: 'failed',
        error: {
          code: 'threshold_passed',
          message: `${failed} instances failed, more than failureThreshold (${limit}) allows; the first: ${why}`,
        },
      }
    }
  }
  if (total === undefined) return undefined
  if (total !== barrier.stored) {
    // Two executions of a scatter function that gives other keys each time: to wait for this total would be to wait for ever.
    const message = `${barrier.stored} keys are stored, but the scatter function ended after ${total}; it must give the same keys each time it is called`
    return { status: 'failed', error: { code: 'keys_changed', message } }
  }
  if (succeeded + failed !== total) return undefined
  return { status: failed > 0 ? 'partial_failure' : 'completed' }
}

function storeSlab({ view }: BarrierContext, barrier: BarrierState, fact: FactOf<'scatter.items'>): void {
  const offset = Number(fact.ids.offset)
  // Slabs come in order, each once (its subject is taken); anything else was not written by a scatter of ours.
  if (offset !== barrier.stored || barrier.total !== undefined) return
  const key = stateKey.slabs(barrier.run, barrier.asset, Math.floor(barrier.slabs / SLABS_PER_CHUNK))
  const chunk = view.get(key) ?? { seq: fact.seq, slabs: [] }
  chunk.seq = fact.seq
  chunk.slabs.push([offset, fact.data.count])
  view.put(key, chunk)
  barrier.slabs += 1
  barrier.stored += fact.data.count
}

function takeOutcomes(context: BarrierContext, barrier: BarrierState, fact: FactOf<'scatter.outcomes'>): Command[] {
  const { data } = fact
  const lease = barrier.leases[data.lease]
  const range = parseLeaseId(data.lease)
  if (!range) return []
  const errors = new Map(data.errors)
  const inLease = (index: number): boolean => index >= range.from && index < range.to && index < barrier.fedTo
  const commands: Command[] = []
  // Successes first: what is to be done again then lies between what is done, and makes few ranges.
  for (const [k, index] of data.at.entries())
    if (inLease(index) && !errors.has(k)) takeSuccess(context, barrier, index, data.lease)
  for (const [k, error] of errors) {
    const index = data.at[k]
    if (index !== undefined && inLease(index))
      commands.push(...takeError(context, barrier, index, data.lease, range.ordinal, error, fact))
  }
  barrier.workers[data.worker] = fact.timeMs
  if (data.heldMs !== undefined && lease)
    adapt(barrier, lease, range.to - range.from, data.heldMs, fact.timeMs, fixedWindow(context))
  return commands
}

function takeSuccess(context: BarrierContext, barrier: BarrierState, index: number, from: string): void {
  if (!markOnce(context, index, false)) return
  barrier.succeeded += 1
  const again = barrier.again[index]
  if (again) {
    // Done by this or an older lease: whichever single lease stands for it is settled.
    delete barrier.again[index]
    endLease(barrier, leaseId(index, index + 1, again[0]))
    return
  }
  // What is due again was taken out of its lease when that was lost; a late word of it settles the instance, and not a place in the lease once more.
  if (!dropFromWaiting(context, barrier, index)) returnOne(barrier, from)
}

function takeError(
  context: BarrierContext,
  barrier: BarrierState,
  index: number,
  from: string,
  ordinal: number,
  error: NonNullable<FactOf<'scatter.outcomes'>['data']['errors']>[number][1],
  fact: Fact,
): Command[] {
  if (context.bits?.isDone(index)) return []
  const again = barrier.again[index]
  // An error counts for the execution that is current; an older one was counted when its lease was lost.
  if (again ? again[0] !== ordinal : isDue(barrier, index)) return []
  const lease = barrier.leases[from]
  if (!lease) return []
  const failures = lease.failures + (error.outcome === 'handed_back' ? 0 : 1)
  const slab = lease.slab
  returnOne(barrier, from)
  delete barrier.again[index]

  const retry = instanceRetry(context.spec)
  if (error.outcome === 'terminal' || failures >= retry.maxAttempts) {
    markOnce(context, index, true)
    barrier.failed += 1
    if (error.outcome === 'timeout') barrier.timedOut = (barrier.timedOut ?? 0) + 1
    barrier.error ??= error.error
    return []
  }
  if (context.spec.scatter?.strategy === 'batch' && error.outcome !== 'handed_back') {
    barrier.parked ??= []
    addToRanges(context, barrier.parked, { from: index, to: index + 1, slab, ordinal: ordinal + 1, failures })
    return []
  }
  const waitMs =
    error.outcome === 'handed_back'
      ? 0
      : (error.retryAfterMs ?? backoffMs(retry, failures, `${barrier.run}.${barrier.asset}.${index}`))
  if (Object.keys(barrier.again).length >= AGAIN_MAX) {
    addToRanges(context, barrier.refeed, {
      from: index,
      to: index + 1,
      slab,
      ordinal: ordinal + 1,
      failures,
      dueMs: fact.timeMs + waitMs,
    })
    return []
  }
  return [leaseOne(context, barrier, index, slab, ordinal + 1, failures, fact.timeMs, waitMs)]
}

function splitLease(context: BarrierContext, barrier: BarrierState, fact: FactOf<'scatter.split'>): Command[] {
  const range = parseLeaseId(fact.data.lease)
  const lease = barrier.leases[fact.data.lease]
  if (!range || !lease) return []
  const lost = fact.data.reason === 'lost'
  const failures = lease.failures + (lost ? 1 : 0)
  const exhausted = failures >= instanceRetry(context.spec).maxAttempts
  for (let index = range.from; index < range.to; index++) {
    if (context.bits?.isDone(index)) continue
    const again = barrier.again[index]
    if (again ? again[0] !== range.ordinal : isDue(barrier, index)) continue
    delete barrier.again[index]
    if (exhausted) {
      markOnce(context, index, true)
      barrier.failed += 1
      barrier.error ??= {
        code: 'worker_lost',
        message: `the worker died while it ran instance ${index}, ${failures} time(s)`,
      }
      continue
    }
    addToRanges(context, barrier.refeed, {
      from: index,
      to: index + 1,
      slab: lease.slab,
      ordinal: range.ordinal + 1,
      failures,
    })
  }
  endLease(barrier, fact.data.lease)
  return []
}

/**
 * Adds one instance that waits to be leased again. A range holds all of its instances that are not done, and begins and ends with one: so it grows over what is done,
 * and a lease leaves a few ranges, however its failures are strewn.
 */
function addToRanges(context: BarrierContext, ranges: Refeed[], one: Refeed): void {
  const last = ranges.at(-1)
  const alike = last && last.slab === one.slab && last.ordinal === one.ordinal && last.failures === one.failures
  if (!alike || one.from < last.to || one.to - last.from > LEASE_SIZE_MAX || !allDone(context, last.to, one.from)) {
    ranges.push(one)
    return
  }
  last.to = one.to
  if (one.dueMs !== undefined) last.dueMs = Math.max(last.dueMs ?? 0, one.dueMs)
}

function allDone({ bits }: BarrierContext, from: number, to: number): boolean {
  for (let index = from; index < to; index++) if (!bits?.isDone(index)) return false
  return true
}

/** With `strategy: batch`: once nothing else is to be done (or before, when too many stretches wait), what failed is due again, all of it together. */
function releaseParked(context: BarrierContext, barrier: BarrierState, nowMs: number): void {
  const { parked } = barrier
  if (!parked || parked.length === 0) return
  const passOver =
    barrier.total !== undefined &&
    barrier.fedTo === barrier.stored &&
    barrier.refeed.length === 0 &&
    Object.keys(barrier.leases).length === 0
  if (!passOver && parked.length < PARKED_MAX) return
  delete barrier.parked
  for (const range of parked) {
    const wait = backoffMs(instanceRetry(context.spec), range.failures, `${barrier.run}.${barrier.asset}`)
    barrier.refeed.push({ ...range, dueMs: nowMs + wait })
  }
}

/** Keeps the window full: first what is due again, one by one, then new instances in leases of the present size. */
function feed(context: BarrierContext, barrier: BarrierState, nowMs: number): Command[] {
  const commands: Command[] = []
  releaseParked(context, barrier, nowMs)
  let open = Object.keys(barrier.leases).length - barrier.delayed
  let again = Object.keys(barrier.again).length
  let ranges = 0
  const window = Math.max(barrier.window, fixedWindow(context) ? 0 : Math.ceil(OPEN_MIN / barrier.leaseSize))
  const lastChunk = Math.floor(barrier.fedSlab / SLABS_PER_CHUNK) + 1
  while (open < window) {
    const head = barrier.refeed[0]
    if (head && again < AGAIN_MAX && ranges < REFEED_STEP) {
      const { from, slab, ordinal, failures, dueMs } = head
      const waitMs = Math.max(0, (dueMs ?? nowMs) - nowMs)
      do head.from += 1
      while (head.from < head.to && context.bits?.isDone(head.from))
      if (head.from >= head.to) {
        barrier.refeed.shift()
        ranges += 1
      }
      commands.push(leaseOne(context, barrier, from, slab, ordinal, failures, nowMs, waitMs))
      again += 1
    } else {
      // What waits goes first; but while as much of it is out as may be, new instances need not wait for it.
      if (head && (again < AGAIN_MAX || barrier.refeed.length >= REFEED_MAX)) break
      if (barrier.fedTo >= barrier.stored) break
      // So far needs() has loaded. An engine that has more at hand must not go on: one that has just started would cut other leases. The next fact goes on;
      // leases are outstanding, so there is a next fact.
      if (Math.floor(barrier.fedSlab / SLABS_PER_CHUNK) > lastChunk) break
      const slab = slabAt(context.view, barrier)
      if (!slab) break
      const end = Math.min(barrier.fedTo + cutSize(context, barrier), slab[0] + slab[1])
      commands.push(
        newLease(context, barrier, { from: barrier.fedTo, to: end, slab: slab[0], ordinal: 1, failures: 0 }, nowMs, 0),
      )
      barrier.fedTo = end
      if (end === slab[0] + slab[1]) barrier.fedSlab += 1
    }
    open += 1
  }
  return commands
}

function slabAt(view: View, barrier: BarrierState): [number, number] | undefined {
  const chunk = view.get(stateKey.slabs(barrier.run, barrier.asset, Math.floor(barrier.fedSlab / SLABS_PER_CHUNK)))
  return chunk?.slabs[barrier.fedSlab % SLABS_PER_CHUNK]
}

/** Guided: the nearer the end, the smaller the leases, so that no worker holds a long one while the others stand idle. */
function cutSize({ spec }: BarrierContext, barrier: BarrierState): number {
  const workers = Math.max(1, Object.keys(barrier.workers).length, spec.scatter?.maxConcurrent ?? 1)
  const share = Math.ceil((barrier.stored - barrier.fedTo) / (4 * workers))
  const worthwhile =
    barrier.perInstanceMs === undefined
      ? LEASE_MIN_UNKNOWN
      : Math.ceil(LEASE_MIN_MS / Math.max(barrier.perInstanceMs, 0.01))
  return Math.max(1, Math.min(barrier.leaseSize, Math.max(share, worthwhile)))
}

/** With maxConcurrent the number of leases out is not found out but given. */
function fixedWindow({ spec }: BarrierContext): boolean {
  return spec.scatter?.maxConcurrent !== undefined
}

function adapt(barrier: BarrierState, lease: Lease, size: number, heldMs: number, nowMs: number, fixed: boolean): void {
  const per = heldMs / size
  barrier.perInstanceMs = barrier.perInstanceMs === undefined ? per : barrier.perInstanceMs * 0.7 + per * 0.3
  const ideal = Math.floor(LEASE_TARGET_MS / Math.max(barrier.perInstanceMs, 0.01))
  barrier.leaseSize = Math.max(1, Math.min(ideal, barrier.leaseSize * 4, LEASE_SIZE_MAX))
  const waitedMs = nowMs - Math.max(lease.fedMs, lease.dueMs ?? 0) - heldMs
  if (waitedMs < IDLE_WAIT_MS && barrier.window < WINDOW_MAX && !fixed) barrier.window += 1
  for (const [worker, seenMs] of Object.entries(barrier.workers))
    if (nowMs - seenMs > WORKER_SEEN_MS) delete barrier.workers[worker]
}

function leaseOne(
  context: BarrierContext,
  barrier: BarrierState,
  index: number,
  slab: number,
  ordinal: number,
  failures: number,
  nowMs: number,
  waitMs: number,
): Command {
  barrier.again[index] = [ordinal, failures, slab]
  return newLease(context, barrier, { from: index, to: index + 1, slab, ordinal, failures }, nowMs, waitMs)
}

function newLease(
  context: BarrierContext,
  barrier: BarrierState,
  cut: { from: number; to: number; slab: number; ordinal: number; failures: number },
  nowMs: number,
  waitMs: number,
): Command {
  const lease: Lease = { left: cut.to - cut.from, slab: cut.slab, fedMs: nowMs, failures: cut.failures }
  if (waitMs > 0) {
    lease.dueMs = nowMs + waitMs
    barrier.delayed += 1
  }
  const id = leaseId(cut.from, cut.to, cut.ordinal)
  barrier.leases[id] = lease
  return leaseCommand(context, barrier, id)
}

/** The task of a lease that is out. Also used to enqueue it again when it got lost. */
export function leaseCommand(
  { run, spec }: Pick<BarrierContext, 'run' | 'spec'>,
  barrier: BarrierState,
  id: string,
): Command {
  const lease = barrier.leases[id]
  const range = parseLeaseId(id)
  if (!lease || !range) throw new Error(`no lease ${id}`)
  const task: LeaseTask = {
    kind: 'lease',
    id: `${barrier.run}.${barrier.asset}.${id}`,
    run: barrier.run,
    asset: barrier.asset,
    pipeline: run.pipeline,
    version: run.version,
    ...(run.partition === undefined ? {} : { partition: run.partition }),
    deps: depsOf(run, spec),
    ...(spec.scatter?.timeoutMs === undefined ? {} : { timeoutMs: spec.scatter.timeoutMs }),
    from: range.from,
    to: range.to,
    slab: lease.slab,
    lease: id,
    ...(spec.scatter?.maxConcurrent === undefined ? {} : { serial: true }),
    ordinal: range.ordinal,
    attempt: lease.failures + 1,
    maxAttempts: instanceRetry(spec).maxAttempts,
  }
  return {
    do: 'task',
    task,
    queue: spec.scatter?.queue ?? spec.queue,
    priority: spec.scatter?.priority ?? spec.priority,
    ...(lease.dueMs === undefined ? {} : { dueMs: lease.dueMs }),
    ...(spec.scatter?.maxConcurrent === undefined ? {} : { lane: true }),
  }
}

export function depsOf(run: RunState, spec: AssetSpec): LeaseTask['deps'] {
  const deps: LeaseTask['deps'] = {}
  for (const name of spec.dependsOn) {
    const value = run.assets[name]?.value
    if (value) deps[name] = value
  }
  return deps
}

function returnOne(barrier: BarrierState, id: string): void {
  const lease = barrier.leases[id]
  if (!lease) return
  lease.left -= 1
  if (lease.left <= 0) endLease(barrier, id)
}

function endLease(barrier: BarrierState, id: string): void {
  const lease = barrier.leases[id]
  if (!lease) return
  if (lease.dueMs !== undefined) barrier.delayed -= 1
  delete barrier.leases[id]
}

/** Whether an instance waits to be leased again, whatever its older leases still say. */
function isDue(barrier: BarrierState, index: number): boolean {
  const holds = (range: Refeed): boolean => index >= range.from && index < range.to
  return barrier.refeed.some(holds) || (barrier.parked?.some(holds) ?? false)
}

/** False when it was not there. */
function dropFromWaiting(context: BarrierContext, barrier: BarrierState, index: number): boolean {
  for (const ranges of [barrier.refeed, barrier.parked ?? []]) {
    const at = ranges.findIndex((range) => index >= range.from && index < range.to)
    const range = ranges[at]
    if (!range) continue
    const isDone = (i: number): boolean => context.bits?.isDone(i) ?? false
    let left = index
    while (left > range.from && isDone(left - 1)) left -= 1
    let right = index + 1
    while (right < range.to && isDone(right)) right += 1
    const parts = [
      { ...range, to: left },
      { ...range, from: right },
    ].filter((part) => part.from < part.to)
    ranges.splice(at, 1, ...parts)
    return true
  }
  return false
}

/** Sets an instance's bit; false if it was set already. */
function markOnce({ bits }: BarrierContext, index: number, failed: boolean): boolean {
  if (!bits || bits.isDone(index)) return false
  bits.mark(index, failed)
  return true
}
