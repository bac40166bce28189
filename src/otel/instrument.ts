/** `instrument`: spans of this process. */
import { type TracerProvider, trace } from '@opentelemetry/api'
import { InvalidError } from '../../streams/errors.ts'
import { type OptionNames, refuseUnknown } from '../options/unknown.ts'
import { setTracing, tracing } from '../tracing.ts'
import { Spans } from './spans.ts'

/** Options of `instrument`. */
export interface InstrumentOptions {
  /** Where spans go. Default: the one that is registered with OpenTelemetry. */
  readonly tracerProvider?: TracerProvider
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
  /** Spans end, and what runs now has none any more. Safe to call twice. */
  disable(): void
}

const OPTIONS: OptionNames<InstrumentOptions> = { tracerProvider: true, sampleRuns: true, sampleInstances: true }
const SCOPE = 'flowstone'

/**
 * Begins with the spans of this process. Call it once in each process, before its engine or worker
 * starts, and after the SDK of OpenTelemetry is set up: without an SDK there are no spans. Throws
 * InvalidError for bad options, and where it was called before.
 */
export function instrument(options: InstrumentOptions = {}): Instrumentation {
  refuseUnknown('instrument', options, OPTIONS)
  const { tracerProvider = trace } = options
  const samples = {
    runs: shareOf('sampleRuns', options.sampleRuns ?? 1),
    instances: shareOf('sampleInstances', options.sampleInstances ?? 0),
  }
  if (typeof tracerProvider.getTracer !== 'function')
    throw new InvalidError('instrument: tracerProvider must have getTracer, as the SDK of OpenTelemetry gives it')
  if (tracing()) throw new InvalidError('instrument: it was called before in this process; disable that one first')
  const spans = new Spans(tracerProvider.getTracer(SCOPE), samples)
  setTracing(spans)
  const disable = (): void => {
    if (tracing() === spans) setTracing(undefined)
  }
  return { disable, [Symbol.dispose]: disable }
}

function shareOf(option: string, share: number): number {
  if (typeof share === 'number' && share >= 0 && share <= 1) return share
  throw new InvalidError(`instrument: ${option} must be a number from 0 to 1, got ${JSON.stringify(share)}`)
}
