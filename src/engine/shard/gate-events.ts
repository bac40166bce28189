/**
 * Emits telemetry about gates while the engine folds their facts: at most once in a term. An engine
 * that takes over folds the last facts again, and emits their events again.
 */
import { gateOf } from '../../../projections/gate/gate.ts'
import type { View } from '../../../projections/state.ts'
import type { Fact } from '../../../streams/facts.ts'
import { emit } from '../../telemetry.ts'

export function tellOfGate(view: View, fact: Fact): void {
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
  if (outcome === 'timed_out') emit('flowstone:gate.timeout', { ...event, waitedMs, timeouts: gate.timeouts })
  else if (outcome === 'cancelled')
    emit('flowstone:gate.cancel', { ...event, waitedMs, ...(reason === undefined ? {} : { reason }) })
}
