/**
 * A task in this worker's hands: kept alive with in-progress acknowledgements, and ended with
 * exactly one answer.
 */

import type { Task } from '../../../streams/tasks.ts'
import type { Connection } from '../../log/connection.ts'
import { STALE_HEADER } from '../../log/entries.ts'
import type { Helper } from '../control/helper.ts'
import { acknowledge } from './acknowledge.ts'
import { Paused } from './disposition.ts'
import type { Delivery } from './puller.ts'
import type { Seat } from './slots.ts'

/**
 * What a task in a worker's hands may wait for before its code is begun. `room`: `concurrency` of
 * the worker.
 */
export type Waits =
  | { readonly for: 'room' | 'alone' }
  | { readonly for: 'slot' | 'rate'; readonly bucket: string; readonly untilMs?: number }

export class InFlightTask {
  #task: Task
  readonly shard: number
  readonly streamSeq: number
  readonly count: number
  /** Of its message, by the server's clock. */
  readonly ageMs: number
  /** What led to it is older than its message. */
  readonly isStale: boolean
  readonly delivery: Delivery
  /**
   * Aborted when the work is not wanted any more (`CancelledError`) or when the worker must stop
   * (`HandBack`).
   */
  readonly abort = new AbortController()
  /** Why its code does not run yet, for who asks. */
  waits: Waits | undefined
  /** Of a lease: instances whose code runs, and since when (by this process's clock). */
  readonly running = new Map<number, number>()
  /** Its code was called, or is about to be. */
  begun = false
  /** The slot of its code, where it has one of its own; see `Seat`. */
  seat: Seat | undefined
  /** Its code has returned a gate: that it waits there is on the log, or on its way. */
  waitsAtGate = false
  /** It is stored anew: another message of the same task is no repeat of this one. */
  isLeaving = false
  #isStoring = false
  #slot = -1
  #helper: Helper | undefined
  readonly #sinceMs = performance.now()
  #reply: string
  readonly #connection: Connection
  #answered = false
  #pausing: AbortController | undefined
  #paused = false

  constructor(connection: Connection, task: Task, delivery: Delivery, nowMs: number) {
    this.#connection = connection
    this.#task = task
    this.shard = delivery.shard
    this.delivery = delivery
    this.streamSeq = delivery.streamSeq
    this.count = delivery.count
    this.ageMs = nowMs - delivery.timeMs
    this.isStale = delivery.headers.has(STALE_HEADER)
    this.#reply = delivery.reply
  }

  /** How long this worker has had it. */
  get heldMs(): number {
    return performance.now() - this.#sinceMs
  }

  /** What is to be done now; of a chain, another attempt after each. */
  get task(): Task {
    return this.#task
  }

  /** The next attempt of its chain. */
  goOn(task: Task): void {
    this.#task = task
    this.#helper?.renew(this.#slot, this.#reply, this.label)
  }

  /** Its code has run: its slot is for other code while the outcome is on its way to the log. */
  stores(): void {
    this.#isStoring = true
    this.seat?.give()
  }

  get isStoring(): boolean {
    return this.#isStoring
  }

  /** Waits for a slot for the code that follows in its chain, unless it is aborted first. */
  async takeSeat(): Promise<void> {
    this.#isStoring = false
    this.waits = { for: 'room' }
    await this.seat?.take(this.abort.signal).catch(() => undefined)
    this.waits = undefined
  }

  /** Its scatter is paused: what it has not begun is not to be begun here. */
  get paused(): boolean {
    return this.#paused
  }

  pause(): void {
    this.#paused = true
    this.#pausing?.abort(new Paused())
  }

  /** Aborted when it is paused, or with `abort`. For what waits here before it is begun. */
  get waiting(): AbortSignal {
    this.#pausing ??= new AbortController()
    if (this.#paused) this.#pausing.abort(new Paused())
    return AbortSignal.any([this.abort.signal, this.#pausing.signal])
  }

  /** Whether it has been in this worker's hands for less than this. */
  isYoungerThan(ms: number): boolean {
    return performance.now() - this.#sinceMs < ms
  }

  /**
   * The same message came again (the server restarted, or heard nothing of us): the newest delivery
   * is the one to answer.
   */
  renew(delivery: Delivery): void {
    this.#reply = delivery.reply
    this.#helper?.renew(this.#slot, this.#reply, this.label)
  }

  /** Where it is answered. */
  get reply(): string {
    return this.#reply
  }

  /** For people. */
  get label(): string {
    return `${this.task.asset} (run ${this.task.run})`
  }

  /** Its place in the helper thread's memory. */
  get slot(): number {
    return this.#slot
  }

  /** From now on the helper thread gives signs of life for it, should this one be blocked. */
  share(helper: Helper): void {
    this.#helper = helper
    this.#slot = helper.hold(this.#reply, this.label)
  }

  /** It has left this worker. */
  release(): void {
    this.#helper?.release(this.#slot)
    this.#slot = -1
    this.#helper = undefined
  }

  ack(): void {
    if (this.#answers()) acknowledge(this.#connection, this.#reply, this.delivery)
  }

  /**
   * Has the server deliver the task again, after a pause. Whoever gets it takes this execution for
   * lost.
   */
  nak(delayMs: number): void {
    if (this.#answers()) this.#connection.tell(this.#reply, `-NAK ${JSON.stringify({ delay: delayMs * 1_000_000 })}`)
  }

  heartbeat(): void {
    if (!this.#answered) this.#connection.tell(this.#reply, '+WPI')
  }

  /** True the first time: it gets one answer. */
  #answers(): boolean {
    const isFirst = !this.#answered
    this.#answered = true
    return isFirst
  }
}
