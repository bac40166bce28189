/**
 * Does a task that is in this worker's hands: decides first whether it is still to be done, then
 * runs the code it is about. Says in which way it leaves this worker.
 */
import type { Task } from '../../../streams/tasks.ts'
import type { AnyAsset } from '../../define/asset-type.ts'
import { emit } from '../../telemetry.ts'
import { type Liveness, messageName } from '../control/liveness.ts'
import type { Watch } from '../control/watch.ts'
import { takeMissed } from '../gates/missed.ts'
import { reportLostResume, runReminder, runResume } from '../gates/resume.ts'
import { runLease } from '../lease/lease.ts'
import { reportLostLease, returnLease } from '../lease/lease-facts.ts'
import { type Disposition, DONE, HandBack, NOT_BEGUN, NOT_OURS, reasonText } from '../pull/disposition.ts'
import type { InFlightTask } from '../pull/in-flight-task.ts'
import { type Isolation, sayBegun, wasBegun } from '../pull/isolation.ts'
import type { Judge } from '../pull/judge.ts'
import { requeue } from '../pull/requeue.ts'
import { Seat } from '../pull/slots.ts'
import { keepUnmatched } from '../pull/unmatched.ts'
import { reportLost } from './attempt.ts'
import { type MadeValues, placeOnLog, runChain } from './chain.ts'
import type { Code } from './code.ts'
import { executions } from './executions.ts'
import { runLimitedAttempt } from './limits.ts'
import { codeBegins, codeEnds, type WorkerShared } from './shared.ts'
import { recordLost } from './traced.ts'

/** An outcome that could not be stored is tried again after this, and longer each time. */
const AGAIN_MS = 1000
const AGAIN_MAX_MS = 30_000

interface PerformerParts {
  readonly code: Code
  readonly watch: Watch
  readonly alone: Isolation
  readonly judge: Judge
  readonly liveness: Liveness
}

export class Performer {
  readonly #shared: WorkerShared
  readonly #parts: PerformerParts

  constructor(shared: WorkerShared, parts: PerformerParts) {
    this.#shared = shared
    this.#parts = parts
  }

  /** Resolves when the task has left this worker. */
  async perform(held: InFlightTask, task: Task): Promise<void> {
    await this.#leave(held, await this.#dispose(held, task))
  }

  async #dispose(held: InFlightTask, task: Task): Promise<Disposition> {
    try {
      return await (task.alone ? this.#run(held, task) : this.#parts.alone.beside(() => this.#run(held, task)))
    } catch (error) {
      return { kind: 'failed', error }
    }
  }

  async #run(held: InFlightTask, first: Task): Promise<Disposition> {
    if (held.count === 1 || !('chain' in first)) return await this.#runFrom(held, first)
    // Another worker may have begun the chain.
    const place = await placeOnLog(this.#shared, held.shard, first)
    if (!place) return DONE
    held.goOn(place.task)
    return await this.#runFrom(held, place.task, place.made)
  }

