/**
 * The barrier of a scatter: who is done, what is leased, what comes next, and when it has ended.
 *
 *   state   fact               → state                                                    caused by
 *   (none)  scatter.started    → open                                                     worker (scatter task)
 *   open    scatter.items      → open, more instances stored; leases are fed              worker
 *   open    scatter.sized      → open, total fixed; closes if all are done (also 0)       worker
 *   open    scatter.outcomes   → open, instances done, or leased again; closes at the last  worker
 *   open    lease.lost         → open, the rest of the lease is leased again, one by one  worker that got the lease a second time
 *   open    lease.returned     → open, the same; where nothing of it was started, in leases of usual size  worker that drains, or whose lease takes long
 *   open    scatter.paused     → open, nothing more is leased; what workers have not begun is returned (lease.returned)   client
 *   open    scatter.resumed    → open, leases are fed again                               client
 *   open    scatter.timer_fired → open, an early end (failed, `timeout`) is decided       server, at the time limit of the whole
 *   open    gate.resolved      → open, the instance that waited there goes on, or has failed    whoever ended the gate
 *   open    scatter.cancel_requested → open, an early end (cancelled) is decided             client
 *   open    scatter.ended_early → ended early: nothing more counts; scatter.closed is decided   engine, once
 *   open    scatter.closed     → completed | partial_failure | failed | cancelled         engine, once
 *   closed  anything           → unchanged (what continued after a gate has ended, see suspended.ts)
 *
 * An instance is: not stored → unfed → leased (or waiting for a retry, or due in `requeued`) → done
 * (succeeded or failed). Done is a bit, set once: an outcome that arrives again, or from an older
 * lease, changes nothing. An instance fails when its attempts are used up, not before.
 *
 * Leases are cut here, from the facts alone, so an engine that folds the same facts again cuts the
 * same leases with the same ids.
 */

import type { Fact, FactOf } from '../../streams/facts.ts'
import { failuresAfterLoss, instanceRetry } from '../attempts.ts'
import { backoffMs } from '../backoff.ts'
import type { Effect } from '../effects.ts'
import { type EndedGate, endLeft, gateOf } from '../gate/gate.ts'
import { forgetResume, resumeInstance, suspendInstance, takeResumed, unsuspend } from '../gate/instance-gate.ts'
import { stateKey } from '../state.ts'
import { Bits } from './bits.ts'
import type { BarrierContext, ScatterContext } from './context.ts'
import { closeEffect, endEffect, endOf, timerFact } from './end.ts'
import { CHUNKS_PER_LIST, feed, leaseAgain } from './feed.ts'
import { addToRanges, dropFromWaiting, isDue, lostError, markFailed, markOnce } from './instances.ts'
import {
  adapt,
  endLease,
  fixedWindow,
  holderOf,
  keepPace,
  limitedQueueOf,
  type RetryContext,
  returnSome,
  WINDOW_MAX,
} from './lease.ts'
import { leaseId, parseLeaseId } from './lease-id.ts'
import { comeAgainMs } from './pacing.ts'
import type { BarrierState, RequeuedRange } from './state.ts'

/**
 * How long instances take is not known yet. A worker that finds them slow hands back what it has
 * not begun, so the first leases need not be small.
 */
export const LEASE_SIZE_START = 128
/** One by one they last longer, and of a limited queue there are many leases out from the start. */
const LIMITED_LEASE_SIZE_START = 16
const WINDOW_START = 8

