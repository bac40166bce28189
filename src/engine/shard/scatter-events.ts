/**
 * Emits telemetry about scatters while the engine folds their facts: at most once in a term. An
 * engine that takes over folds the last facts again, and emits their events again. In all, each
 * event is emitted at least once.
 */

import { stateKey, type View } from '../../../projections/state.ts'
import type { Fact, FactOf } from '../../../streams/facts.ts'
import { viewOfError } from '../../../streams/thrown.ts'
import { partSpan, runSpan, tracedPart } from '../../../streams/trace.ts'
import { emit, type ScatterEndEvent } from '../../telemetry.ts'
import { tracing } from '../../tracing.ts'
import { runAttributes, type Teller, tracedRun } from './run-events.ts'

export function tellOfScatter(teller: Teller, view: View, fact: Fact): void {
  const { engine } = teller
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
  recordScatter(teller, view, fact, end)
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

/** The scatter as a whole: its leases are below it. */
function recordScatter(
  teller: Teller,
  view: View,
  { ids, data, timeMs }: FactOf<'scatter.closed'>,
  { total, succeeded, failed, durationMs }: ScatterEndEvent,
): void {
  const traced = tracing()
  const run = traced && view.get(stateKey.run(ids.run))
  if (!run) return
  const of = tracedRun(teller, run)
  const what = {
    name: `${ids.asset}.instances`,
    of,
    span: partSpan(of, tracedPart.scatter(ids.asset)),
    parent: runSpan(of),
    attributes: {
      ...runAttributes(of, run),
      'flowstone.asset': ids.asset,
      'flowstone.status': data.status,
      'flowstone.instances.total': total,
      'flowstone.instances.succeeded': succeeded,
      'flowstone.instances.failed': failed,
    },
  }
  const error = data.status === 'failed' ? (data.error ?? 'it failed') : undefined
  traced.record(what, timeMs - durationMs, timeMs, error)
}