  /** `made`: by others, of the chain that the task belongs to. */
  async #runFrom(held: InFlightTask, task: Task, made: MadeValues = new Map()): Promise<Disposition> {
    const { code, watch, alone } = this.#parts
    const asset = code.of(task)
    const wanted = await (asset ? watch.wanted(held, task) : watch.onLog(held.shard, task))
    if (wanted === 'over') return DONE
    const settled = held.count > 1 ? await this.#settled(held, task) : undefined
    if (settled) return settled
    if (!asset) {
      await keepUnmatched(this.#shared, held)
      return DONE
    }
    if (wanted === 'paused' && task.kind === 'lease') {
      await returnLease(this.#shared, held, task, { from: task.from })
      return DONE
    }
    held.waits = { for: task.alone ? 'alone' : 'room' }
    if (task.alone) return await alone.run(held.abort.signal, () => this.#runCode(held, task, asset, made))
    return await this.#runCode(held, task, asset, made)
  }

  /** What becomes of a task that was delivered before; undefined when it is to be run here. */
  async #settled(held: InFlightTask, task: Task): Promise<Disposition | undefined> {
    // A reminder has no outcome that could be lost.
    if (task.kind === 'reminder') return undefined
    const verdict = await this.#parts.judge.verdict(held)
    if (verdict === 'over') {
      await takeMissed(this.#shared, held.shard, task)
      return DONE
    }
    if (verdict === 'elsewhere') return NOT_OURS
    if (verdict === 'fresh' || (task.alone && !(await wasBegun(this.#shared, held, task)))) return undefined
    return await this.#reportLost(held, task)
  }

  /** Says first that what runs alone begins now. */
  async #whenBegun(held: InFlightTask, task: Task, code: () => Promise<void>): Promise<Disposition> {
    if (!task.alone) return await this.#begin(held, code)
    const said = await sayBegun(this.#shared, held, task)
    switch (said) {
      case 'begun':
        return await this.#begin(held, code)
      case 'lost':
        return await this.#reportLost(held, task)
      case 'not ours':
        // Begun before, and given back by a worker that lives: who was asked says that nobody has
        // it.
        return held.count === 1 ? NOT_OURS : await this.#begin(held, code)
      default:
        return said satisfies never
    }
  }

  /** What runs from here, also later, is known to belong to this task. */
  async #begin(held: InFlightTask, code: () => Promise<void>): Promise<Disposition> {
    held.begun = true
    const { run, asset } = held.task
    codeBegins(this.#shared, held.slot)
    const running = executions.run(
      held.task.kind === 'resume' ? { runId: run, asset, index: held.task.index } : { runId: run, asset },
      code,
    )
    codeEnds(this.#shared)
    await running
    return DONE
  }

  async #reportLost(held: InFlightTask, task: Task): Promise<Disposition> {
    emit('flowstone:task.lost', {
      worker: this.#shared.id,
      task: task.id,
      kind: task.kind,
      run: task.run,
      asset: task.asset,
    })
    recordLost(this.#shared, held, task)
    if (task.kind === 'lease') await reportLostLease(this.#shared, held, task)
    else if (task.kind === 'resume') await reportLostResume(this.#shared, held, task)
    else if (task.kind !== 'reminder') {
      await reportLost(this.#shared, held, task)
      // It may wait at a gate already, and no engine has read that yet: then it was not lost.
      await takeMissed(this.#shared, held.shard, task)
    }
    return DONE
  }

  async #runCode(held: InFlightTask, task: Task, asset: AnyAsset, made: MadeValues): Promise<Disposition> {
    if (task.kind === 'lease') return await this.#whenBegun(held, task, () => runLease(this.#shared, held, task, asset))
    const { slots } = this.#shared
    const { limits } = asset.definition
    const { signal } = held.abort
    held.waits = { for: 'room' }
    const seat = new Seat(slots)
    try {
      await seat.take(signal)
    } catch {
      // It never began: what stops hands it back, and nobody waits for the rest.
      return signal.reason instanceof HandBack ? NOT_BEGUN : DONE
    }
    held.waits = undefined
    if (limits && task.kind === 'execute') {
      const run = (): Promise<void> => runChain(this.#shared, held, { task, made }, asset, this.#parts.code)
      return await runLimitedAttempt(this.#shared, held, limits, () => this.#whenBegun(held, task, run))
    }
    held.seat = seat
    try {
      return await this.#whenBegun(held, task, async () => {
        if (task.kind === 'resume') await runResume(this.#shared, held, task, asset)
        else if (task.kind === 'reminder') await runReminder(this.#shared, held, task, asset)
        else await runChain(this.#shared, held, { task, made }, asset, this.#parts.code)
      })
    } finally {
      seat.give()
    }
  }

  async #leave(held: InFlightTask, disposition: Disposition): Promise<void> {
    if (disposition.kind !== 'done') {
      const reason = reasonText(disposition, held.task.id)
      emit('flowstone:task.returned', { worker: this.#shared.id, task: held.task.id, reason })
    }
    switch (disposition.kind) {
      case 'done':
        this.#parts.liveness.ended(messageName(held.shard, held.streamSeq))
        held.ack()
        return
      case 'not_ours':
        return
      case 'not_begun':
        return await this.putBack(held, 0)
      case 'come_again':
        return await this.putBack(held, disposition.delayMs)
      case 'failed':
        return this.#retry(held, reasonText(disposition, held.task.id))
      default:
        return disposition satisfies never
    }
  }

  /** Resolves when it is in its queue again, or is left to its next delivery. */
  async putBack(held: InFlightTask, delayMs: number): Promise<void> {
    held.isLeaving = true
    // Should the acknowledgement get lost, nothing is left to do with this message.
    if (await requeue(this.#shared, held.delivery, delayMs, () => held.ack()))
      this.#parts.liveness.ended(messageName(held.shard, held.streamSeq))
  }

  #retry(held: InFlightTask, reason: string): void {
    const { connection, logger } = this.#shared
    if (!connection.isClosed) logger.warn(`task ${held.task.id} is handed back: ${reason}`)
    held.nak(Math.min(AGAIN_MAX_MS, AGAIN_MS * held.count))
  }
}
