/**
 * Emits telemetry about scatters while the engine folds their facts: at most once in a term. An
 * engine that takes over folds the last facts again, and emits their events again. In all, each
 * event is emitted at least once.
 */

import { stateKey, type View } from '../../../projections/state.ts'
import type { Fact } from '../../../streams/facts.ts'
import { viewOfError } from '../../../streams/thrown.ts'
import { emit, type ScatterEndEvent } from '../../telemetry.ts'

export function tellOfScatter(engine: string, view: View, fact: Fact): void {
  if (fact.name !== 'scatter.started' && fact.name !== 'scatter.closed') return
  const { run, asset } = fact.ids
  const barrier = view.get(stateKey.barrier(run, asset))
  if (!barrier) return
  const event = { engine, run, asset }
  if (fact.name === 'scatter.started') {
    emit('flowstone:scatter.start', event)
    return
  }
  const { status, total, succeeded, failed, error } = fact.data
  const end: ScatterEndEvent = {
    ...event,
    ...(total === undefined ? {} : { total }),
    succeeded,
    failed,
    durationMs: fact.timeMs - barrier.startedMs,
  }
  switch (status) {
    case 'completed':
    case 'partial_failure':
      emit('flowstone:scatter.complete', end)
      emit('flowstone:scatter.gather_ready', end)
      return
    case 'failed':
      emit('flowstone:scatter.failed', error ? { ...end, error: viewOfError(error) } : end)
      return
    case 'cancelled':
      emit('flowstone:scatter.cancel', end)
      return
    default:
      status satisfies never
  }
}
