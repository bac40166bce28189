/**
 * What stands in facts: one zod schema each. Everything here is on disk in users' logs. To change
 * one, raise its version in `facts.ts`, add an upcaster there, and keep the old log readable.
 */

import { z } from 'zod'
import { runEvent, subscriptionSpec } from './event-schemas.ts'
import { scheduledBy, scheduleSpec, sensedBy, sensorSpec } from './schedule-schemas.ts'
import { HALF } from './text.ts'

const count = z.int().min(0)
const TOKEN_MAX = 256
const token = z.string().min(1).max(TOKEN_MAX)

/** What is kept of a thrown error: of its causes no stack. */
export interface ErrorInfo {
  code: string
  message: string
  stack?: string | undefined
  cause?: ErrorInfo | undefined
  errors?: ErrorInfo[] | undefined
}

const CAUSE_LEVELS = 6

/** Causes have an end, whoever wrote them. */
function errorOfLevel(level: number): z.ZodType<ErrorInfo> {
  const own = { code: z.string(), message: z.string(), stack: z.string().optional() }
  if (level >= CAUSE_LEVELS) return z.object(own)
  const inner = errorOfLevel(level + 1)
  return z.object({ ...own, cause: inner.optional(), errors: z.array(inner).optional() })
}
export const errorInfo = errorOfLevel(0)

/**
 * Where a value stands: the shard and sequence of the fact that carries or names it. `input`: that
 * fact is a run's request, which carries several; this is the one given under that name.
 */
export const valueAt = z.object({ shard: count, seq: count, input: token.optional() })
export type ValueAt = z.infer<typeof valueAt>

/**
 * A value as an I/O manager left it: inline in the fact, or a reference that only the manager named
 * understands.
 */
export const storedValue = z.union([
  z.object({ json: z.unknown() }),
  z.object({ msgpack: z.string() }),
  z.object({ manager: z.string(), ref: z.record(z.string(), z.unknown()) }),
])
export type StoredValue = z.infer<typeof storedValue>

export const retryOptions = z.object({
  maxAttempts: z.int().min(1),
  backoffMinMs: count,
  backoffMaxMs: count,
})
export type RetrySpec = z.infer<typeof retryOptions>

export const failureThreshold = z.union([z.object({ fraction: z.number().min(0).max(1) }), z.object({ count })])
export type FailureThreshold = z.infer<typeof failureThreshold>

/**
 * Neither `bucket` nor `perKey`: the limit is the scatter's own. `perKey`: the worker's code makes
 * the name of the key.
 */
const bucketName = { bucket: z.string().optional(), perKey: z.boolean().optional() }
export const rateLimitSpec = z.object({
  shape: z.enum(['window', 'smooth']),
  limit: z.int().min(1),
  periodMs: z.number().positive(),
  burst: z.int().min(1),
  ...bucketName,
})
export type RateLimitSpec = z.infer<typeof rateLimitSpec>
export const slotsSpec = z.object({
  max: z.int().min(1),
  weight: z.int().min(1),
  leaseMs: z.number().positive(),
  ...bucketName,
})
export type SlotsSpec = z.infer<typeof slotsSpec>

/**
 * There when the asset scatters: how its instances run. Defaults are those of logs that were
 * written before an option was there.
 */
export const scatterSpec = z.object({
  maxConcurrent: z.int().min(1).optional(),
  failureMode: z.enum(['all_or_nothing', 'partial']).default('all_or_nothing'),
  threshold: failureThreshold.default({ fraction: 0 }),
  strategy: z.enum(['individual', 'batch']).default('individual'),
  retry: retryOptions.optional(),
  timeoutMs: z.number().positive().optional(),
  totalTimeoutMs: z.number().positive().optional(),
  queue: token.optional(),
  priority: z.int().min(0).max(3).optional(),
  duplicates: z.enum(['error', 'drop', 'allow']).default('allow'),
  rateLimit: rateLimitSpec.optional(),
  slots: slotsSpec.optional(),
  /** It has code that makes a value of the results. */
  gather: z.boolean().optional(),
})
export type ScatterSpec = z.infer<typeof scatterSpec>

/**
 * There when the value of the asset is given to a run, and not made. `schema`: JSON Schema of what
 * is given. `absent`: what stands for it in a run that gives nothing.
 */
export const inputSpec = z.object({
  schema: z.record(z.string(), z.unknown()),
  absent: storedValue.optional(),
})
export type InputSpec = z.infer<typeof inputSpec>

