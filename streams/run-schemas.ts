/** What stands in facts of runs, of their assets and of triggers. See schemas.ts. */

import { z } from 'zod'
import { by } from './by.ts'
import { runEvent } from './event-schemas.ts'
import { hookOf } from './hook-schemas.ts'
import { scheduledBy, sensedBy } from './schedule-schemas.ts'
import {
  attemptOutcome,
  count,
  errorInfo,
  onConflict,
  runConcurrency,
  storedValue,
  TOKEN_MAX,
  token,
  upstreamMode,
  valueAt,
} from './schemas.ts'
import { HALF } from './text.ts'
import { traceContext } from './trace.ts'

/** What waits for a run: an execution of an asset, at this gate. */
export const waiter = z.object({ run: token, asset: token, gate: token })
export type Waiter = z.infer<typeof waiter>

export const runRequested = z.object({
  pipeline: token,
  version: token,
  target: token,
  upstream: upstreamMode,
  partition: z.string().max(512).optional(),
  key: z.string().optional(),
  trigger: z.object({ seq: count, msgId: z.string().optional() }).optional(),
  /** The message of a subscription that asked for it. */
  event: runEvent.optional(),
  /** What it was given, by the name of the input asset. */
  input: z.record(token, storedValue).optional(),
  tags: z.record(z.string().max(TOKEN_MAX), z.string().max(TOKEN_MAX)).optional(),
  /** The schedule or the sensor that it is of. */
  schedule: scheduledBy.optional(),
  sensor: sensedBy.optional(),
  /** The call of a hook that it is. */
  hook: hookOf.optional(),
  concurrency: runConcurrency.optional(),
  /** Time limit of the run, from this fact on; 0: none. Default: the pipeline's. */
  timeoutMs: z.number().min(0).optional(),
  /**
   * The run before it under the same key, or of the same redrive, which failed or was cancelled.
   */
  retryOf: token.optional(),
  /**
   * Run again what did not succeed of this closed scatter, and what is downstream of it; all else
   * is taken from that run. `total`: instances of the whole scatter, with all that succeeded
   * before.
   */
  redrive: z.object({ run: token, asset: token, total: count }).optional(),
  /**
   * Take what this ended run made or took, and make the rest. `from`: make this asset again, and
   * all downstream of it.
   */
  retry: z.object({ run: token, from: token.optional() }).optional(),
  /** What started it, and waits for it. */
  parent: waiter.optional(),
  /** The trace of who asks, where that is in one. */
  trace: traceContext.optional(),
  /** A span in the trace of the run before it, where that was asked for in one. */
  earlierTrace: z.string().max(55).optional(),
  by: by.optional(),
})

/** Something else waits for a run that was there before: see the ids of the fact. */
export const runAwaited = z.object({})

/** It waits no more, because it was cancelled. */
export const runAbandoned = z.object({})

/** Appended by the server when a run's time limit has passed. */
export const runTimerFired = z.object({ timeoutMs: z.number().positive() })

/**
 * A value that was made before. `run`: the run that made it. `hash`: of the value. `fingerprint`:
 * of what it was made of, and by which code.
 */
export const earlierValue = z.object({
  value: valueAt,
  run: token.optional(),
  hash: token.optional(),
  fingerprint: token.optional(),
})
export type EarlierValue = z.infer<typeof earlierValue>

/** Why a run takes a value that was made before. */
export const reuseReason = z.enum(['present', 'current', 'earlier_run'])
export type ReuseReason = z.infer<typeof reuseReason>

/**
 * `reuse`: taken as it is. `candidate`: taken if its fingerprint is that of the dependencies, once
 * they have their values. `redrive`: a scatter that runs only what did not succeed of that run's;
 * `total` as in run.requested.
 */
export const runPlanned = z.object({
  assets: z.array(
    z.object({
      name: token,
      reuse: valueAt.optional(),
      from: earlierValue.omit({ value: true }).extend({ why: reuseReason }).optional(),
      candidate: earlierValue.optional(),
      redrive: z.object({ run: token, total: count }).optional(),
    }),
  ),
  error: errorInfo.optional(),
})

export const runCancelRequested = z.object({ reason: z.string().optional(), by: by.optional() })

/** Somebody wants the run to go on with another version of its pipeline. */
export const runAdoptRequested = z.object({ version: token, by: by.optional() })

/**
 * It does. `replanned`: by asset, attempts below this are of a version that the run has left.
 * `added`: assets that the run makes now, too.
 */
