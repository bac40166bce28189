/**
 * What stands in facts: one zod schema each. Everything here is on disk in users' logs. To change
 * one, raise its version in `facts.ts`, add an upcaster there, and keep the old log readable.
 *
 * Here: pipelines, and what facts of several subjects share. The others: `*-schemas.ts`.
 */
import { z } from 'zod'
import { by } from './by.ts'
import { subscriptionSpec } from './event-schemas.ts'
import { hooksSpec } from './hook-schemas.ts'
import { retentionSpec } from './retention.ts'
import { scheduleSpec, sensorSpec } from './schedule-schemas.ts'

export const count = z.int().min(0)
export const TOKEN_MAX = 256
export const token = z.string().min(1).max(TOKEN_MAX)

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
  /** Nobody declared it: it belongs to a schedule, a sensor or a hook. */
  internal: z.boolean().optional(),
  /** Its value is never current: it is made again whatever it was made of. */
  volatile: z.boolean().optional(),
  scatter: scatterSpec.optional(),
  queue: token,
  priority: z.int().min(0).max(3),
  timeoutMs: z.number().positive().optional(),
  retry: retryOptions,
  slots: slotsSpec.optional(),
  /** Its execution waits for rates or slots. */
  limited: z.boolean().optional(),
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
  /** How long runs of it are kept, and how many of its values. */
  retention: retentionSpec.optional(),
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

const pipelineSpec = z.object({
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
  /** How long its runs are kept. */
  retention: retentionSpec.optional(),
  /** Code that hears of its runs. */
  hooks: hooksSpec.optional(),
})
export type PipelineSpec = z.infer<typeof pipelineSpec>
/** `by`: whose process registered it. */
export const pipelineRegistered = pipelineSpec.extend({ by: by.optional() })

export const upstreamMode = z.enum(['all', 'stale', 'missing', 'none'])
export type UpstreamMode = z.infer<typeof upstreamMode>

export const attemptOutcome = z.enum(['error', 'terminal', 'timeout', 'lost', 'returned'])
/**
 * How an attempt ended that brought no value. `lost`: its worker died. `returned`: its worker was
 * asked to stop; costs no attempt.
 */
export type AttemptOutcome = z.infer<typeof attemptOutcome>
