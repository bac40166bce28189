/**
 * The trace that a run belongs to, in the words of W3C Trace Context.
 *
 * Who asks for a run may be in a trace: then the run is in it. Else the run's trace follows from
 * its id. The ids of its spans follow from it, too. Every process knows them without asking another
 * one. Who finds that a worker has died knows the span that the worker could not send.
 */
import { z } from 'zod'
import { hash64 } from './ids.ts'

const TRACEPARENT = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/
const STATE_MAX = 512
const NO_TRACE = '0'.repeat(32)
const NO_SPAN = '0'.repeat(16)
const SAMPLED = 1

/** Where the run was asked for: a span of somebody else. */
export const traceContext = z.object({
  traceparent: z.string().max(55),
  tracestate: z.string().max(STATE_MAX).optional(),
})
export type TraceContext = z.infer<typeof traceContext>

/** What documents say of it, as run.requested does. Of several messages: that of the oldest. */
export interface InTrace {
  trace?: TraceContext
  earlierTrace?: string
}

/** A span by its ids. */
export interface SpanName {
  readonly traceId: string
  readonly spanId: string
  readonly isSampled: boolean
}

/** Undefined for what is no traceparent. One of a later version is read as far as it is known. */
export function parseTraceparent(text: string | undefined): SpanName | undefined {
  const [, version, traceId = '', spanId = '', flags = '', more] = TRACEPARENT.exec(text ?? '') ?? []
  if (version === undefined || version === 'ff' || (version === '00' && more !== undefined)) return undefined
  if (traceId === NO_TRACE || spanId === NO_SPAN) return undefined
  return { traceId, spanId, isSampled: (Number.parseInt(flags, 16) & SAMPLED) === SAMPLED }
}

export function formatTraceparent({ traceId, spanId, isSampled }: SpanName): string {
  return `00-${traceId}-${spanId}-${isSampled ? '01' : '00'}`
}

/** What the headers of a message say. What is malformed is left out, as the standard wants it. */
export function traceContextOf(
  traceparent: string | undefined | null,
  tracestate: string | undefined | null,
): TraceContext | undefined {
  const parent = parseTraceparent(traceparent?.trim())
  if (!parent) return undefined
  const state = tracestate?.trim() ?? ''
  const isState = state !== '' && state.length <= STATE_MAX && /^[\x20-\x7e]*$/.test(state)
  return { traceparent: formatTraceparent(parent), ...(isState ? { tracestate: state } : {}) }
}

/** Of a message of NATS, whose names of headers are as they were written. */
export function traceOfMessage(headers: { get(name: string): string | undefined }): TraceContext | undefined {
  const of = (name: string, canonical: string): string | undefined => headers.get(name) ?? headers.get(canonical)
  return traceContextOf(of('traceparent', 'Traceparent'), of('tracestate', 'Tracestate'))
}

/** A run, and where it was asked for. Another namespace may have a run of the same id. */
export interface TracedRun {
  readonly namespace: string
  readonly run: string
  readonly trace?: TraceContext | undefined
}

/** The span of a run. `isSampled`: of a trace that somebody else began; of its own: true. */
export function runSpan({ namespace, run, trace }: TracedRun): SpanName {
  const text = `${namespace}/${run}`
  const spanId = hash64(`span:${text}`)
  const parent = parseTraceparent(trace?.traceparent)
  if (parent) return { ...parent, spanId }
  return { traceId: `${hash64(`trace:${text}`)}${hash64(`trace:${text}#`)}`, spanId, isSampled: true }
}

/** A span of a part of a run, such as `attempt.report.1`. */
export function partSpan({ namespace, run, trace }: TracedRun, part: string): SpanName {
  return { ...runSpan({ namespace, run, trace }), spanId: hash64(`span:${namespace}/${run}/${part}`) }
}

/** The names of parts. Each is one of its run. */
export const tracedPart = {
  attempt: (asset: string, attempt: number | string): string => `attempt.${asset}.${attempt}`,
  scatter: (asset: string): string => `scatter.${asset}`,
  lease: (asset: string, lease: string): string => `lease.${asset}.${lease}`,
  instance: (asset: string, index: number, attempt: number): string => `instance.${asset}.${index}.${attempt}`,
  gate: (asset: string, gate: string): string => `gate.${asset}.${gate}`,
  resume: (asset: string, gate: string, ordinal: number): string => `resume.${asset}.${gate}.${ordinal}`,
  reminder: (asset: string, gate: string, timeouts: number): string => `reminder.${asset}.${gate}.${timeouts}`,
}
