/**
 * What puts user code into spans, where somebody wants that: `instrument` of `flowstone/otel`. One
 * for the process, also where two copies of this package are loaded in it. Nobody: it costs one
 * look for each task.
 */
import { formatTraceparent, runSpan, type SpanName, type TraceContext, type TracedRun } from '../streams/trace.ts'

/** A span, by what it is about. */
export interface TracedSpan {
  readonly name: string
  /** The run that it is of; in it, its own place and that above it. Above a run: its requester. */
  readonly of: TracedRun
  readonly span: SpanName
  readonly parent: SpanName | undefined
  /** Spans that it follows, such as that of a gate. */
  readonly links?: readonly SpanName[]
  readonly attributes: SpanAttributes
}

export type SpanAttributes = Readonly<Record<string, string | number | undefined>>

/** A span that user code runs in. */
export interface CodeSpan {
  /** The code runs in it, and whatever it starts. */
  run<T>(code: () => T): T
  /** `error`: what was thrown. */
  end(attributes?: SpanAttributes, error?: unknown): void
}

export interface Tracing {
  /** The span of whoever calls. */
  active(): TraceContext | undefined
  begin(what: TracedSpan): CodeSpan
  /** Runs code in the name of a span that is recorded later, or by another process. */
  within<T>(of: TracedRun, span: SpanName, code: () => T): T
  /** A span that has ended. Times are those of `Date.now()`. */
  record(what: TracedSpan, fromMs: number, toMs: number, error?: unknown): void
  /** Whether any instance of a scatter has a span of its own, besides those that are shown. */
  readonly samplesInstances: boolean
  /** Whether this one has. */
  isSampled(of: TracedRun, asset: string, index: number): boolean
}

/** Where leases are single instances, so many of a scatter have spans. The same of gates. */
export const SHOWN_INSTANCES = 100

const PLACE = Symbol.for('flowstone.tracing')

export function tracing(): Tracing | undefined {
  return Reflect.get(globalThis, PLACE)
}

/** Undefined: nobody wants spans any more. */
export function setTracing(to: Tracing | undefined): void {
  Reflect.set(globalThis, PLACE, to)
}

/** What code may pass on: the span that it runs in, or else that of its run. */
export function traceparentOf(of: TracedRun): string {
  return tracing()?.active()?.traceparent ?? formatTraceparent(runSpan(of))
}

/** The trace of a run that code of another one asks for. */
export function traceFrom(of: TracedRun): TraceContext {
  return tracing()?.active() ?? { ...of.trace, traceparent: formatTraceparent(runSpan(of)) }
}