export const assetSpec = z.object({
  name: token,
  dependsOn: z.array(token),
  input: inputSpec.optional(),
  /** Nobody declared it: it belongs to a schedule or a sensor. */
  internal: z.boolean().optional(),
  /** Its value is never current: it is made again whatever it was made of. */
  volatile: z.boolean().optional(),
  scatter: scatterSpec.optional(),
  queue: token,
  priority: z.int().min(0).max(3),
  timeoutMs: z.number().positive().optional(),
  retry: retryOptions,
  slots: slotsSpec.optional(),
  /** It has code for a gate that nobody answered. */
  onTimeout: z.boolean().optional(),
  /** It has code for a gate that was answered. */
  onSignal: z.boolean().optional(),
  /** It has code for a run that it started. */
  onRun: z.boolean().optional(),
  /** Hash of what the payload of its gates must look like, where the asset declares it. */
  payloadSchema: token.optional(),
  /** The author's own word for what its code expects of keys, results, payloads and values. */
  codeVersion: token.optional(),
  /** See shape.ts: a worker runs its tasks only with code of the same shape. */
  shape: token,
})
/** An asset as the engine knows it: graph and options, no code. */
export type AssetSpec = z.infer<typeof assetSpec>

export const onConflict = z.enum(['queue', 'skip', 'cancel_running'])
/** What becomes of a run while others of its key are active. */
export type OnConflict = z.infer<typeof onConflict>
const concurrencyLimit = { limit: z.int().min(1), onConflict: onConflict.default('queue') }

/**
 * How many runs of a pipeline and key are active at a time, as a run is requested with it. The
 * shard of the run follows from both.
 */
export const runConcurrency = z.object({ key: z.string().max(512), ...concurrencyLimit })
export type RunConcurrency = z.infer<typeof runConcurrency>

/** The same for all runs of a pipeline: what makes the key. None: one key for all. */
export const concurrencySpec = z.object({
  key: z.union([z.literal('partition'), z.object({ tag: z.string() }), z.object({ input: z.string() })]).optional(),
  ...concurrencyLimit,
})
export type ConcurrencySpec = z.infer<typeof concurrencySpec>

export const pipelineRegistered = z.object({
  name: token,
  version: token,
  assets: z.array(assetSpec),
  schedules: z.array(scheduleSpec).optional(),
  sensors: z.array(sensorSpec).optional(),
  /** Time limit of each of its runs that names none. */
  timeoutMs: z.number().positive().optional(),
  /** What its runs do with upstream assets, where they say nothing. Default `all`. */
  upstream: z.enum(['all', 'stale', 'missing', 'none']).optional(),
  /** How many of its runs are active at a time. */
  concurrency: concurrencySpec.optional(),
  /** What starts runs of it by itself. */
  subscriptions: z.array(subscriptionSpec).optional(),
})
export type PipelineSpec = z.infer<typeof pipelineRegistered>

export const upstreamMode = z.enum(['all', 'stale', 'missing', 'none'])
export type UpstreamMode = z.infer<typeof upstreamMode>

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

export const runCancelRequested = z.object({ reason: z.string().optional() })

/** Somebody wants the run to go on with another version of its pipeline. */
export const runAdoptRequested = z.object({ version: token })

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

export const attemptOutcome = z.enum(['error', 'terminal', 'timeout', 'lost', 'returned'])
/**
 * How an attempt ended that brought no value. `lost`: its worker died. `returned`: its worker was
 * asked to stop; costs no attempt.
 */
export type AttemptOutcome = z.infer<typeof attemptOutcome>

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

export const scatterStarted = z.object({
  attempt: z.int().min(1),
  worker: token,
})

/**
 * A list that the engine carries and never looks into: MessagePack of an array, as bytes, so that
 * it is encoded and decoded once, by those who want it. A writer may give the array itself.
 */
const opaqueList = z.union([z.instanceof(Uint8Array), z.array(z.unknown())])
export type OpaqueList = z.infer<typeof opaqueList>
/** Of the bytes of an opaque list: compressed, where that makes them smaller. */
const encoding = z.enum(['zstd']).optional()

/** Whole numbers from 0. A plain loop: there is one for each instance. */
const counts = z.custom<number[]>(isCounts, 'must be whole numbers from 0')
const durations = z.custom<number[]>(isDurations, 'must be numbers from 0')

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0)
}

function isDurations(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'number' && item >= 0)
}

/**
 * Where an item reader goes on behind a key chunk: at its own position `at` (left out: its
 * beginning), after `skip` items from there. `reader` is its name: one source's cursor means
 * nothing to another.
 */
export const itemsCursor = z.object({ reader: z.string(), at: z.unknown().optional(), skip: count })
export type ItemsCursor = z.infer<typeof itemsCursor>

/**
 * A key chunk of keys. `keys[k]` belongs to instance `offset + k`; `hash` is xxh64 of the encoded
 * keys. `cursor`: there when an item reader gave them.
 */
export const scatterItems = z.object({
  count: z.int().min(1),
  keys: opaqueList,
  encoding,
  hash: z.string(),
  cursor: itemsCursor.optional(),
})

export const scatterSized = z.object({ total: count })

