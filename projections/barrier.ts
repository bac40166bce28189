/**
 * The barrier of a scatter: who is done, what is leased, what comes next, and when it is over.
 *
 *   state   fact               → state                                                    caused by
 *   (none)  scatter.started    → open                                                     worker (scatter task)
 *   open    scatter.items      → open, more instances stored; leases are fed              worker
 *   open    scatter.sized      → open, total fixed; closes if all are done (also 0)       worker
 *   open    scatter.outcomes   → open, instances done, or leased again; closes at the last  worker
 *   open    scatter.split      → open, the lease's rest is leased again one by one        worker that was given it a second time, or drains
 *   open    scatter.closed     → completed | partial_failure | failed | cancelled         engine, once
 *   closed  anything           → unchanged
 *
 * An instance is: not stored → unfed → leased (or waiting for a retry, or due in `refeed`) → done (succeeded or failed). Done is a bit, set once: an
 * outcome that arrives again, or from an older lease, changes nothing. An instance fails when its attempts are used up, not before.
 *
 * Leases are cut here, from the facts alone, so an engine that folds the same facts again cuts the same leases with the same ids.
 */
import type { AssetName } from '../streams/ids.ts'
import type { AssetSpec, ErrorInfo, ScatterStatus } from '../streams/schemas.ts'
import type { LeaseTask } from '../streams/tasks.ts'
import type { Fact, FactOf } from '../streams/facts.ts'
import { backoffMs } from './backoff.ts'
import { isDone, markDone, newSegment, segmentOf } from './bits.ts'
import type { Command } from './commands.ts'
import { type BarrierState, type Lease, type RunState, stateKey, type View } from './state.ts'

export const SLABS_PER_CHUNK = 256

/** A lease should take a worker about this long. */
const LEASE_TARGET_MS = 60
export const LEASE_SIZE_MAX = 1000
const LEASE_SIZE_START = 16
const WINDOW_START = 64
/** Most leases of one barrier on WORK at a time, and most instances of it that wait for a delayed retry before feeding stops. */
export const WINDOW_MAX = 4096
/** A lease that waited less than this on WORK shows that workers have room. */
const IDLE_WAIT_MS = 50
const WORKER_SEEN_MS = 60_000

export interface BarrierContext {
  readonly view: View
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

export function startBarrier({ view, run }: BarrierContext, fact: FactOf<'scatter.started'>): void {
  const key = stateKey.barrier(fact.ids.run, fact.ids.asset)
  if (view.get(key)) return
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
    window: WINDOW_START,
    workers: {},
    startedMs: fact.timeMs,
  })
}

type BarrierFact = FactOf<'scatter.items' | 'scatter.sized' | 'scatter.outcomes' | 'scatter.split'>

/** Folds a fact into an open barrier and decides what follows: leases to enqueue, or the end. */
export function stepBarrier(context: BarrierContext, fact: BarrierFact): Command[] {
  const { view } = context
  const key = stateKey.barrier(fact.ids.run, fact.ids.asset)
  const barrier = view.get(key)
  if (!barrier || barrier.status !== 'open') return []
  barrier.seq = fact.seq
  view.put(key, barrier)

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
  if (barrier.closing) return []
  const end = endOf(barrier)
  if (end) {
    barrier.closing = true
    return [closeCommand(barrier, end)]
  }
  commands.push(...feed(context, barrier, fact.timeMs))
  return commands
}