export function startBarrier({ view, run, spec }: ScatterContext, fact: FactOf<'scatter.started'>): Effect[] {
  const key = stateKey.barrier(fact.ids.run, fact.ids.asset)
  if (view.get(key)) return []
  const maxConcurrent = spec.scatter?.maxConcurrent
  const totalTimeoutMs = spec.scatter?.totalTimeoutMs
  view.put(key, {
    seq: fact.seq,
    run: run.id,
    asset: fact.ids.asset,
    status: 'open',
    stored: 0,
    keyChunks: 0,
    fedTo: 0,
    fedKeyChunk: 0,
    succeeded: 0,
    failed: 0,
    leases: {},
    delayed: 0,
    requeued: [],
    retries: {},
    leaseSize: maxConcurrent === undefined ? LEASE_SIZE_START : LIMITED_LEASE_SIZE_START,
    // A limited queue needs as many leases again in reserve as may be out, so that a worker never
    // waits for the engine.
    window: maxConcurrent === undefined ? WINDOW_START : Math.min(WINDOW_MAX, 2 * maxConcurrent),
    workers: {},
    startedMs: fact.timeMs,
    ...(totalTimeoutMs === undefined ? {} : { deadlineMs: fact.timeMs + totalTimeoutMs }),
  })
  const effects: Effect[] = []
  if (totalTimeoutMs !== undefined)
    effects.push({
      do: 'timer',
      fact: timerFact(run.id, spec.name, totalTimeoutMs),
      dueMs: fact.timeMs + totalTimeoutMs,
    })
  if (maxConcurrent === undefined) return effects
  const limitedQueue = limitedQueueOf(run, spec)
  const limitedQueuesKey = stateKey.limitedQueues(limitedQueue.pipeline, limitedQueue.queue)
  const limitedQueues = view.edit(limitedQueuesKey, () => ({ seq: fact.seq, limitedQueues: {} }))
  limitedQueues.seq = fact.seq
  limitedQueues.limitedQueues[`${limitedQueue.run}.${limitedQueue.asset}`] = {
    priority: limitedQueue.priority,
    maxConcurrent,
    shape: spec.shape,
  }
  return [...effects, { do: 'open_limited_queue', limitedQueue, maxConcurrent, shape: spec.shape }]
}

export type BarrierFact = FactOf<
  | 'scatter.items'
  | 'scatter.sized'
  | 'scatter.outcomes'
  | 'lease.lost'
  | 'lease.returned'
  | 'scatter.paused'
  | 'scatter.resumed'
>

/** Folds a fact into an open barrier and decides what follows: leases to enqueue, or the end. */
export function stepBarrier(given: ScatterContext, fact: BarrierFact): Effect[] {
  const { view } = given
  const key = stateKey.barrier(fact.ids.run, fact.ids.asset)
  const before = view.get(key)
  if (before?.status !== 'open' || before.endedEarly) {
    const resumed = fact.name === 'scatter.outcomes' && fact.data.resumes
    const gate = before && resumed ? gateOf(view, { ...fact.ids, gate: resumed }) : undefined
    if (gate) forgetResume(view, gate)
    return []
  }
  const barrier = view.edit(key)
  barrier.seq = fact.seq

  const context = { ...given, bits: new Bits(view, barrier) }
  const effects: Effect[] = []
  switch (fact.name) {
    case 'scatter.items':
      storeKeyChunk(context, barrier, fact)
      break
    case 'scatter.sized':
      barrier.total ??= fact.data.total
      break
    case 'scatter.outcomes':
      if (fact.data.resumes !== undefined) effects.push(...takeResumed(context, barrier, fact.data.resumes, fact))
      else effects.push(...takeOutcomes(context, barrier, fact))
      break
    case 'lease.lost':
    case 'lease.returned':
      effects.push(...releaseLease(context, barrier, fact))
      break
    case 'scatter.paused': {
      const { reason } = fact.data
      barrier.paused ??= { sinceMs: fact.timeMs, ...(reason === undefined ? {} : { reason }) }
      effects.push({ do: 'pause', run: barrier.run, asset: barrier.asset })
      break
    }
    case 'scatter.resumed':
      delete barrier.paused
      break
    default:
      fact satisfies never
  }
  return endOrGoOn(context, barrier, effects, fact.timeMs)
}

/** The gate of one of its instances has ended. */
export function stepBarrierGate(given: ScatterContext, gate: EndedGate, fact: FactOf<'gate.resolved'>): Effect[] {
  const { view, run } = given
  const key = stateKey.barrier(run.id, gate.asset)
  const before = view.get(key)
  if (before?.status !== 'open' || before.endedEarly) return []
  const barrier = view.edit(key)
  barrier.seq = fact.seq
  const context = { ...given, bits: new Bits(view, barrier) }
  const effects = resumeInstance(context, barrier, gate, fact.timeMs)
  return endOrGoOn(context, barrier, effects, fact.timeMs)
}

