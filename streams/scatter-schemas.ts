/** What stands in facts of scatters and of their leases. See schemas.ts. */

import { z } from 'zod'
import { by } from './by.ts'
import { attemptOutcome, count, errorInfo, storedValue, TOKEN_MAX, token } from './schemas.ts'

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

export const scatterCancelRequested = z.object({ reason: z.string().optional(), by: by.optional() })

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

export const scatterPaused = z.object({ reason: z.string().optional(), by: by.optional() })
export const scatterResumed = z.object({ by: by.optional() })

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
