/**
 * What stands in the facts of subscriptions: one zod schema each. As in `schemas.ts`, everything
 * here is on disk in users' logs.
 */
import { z } from 'zod'
import { by } from './by.ts'
import { traceContext } from './trace.ts'

const count = z.int().min(0)
const TOKEN_MAX = 256
const TEXT_MAX = 512
const token = z.string().min(1).max(TOKEN_MAX)

/** Of subscriptions that start one run for several messages. */
export const batchSpec = z.object({ maxItems: z.int().min(1), maxWaitMs: z.int().min(1) })
export const debounceSpec = z.object({
  waitMs: z.int().min(1),
  maxWaitMs: z.int().min(1).optional(),
  take: z.enum(['last', 'all']),
})

/** A subscription as the engine knows it: options, no code. It is a part of its pipeline. */
export const subscriptionSpec = z.object({
  name: token,
  /** An existing stream; a bucket; or a subject, which has a stream of its own. */
  from: z.union([
    z.object({ stream: token, subject: z.string().max(TEXT_MAX).optional() }),
    z.object({ bucket: token, key: z.string().max(TEXT_MAX).optional() }),
    z.object({ subject: z.string().max(TEXT_MAX) }),
  ]),
  /** The asset that its runs make. */
  run: token,
  maxOpen: z.int().min(1),
  batch: batchSpec.optional(),
  debounce: debounceSpec.optional(),
})
export type SubscriptionSpec = z.infer<typeof subscriptionSpec>

/**
 * A value, as `storedValue` of schemas.ts. Here to have no import cycle, and because the list of
 * events is long: it is checked again where it becomes a run's.
 */
const stored = z.union([
  z.object({ json: z.unknown() }),
  z.object({ msgpack: z.string() }),
  z.object({ manager: z.string(), ref: z.record(z.string(), z.unknown()) }),
])

/** A message as it was, where its stream does not keep it. `data`: bytes. */
const keptMessage = z.object({
  subject: z.string().max(TEXT_MAX),
  timeMs: z.int(),
  headers: z.record(z.string(), z.string()),
  data: stored,
})

/** A message that was taken. */
export const takenEvent = z.object({
  /** Its sequence in its stream. */
  seq: count,
  /** What it is known by: the same key is the same event. None: it is known by its place. */
  key: z.string().max(TEXT_MAX).optional(),
  msgId: z.string().max(TEXT_MAX).optional(),
  /** Why no run can start for it; then there is no input. */
  refused: z.string().optional(),
  /** Then also the message, to be read again. */
  message: keptMessage.optional(),
  input: z.record(token, stored).optional(),
  partition: z.string().max(TEXT_MAX).optional(),
  tags: z.record(z.string().max(TOKEN_MAX), z.string().max(TOKEN_MAX)).optional(),
  /** How many runs of its key are active at a time, where the subscription says so. */
  concurrency: z
    .object({
      key: z.string().max(TEXT_MAX),
      limit: z.int().min(1),
      onConflict: z.enum(['queue', 'skip', 'cancel_running']),
    })
    .optional(),
  /** With `batch` and `debounce`: messages of the same group share a run. A hash. */
  group: token.optional(),
  /** Of its input, as JSON, where it is of a group. */
  bytes: count.optional(),
  /** The trace that its message was sent in. */
  trace: traceContext.optional(),
})
export type TakenEvent = z.infer<typeof takenEvent>

const taken = {
  /** Of the pipeline: its code made the events of the messages. */
  version: token,
  worker: token,
  stream: token,
  events: z.array(takenEvent),
}

/** All messages of a stream up to `to` have been read. Those without an event start no run. */
export const subscriptionTaken = z.object({ ...taken, to: count })

/** A message that was refused is taken after all. */
export const eventRetried = z.object({ ...taken, by: by.optional() })

/** No run starts for a message. */
export const eventRefused = z.object({
  pipeline: token,
  subscription: token,
  stream: token,
  seq: count,
  key: z.string().max(TEXT_MAX).optional(),
  msgId: z.string().max(TEXT_MAX).optional(),
  reason: z.string(),
  /** The message stands in the fact with this sequence, because its stream does not keep it. */
  kept: count.optional(),
})

/** The time of a batch, or of messages that are debounced, may have come. */
export const eventTimerFired = z.object({})

/** Of a run: the message that asked for it, or the first of several. */
export const runEvent = z.object({
  subscription: token,
  stream: token,
  seq: count,
  msgId: z.string().max(TEXT_MAX).optional(),
  /** How many messages it is for, where it may be several. */
  messages: count.optional(),
})
export type RunEvent = z.infer<typeof runEvent>
