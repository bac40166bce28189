/**
 * Emits telemetry about gates while the engine folds their facts: at most once in a term. An engine
 * that takes over folds the last facts again, and emits their events again.
 */
import { gateOf } from '../../../projections/gate/gate.ts'
import { type GateState, stateKey, type View } from '../../../projections/state.ts'
import type { Fact, FactOf } from '../../../streams/facts.ts'
import { parseTraceparent, partSpan, runSpan, tracedPart } from '../../../streams/trace.ts'
import { channelOf, emit } from '../../telemetry.ts'
import { SHOWN_INSTANCES, tracing } from '../../tracing.ts'
import { runAttributes, type Teller, tracedRun } from './run-events.ts'

const ends = channelOf('flowstone:gate.end')

export function tellOfGate(teller: Teller, view: View, fact: Fact): void {
  if (fact.name !== 'gate.resolved' && fact.name !== 'gate.extended') return
  const { run, asset, gate: name } = fact.ids
  const gate = gateOf(view, fact.ids)
  // One that waits for a run is no signal gate.
  if (gate?.seq !== fact.seq || gate.child) return
  const event = { gate: `${run}.${asset}.${name}`, run, asset }
  const waitedMs = Math.max(0, fact.timeMs - gate.openedMs)
  if (fact.name === 'gate.extended') {
    const waitMs = Math.max(0, fact.data.deadlineMs - fact.timeMs)
    if (fact.data.why === 'retry') emit('flowstone:gate.timeout_retry', { ...event, timeouts: gate.timeouts, waitMs })
    return
  }
  const { outcome, reason } = fact.data
  tellOfEnd(teller, view, fact, gate, waitedMs)
  if (outcome === 'timed_out') emit('flowstone:gate.timeout', { ...event, waitedMs, timeouts: gate.timeouts })
  else if (outcome === 'cancelled')
    emit('flowstone:gate.cancel', { ...event, waitedMs, ...(reason === undefined ? {} : { reason }) })
}

function tellOfEnd(
  teller: Teller,
  view: View,
  { ids, data, timeMs }: FactOf<'gate.resolved'>,
  { kind, index, openedMs }: GateState,
  waitedMs: number,
): void {
  const traced = tracing()
  if (!traced && !ends.hasSubscribers) return
  const run = view.get(stateKey.run(ids.run))
  if (!run || kind === 'run') return
  const { asset, gate } = ids
  const { outcome } = data
  const id = `${ids.run}.${asset}.${gate}`
  if (ends.hasSubscribers)
    ends.publish({ gate: id, run: run.id, asset, pipeline: run.pipeline, kind, outcome, waitedMs })
  const of = tracedRun(teller, run)
  if (!traced || (index !== undefined && index >= SHOWN_INSTANCES && !traced.isSampled(of, asset, index))) return
  const what = {
    name: `${asset}.gate`,
    of,
    span: partSpan(of, tracedPart.gate(asset, gate)),
    parent: index === undefined ? runSpan(of) : partSpan(of, tracedPart.scatter(asset)),
    links: [parseTraceparent(data.trace?.traceparent) ?? []].flat(),
    attributes: {
      ...runAttributes(of, run),
      'flowstone.asset': asset,
      'flowstone.gate': gate,
      'flowstone.gate.kind': kind,
      'flowstone.outcome': outcome,
      'flowstone.instance': index,
    },
  }
  traced.record(what, openedMs, timeMs)
}
