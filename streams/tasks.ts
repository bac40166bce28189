/**
 * Tasks: pieces of work on WORK, MessagePack. Always derived from facts, and always derivable
 * again. `id` follows from the fact that caused the task, so the same task enqueued twice is the
 * same piece of work.
 */
import { z } from 'zod'
import { CONTENT_TYPE, decode, encodeMsgpack } from './codec.ts'
import { FlowStoneError } from './errors.ts'
import { valueAt } from './schemas.ts'
import { traceContext } from './trace.ts'

const common = {
  id: z.string(),
  run: z.string(),
  asset: z.string(),
  pipeline: z.string(),
  version: z.string(),
  /** What the code that runs it must look like (shape.ts). */
  shape: z.string(),
  partition: z.string().optional(),
  /** Of the run: what its requester knows it by. */
  key: z.string().optional(),
  msgId: z.string().optional(),
  /** Where each dependency's value stands. */
  deps: z.record(z.string(), valueAt),
  timeoutMs: z.number().optional(),
  /**
   * It has lost a worker before, and this is its last attempt. So nothing runs beside it in its
   * process: it fails only by its own doing, and takes nobody with it.
   */
  alone: z.boolean().optional(),
  /**
   * It finds the gates that this earlier execution of it opened: its worker died, or handed it
   * back, and what was begun outside goes on.
   */
  gates: z.int().min(1).optional(),
  /** The trace in which its run was asked for. */
  trace: traceContext.optional(),
}

/**
 * The gate after which code continues, the fact on the log that ended it, and how often it has
 * timed out.
 */
const fromGate = z.object({ gate: z.string(), seq: z.int().min(0), timeouts: z.int().min(0) })

/**
 * An asset that the same worker runs next. `deps` lacks what the task makes itself.
 */
const chainStep = z.object({
  asset: z.string(),
  shape: z.string(),
  dependsOn: z.array(z.string()),
  deps: z.record(z.string(), valueAt),
  /** Of the values of its dependencies, where they are known. */
  hashes: z.record(z.string(), z.string()),
  timeoutMs: z.number().optional(),
  attempt: z.int().min(1),
  attemptsLeft: z.int().min(0),
  inputs: z.string().optional(),
})
export type ChainStep = z.infer<typeof chainStep>

const attemptTask = z.object({
  ...common,
  kind: z.enum(['execute', 'scatter', 'gather', 'signal', 'timeout']),
  /** For `signal` and `timeout`. */
  from: fromGate.optional(),
  /** Ordinal of this execution of the asset, from 1, unique in its run. */
  attempt: z.int().min(1),
  /** How many more failures the asset may have: 0 means this is its last attempt. */
  attemptsLeft: z.int().min(0),
  /** What its value is made of, and which inputs it goes back to: for the fact that carries it. */
  fingerprint: z.string().optional(),
  inputs: z.string().optional(),
  /** What is chained to it, in this order. */
  chain: z.array(chainStep).optional(),
})

const leaseTask = z.object({
  ...common,
  kind: z.literal('lease'),
  /** Instances [from, to) of the barrier. */
  from: z.int().min(0),
  to: z.int().min(1),
  /** Offset of the key chunk that holds their keys. */
  keyChunk: z.int().min(0),
  lease: z.string(),
  /** Instances run one after the other: the lease stands for one of `maxConcurrent`. */
  serial: z.boolean().optional(),
  /** Ordinal of this execution of these instances, from 1. */
  ordinal: z.int().min(1),
  /** Which attempt this is, of how many: what the user's code sees. */
  attempt: z.int().min(1),
  maxAttempts: z.int().min(1),
})

/** An instance continues after a gate. */
const resumeTask = z.object({
  ...common,
  kind: z.literal('resume'),
  how: z.enum(['signal', 'timeout']),
  from: fromGate,
  index: z.int().min(0),
  keyChunk: z.int().min(0),
  /** Ordinal of this execution of what follows the gate, from 1. */
  ordinal: z.int().min(1),
  attempt: z.int().min(1),
  maxAttempts: z.int().min(1),
})

/** A gate has timed out and still waits: `onTimeout` is called, and decides nothing. */
const reminderTask = z.object({
  ...common,
  kind: z.literal('reminder'),
  from: fromGate,
  retriesLeft: z.int().min(0),
  attempt: z.int().min(1),
  index: z.int().min(0).optional(),
  keyChunk: z.int().min(0).optional(),
})

const task = z.discriminatedUnion('kind', [attemptTask, leaseTask, resumeTask, reminderTask])
export type Task = z.infer<typeof task>
export type AttemptTask = z.infer<typeof attemptTask>
export type LeaseTask = z.infer<typeof leaseTask>
export type ResumeTask = z.infer<typeof resumeTask>
export type ReminderTask = z.infer<typeof reminderTask>

const TASK_VERSION = 2
/** Tasks without a chain are as they were: older workers do them. */
const UNCHAINED_VERSION = 1

export function encodeTask(value: Task): { payload: Uint8Array; contentType: string } {
  const v = 'chain' in value ? TASK_VERSION : UNCHAINED_VERSION
  return { payload: encodeMsgpack({ v, ...value }), contentType: CONTENT_TYPE.msgpack }
}

/**
 * Throws FlowStoneError `bad_task` for what is no task, `newer_version` for one of a newer
 * FlowStone.
 */
export function decodeTask(payload: Uint8Array, contentType: string | undefined): Task {
  const body = decode(payload, contentType)
  if (typeof body === 'object' && body !== null && 'v' in body && typeof body.v === 'number' && body.v > TASK_VERSION) {
    throw new FlowStoneError(
      'newer_version',
      `task has version ${body.v}, this worker knows ${TASK_VERSION}; upgrade the worker`,
    )
  }
  const checked = task.safeParse(body)
  if (!checked.success) throw new FlowStoneError('bad_task', `not a task: ${checked.error.issues[0]?.message ?? ''}`)
  return checked.data
}
