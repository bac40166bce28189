/**
 * Emits telemetry about runs while the engine folds their facts, and records their spans. An engine
 * that takes over folds the last facts again: then a span comes twice, with the same ids.
 */
import { type RunState, specOf, stateKey, type View } from '../../../projections/state.ts'
import type { Fact } from '../../../streams/facts.ts'
import { viewOfError } from '../../../streams/thrown.ts'
import { formatTraceparent, parseTraceparent, runSpan, type SpanName, type TracedRun } from '../../../streams/trace.ts'
import { channelOf, type RunEvent } from '../../telemetry.ts'
import { type SpanAttributes, tracing } from '../../tracing.ts'

const requested = channelOf('flowstone:run.requested')
const finished = channelOf('flowstone:run.finished')

export interface Teller {
  readonly engine: string
  readonly namespace: string
}

export function tellOfRun(teller: Teller, view: View, fact: Fact): void {
  if (fact.name !== 'run.requested' && fact.name !== 'run.finished') return
  const isRequest = fact.name === 'run.requested'
  const traced = isRequest ? undefined : tracing()
  if (!traced && !(isRequest ? requested : finished).hasSubscribers) return
  const run = view.get(stateKey.run(fact.ids.run))
  if (!run) return
  const of = tracedRun(teller, run)
  const event: RunEvent = {
    engine: teller.engine,
    run: run.id,
    pipeline: run.pipeline,
    target: run.target,
    ...(run.partition === undefined ? {} : { partition: run.partition }),
    ...(isInternal(view, run) ? { internal: true } : {}),
    traceparent: formatTraceparent(runSpan(of)),
  }
  if (fact.name === 'run.requested') {
    requested.publish(event)
    return
  }
  const { status, error, asset } = fact.data
  const durationMs = Math.max(0, fact.timeMs - run.requestedMs)
  if (finished.hasSubscribers)
    finished.publish({ ...event, status, durationMs, ...(error ? { error: viewOfError(error) } : {}) })
  if (!traced) return
  const what = {
    name: `run ${run.pipeline}/${run.target}`,
    of,
    span: runSpan(of),
    parent: parseTraceparent(run.trace?.traceparent),
    links: earlierSpans(teller, run),
    attributes: {
      ...runAttributes(of, run),
      'flowstone.target': run.target,
      'flowstone.partition': run.partition,
      'flowstone.status': status,
      'flowstone.failed_asset': asset,
    },
  }
  traced.record(what, run.requestedMs, fact.timeMs, status === 'failed' ? (error ?? 'it failed') : undefined)
}

function isInternal(view: View, { pipeline, version, target, hook }: RunState): boolean {
  const spec = view.get(stateKey.pipeline(pipeline, version))
  return hook !== undefined || (spec !== undefined && specOf(spec, target)?.internal === true)
}

export function tracedRun({ namespace }: Teller, { id, trace }: RunState): TracedRun {
  return { namespace, run: id, ...(trace ? { trace } : {}) }
}

export function runAttributes({ namespace, run }: TracedRun, { pipeline }: RunState): SpanAttributes {
  return { 'flowstone.namespace': namespace, 'flowstone.run.id': run, 'flowstone.pipeline': pipeline }
}

/** The run that this one takes up: its retry, its redrive, or the next one under its key. */
function earlierSpans({ namespace }: Teller, { retry, redrive, retryOf, earlierTrace }: RunState): SpanName[] {
  const run = retry?.run ?? redrive?.run ?? retryOf
  if (run === undefined) return []
  return [runSpan({ namespace, run, ...(earlierTrace ? { trace: { traceparent: earlierTrace } } : {}) })]
}