/** What was decided, and the next leases; or the end, and no leases. */
function endOrGoOn(context: BarrierContext, barrier: BarrierState, effects: Effect[], nowMs: number): Effect[] {
  if (barrier.closing) return []
  const end = endOf(context, barrier)
  if (!end) return [...effects, ...feed(context, barrier, nowMs)]
  barrier.closing = true
  // What was left open by who ended last has no other who ends it, before its asset does.
  const ending = effects.filter((effect) => effect.do === 'fact' && effect.fact.name === 'gate.resolved')
  return [...ending, endEffect(barrier, end)]
}

/** What was stored until now counts, and nothing that comes. */
export function onScatterEndedEarly({ view }: ScatterContext, fact: FactOf<'scatter.ended_early'>): Effect[] {
  const key = stateKey.barrier(fact.ids.run, fact.ids.asset)
  const before = view.get(key)
  if (before?.status !== 'open' || before.endedEarly) return []
  const barrier = view.edit(key)
  barrier.seq = fact.seq
  barrier.closing = true
  barrier.endedEarly = true
  // Here it is whole: scatter.closed goes to outsiders.
  if (fact.data.error) barrier.error = fact.data.error
  return [closeEffect(barrier, fact.data)]
}

/** scatter.closed: the last word. */
export function closeBarrier({ view, run, spec }: ScatterContext, fact: FactOf<'scatter.closed'>): Effect[] {
  const key = stateKey.barrier(fact.ids.run, fact.ids.asset)
  if (view.get(key)?.status !== 'open') return []
  const barrier = view.edit(key)
  const drop: Effect[] =
    barrier.delayed > 0 ? [{ do: 'drop_schedules', run: run.id, asset: spec.name, only: 'instances' }] : []
  barrier.seq = fact.seq
  barrier.status = fact.data.status
  barrier.closedMs = fact.timeMs
  if (fact.data.error && !barrier.endedEarly) barrier.error = fact.data.error
  // What was on its way is of no interest any more; the document stays small for as long as the run
  // is kept.
  barrier.leases = {}
  barrier.requeued = []
  delete barrier.deferred
  barrier.retries = {}
  barrier.delayed = 0
  delete barrier.saturated
  barrier.workers = {}
  delete barrier.paused
  delete barrier.pace
  delete barrier.suspended
  if (spec.scatter?.maxConcurrent === undefined) return drop
  const limitedQueue = limitedQueueOf(run, spec)
  const limitedQueuesKey = stateKey.limitedQueues(limitedQueue.pipeline, limitedQueue.queue)
  if (view.get(limitedQueuesKey)) {
    const limitedQueues = view.edit(limitedQueuesKey)
    limitedQueues.seq = fact.seq
    delete limitedQueues.limitedQueues[`${limitedQueue.run}.${limitedQueue.asset}`]
  }
  return [...drop, { do: 'close_limited_queue', limitedQueue }]
}

function storeKeyChunk({ view }: BarrierContext, barrier: BarrierState, fact: FactOf<'scatter.items'>): void {
  const offset = Number(fact.ids.offset)
  // Key chunks come in order, each once (its subject is taken); anything else was not written by a
  // scatter of ours.
  if (offset !== barrier.stored || barrier.total !== undefined) return
  const key = stateKey.keyChunks(barrier.run, barrier.asset, Math.floor(barrier.keyChunks / CHUNKS_PER_LIST))
  const chunk = view.edit(key, () => ({ seq: fact.seq, keyChunks: [] }))
  chunk.seq = fact.seq
  chunk.keyChunks.push([offset, fact.data.count])
  barrier.keyChunks += 1
  barrier.stored += fact.data.count
}