export const runAdopted = z.object({
  version: token,
  from: token,
  replanned: z.record(z.string(), count),
  added: z.array(token),
})

/** It does not, and this is what does not fit. */
export const runAdoptRefused = z.object({ version: token, misfits: z.array(z.string()) })

export const runStatus = z.enum(['succeeded', 'failed', 'cancelled'])

/**
 * What a requester knows a run by: its key, and the Nats-Msg-Id of the trigger that asked for it.
 */
const requestedBy = { key: z.string().optional(), msgId: z.string().optional() }

export const runFinished = z.object({
  run: token,
  pipeline: token,
  target: token,
  partition: z.string().optional(),
  ...requestedBy,
  status: runStatus,
  /**
   * Where the target's value stands, when it succeeded; and the value itself, where it is small.
   */
  value: valueAt.optional(),
  result: storedValue.optional(),
  /** The asset whose failure is the run's, and its error. */
  asset: token.optional(),
  error: errorInfo.optional(),
  durationMs: count,
})

/** Which piece of an asset's code: `signal` is `onSignal`, `timeout` is `onTimeout`. */
export const phase = z.enum(['execute', 'scatter', 'gather', 'signal', 'timeout'])
export type Phase = z.infer<typeof phase>

/** `message`: sequence of its task on WORK, where it runs alone. */
export const assetStarted = z.object({ phase, worker: token, delivery: z.int().min(1), message: count.optional() })

export const attemptEnded = z.object({
  phase,
  worker: token,
  outcome: attemptOutcome,
  error: errorInfo,
  retryAfterMs: count.optional(),
  durationMs: count,
})

export const assetMaterialized = z.object({
  run: token,
  asset: token,
  pipeline: token,
  partition: z.string().optional(),
  ...requestedBy,
  attempt: z.int().min(1),
  worker: token,
  value: storedValue,
  /** Of the value; of what it was made of; of what the run was given for it. See fingerprint.ts. */
  hash: token.optional(),
  fingerprint: token.optional(),
  inputs: token.optional(),
  durationMs: count,
})

/**
 * The attempt waits at a gate: its worker is free. `left`: gates that it opened and does not wait
 * at.
 */
export const assetSuspended = z.object({ gate: token, worker: token, left: z.array(token).optional() })

const assetEnd = z.object({
  run: token,
  asset: token,
  pipeline: token,
  partition: z.string().optional(),
  ...requestedBy,
})
export const assetFailed = assetEnd.extend({ error: errorInfo, attempts: count })
export const assetSkipped = assetEnd.extend({ because: token })
export const assetCancelled = assetEnd.extend({ reason: z.string().optional() })

/**
 * A message of the stream of triggers, as the engine copied it to the log. `seq`: its sequence
 * there. `problem`: why it cannot be taken at all; then its body is left out. All texts are cut to
 * their bounds.
 */
export const triggerReceived = z.object({
  seq: count,
  /** What stands behind `<ns>.trigger.`. */
  subject: z.string().max(512),
  payload: z.custom<Uint8Array>((value) => value instanceof Uint8Array, 'must be bytes'),
  contentType: z.string().max(256).optional(),
  msgId: z.string().max(512).optional(),
  problem: z.string().max(2000).optional(),
  trace: traceContext.optional(),
  by: by.optional(),
})

export const triggerRefused = z.object({
  pipeline: z.string().optional(),
  asset: z.string(),
  reason: z.string(),
  msgId: z.string().optional(),
  by: by.optional(),
  /** What was sent, as base64, to be taken later. Not on the feed; none where it is too large. */
  kept: z.object({ body: z.base64(), contentType: z.string().max(256).optional() }).optional(),
})

const wholeText = z.string().refine((text) => text.isWellFormed(), HALF)

/** What an outsider may send to `<ns>.trigger.<pipeline>.<asset>`. */
export const triggerBody = z.strictObject({
  partition: wholeText.max(512).optional(),
  upstream: upstreamMode.optional(),
  key: wholeText.min(1).max(512).optional(),
  input: z.record(z.string(), z.unknown()).optional(),
  tags: z.record(z.string(), z.string()).optional(),
  concurrency: z
    .strictObject({
      key: wholeText.max(512).default(''),
      limit: z.int().min(1).max(1000),
      onConflict: onConflict.default('queue'),
    })
    .optional(),
})
export type TriggerBody = z.output<typeof triggerBody>
