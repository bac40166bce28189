/**
 * Creates or updates the consumers of work queues. Idempotent: workers call it when they begin to
 * serve a queue.
 */
import { AckPolicy, DeliverPolicy, JetStreamApiError, type JetStreamManager } from '@nats-io/jetstream'
import type { LimitedQueueName, Names, UnmatchedName } from './subjects.ts'

const NANOS_PER_MS = 1_000_000
const TASKS_OUT_MAX = 100_000

export interface TaskConsumerOptions {
  /** A task whose worker gave no sign for this long is given to another one, in milliseconds. */
  readonly ackWaitMs: number
}

/**
 * The shared consumer of a queue and priority on each WORK stream. One per pipeline, queue and
 * priority: few, and their filters do not overlap.
 */
export async function ensureTaskConsumer(
  jsm: JetStreamManager,
  names: Names,
  at: { shard: number; pipeline: string; queue: string; priority: number },
  options: TaskConsumerOptions,
): Promise<string> {
  const durable = names.taskConsumer(at.pipeline, at.queue, at.priority)
  await ensurePullConsumer(
    jsm,
    names.work(at.shard),
    durable,
    names.task(at.shard, at.pipeline, at.queue, at.priority),
    options,
    TASKS_OUT_MAX,
  )
  return durable
}

/**
 * A barrier's own consumer: the server lets at most `maxConcurrent` of its leases be out at a time,
 * over all workers.
 */
export async function ensureLimitedQueueConsumer(
  jsm: JetStreamManager,
  names: Names,
  shard: number,
  limitedQueue: LimitedQueueName,
  maxConcurrent: number,
  options: TaskConsumerOptions,
): Promise<string> {
  const durable = names.limitedQueueConsumer(limitedQueue)
  await ensurePullConsumer(
    jsm,
    names.work(shard),
    durable,
    names.limitedQueueTask(shard, limitedQueue),
    options,
    maxConcurrent,
  )
  return durable
}

/**
 * The consumer of unmatched tasks of one asset and shape: there while such tasks are.
 */
export async function ensureUnmatchedConsumer(
  jsm: JetStreamManager,
  names: Names,
  shard: number,
  unmatched: UnmatchedName,
  options: TaskConsumerOptions,
): Promise<string> {
  const durable = names.unmatchedConsumer(unmatched)
  await ensurePullConsumer(
    jsm,
    names.work(shard),
    durable,
    names.unmatchedFilter(shard, unmatched),
    options,
    TASKS_OUT_MAX,
  )
  return durable
}

async function ensurePullConsumer(
  jsm: JetStreamManager,
  stream: string,
  durable: string,
  filter: string,
  options: TaskConsumerOptions,
  maxAckPending: number,
): Promise<void> {
  const ack_wait = options.ackWaitMs * NANOS_PER_MS
  try {
    await jsm.consumers.add(stream, {
      durable_name: durable,
      filter_subject: filter,
      ack_policy: AckPolicy.Explicit,
      deliver_policy: DeliverPolicy.All,
      ack_wait,
      max_deliver: -1,
      max_ack_pending: maxAckPending,
      max_waiting: 10_000,
    })
  } catch (error) {
    if (!(error instanceof JetStreamApiError)) throw error
    await jsm.consumers.update(stream, durable, { ack_wait })
  }
}
