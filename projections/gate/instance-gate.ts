/**
 * Instances that wait at gates. Such an instance has left its lease, so it takes no place from
 * others; a bit says that it waits, so it is counted once. Its gate's document says how far it is:
 *
 *   gate waiting             the instance waits
 *   gate ended, `resume`     its code goes on: a task of its own, retried as any instance is, from the gate on and not from the start
 *   gate ended, `over`       it has ended, or waits at another gate
 *
 * `resume` ends with an outcome, and if that comes too late to count, too. Where none comes because
 * the scatter was closed, the reconciler writes one of nothing.
 *
 * Nothing of this stands in the barrier's document, which holds a count: a hundred thousand may
 * wait, and a hundred thousand signals may come at once.
 */
import type { Fact, FactDraft, FactOf } from '../../streams/facts.ts'
import type { AssetName } from '../../streams/ids.ts'
import type { ErrorInfo } from '../../streams/schemas.ts'
import { failuresAfterLoss, instanceRetry } from '../attempts.ts'
import { backoffMs } from '../backoff.ts'
import type { Effect } from '../effects.ts'
import type { BarrierContext } from '../scatter/context.ts'
import { isDue, markFailed, markOnce } from '../scatter/instances.ts'
import { returnSome } from '../scatter/lease.ts'
import type { BarrierState } from '../scatter/state.ts'
import { type GateState, stateKey, type View } from '../state.ts'
import { resumeEffect } from '../tasks.ts'
import { afterGate, awaitGate, type EndedGate, editGate, endLeft, GATE_TIMEOUT, gateOf, hasEnded } from './gate.ts'

type Outcomes = FactOf<'scatter.outcomes'>

/** An instance of a lease waits at a gate. Undefined when that does not count. */
export function suspendInstance(
  context: BarrierContext,
  barrier: BarrierState,
  index: number,
  token: string,
  fact: Outcomes,
): Effect[] | undefined {
  const { view, bits } = context
  const gate = gateOf(view, { ...fact.ids, gate: token })
  if (!gate || bits.isDone(index) || bits.isSuspended(index)) return undefined
  // As of an error: only the execution that is current counts.
  const again = barrier.retries[index]
  if (again ? again[0] !== fact.data.ordinal : isDue(barrier, index)) return undefined
  const lease = barrier.leases[fact.data.lease]
  if (!lease || index >= (lease.to ?? index + 1)) return undefined
  returnSome(barrier, fact.data.lease, 1)
  delete barrier.retries[index]
  bits.suspend(index, true)
  barrier.suspended = (barrier.suspended ?? 0) + 1
  const ended = awaitGate(view, gate)
  return ended ? resumeAfterGate(context, barrier, ended, fact.timeMs) : []
}

/** Takes an instance out of those that wait; false if it does not. */
export function unsuspend({ bits }: BarrierContext, barrier: BarrierState, index: number): boolean {
  if (!bits.isSuspended(index)) return false
  bits.suspend(index, false)
  barrier.suspended = Math.max(0, (barrier.suspended ?? 0) - 1)
  return true
}

/** The gate of an instance has ended. */
export function resumeInstance(
  context: BarrierContext,
  barrier: BarrierState,
  gate: EndedGate,
  nowMs: number,
): Effect[] {
  const { index } = gate
  if (index === undefined || !gate.awaited || !context.bits.isSuspended(index)) return []
  return resumeAfterGate(context, barrier, gate, nowMs)
}

function resumeAfterGate(context: BarrierContext, barrier: BarrierState, ended: EndedGate, nowMs: number): Effect[] {
  const gate = editGate(context.view, ended)
  gate.resume = { attempt: 1, failures: 0, queuedMs: nowMs }
  const next = afterGate(context.spec, gate)
  // Its end is an outcome like any other, so that it can be read from the log.
  if ('end' in next) return [{ do: 'fact', fact: failedAtGate(barrier, gate, next.error) }]
  context.view.put(resumingKey(gate), { since: nowMs })
  return [resumeEffect(context, gate)]
}

