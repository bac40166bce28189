/**
 * A signal gate: something that waits for a signal from outside the pipeline, at no cost.
 *
 *   state    fact                      → state                                                        caused by
 *   (none)   gate.created              → waiting; its timer stands on the log beside it                  worker, before the outside job is begun
 *   waiting  gate.timer_fired          → waiting; the next deadline, or the end `timed_out` is decided      server, at the deadline
 *   waiting  gate.extended             → waiting, until another deadline                                  engine (a retried timeout), or who asked for more time
 *   waiting  gate.deadline_closed      → waiting; no more time is given, and the end stands beside it        engine
 *   waiting  gate.resolved             → signaled | timed_out | cancelled                                  whoever is first; the server lets one in
 *   ended    anything                  → unchanged
 *
 *   asset    asset.suspended           → suspended, if the attempt is the current one; goes on at once if the gate has ended
 *   asset    (gate ends)               → signaled: queued for `onSignal` · timed_out: for `onTimeout`, or failed, or cancelled · cancelled: cancelled
 *   instance scatter.outcomes, `suspended` → as an asset, and counted by its barrier (`suspended`)
 *   instance (gate ends)               → as an asset; a cancelled gate fails the instance
 *
 *   (none)   child.requested           → waiting for a run, which the engine starts                       worker, for `ctx.run`
 *   waiting  gate.resolved, `child`    → signaled; the asset is queued for `onRun`, or failed if the run did not succeed
 *   waiting  gate.resolved, cancelled  → cancelled; the run hears of it (run/waiters.ts)
 *
 * A caller who gets an answer can rely on it. So the server decides between what excludes each
 * other, in one append with all of its conditions. It does not matter who looks first:
 *
 *   appended, all or nothing                                       refused when
 *   signal, cancel:  `resolved`                                      the gate has ended
 *   more time:       `deadline.<n+1>.extended`, timer n+1            it has ended; its deadline n was moved by another one; deadline n was the last
 *   timeout of n:    `deadline.<n+1>.closed`, `resolved`             it has ended; its deadline n was moved
 *
 * So a gate does not time out at a deadline that was moved in time, even if its timer had fired
 * before. No timer is set for a gate that has ended.
 *
 * A gate may end before anybody waits at it: the job outside was quick, and its signal is kept. A
 * gate belongs to one execution. The engine ends the gates that the execution opened and did not
 * wait for, when the outcome of the execution counts. The worker does not end them when its code
 * has ended: by then another worker may have taken over the execution and wait there. What is left
 * is removed with the asset.
 */
import type { DraftOf, FactOf } from '../../streams/facts.ts'
import type { AssetName, RunId } from '../../streams/ids.ts'
import type { AssetSpec, ErrorInfo } from '../../streams/schemas.ts'
import type { Effect, GateIds } from '../effects.ts'
import {
  type AssetInRun,
  editRun,
  type GateState,
  type Key,
  type OpenMark,
  type RunState,
  stateKey,
  type View,
} from '../state.ts'

export const GATE_TIMEOUT = 'gate_timeout'
const CHILD_FAILED = 'child_failed'
const WAIT_CYCLE = 'wait_cycle'
/** Metadata with more characters is not kept in the state. */
const METADATA_MAX = 512

export type GateFact = FactOf<
  'gate.created' | 'child.requested' | 'gate.timer_fired' | 'gate.extended' | 'gate.deadline_closed' | 'gate.resolved'
>

/** What has ended and lets somebody go on. */
export type EndedGate = GateState & { readonly status: Exclude<GateState['status'], 'waiting'> }

type GatePlace = { readonly run: string; readonly asset: string; readonly gate: string }

/** Of a gate whose run is loaded. */
export function gateOf(view: View, at: GatePlace): GateState | undefined {
  const gate = view.get(stateKey.gates(at))?.gates[at.gate]
  const asset = view.get(stateKey.run(at.run))?.assets[at.asset]
  return gate ?? (mayBeAlone(asset) ? view.get(stateKey.gateAlone(at)) : undefined)
}

