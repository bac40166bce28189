/** What people and programs see of a gate. */
import type { GateState } from '../../projections/state.ts'
import type { GateView } from './types.ts'

/** From the state bucket: without the signal, which is on the log. */
export function viewOfState(gate: GateState): GateView {
  return {
    id: `${gate.run}.${gate.asset}.${gate.gate}`,
    run: gate.run,
    asset: gate.asset,
    index: gate.index,
    status: gate.status,
    openedAt: new Date(gate.openedMs),
    deadline: gate.deadlineMs === undefined ? undefined : new Date(gate.deadlineMs),
    timeouts: gate.timeouts,
    retriesLeft: Math.max(0, gate.retriesMs.length - gate.timeouts),
    metadata: gate.metadata,
    kind: gate.kind === 'approval' ? 'approval' : 'signal',
    endedAt: gate.endedMs === undefined ? undefined : new Date(gate.endedMs),
    signal: undefined,
    reason: gate.reason,
    refused: undefined,
  }
}