function takeOutcomes(context: BarrierContext, barrier: BarrierState, fact: FactOf<'scatter.outcomes'>): Effect[] {
  const { data } = fact
  const lease = barrier.leases[data.lease]
  const range = parseLeaseId(data.lease)
  if (!range) return []
  const errors = new Map(data.errors)
  const suspended = new Map(data.suspended)
  const left = new Map(data.left)
  const inLease = (index: number): boolean => index >= range.from && index < range.to && index < barrier.fedTo
  const effects: Effect[] = []
  const end = (k: number): Effect[] => endLeft(fact.ids, left.get(k) ?? [])
  const kept = lease ? (lease.to ?? range.to) : 0
  let returned = 0
  // Successes first: what is to be done again then lies between what is done, and makes few ranges.
  // A plain loop: it is run for every instance there is.
  for (let k = 0; k < data.at.length; k++) {
    const index = data.at[k]
    if (index === undefined || !inLease(index) || (errors.size > 0 && errors.has(k))) continue
    if (suspended.size > 0 && suspended.has(k)) continue
    if (left.size > 0) effects.push(...end(k))
    if (!takeSuccess(context, barrier, index)) continue
    if (index < kept) returned += 1
    // It was handed back, and yet run: whoever has it now is rid of it.
    else returnSome(barrier, holderOf(barrier, index), 1)
  }
  returnSome(barrier, data.lease, returned)
  for (const [k, error] of errors) {
    const index = data.at[k]
    if (index === undefined || !inLease(index)) continue
    const taken = takeError(context, barrier, index, data.lease, range.ordinal, error, fact)
    if (taken) effects.push(...end(k), ...taken)
  }
  for (const [k, gate] of suspended) {
    const index = data.at[k]
    if (index === undefined || !inLease(index)) continue
    const taken = suspendInstance(context, barrier, index, gate, fact)
    if (taken) effects.push(...end(k), ...taken)
  }
  barrier.workers[data.worker] = fact.timeMs
  keepPace(barrier, fact.timeMs)
  if (data.heldMs !== undefined && lease)
    adapt(barrier, lease, (lease.to ?? range.to) - range.from, data.heldMs, fact.timeMs, fixedWindow(context))
  return effects
}

/** True when a lease is still counting on it. */
function takeSuccess(context: BarrierContext, barrier: BarrierState, index: number): boolean {
  if (!markOnce(context, index, false)) return false
  barrier.succeeded += 1
  const again = barrier.retries[index]
  if (again) {
    // Done by this or an older lease: whichever single lease stands for it is settled.
    delete barrier.retries[index]
    endLease(barrier, leaseId(index, index + 1, again[0]))
    return false
  }
  // It left its lease when it began to wait; now an older execution of it has brought something
  // after all.
  if (unsuspend(context, barrier, index)) return false
  // An instance that is due again was taken out of its lease when the lease was lost. A late
  // outcome settles the instance, but not a place in the lease a second time.
  return !dropFromWaiting(context, barrier, index)
}

/** Undefined when it does not count. */
function takeError(
  context: BarrierContext,
  barrier: BarrierState,
  index: number,
  from: string,
  ordinal: number,
  error: NonNullable<FactOf<'scatter.outcomes'>['data']['errors']>[number][1],
  fact: Fact,
): Effect[] | undefined {
  if (context.bits.isDone(index) || context.bits.isSuspended(index)) return undefined
  const again = barrier.retries[index]
  // An error counts for the execution that is current; an older one was counted when its lease was
  // lost.
  if (again ? again[0] !== ordinal : isDue(barrier, index)) return undefined
  const lease = barrier.leases[from]
  if (!lease || index >= (lease.to ?? index + 1)) return undefined
  const retry = instanceRetry(context.spec)
  const isLost = error.outcome === 'lost'
  const failures = isLost ? failuresAfterLoss(lease, retry) : lease.failures + (error.outcome === 'returned' ? 0 : 1)
  const behind: RetryContext = {
    keyChunk: lease.keyChunk,
    ordinal: ordinal + 1,
    failures,
    ...(isLost || lease.lost ? { lost: true } : {}),
    ...(isLost || error.outcome === 'returned' ? { gates: lease.gates ?? ordinal } : {}),
  }
  returnSome(barrier, from, 1)
  delete barrier.retries[index]

  if (error.outcome === 'terminal' || failures >= retry.maxAttempts) {
    markFailed(context, barrier, index, { seq: fact.seq })
    if (error.outcome === 'timeout') barrier.timedOut = (barrier.timedOut ?? 0) + 1
    barrier.error ??= error.error
    return []
  }
  if (context.spec.scatter?.strategy === 'batch' && error.outcome !== 'returned') {
    barrier.deferred ??= []
    addToRanges(context, barrier.deferred, { ...behind, from: index, to: index + 1 })
    return []
  }
  const waitMs =
    error.outcome === 'returned'
      ? comeAgainMs(context, barrier, error.retryAfterMs ?? 0, fact.timeMs)
      : (error.retryAfterMs ?? backoffMs(retry, failures, `${barrier.run}.${barrier.asset}.${index}`))
  return leaseAgain(context, barrier, index, behind, fact.timeMs, waitMs)
}