/**
 * Outcomes of instances of one lease, in columns. `at[k]` is an instance's index, `ms[k]` its
 * duration. Entries of `errors` and `refs` are `[k, …]`: position in `at`. `values[k]` is null
 * where k is in `errors` or `refs`.
 */
export const scatterOutcomes = z.object({
  lease: token,
  ordinal: z.int().min(1),
  worker: token,
  at: counts,
  ms: durations,
  values: opaqueList,
  encoding,
  refs: z.array(z.tuple([count, storedValue])).optional(),
  errors: z
    .array(z.tuple([count, z.object({ error: errorInfo, outcome: attemptOutcome, retryAfterMs: count.optional() })]))
    .optional(),
  /** `[k, gate]`: the instance waits at this gate. */
  suspended: z.array(z.tuple([count, token])).optional(),
  /**
   * `[k, gates]`: gates that the instance opened and does not wait at. They end with this
   * execution, if it counts.
   */
  left: z.array(z.tuple([count, z.array(token)])).optional(),
  /** The one instance continues after this gate; `ordinal` counts its executions from there. */
  resumes: token.optional(),
  /** Set on the fact that ends the lease: how long the worker held it, in milliseconds. */
  heldMs: z.number().min(0).optional(),
})
export type ScatterOutcomes = z.infer<typeof scatterOutcomes>

const QUICK_FIELDS: ReadonlySet<string> = new Set([
  'v',
  'fact',
  'lease',
  'ordinal',
  'worker',
  'at',
  'ms',
  'values',
  'encoding',
  'heldMs',
])

/**
 * Outcomes of which all went well and are here: nearly all of them, and most of all that an engine
 * reads. The same checks as the schema's.
 */
export function quickOutcomes(body: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> | undefined {
  const { lease, ordinal, worker, at, ms, values, encoding, heldMs } = body
  for (const field of Object.keys(body)) if (!QUICK_FIELDS.has(field)) return undefined
  if (typeof lease !== 'string' || lease === '' || lease.length > TOKEN_MAX) return undefined
  if (typeof worker !== 'string' || worker === '' || worker.length > TOKEN_MAX) return undefined
  if (typeof ordinal !== 'number' || !Number.isSafeInteger(ordinal) || ordinal < 1) return undefined
  if (!isCounts(at) || !isDurations(ms) || !(values instanceof Uint8Array)) return undefined
  if (encoding !== undefined && encoding !== 'zstd') return undefined
  if (heldMs !== undefined && !(typeof heldMs === 'number' && heldMs >= 0 && Number.isFinite(heldMs))) return undefined
  const outcomes = { lease, ordinal, worker, at, ms, values }
  return { ...outcomes, ...(encoding ? { encoding } : {}), ...(heldMs === undefined ? {} : { heldMs }) }
}

export const scatterCancelRequested = z.object({ reason: z.string().optional() })

/** The worker that held a lease has died. `worker` is the one that found out. */
export const leaseLost = z.object({ lease: token, worker: token })

/**
 * A worker returns a lease that it does not finish. `from`: only the instances from there on, none
 * of which it started; it runs those before. `heldMs`: how long it had the lease by then, in
 * milliseconds.
 */
export const leaseReturned = z.object({
  lease: token,
  worker: token,
  from: count.optional(),
  heldMs: z.number().min(0).optional(),
})

export const scatterPaused = z.object({ reason: z.string().optional() })
export const scatterResumed = z.object({})

/** The scatter's own time limit has passed. */
export const scatterTimerFired = z.object({ timeoutMs: z.number().positive() })

/**
 * Written before an instance runs that runs alone: a worker that dies without it had not begun, and
 * cost it no attempt. `message`: as in `assetStarted`.
 */
export const scatterBegun = z.object({ worker: token, message: count })

export const scatterStatus = z.enum(['completed', 'partial_failure', 'failed', 'cancelled'])
export type ScatterStatus = z.infer<typeof scatterStatus>

/**
 * It ends before all of its instances have. What was stored before this fact counts, what comes
 * after it does not: so the counts of the `scatter.closed` that follows are those that its status
 * and its gather have.
 */
export const scatterEndedEarly = z.object({ status: z.enum(['failed', 'cancelled']), error: errorInfo.optional() })

export const scatterClosed = z.object({
  run: token,
  asset: token,
  status: scatterStatus,
  total: count.optional(),
  succeeded: count,
  failed: count,
  error: errorInfo.optional(),
})

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
})

export const triggerRefused = z.object({
  pipeline: z.string().optional(),
  asset: z.string(),
  reason: z.string(),
  msgId: z.string().optional(),
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
  /** Of a gate that waits for a run, once that has ended. */
  child: childEnd.optional(),
})
export type GateResolved = z.infer<typeof gateResolved>

/** A gate has this correlation key. */
export const gateCorrelated = z.object({ run: token, asset: token, gate: token })
