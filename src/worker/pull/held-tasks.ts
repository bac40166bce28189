/**
 * The tasks in a worker's hands, by the message that each came with. A task may be there twice for
 * a moment: it is stored as a new message, which may come back before the old one has left.
 */
import { messageName } from '../control/liveness.ts'
import type { InFlightTask } from './in-flight-task.ts'
import type { Delivery } from './puller.ts'

export class HeldTasks {
  readonly #byMessage = new Map<string, InFlightTask>()
  /** The newest message of each task. */
  readonly #byTask = new Map<string, InFlightTask>()

  /** By the names of their messages. */
  get all(): ReadonlyMap<string, InFlightTask> {
    return this.#byMessage
  }

  get size(): number {
    return this.#byMessage.size
  }

  values(): Iterable<InFlightTask> {
    return this.#byMessage.values()
  }

  /** `message`: as `messageName` has it. */
  has(message: string): boolean {
    return this.#byMessage.has(message)
  }

  /**
   * What a delivery of a task is. `again`: the same message came again, and this delivery is the
   * one that is answered from now on. `repeat`: another message of a task that is done here.
   */
  meet(task: string, delivery: Delivery): 'new' | 'again' | 'repeat' {
    const same = this.#byMessage.get(messageName(delivery.shard, delivery.streamSeq))
    if (same) {
      same.renew(delivery)
      return 'again'
    }
    const known = this.#byTask.get(task)
    return known && !known.isLeaving ? 'repeat' : 'new'
  }

  add(held: InFlightTask): void {
    this.#byMessage.set(messageName(held.shard, held.streamSeq), held)
    this.#byTask.set(held.task.id, held)
  }

  delete(held: InFlightTask): void {
    this.#byMessage.delete(messageName(held.shard, held.streamSeq))
    if (this.#byTask.get(held.task.id) === held) this.#byTask.delete(held.task.id)
  }
}
