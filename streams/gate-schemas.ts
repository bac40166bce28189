/** What stands in facts of gates, and of runs that a gate waits for. See schemas.ts. */

import { z } from 'zod'
import { by } from './by.ts'
import { runRequested, runStatus } from './run-schemas.ts'
import { count, errorInfo, storedValue, token, valueAt } from './schemas.ts'
import { traceContext } from './trace.ts'

export const gateKind = z.enum(['signal', 'approval'])
export const gateOutcome = z.enum(['signaled', 'timed_out', 'cancelled'])
export type GateOutcome = z.infer<typeof gateOutcome>

export const gateCreated = z.object({
  kind: gateKind,
  /** Ordinal of the execution that opened it: of the asset, or of its lease for an instance. */
  attempt: z.int().min(1),
  /** For an instance: its index, and the offset of the key chunk that holds its key. */
  index: count.optional(),
  keyChunk: count.optional(),
  worker: token,
  /** Server time in milliseconds; none: it waits for ever. */
  deadlineMs: z.number().positive().optional(),
  /** Waits after each timeout that is retried, in milliseconds. */
  retriesMs: z.array(z.number().positive()),
  /** What becomes of the asset, or instance, when the last deadline has passed. */
  afterRetries: z.enum(['fail', 'cancel']),
  metadata: z.unknown().optional(),
  /** JSON Schema that a payload must meet. */
  payload: z.record(z.string(), z.unknown()).optional(),
  keyId: token,
  /** SHA-256 of the token, and of the correlation key where there is one, as hex. */
  tokenHash: token,
  correlationHash: token.optional(),
})
export type GateCreated = z.infer<typeof gateCreated>

/** The deadline number `n` has passed. */
export const gateTimerFired = z.object({ n: count })

/**
 * A gate has another deadline: a timeout is retried, or somebody asked for more time. `deadlineMs`
 * is server time.
 */
export const gateExtended = z.object({
  why: z.enum(['retry', 'request']),
  deadlineMs: z.number().positive(),
  /** How often it has timed out by then. */
  timeouts: count,
  /** Of a request. Text of the caller's own where it was given. */
  by: z.string().max(256).optional(),
})

/**
 * A gate's last deadline has passed. Nobody can move it any more, because this fact takes the place
 * of the next extension. `deadlineMs` is server time.
 */
export const gateDeadlineClosed = z.object({
  deadlineMs: z.number().positive(),
  /** How often the gate has timed out by then. */
  timeouts: count,
})

/**
 * An execution waits for a run. This takes the place of `gate.created`: such a gate has no token,
 * and nobody can answer it. The engine starts the run.
 */
export const childRequested = z.object({
  /** As in `gate.created`. */
  attempt: z.int().min(1),
  index: count.optional(),
  keyChunk: count.optional(),
  worker: token,
  /** The id of the run, and what it is requested with. */
  child: token,
  request: runRequested,
})
export type ChildRequested = z.infer<typeof childRequested>

/** How a run ended: what stands in its `run.finished`. */
export const childEnd = z.object({
  status: runStatus,
  value: valueAt.optional(),
  asset: token.optional(),
  error: errorInfo.optional(),
})
export type ChildEnd = z.infer<typeof childEnd>

export const gateResolved = z.object({
  run: token,
  asset: token,
  gate: token,
  outcome: gateOutcome,
  payload: storedValue.optional(),
  /** Where the signal came from, and what came with it. */
  source: z.string().max(256).optional(),
  headers: z.record(z.string(), z.string()).optional(),
  /** SHA-256 of the idempotency key, as hex: the same signal again gets an answer that says so. */
  idempotency: token.optional(),
  reason: z.string().max(2000).optional(),
  by: by.optional(),
  /** The trace of who signalled. */
  trace: traceContext.optional(),
  /** Of a gate that waits for a run, once that has ended. */
  child: childEnd.optional(),
})
export type GateResolved = z.infer<typeof gateResolved>

/** A gate has this correlation key. */
export const gateCorrelated = z.object({ run: token, asset: token, gate: token })