/** Whether a gate of it may have a document of its own, from an older version. */
function mayBeAlone(asset: Readonly<AssetInRun> | undefined): boolean {
  return asset === undefined || asset.gated === true
}

/** What `gateOf` reads. */
export function needsOfGate(run: RunState, asset: string, gate: string): Key<unknown>[] {
  const at = { run: run.id, asset, gate }
  return [stateKey.gates(at), ...(mayBeAlone(run.assets[asset]) ? [stateKey.gateAlone(at)] : [])]
}

/** Of an asset that has opened no gate yet, there is no row that could be read. */
export function needsOfNewGate(run: RunState, asset: string, gate: string): Key<unknown>[] {
  return isFirst(run, asset) ? [] : needsOfGate(run, asset, gate)
}

function isFirst(run: RunState, asset: string): boolean {
  const opener = run.assets[asset]
  return opener !== undefined && !opener.gated
}

/** The gate, to be changed. */
export function editGate<G extends GateState>(view: View, before: Readonly<G>): G {
  const key = stateKey.gates(before)
  // It is the same object: it has not changed since `G` was seen.
  if (view.get(key)?.gates[before.gate]) return view.edit(key).gates[before.gate] as G
  const gate = view.edit(stateKey.gateAlone(before)) as G
  view.delete(stateKey.gateAlone(before))
  if (!gate.child) view.delete(stateKey.waitingAlone(gate.deadlineMs, gate))
  view.edit(key, () => ({ gates: {} })).gates[gate.gate] = gate
  if (!hasEnded(gate)) putMark(view, gate)
  return gate
}

export function hasEnded(gate: GateState): gate is EndedGate {
  return gate.status !== 'waiting'
}

/** `obsolete`: what opened it has ended meanwhile. */
export function onGateCreated(view: View, run: RunState, fact: FactOf<'gate.created'>, obsolete: boolean): Effect[] {
  if (isThere(view, run, fact.ids)) return []
  const { kind, attempt, index, keyChunk, deadlineMs, retriesMs, afterRetries, metadata } = fact.data
  const gate: GateState = {
    seq: fact.seq,
    run: run.id,
    asset: fact.ids.asset,
    gate: fact.ids.gate,
    kind,
    status: 'waiting',
    attempt,
    ...(index === undefined ? {} : { index }),
    ...(keyChunk === undefined ? {} : { keyChunk }),
    openedMs: fact.timeMs,
    ...(deadlineMs === undefined ? {} : { deadlineMs }),
    deadlines: 0,
    timeouts: 0,
    retriesMs,
    afterRetries,
    ...(metadata === undefined ? {} : isLarge(metadata) ? { large: true as const } : { metadata }),
  }
  addGate(view, run, gate)
  return obsolete ? [cancelOf(idsOf(gate))] : []
}

/** A gate that waits for a run. The engine starts the run, unless what wants it has ended. */
export function onChildRequested(
  view: View,
  run: RunState,
  fact: FactOf<'child.requested'>,
  obsolete: boolean,
): Effect[] {
  if (isThere(view, run, fact.ids)) return []
  const { attempt, index, keyChunk, child, request } = fact.data
  const gate: GateState = {
    seq: fact.seq,
    run: run.id,
    asset: fact.ids.asset,
    gate: fact.ids.gate,
    kind: 'run',
    status: 'waiting',
    attempt,
    ...(index === undefined ? {} : { index }),
    ...(keyChunk === undefined ? {} : { keyChunk }),
    openedMs: fact.timeMs,
    deadlines: 0,
    timeouts: 0,
    retriesMs: [],
    afterRetries: 'fail',
    child: {
      run: child as RunId,
      target: `${request.pipeline}/${request.target}`,
      ...(obsolete ? {} : { started: true as const }),
    },
  }
  addGate(view, run, gate)
  return obsolete ? [cancelOf(idsOf(gate))] : [{ do: 'start_child', gate: idsOf(gate) }]
}

function isThere(view: View, run: RunState, ids: GateIds): boolean {
  return !isFirst(run, ids.asset) && gateOf(view, ids) !== undefined
}

