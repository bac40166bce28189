/**
 * What a decision asks the engine to do. Values only; the engine carries them out. Doing one twice
 * is harmless.
 */

import type { DraftOf, FactDraft } from '../streams/facts.ts'
import type { AssetName, RunId } from '../streams/ids.ts'
import type { Waiter } from '../streams/run-schemas.ts'
import type { ValueAt } from '../streams/schemas.ts'
import type { LimitedQueueName } from '../streams/subjects.ts'
import type { Task } from '../streams/tasks.ts'
import type { RunRequest, TriggerRequest } from './run/request.ts'

export type GateIds = { readonly run: RunId; readonly asset: AssetName; readonly gate: string }

export type Effect =
  /**
   * Append a fact; if its subject is taken, somebody (perhaps this engine, before a crash) was
   * first, and that is fine. `stops`: a fact that its timer was to bring, and that is not wanted
   * any more.
   */
  | { readonly do: 'fact'; readonly fact: FactDraft; readonly stops?: FactDraft }
  /**
   * Have the server append a fact at `dueMs` of its clock: one whose path ends in `timer_fired`.
   * `replaces`: also if a timer for it is there, which goes.
   */
  | { readonly do: 'timer'; readonly fact: FactDraft; readonly dueMs: number; readonly replaces?: true }
  /**
   * Give a gate another deadline, and its timer. Both or neither: not if it has ended, or its
   * deadline was moved by somebody else.
   */
  | { readonly do: 'extend_gate'; readonly fact: DraftOf<'gate.extended'> }
  /**
   * End a gate whose last deadline has passed. Both or neither: not if it has ended, or was given
   * more time.
   */
  | {
      readonly do: 'time_out_gate'
      readonly close: DraftOf<'gate.deadline_closed'>
      readonly end: DraftOf<'gate.resolved'>
    }
  /** Enqueue a task, not before `dueMs` of the server's clock. */
  | {
      readonly do: 'task'
      readonly task: Task
      readonly queue: string
      readonly priority: number
      readonly dueMs?: number
      readonly limitedQueue?: true
    }
  /**
   * Cancel what still waits of the gates of an asset; `attempt`: only those that this execution of
   * it opened.
   */
  | { readonly do: 'cancel_gates'; readonly run: string; readonly asset: string; readonly attempt?: number }
  /** Start the run that a gate waits for, or have the gate wait for the one that there is. */
  | { readonly do: 'start_child'; readonly gate: GateIds }
  /** Tell the run that a gate waited for that it does not any more. */
  | { readonly do: 'abandon_child'; readonly gate: GateIds; readonly child: RunId }
  /** End a gate that waits for a run, which has ended. */
  | { readonly do: 'wake_parent'; readonly run: string; readonly waiter: Waiter }
  /** Look up what is materialized already, and append run.planned. */
  | { readonly do: 'plan'; readonly run: string }
  /** Start a run in the partition that its id names: append run.requested there. */
  | { readonly do: 'request'; readonly trigger: TriggerRequest }
  /** Start the run of an occurrence of a schedule. Both or neither. */
  | {
      readonly do: 'start_run'
      readonly fired: DraftOf<'schedule.fired'>
      readonly request: DraftOf<'run.requested'>
    }
  /**
   * The same, with what its code said in `value`. `refused`: to be appended, with the reason, if
   * that cannot be.
   */
  | {
      readonly do: 'start_evaluated'
      readonly value: ValueAt
      readonly fired: DraftOf<'schedule.fired'>
      readonly request: DraftOf<'run.requested'>
      readonly refused: DraftOf<'schedule.skipped'>
    }
  /** Start the runs that an evaluation of a sensor asked for in `value`. */
  | { readonly do: 'start_sensed'; readonly value: ValueAt; readonly request: RunRequest }
  /** The document of a schedule or sensor has changed: what is due may be another thing. A hint. */
  | { readonly do: 'alarm'; readonly key: string }
  /** Tell workers to stop what they do for a run, or for one asset of it. A hint. */
  | { readonly do: 'abort'; readonly run: string; readonly asset?: string }
  /** Tell workers to begin nothing more of a scatter. A hint: the log is the truth. */
  | { readonly do: 'pause'; readonly run: string; readonly asset: string }
  /**
   * Tell workers of a limited queue that is open now. A hint: the document of the queue's limited
   * queues is the truth.
   */
  | {
      readonly do: 'open_limited_queue'
      readonly limitedQueue: LimitedQueueName
      readonly maxConcurrent: number
      readonly shape: string
    }
  /**
   * Take away the schedules of an asset that has ended, or of its instances when their scatter has.
   */
  | { readonly do: 'drop_schedules'; readonly run: string; readonly asset: string; readonly only?: 'instances' }
  /** Remove a limited queue's consumer and what is left on its subject. */
  | { readonly do: 'close_limited_queue'; readonly limitedQueue: LimitedQueueName }