type LeaseFact = FactOf<'lease.lost' | 'lease.returned'>

/** A lease has left its worker: what is not done of it is leased again. */
function releaseLease(context: BarrierContext, barrier: BarrierState, fact: LeaseFact): Effect[] {
  const range = parseLeaseId(fact.data.lease)
  const lease = barrier.leases[fact.data.lease]
  if (!range || !lease) return []
  if (fact.name === 'lease.returned' && fact.data.from !== undefined) {
    takeBack(context, barrier, fact, fact.data.from)
    return []
  }
  const lost = fact.name === 'lease.lost'
  const retry = instanceRetry(context.spec)
  const failures = lost ? failuresAfterLoss(lease, retry) : lease.failures
  const exhausted = failures >= retry.maxAttempts
  for (let index = range.from; index < (lease.to ?? range.to); index++) {
    if (context.bits.isDone(index) || context.bits.isSuspended(index)) continue
    const again = barrier.retries[index]
    if (again ? again[0] !== range.ordinal : isDue(barrier, index)) continue
    delete barrier.retries[index]
    if (exhausted) {
      markFailed(context, barrier, index, { seq: fact.seq, lostAt: failures })
      barrier.error ??= lostError(index, failures)
      continue
    }
    const one: RequeuedRange = {
      from: index,
      to: index + 1,
      keyChunk: lease.keyChunk,
      ordinal: range.ordinal + 1,
      failures,
      ...(lost || lease.lost ? { lost: true } : {}),
      gates: lease.gates ?? range.ordinal,
    }
    addToRanges(context, barrier.requeued, one)
  }
  endLease(barrier, fact.data.lease)
  return []
}

/**
 * A worker hands back what it has not begun of a lease, from `from` on: it is leased again as new
 * instances are, to whoever has room.
 */
function takeBack(context: BarrierContext, barrier: BarrierState, fact: FactOf<'lease.returned'>, from: number): void {
  const id = fact.data.lease
  const range = parseLeaseId(id)
  const lease = barrier.leases[id]
  if (!range || !lease) return
  const end = lease.to ?? range.to
  if (from < range.from || from > end) return
  if (lease.to === undefined) barrier.saturated = (barrier.saturated ?? 0) + 1
  lease.to = from
  const behind: RetryContext = {
    keyChunk: lease.keyChunk,
    ordinal: range.ordinal + 1,
    failures: lease.failures,
    ...(lease.lost ? { lost: true } : {}),
    // Not begun here, and perhaps begun by one that was lost before.
    ...(lease.gates === undefined ? {} : { gates: lease.gates }),
  }
  let back: RequeuedRange | undefined
  let count = 0
  for (let index = from; index < end; index++) {
    const again = barrier.retries[index]
    if (
      context.bits.isDone(index) ||
      context.bits.isSuspended(index) ||
      (again ? again[0] !== range.ordinal : isDue(barrier, index))
    ) {
      back = undefined
      continue
    }
    count += 1
    if (again) {
      // It goes on as a single one: an older lease may still be out over its place, and must find
      // it marked.
      delete barrier.retries[index]
      barrier.requeued.push({ ...behind, from: index, to: index + 1 })
    } else if (back) back.to = index + 1
    else {
      back = { ...behind, unstarted: true, from: index, to: index + 1 }
      barrier.requeued.push(back)
    }
  }
  // How slow instances are is known before the first lease of them ends.
  if (from > range.from && fact.data.heldMs !== undefined)
    adapt(barrier, lease, from - range.from, fact.data.heldMs, fact.timeMs, fixedWindow(context))
  returnSome(barrier, id, count)
}
