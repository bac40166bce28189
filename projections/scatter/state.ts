/** The documents of scatters: barriers, key chunks, failures, limited queues. */
import type { RunId } from '../../streams/ids.ts'
import type { ScatterStatus } from '../../streams/scatter-schemas.ts'
import type { ErrorInfo } from '../../streams/schemas.ts'

export interface Lease {
  /** Instances whose outcome is still due from this lease. */
  left: number
  /**
   * Where it ends now, once its worker said that it takes long and handed back what it had not
   * begun. All before that runs.
   */
  to?: number
  keyChunk: number
  fedMs: number
  /** Failures that its instances have behind them. */
  failures: number
  /** Its one instance was in the hands of a worker that died. */
  lost?: true
  /** Its gates are those that this earlier execution opened: its worker died, or handed it back. */
  gates?: number
  /** Server time before which it must not start: a delayed retry. */
  dueMs?: number
}

/**
 * Instances to be leased again, after their lease was lost or returned: one by one, or `unstarted`,
 * in leases of the present size, where none of them had begun.
 */
export interface RequeuedRange {
  unstarted?: true
  from: number
  to: number
  keyChunk: number
  ordinal: number
  failures: number
  lost?: true
  gates?: number
  /** Server time from which it may run. */
  dueMs?: number
}

export interface BarrierState {
  seq: number
  run: RunId
  asset: string
  status: 'open' | ScatterStatus
  /** Its end was decided, and is on its way to the log. */
  closing?: true
  /** It has ended before all of its instances had: nothing more counts. */
  endedEarly?: true
  /** Nothing is begun for the time being. */
  paused?: { sinceMs: number; reason?: string }
  /** Server time at which it fails, ended or not. */
  deadlineMs?: number
  /** Fixed by scatter.sized. */
  total?: number
  /** Instances whose keys are stored: [0, stored). */
  stored: number
  keyChunks: number
  /** Instances [0, fedTo) have been leased at least once. */
  fedTo: number
  /** The key chunk that `fedTo` lies in, by ordinal. */
  fedKeyChunk: number
  succeeded: number
  failed: number
  /** Instances that wait at a gate, or go on from one. */
  suspended?: number
  leases: Record<string, Lease>
  delayed: number
  /**
   * Leases that take long, all of whose instances have begun: nobody can be given more of them, so
   * they fill no place in the window.
   */
  saturated?: number
  requeued: RequeuedRange[]
  /** With `strategy: batch`: failed instances that wait until the first pass has ended. */
  deferred?: RequeuedRange[]
  /** Of `failed`: those whose last attempt ran out of time. */
  timedOut?: number
  /**
   * Instances with an execution behind them that did not count as their end: [ordinal of the
   * current lease, failures so far, key chunk].
   */
  retries: Record<string, [number, number, number]>
  leaseSize: number
  window: number
  /** When the last instance is retried for which the rate limit had no room. */
  pacedMs?: number
  /** Milliseconds of a worker's wall time for an instance, smoothed. */
  perInstanceMs?: number
  workers: Record<string, number>
  /**
   * How many were done at a time not long ago, and how many a second ended before that, smoothed.
   */
  pace?: { sinceMs: number; done: number; perSecond?: number }
  startedMs: number
  closedMs?: number
  error?: ErrorInfo
}

/**
 * Finished bits of 65,536 instances. Then as many failed bits, only if one failed or waited. Then
 * as many bits for those that wait at a gate, only if one did.
 */
export type Segment = Uint8Array

/**
 * Why instances have failed, FAILURES_PER_CHUNK instances to a document: [index, sequence of the
 * outcomes that hold the error], or [index, 0, attempt] of one whose worker died. Which error
 * counted only the fold knows: others may stand on the log, before it and behind it.
 */
export interface FailureChunk {
  seq: number
  at: ([number, number] | [number, 0, number])[]
}

/** Key chunks [offset, count] in order, SLABS_PER_CHUNK to a document. */
export interface KeyChunkList {
  seq: number
  keyChunks: [number, number][]
}

/**
 * Open limited queues of a queue: barriers with a limit on how many of their instances run at a
 * time. Key: `<run>.<asset>`.
 */
export interface LimitedQueuesState {
  seq: number
  limitedQueues: Record<string, { priority: number; maxConcurrent: number; shape: string }>
}
