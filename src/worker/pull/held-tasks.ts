/**
 * The tasks in a worker's hands, by the message that each came with. A task may be there twice for
 * a moment: it is stored as a new message, which may come back before the old one has left. And two
 * messages may have the same name, where the work queue was made anew: its sequences begin again.
 */
import { messageName } from '../control/liveness.ts'
import type { InFlightTask } from './in-flight-task.ts'
import type { Delivery } from './puller.ts'

type Message = Pick<Delivery, 'shard' | 'streamSeq'>

export class HeldTasks {
  readonly #all = new Map<string, InFlightTask>()
  /** The newest message of each task. */
  readonly #byTask = new Map<string, InFlightTask>()
  /** How many are here, by the names of their messages. */
  readonly #names = new Map<string, number>()

  get all(): ReadonlyMap<string, InFlightTask> {
    return this.#all
  }

  get size(): number {
    return this.#all.size
  }

  values(): Iterable<InFlightTask> {
    return this.#all.values()
  }

  /** `message`: as `messageName` has it. */
  has(message: string): boolean {
    return this.#names.has(message)
  }

  /**
   * What a delivery of a task is. `again`: the same message came again, and this delivery is the
   * one that is answered from now on. `repeat`: another message of a task that is done here.
   */
  meet(task: string, delivery: Delivery): 'new' | 'again' | 'repeat' {
    const same = this.#all.get(keyOf(task, delivery))
    if (same) {
      same.renew(delivery)
      return 'again'
    }
    const known = this.#byTask.get(task)
    return known && !known.isLeaving ? 'repeat' : 'new'
  }

  add(held: InFlightTask): void {
    this.#all.set(keyOf(held.task.id, held), held)
    this.#byTask.set(held.task.id, held)
    this.#count(held, 1)
  }

  delete(held: InFlightTask): void {
    this.#all.delete(keyOf(held.task.id, held))
    if (this.#byTask.get(held.task.id) === held) this.#byTask.delete(held.task.id)
    this.#count(held, -1)
  }

  #count({ shard, streamSeq }: Message, by: number): void {
    const name = messageName(shard, streamSeq)
    const count = (this.#names.get(name) ?? 0) + by
    if (count > 0) this.#names.set(name, count)
    else this.#names.delete(name)
  }
}

function keyOf(task: string, { shard, streamSeq }: Message): string {
  return `${messageName(shard, streamSeq)} ${task}`
}
