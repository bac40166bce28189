/** `instrument`: spans and metrics of this process. */
import { type MeterProvider, metrics, type TracerProvider, trace } from '@opentelemetry/api'
import { InvalidError } from '../../streams/errors.ts'
import { shown } from '../../streams/shown.ts'
import { collect } from '../metrics/collect.ts'
import { type LoadedFlow, ServerMetrics } from '../metrics/server.ts'
import { type OptionNames, refuseUnknown } from '../options/unknown.ts'
import { setTracing, tracing } from '../tracing.ts'
import { OtelMetrics, observeServer } from './meter.ts'
import { Spans } from './spans.ts'

/** Options of `instrument`. */
export interface InstrumentOptions {
  /** Where spans go. Default: the one that is registered with OpenTelemetry. False: nowhere. */
  readonly tracerProvider?: TracerProvider | false
  /** Where metrics go. Default: the one that is registered with OpenTelemetry. False: nowhere. */
  readonly meterProvider?: MeterProvider | false
  /**
   * For the metrics of the namespace: queues, engines, streams. Give it in one process or in few:
   * all that give it say the same. Default: only the metrics of the process.
   */
  readonly flow?: LoadedFlow
  /**
   * Which share of runs is traced, 0 to 1, of those that are asked for outside a trace: inside one,
   * that one decides. Give it alike to all processes. Default 1.
   */
  readonly sampleRuns?: number
  /**
   * Which share of the instances of scatters have a span each, 0 to 1. Default 0: their leases
   * have, with how many succeeded and failed.
   */
  readonly sampleInstances?: number
}

/** What `instrument` has begun. */
export interface Instrumentation extends Disposable {
  /** No span is begun any more, and nothing is counted. Safe to call twice. */
  disable(): void
}

const OPTIONS: OptionNames<InstrumentOptions> = {
  tracerProvider: true,
  meterProvider: true,
  flow: true,
  sampleRuns: true,
  sampleInstances: true,
}
const SCOPE = 'flowstone'

/**
 * Begins with the spans and metrics of this process. Call it once in each process, before its
 * engine or worker starts, and after the SDK of OpenTelemetry is set up: without an SDK there are
 * none. Throws InvalidError for bad options, and where spans were asked for before.
 */
export function instrument(options: InstrumentOptions = {}): Instrumentation {
  refuseUnknown('instrument', options, OPTIONS)
  const { tracerProvider = trace, meterProvider = metrics, flow } = options
  const samples = {
    runs: shareOf('sampleRuns', options.sampleRuns ?? 1),
    instances: shareOf('sampleInstances', options.sampleInstances ?? 0),
  }
  if (tracerProvider && typeof tracerProvider.getTracer !== 'function')
    throw new InvalidError('instrument: tracerProvider must have getTracer, as the SDK of OpenTelemetry gives it')
  if (meterProvider && typeof meterProvider.getMeter !== 'function')
    throw new InvalidError('instrument: meterProvider must have getMeter, as the SDK of OpenTelemetry gives it')
  if (flow !== undefined && typeof flow.inspect?.load !== 'function')
    throw new InvalidError('instrument: flow must be a flow, as connect() returns it')
  if (tracerProvider && tracing())
    throw new InvalidError('instrument: it was called before in this process; disable that one first')
  const ends: (() => void)[] = []
  if (tracerProvider) {
    const spans = new Spans(tracerProvider.getTracer(SCOPE), samples)
    setTracing(spans)
    ends.push(() => {
      if (tracing() === spans) setTracing(undefined)
    })
  }
  if (meterProvider) {
    const meter = meterProvider.getMeter(SCOPE)
    ends.push(collect(new OtelMetrics(meter)))
    if (flow) ends.push(observeServer(meter, new ServerMetrics(flow)))
  }
  const disable = (): void => {
    for (const end of ends.splice(0)) end()
  }
  return { disable, [Symbol.dispose]: disable }
}

function shareOf(option: string, share: number): number {
  if (typeof share === 'number' && share >= 0 && share <= 1) return share
  throw new InvalidError(`instrument: ${option} must be a number from 0 to 1, got ${shown(share)}`)
}