function isLarge(metadata: unknown): boolean {
  return JSON.stringify(metadata).length > METADATA_MAX
}

function addGate(view: View, run: RunState, gate: GateState): void {
  const key = stateKey.gates(gate)
  const asset = run.assets[gate.asset]
  if (asset && !asset.gated) {
    view.put(key, { gates: { [gate.gate]: gate } })
    view.edit(stateKey.run(run.id))
    asset.gated = 'rows'
  } else view.edit(key, () => ({ gates: {} })).gates[gate.gate] = gate
  putMark(view, gate)
}

export function onGateTimerFired(gate: GateState, fact: FactOf<'gate.timer_fired'>): Effect[] {
  // The timer of a deadline that was moved meanwhile says nothing.
  if (hasEnded(gate) || fact.data.n !== gate.deadlines) return []
  const waitMs = gate.retriesMs[gate.timeouts]
  const ids = { ...idsOf(gate), n: String(gate.deadlines + 1) }
  if (waitMs === undefined) {
    const data = { deadlineMs: gate.deadlineMs ?? fact.timeMs, timeouts: gate.timeouts }
    return [
      {
        do: 'time_out_gate',
        close: { name: 'gate.deadline_closed', ids, data },
        end: resolution(idsOf(gate), 'timed_out'),
      },
    ]
  }
  const data = { why: 'retry', deadlineMs: fact.timeMs + waitMs, timeouts: gate.timeouts + 1 } as const
  return [{ do: 'extend_gate', fact: { name: 'gate.extended', ids, data } }]
}

/** True when the deadline was moved because it was over, of which `onTimeout` hears. */
export function onGateExtended(view: View, run: RunState, before: GateState, fact: FactOf<'gate.extended'>): boolean {
  if (hasEnded(before) || Number(fact.ids.n) !== before.deadlines + 1) return false
  const gate = editGate(view, before)
  deleteMark(view, gate)
  gate.seq = fact.seq
  gate.deadlines += 1
  gate.deadlineMs = fact.data.deadlineMs
  if (fact.data.why === 'retry') gate.timeouts += 1
  putMark(view, gate)
  const asset = run.assets[gate.asset]
  if (asset?.status === 'suspended' && asset.gate === gate.gate) {
    editRun(view, run, fact)
    asset.waitsUntilMs = fact.data.deadlineMs
  }
  return fact.data.why === 'retry'
}

/** False when it had ended before. */
export function endGate(view: View, before: GateState, fact: FactOf<'gate.resolved'>): boolean {
  if (hasEnded(before)) return false
  const gate: GateState = editGate(view, before)
  deleteMark(view, gate)
  gate.seq = fact.seq
  gate.status = fact.data.outcome
  gate.endedMs = fact.timeMs
  gate.resolvedSeq = fact.seq
  if (fact.data.outcome === 'timed_out') gate.timeouts += 1
  if (fact.data.reason !== undefined) gate.reason = fact.data.reason
  if (gate.child && fact.data.child) {
    // The value is read from the fact.
    const { value: _, ...end } = fact.data.child
    gate.child = { ...gate.child, end }
  }
  return true
}

/** Nobody waits there any more for the run that it waited for. */
export function abandonChild(gate: EndedGate): Effect[] {
  if (!gate.child?.started || gate.status !== 'cancelled') return []
  return [{ do: 'abandon_child', gate: idsOf(gate), child: gate.child.run }]
}

/**
 * From now on somebody waits at it. Returns the gate if it has ended already: then whoever waits
 * continues at once.
 */
export function awaitGate(view: View, before: GateState): EndedGate | undefined {
  const gate = editGate(view, before)
  gate.awaited = true
  return hasEnded(gate) ? gate : undefined
}