/** What came of an instance's code after its gate. */
export function takeResumed(context: BarrierContext, barrier: BarrierState, token: string, fact: Outcomes): Effect[] {
  const { view, bits } = context
  const gate = gateOf(view, { ...fact.ids, gate: token })
  const { index } = gate ?? {}
  if (!gate || index === undefined) return []
  if (bits.isDone(index)) forgetResume(view, gate)
  if (bits.isDone(index) || !bits.isSuspended(index)) return []
  const next = fact.data.suspended?.[0]?.[1]
  const brought = next === undefined && fact.data.errors === undefined && fact.data.at.length > 0
  const left = endLeft(fact.ids, fact.data.left?.[0]?.[1] ?? [])
  if (brought) {
    // As of a lease: a value counts whoever brings it, also while the instance waits at a later
    // gate by now. So the gather reads it, too: the first one on the log.
    if (!markOnce(context, index, false)) return []
    unsuspend(context, barrier, index)
    barrier.succeeded += 1
    closeGate(view, gate)
    return left
  }
  // An error or a gate counts only of the execution that is current.
  if (!hasEnded(gate) || fact.data.ordinal !== gate.resume?.attempt) return []
  if (next !== undefined) {
    const other = gateOf(view, { ...fact.ids, gate: next })
    if (!other || other.gate === gate.gate) return []
    closeGate(view, gate)
    const ended = awaitGate(view, other)
    return [...left, ...(ended ? resumeAfterGate(context, barrier, ended, fact.timeMs) : [])]
  }
  const error = fact.data.errors?.[0]?.[1]
  // Aborted: nothing came of it.
  if (!error) return []
  const retry = instanceRetry(context.spec)
  const { outcome, retryAfterMs } = error
  const { resume } = editGate(view, gate)
  if (!resume) return []
  if (outcome === 'lost') {
    resume.failures = failuresAfterLoss(resume, retry)
    resume.lost = true
  } else if (outcome !== 'returned') resume.failures += 1
  if (outcome === 'lost' || outcome === 'returned') resume.gates ??= resume.attempt
  else delete resume.gates
  if (outcome === 'terminal' || resume.failures >= retry.maxAttempts) {
    endInstance(context, barrier, gate, error.error, fact.seq)
    if (outcome === 'timeout' || error.error.code === GATE_TIMEOUT) barrier.timedOut = (barrier.timedOut ?? 0) + 1
    return left
  }
  resume.attempt += 1
  resume.queuedMs = fact.timeMs
  delete resume.dueMs
  const waits = outcome !== 'returned' && outcome !== 'lost'
  if (waits)
    resume.dueMs =
      fact.timeMs +
      (retryAfterMs ?? backoffMs(retry, resume.failures, `${barrier.run}.${barrier.asset}.${index}.${gate.gate}`))
  return [...left, resumeEffect(context, gate)]
}

function failedAtGate(barrier: BarrierState, gate: EndedGate, error: ErrorInfo): FactDraft {
  return {
    name: 'scatter.outcomes',
    ids: { run: barrier.run, asset: barrier.asset as AssetName },
    data: {
      lease: `gate-${gate.gate}`,
      ordinal: 1,
      resumes: gate.gate,
      worker: 'engine',
      at: [gate.index ?? 0],
      ms: [0],
      values: [null],
      errors: [[0, { error, outcome: 'terminal' }]],
    },
  }
}

function endInstance(
  context: BarrierContext,
  barrier: BarrierState,
  gate: GateState,
  error: ErrorInfo,
  seq: number,
): void {
  const { index } = gate
  if (index === undefined || !markFailed(context, barrier, index, { seq })) return
  unsuspend(context, barrier, index)
  barrier.error ??= error
  closeGate(context.view, gate)
}

function closeGate(view: View, before: GateState): void {
  const gate = editGate(view, before)
  gate.closed = true
  if (gate.resume) view.delete(resumingKey(gate))
  delete gate.resume
}

/**
 * Nothing comes of it any more: its instance is done by another execution, or its scatter is
 * closed.
 */
export function forgetResume(view: View, gate: GateState): void {
  if (gate.resume) closeGate(view, gate)
}

/**
 * What says so of one whose task is gone, too. An outcome of nothing, from the log, so that the
 * state stays what the log makes of it.
 */
export function forgotten(gate: GateState): FactDraft | undefined {
  if (!gate.resume) return undefined
  const { run, asset, resume } = gate
  const data = { lease: `gate-${gate.gate}`, ordinal: resume.attempt, resumes: gate.gate, worker: 'engine' }
  return {
    name: 'scatter.outcomes',
    ids: { run, asset: asset as AssetName },
    data: { ...data, at: [], ms: [], values: [] },
  }
}

function resumingKey({ run, asset, gate }: GateState): ReturnType<typeof stateKey.resuming> {
  return stateKey.resuming(run, asset, gate)
}

/** Gate documents that a fact of a scatter's outcomes touches. */
export function gatesOf(fact: Fact): string[] {
  if (fact.name !== 'scatter.outcomes') return []
  const { suspended, resumes } = fact.data
  return [...(suspended ?? []).map(([, gate]) => gate), ...(resumes === undefined ? [] : [resumes])]
}
