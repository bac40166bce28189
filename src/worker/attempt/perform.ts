/**
 * Does a task that is in this worker's hands: decides first whether it is still to be done, then
 * runs the code it is about. Says in which way it leaves this worker.
 */
import { messageOf } from '../../../streams/errors.ts'
import type { Task } from '../../../streams/tasks.ts'
import type { AnyAsset } from '../../define/asset.ts'
import { emit } from '../../telemetry.ts'
import type { Watch } from '../control/watch.ts'
import { reportLostResume, runReminder, runResume } from '../gates/resume.ts'
import { runLease } from '../lease/lease.ts'
import { reportLostLease, returnLease } from '../lease/lease-facts.ts'
import { setAside } from '../pull/aside.ts'
import { ComeAgain, NotBegun, NotOurs } from '../pull/disposition.ts'
import type { InFlightTask } from '../pull/in-flight-task.ts'
import { type Isolation, sayBegun, wasBegun } from '../pull/isolation.ts'
import type { Judge } from '../pull/judge.ts'
import { requeue } from '../pull/requeue.ts'
import { reportLost, runAttempt } from './attempt.ts'
import type { Code } from './code.ts'
import { executions } from './executions.ts'
import { runLimitedAttempt } from './limits.ts'
import type { WorkerShared } from './shared.ts'

/** An outcome that could not be stored is tried again after this, and longer each time. */
const AGAIN_MS = 1000
const AGAIN_MAX_MS = 30_000

export class Performer {
  readonly #shared: WorkerShared
  readonly #parts: { readonly code: Code; readonly watch: Watch; readonly alone: Isolation; readonly judge: Judge }

  constructor(shared: WorkerShared, parts: { code: Code; watch: Watch; alone: Isolation; judge: Judge }) {
    this.#shared = shared
    this.#parts = parts
  }

  /** Resolves when nothing is left to do. */
  perform(held: InFlightTask, task: Task): Promise<void> {
    return task.alone ? this.#run(held, task) : this.#parts.alone.beside(() => this.#run(held, task))
  }

  async #run(held: InFlightTask, task: Task): Promise<void> {
    const { code, watch, alone } = this.#parts
    const asset = code.of(task)
    const wanted = await (asset ? watch.wanted(held, task) : watch.onLog(held.shard, task))
    if (wanted === 'over') return
    if (held.count > 1 && (await this.#isSettled(held, task))) return
    if (!asset) {
      await setAside(this.#shared, held)
      return
    }
    if (wanted === 'paused' && task.kind === 'lease') {
      await returnLease(this.#shared, held, task, { from: task.from })
      return
    }
    held.waits = { for: task.alone ? 'alone' : 'room' }
    if (task.alone) await alone.run(held.abort.signal, () => this.#runCode(held, task, asset))
    else await this.#runCode(held, task, asset)
  }

  /** Of what was delivered before: whether it is not to be run here. */
  async #isSettled(held: InFlightTask, task: Task): Promise<boolean> {
    // A reminder has no outcome that could be lost.
    if (task.kind === 'reminder') return false
    const verdict = await this.#parts.judge.verdict(held)
    if (verdict === 'over') return true
    if (verdict === 'elsewhere') throw new NotOurs(task.id)
    if (verdict === 'fresh' || (task.alone && !(await wasBegun(this.#shared, held, task)))) return false
    await this.#reportLost(held, task)
    return true
  }

  /** Says first that what runs alone begins now. */
  async #whenBegun(held: InFlightTask, task: Task, code: () => Promise<void>): Promise<void> {
    if (!task.alone) {
      await this.#begin(held, code)
      return
    }
    switch (await sayBegun(this.#shared, held, task)) {
      case 'begun':
        await this.#begin(held, code)
        return
      case 'lost':
        await this.#reportLost(held, task)
        return
      case 'not ours':
        // Begun before, and given back by a worker that lives: who was asked says that nobody has
        // it.
        if (held.count === 1) throw new NotOurs(task.id)
        await this.#begin(held, code)
    }
  }

  /** What runs from here, also later, is known to belong to this task. */
  async #begin(held: InFlightTask, code: () => Promise<void>): Promise<void> {
    held.begun = true
    const { run, asset } = held.task
    const { helper } = this.#shared
    helper?.calls(held.slot)
    const running = executions.run(
      held.task.kind === 'resume' ? { run, asset, index: held.task.index } : { run, asset },
      code,
    )
    helper?.calls(-1)
    await running
  }

  async #reportLost(held: InFlightTask, task: Task): Promise<void> {
    if (task.kind === 'lease') await reportLostLease(this.#shared, held, task)
    else if (task.kind === 'resume') await reportLostResume(this.#shared, held, task)
    else if (task.kind !== 'reminder') await reportLost(this.#shared, held, task)
  }

  async #runCode(held: InFlightTask, task: Task, asset: AnyAsset): Promise<void> {
    if (task.kind === 'lease') {
      await this.#whenBegun(held, task, () => runLease(this.#shared, held, task, asset))
      return
    }
    const { slots } = this.#shared
    held.waits = { for: 'room' }
    if (!slots.tryTake()) await slots.turn().granted
    held.waits = undefined
    const { limits } = asset.definition
    if (limits && task.kind === 'execute') {
      const run = (): Promise<void> => runAttempt(this.#shared, held, task, asset)
      await runLimitedAttempt(this.#shared, held, limits, () => this.#whenBegun(held, task, run))
      return
    }
    try {
      await this.#whenBegun(held, task, async () => {
        if (task.kind === 'resume') await runResume(this.#shared, held, task, asset)
        else if (task.kind === 'reminder') await runReminder(this.#shared, held, task, asset)
        else await runAttempt(this.#shared, held, task, asset)
      })
    } finally {
      slots.give()
    }
  }

  /** What is done with a task that could not be finished. */
  async giveBack(held: InFlightTask, error: unknown): Promise<void> {
    const reason = messageOf(error)
    const { id, connection, logger } = this.#shared
    emit('flowstone:task.returned', { worker: id, task: held.task.id, reason })
    if (error instanceof NotOurs) return
    if (error instanceof NotBegun) {
      await requeue(this.#shared, held.delivery, 0)
      return
    }
    if (error instanceof ComeAgain) {
      await requeue(this.#shared, held.delivery, error.delayMs)
      return
    }
    // The outcome could not be stored. The delivery that follows finds out what is missing.
    if (!connection.isClosed) logger.warn(`task ${held.task.id} is handed back: ${reason}`)
    held.nak(Math.min(AGAIN_MAX_MS, AGAIN_MS * held.count))
  }
}