/** scatter.closed: the last word. */
export function closeBarrier(view: View, fact: FactOf<'scatter.closed'>): BarrierState | undefined {
  const key = stateKey.barrier(fact.ids.run, fact.ids.asset)
  const barrier = view.get(key)
  if (!barrier || barrier.status !== 'open') return undefined
  barrier.seq = fact.seq
  barrier.status = fact.data.status
  barrier.closedMs = fact.timeMs
  if (fact.data.error) barrier.error = fact.data.error
  // What was on its way is of no interest any more; the document stays small for as long as the run is kept.
  barrier.leases = {}
  barrier.refeed = []
  barrier.again = {}
  barrier.delayed = 0
  barrier.workers = {}
  view.put(key, barrier)
  return barrier
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

function endOf(barrier: BarrierState): { status: ScatterStatus; error?: ErrorInfo } | undefined {
  if (barrier.failed > 0) {
    const cause = barrier.error
    const message = `an instance failed, and failureMode is all_or_nothing: ${cause?.message ?? 'unknown error'}`
    return { status: 'failed', error: { code: cause?.code ?? 'instance_failed', message } }
  }
  if (barrier.total !== undefined && barrier.total !== barrier.stored) {
    // Two executions of a scatter function that gives other keys each time: to wait for this total would be to wait for ever.
    const message = `${barrier.stored} keys are stored, but the scatter function ended after ${barrier.total}; it must give the same keys each time it is called`
    return { status: 'failed', error: { code: 'keys_changed', message } }
  }
  if (barrier.total !== undefined && barrier.succeeded + barrier.failed === barrier.total) return { status: 'completed' }
  return undefined
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
  const commands: Command[] = []
  for (let k = 0; k < data.at.length; k++) {
    const index = data.at[k]
    if (index === undefined || index < range.from || index >= range.to || index >= barrier.fedTo) continue
    const error = errors.get(k)
    if (error === undefined) takeSuccess(context, barrier, index, data.lease)
    else commands.push(...takeError(context, barrier, index, data.lease, range.ordinal, error, fact))
  }
  barrier.workers[data.worker] = fact.timeMs
  if (data.heldMs !== undefined && lease) adapt(barrier, lease, range.to - range.from, data.heldMs, fact.timeMs)
  return commands
}

function takeSuccess(context: BarrierContext, barrier: BarrierState, index: number, from: string): void {
  if (!markOnce(context, barrier, index, false)) return
  barrier.succeeded += 1
  const again = barrier.again[index]
  if (again) {
    // Done by this or an older lease: whichever single lease stands for it is settled.
    delete barrier.again[index]
    endLease(barrier, leaseId(index, index + 1, again[0]))
    return
  }
  // What is due again was taken out of its lease when that was lost; a late word of it settles the instance, and not a place in the lease once more.
  if (!dropFromRefeed(barrier, index)) returnOne(barrier, from)
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
  if (isDone(segmentFor(context, barrier, index), index)) return []
  const again = barrier.again[index]
  // An error counts for the execution that is current; an older one was counted when its lease was lost.
  if (again ? again[0] !== ordinal : isDue(barrier, index)) return []
  const lease = barrier.leases[from]
  if (!lease) return []
  const failures = lease.failures + (error.outcome === 'handed_back' ? 0 : 1)
  const slab = lease.slab
  returnOne(barrier, from)
  delete barrier.again[index]

  const { retry } = context.spec
  if (error.outcome === 'terminal' || failures >= retry.maxAttempts) {
    markOnce(context, barrier, index, true)
    barrier.failed += 1
    barrier.error ??= error.error
    return []
  }
  const waitMs =
    error.outcome === 'handed_back' ? 0 : (error.retryAfterMs ?? backoffMs(retry, failures, `${barrier.run}.${barrier.asset}.${index}`))
  return [leaseOne(context, barrier, index, slab, ordinal + 1, failures, fact.timeMs, waitMs)]
}

function splitLease(context: BarrierContext, barrier: BarrierState, fact: FactOf<'scatter.split'>): Command[] {
  const range = parseLeaseId(fact.data.lease)
  const lease = barrier.leases[fact.data.lease]
  if (!range || !lease) return []
  const lost = fact.data.reason === 'lost'
  const failures = lease.failures + (lost ? 1 : 0)
  const exhausted = failures >= context.spec.retry.maxAttempts
  for (let index = range.from; index < range.to; index++) {
    if (isDone(segmentFor(context, barrier, index), index)) continue
    const again = barrier.again[index]
    if (again ? again[0] !== range.ordinal : isDue(barrier, index)) continue
    delete barrier.again[index]
    if (exhausted) {
      markOnce(context, barrier, index, true)
      barrier.failed += 1
      barrier.error ??= { code: 'worker_lost', message: `the worker died while it ran instance ${index}, ${failures} time(s)` }
      continue
    }
    const last = barrier.refeed.at(-1)
    if (last && last.to === index && last.slab === lease.slab && last.ordinal === range.ordinal + 1 && last.failures === failures) last.to += 1
    else barrier.refeed.push({ from: index, to: index + 1, slab: lease.slab, ordinal: range.ordinal + 1, failures })
  }
  endLease(barrier, fact.data.lease)
  return []
}

/** Keeps the window full: first what is due again, one by one, then new instances in leases of the present size. */
function feed(context: BarrierContext, barrier: BarrierState, nowMs: number): Command[] {
  const commands: Command[] = []
  let open = Object.keys(barrier.leases).length - barrier.delayed
  const lastChunk = Math.floor(barrier.fedSlab / SLABS_PER_CHUNK) + 1
  while (open < barrier.window) {
    const head = barrier.refeed[0]
    if (head) {
      const { from, slab, ordinal, failures } = head
      head.from += 1
      if (head.from >= head.to) barrier.refeed.shift()
      commands.push(leaseOne(context, barrier, from, slab, ordinal, failures, nowMs, 0))
    } else {
      if (barrier.fedTo >= barrier.stored || barrier.delayed >= WINDOW_MAX) break
      // So far needs() has loaded. An engine that has more at hand must not go on: one that has just started would cut other leases. The next fact goes on;
      // leases are outstanding, so there is a next fact.
      if (Math.floor(barrier.fedSlab / SLABS_PER_CHUNK) > lastChunk) break
      const slab = slabAt(context.view, barrier)
      if (!slab) break
      const end = Math.min(barrier.fedTo + cutSize(barrier), slab[0] + slab[1])
      commands.push(newLease(context, barrier, { from: barrier.fedTo, to: end, slab: slab[0], ordinal: 1, failures: 0 }, nowMs, 0))
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
function cutSize(barrier: BarrierState): number {
  const workers = Math.max(1, Object.keys(barrier.workers).length)
  const share = Math.ceil((barrier.stored - barrier.fedTo) / (4 * workers))
  return Math.max(1, Math.min(barrier.leaseSize, Math.max(share, Math.min(barrier.leaseSize, 8))))
}

function adapt(barrier: BarrierState, lease: Lease, size: number, heldMs: number, nowMs: number): void {
  const per = heldMs / size
  barrier.perInstanceMs = barrier.perInstanceMs === undefined ? per : barrier.perInstanceMs * 0.7 + per * 0.3
  const ideal = Math.floor(LEASE_TARGET_MS / Math.max(barrier.perInstanceMs, 0.01))
  barrier.leaseSize = Math.max(1, Math.min(ideal, barrier.leaseSize * 4, LEASE_SIZE_MAX))
  const waitedMs = nowMs - Math.max(lease.fedMs, lease.dueMs ?? 0) - heldMs
  if (waitedMs < IDLE_WAIT_MS && barrier.window < WINDOW_MAX) barrier.window += 1
  for (const [worker, seenMs] of Object.entries(barrier.workers)) if (nowMs - seenMs > WORKER_SEEN_MS) delete barrier.workers[worker]
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
export function leaseCommand({ run, spec }: Pick<BarrierContext, 'run' | 'spec'>, barrier: BarrierState, id: string): Command {
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
    ...(spec.timeoutMs === undefined ? {} : { timeoutMs: spec.timeoutMs }),
    from: range.from,
    to: range.to,
    slab: lease.slab,
    lease: id,
    ordinal: range.ordinal,
    attempt: lease.failures + 1,
    maxAttempts: spec.retry.maxAttempts,
  }
  return {
    do: 'task',
    task,
    queue: spec.queue,
    priority: spec.priority,
    ...(lease.dueMs === undefined ? {} : { dueMs: lease.dueMs }),
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

/** Whether an instance waits in `refeed`, whatever its older leases still say. */
function isDue(barrier: BarrierState, index: number): boolean {
  return barrier.refeed.some((range) => index >= range.from && index < range.to)
}

/** False when it was not there. */
function dropFromRefeed(barrier: BarrierState, index: number): boolean {
  const at = barrier.refeed.findIndex((range) => index >= range.from && index < range.to)
  const range = barrier.refeed[at]
  if (!range) return false
  const parts = [
    { ...range, to: index },
    { ...range, from: index + 1 },
  ].filter((part) => part.from < part.to)
  barrier.refeed.splice(at, 1, ...parts)
  return true
}

function segmentFor({ view }: BarrierContext, barrier: BarrierState, index: number): Uint8Array {
  return view.get(stateKey.segment(barrier.run, barrier.asset, segmentOf(index))) ?? newSegment()
}

/** Sets an instance's bit; false if it was set already. */
function markOnce(context: BarrierContext, barrier: BarrierState, index: number, failed: boolean): boolean {
  const segment = segmentFor(context, barrier, index)
  if (isDone(segment, index)) return false
  context.view.put(stateKey.segment(barrier.run, barrier.asset, segmentOf(index)), markDone(segment, index, failed))
  return true
}
