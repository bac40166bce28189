/** Documents of subscriptions. */
import type { RunConcurrency, StoredValue } from '../../streams/schemas.ts'
import type { InTrace } from '../../streams/trace.ts'

/** How far a subscription is. In the first shard. */
export interface SubscriptionState {
  seq: number
  /** Its stream, as facts name it, and the last message of it that was taken. */
  source: string
  to: number
  taken: number
  refused: number
}

/** Runs of a subscription in this shard that have not ended. */
export interface OpenRunsState {
  seq: number
  open: number
}

/** Messages that wait to start one run together, or to be replaced by a later one. */
export interface EventGroupState extends InTrace {
  seq: number
  /** Of the newest message. */
  version: string
  partition?: string
  tags?: Record<string, string>
  concurrency?: RunConcurrency
  /** Of the oldest. */
  source: string
  stream: string
  first: number
  firstMs: number
  msgId?: string
  /** What each of them gives the run; of `take: 'last'` only the newest. */
  inputs: Record<string, StoredValue>[]
  count: number
  bytes: number
  /** What they are known by, so that none counts twice. */
  keys: string[]
  /** Server time at which the run starts. */
  dueMs: number
  /** A schedule of the server is there for this time. */
  timerMs?: number
}
