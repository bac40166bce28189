/**
 * Spans by OpenTelemetry.
 *
 * The ids of spans follow from what they are of (streams/trace.ts), and its API lets nobody choose
 * them. So a span is begun as any other, and then says another id of itself. Exporters of the SDK
 * ask each span for its ids when they send it (docs/decisions/traces.md).
 */
import {
  type AttributeValue,
  type Context,
  context,
  createTraceState,
  diag,
  isSpanContextValid,
  ROOT_CONTEXT,
  type Span,
  type SpanContext,
  SpanStatusCode,
  TraceFlags,
  type Tracer,
  trace,
} from '@opentelemetry/api'
import { messageOf } from '../../streams/errors.ts'
import { hash64 } from '../../streams/ids.ts'
import { formatTraceparent, type SpanName, type TraceContext, type TracedRun } from '../../streams/trace.ts'
import type { CodeSpan, SpanAttributes, TracedSpan, Tracing } from '../tracing.ts'

export interface Samples {
  /** Of runs that are in no trace of somebody else, and of instances: 0 to 1. */
  readonly runs: number
  readonly instances: number
}

export class Spans implements Tracing {
  readonly #tracer: Tracer
  readonly #samples: Samples

  constructor(tracer: Tracer, samples: Samples) {
    this.#tracer = tracer
    this.#samples = samples
  }

  get samplesInstances(): boolean {
    return this.#samples.instances > 0
  }

  active(): TraceContext | undefined {
    const span = trace.getSpanContext(context.active())
    if (!span || !isSpanContextValid(span)) return undefined
    const { traceId, spanId, traceFlags, traceState } = span
    const tracestate = traceState?.serialize()
    const isSampled = (traceFlags & TraceFlags.SAMPLED) === TraceFlags.SAMPLED
    return { traceparent: formatTraceparent({ traceId, spanId, isSampled }), ...(tracestate ? { tracestate } : {}) }
  }

  begin(what: TracedSpan): CodeSpan {
    const span = guarded(() => this.#start(what)) ?? trace.wrapSpanContext(this.#contextOf(what.of, what.span))
    // What the worker itself does belongs to nobody's trace.
    const within = trace.setSpan(ROOT_CONTEXT, span)
    return {
      run: (code) => context.with(within, code),
      end: (attributes = {}, error) =>
        guarded(() => {
          span.setAttributes(given(attributes))
          end(span, error)
        }),
    }
  }

  within<T>(of: TracedRun, span: SpanName, code: () => T): T {
    return context.with(this.#above(of, span), code)
  }

  record(what: TracedSpan, fromMs: number, toMs: number, error?: unknown): void {
    guarded(() => end(this.#start(what, Math.min(fromMs, toMs)), error, toMs))
  }

  isSampled({ namespace, run }: TracedRun, asset: string, index: number): boolean {
    const { instances } = this.#samples
    if (instances === 0 || instances === 1) return instances === 1
    return share(hash64(`${namespace}/${run}/${asset}/${index}`)) < instances
  }

  #start({ name, of, span, parent, links = [], attributes }: TracedSpan, startTime?: number): Span {
    const options = {
      ...(startTime === undefined ? {} : { startTime }),
      attributes: given(attributes),
      links: links.map((link) => ({ context: this.#contextOf(of, link) })),
    }
    // The first span of a trace takes its trace from a parent, too; it has none in the end.
    const started = this.#tracer.startSpan(name, options, this.#above(of, parent ?? span))
    return placed(started, span.spanId, parent === undefined)
  }

  #above(of: TracedRun, span: SpanName): Context {
    return trace.setSpanContext(ROOT_CONTEXT, this.#contextOf(of, span))
  }

  #contextOf({ trace: asked }: TracedRun, { traceId, spanId, isSampled }: SpanName): SpanContext {
    const isWanted = isSampled && (asked !== undefined || share(traceId) < this.#samples.runs)
    return {
      traceId,
      spanId,
      traceFlags: isWanted ? TraceFlags.SAMPLED : TraceFlags.NONE,
      isRemote: true,
      ...(asked?.tracestate ? { traceState: createTraceState(asked.tracestate) } : {}),
    }
  }
}

/** What the user plugs into the SDK may throw. That must not fail a run, nor an engine. */
export function guarded<T>(act: () => T): T | undefined {
  try {
    return act()
  } catch (error) {
    diag.error(`flowstone: a span or a count is lost: ${messageOf(error)}`)
    return undefined
  }
}

/** The span under the id that it is known by. */
function placed(span: Span, spanId: string, isFirst: boolean): Span {
  const own = { ...span.spanContext(), spanId }
  span.spanContext = () => own
  // As SDKs from version 2 on call it, and those before.
  if (isFirst)
    for (const field of ['parentSpanContext', 'parentSpanId']) if (field in span) Reflect.set(span, field, undefined)
  return span
}

function end(span: Span, error: unknown, toMs?: number): void {
  if (error !== undefined) {
    const { name, code, message, stack } = viewOf(error)
    span.recordException({ name, message, ...(code ? { code } : {}), ...(stack ? { stack } : {}) }, toMs)
    span.setAttribute('error.type', code ?? name)
    span.setStatus({ code: SpanStatusCode.ERROR, message })
  }
  span.end(toMs)
}

/** Whatever was thrown. */
function viewOf(error: unknown): {
  name: string
  code: string | undefined
  message: string
  stack: string | undefined
} {
  if (typeof error !== 'object' || error === null)
    return { name: 'Error', code: undefined, message: String(error), stack: undefined }
  const text = (field: string): string | undefined => {
    try {
      const value: unknown = Reflect.get(error, field)
      return typeof value === 'string' && value !== '' ? value : undefined
    } catch {
      return undefined
    }
  }
  return { name: text('name') ?? 'Error', code: text('code'), message: text('message') ?? '', stack: text('stack') }
}

function given(attributes: SpanAttributes): Record<string, AttributeValue> {
  const result: Record<string, AttributeValue> = {}
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined) result[name] = value
  return result
}

/** From 0 to 1, the same for the same text of hexadecimal digits. */
function share(hex: string): number {
  return Number.parseInt(hex.slice(-8), 16) / 2 ** 32
}