/** What follows for whoever waits there: code to run, or an end. */
export function afterGate(
  spec: AssetSpec,
  gate: EndedGate,
): { readonly phase: 'signal' | 'timeout' } | { readonly end: 'failed' | 'cancelled'; readonly error: ErrorInfo } {
  switch (gate.status) {
    case 'signaled':
      if (!gate.child || gate.child.end?.status === 'succeeded') return { phase: 'signal' }
      return { end: 'failed', error: childError(gate.child) }
    case 'timed_out': {
      if (spec.onTimeout) return { phase: 'timeout' }
      const message = `nobody answered gate ${gate.run}.${gate.asset}.${gate.gate} in time`
      return { end: gate.afterRetries === 'cancel' ? 'cancelled' : 'failed', error: { code: GATE_TIMEOUT, message } }
    }
    case 'cancelled': {
      const why = gate.reason === undefined ? '' : `: ${gate.reason}`
      const message = `gate ${gate.run}.${gate.asset}.${gate.gate} was cancelled${why}`
      return { end: 'cancelled', error: { code: 'gate_cancelled', message } }
    }
    default:
      return gate.status satisfies never
  }
}

/** Why what waited for a run fails. No retry helps: the run would be the same. */
function childError({ run, target, end }: NonNullable<GateState['child']>): ErrorInfo {
  const what = `run ${run} of ${target}, which it waited for,`
  if (end?.status === 'cancelled') return { code: CHILD_FAILED, message: `${what} was cancelled` }
  // The other run has not ended.
  if (end?.error?.code === WAIT_CYCLE)
    return {
      code: CHILD_FAILED,
      message: `it may not wait for run ${run} of ${target}: ${end.error.message}`,
      cause: end.error,
    }
  const at = end?.asset === undefined ? '' : ` at ${end.asset}`
  const why = end?.error ? `: ${end.error.message}` : ''
  return { code: CHILD_FAILED, message: `${what} failed${at}${why}`, ...(end?.error ? { cause: end.error } : {}) }
}

/** What code must know of the gate after which it continues. */
export function resumeOf(gate: EndedGate): { gate: string; seq: number; timeouts: number } {
  return { gate: gate.gate, seq: gate.resolvedSeq ?? gate.seq, timeouts: gate.timeouts }
}

/**
 * Gates that an execution opened and does not wait at: they end with it, once it is known to count.
 */
export function endLeft({ run, asset }: Omit<GateIds, 'gate'>, gates: readonly string[]): Effect[] {
  return gates.map((gate) => cancelOf({ run, asset, gate }))
}

/** Nobody waits there, or will. */
function cancelOf(ids: GateIds): Effect {
  return { do: 'fact', fact: resolution(ids, 'cancelled', 'what opened it has ended'), stops: gateTimer(ids, 0) }
}

function resolution(ids: GateIds, outcome: 'timed_out' | 'cancelled', reason?: string): DraftOf<'gate.resolved'> {
  return { name: 'gate.resolved', ids, data: { ...ids, outcome, ...(reason === undefined ? {} : { reason }) } }
}

/** What the timer of a gate's deadline number `n` brings. */
export function gateTimer(ids: GateIds, n: number): DraftOf<'gate.timer_fired'> {
  return { name: 'gate.timer_fired', ids, data: { n } }
}

function idsOf({ run, asset, gate }: GateState): GateIds {
  return { run, asset: asset as AssetName, gate }
}

/** The mark of a gate that waits. Another gate of its row may have put it. */
function putMark(view: View, gate: GateState): void {
  if (!isShared(view, gate)) view.put(markOf(gate), { since: gate.openedMs })
}

/** Before the gate changes: it waits no more, or until another deadline. */
function deleteMark(view: View, gate: GateState): void {
  if (!isShared(view, gate)) view.delete(markOf(gate))
}

function isShared(view: View, gate: GateState): boolean {
  if (gate.child) return false
  const mark = markOf(gate)
  const row = Object.values(view.get(stateKey.gates(gate))?.gates ?? {})
  return row.some((other) => other.gate !== gate.gate && !other.child && !hasEnded(other) && markOf(other) === mark)
}

function markOf(gate: GateState): Key<OpenMark> {
  return gate.child ? stateKey.child(gate) : stateKey.waiting(gate.deadlineMs, gate)
}
