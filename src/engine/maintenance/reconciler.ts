/**
 * The reconciler makes sure that nothing open waits for a task that is lost. It compares the tasks
 * that open runs and barriers expect with those on WORK, and enqueues the missing ones again. For a
 * run that lacks a decision (a plan, an end), restore.ts appends it.
 *
 * This is sound because a task leaves WORK only after its outcome is on the log. The reconciler
 * reads WORK first, then folds the log to its end as of that moment. A task that is not on WORK and
 * has no outcome by then is lost.
 */

import { forgotten } from '../../../projections/gate/instance-gate.ts'
import { isEnded } from '../../../projections/run/end.ts'
import { type GateState, type Key, stateKey } from '../../../projections/state.ts'
import { counted } from '../../../streams/amounts.ts'
import { messageOf } from '../../../streams/errors.ts'
import type { FactDraft } from '../../../streams/facts.ts'
import { jetstreamManager } from '../../../streams/jetstream.ts'
import type { ScheduleOwner } from '../../../streams/subjects.ts'
import { factEntry } from '../../log/entries.ts'
import { storedGate } from '../../log/gate-doc.ts'
import { anyBetween, streamBounds } from '../../log/nats.ts'
import { emit, type Logger } from '../../telemetry.ts'
import { carryOut } from '../shard/carry-out.ts'
import { type DispatchContext, dropSchedules } from '../shard/dispatch.ts'
import { sweepChildren } from './child-sweep.ts'
import { type ExpectedSource, expectedOf, GRACE_MS, type TaskEffect, tasksOnWork } from './expected.ts'
import { GateSweep } from './gate-sweep.ts'
import { restoreDecisions } from './restore.ts'
import { UnmatchedSweep } from './unmatched-sweep.ts'

/** A decision that was not folded within this time, though all there is was, is not on its way. */
const DECISION_MS = 1000
const FOLD_LOOK_MS = 250
const FOLD_WAIT_MS = 10_000
/** Timers of gates are kept by the server, and do not get lost by anything that happens here. */
const LOOKS_PER_SWEEP = 10

export class Reconciler {
  readonly #context: DispatchContext & { readonly everyMs: number; readonly logger: Logger }
  #folded = 0
  #timer: NodeJS.Timeout | undefined
  #busy = false
  #stopped = false
  #waiters: (() => void)[] = []
  #repairs = 0
  #looks = 0
  readonly #source: ExpectedSource
  readonly #sweep: GateSweep
  readonly #unmatched: UnmatchedSweep

  /** `from`: how far the log is folded; `recoverTo`: up to where tasks are left to this. */
  constructor(
    context: DispatchContext & { readonly everyMs: number; readonly logger: Logger },
    from: number,
    recoverTo: number,
  ) {
    this.#context = context
    this.#folded = from
    this.#source = {
      doc: (key) => this.#doc(key),
      keysUnder: (start) => this.#keysUnder(start),
      atLeast: () => context.clock.atLeast(),
    }
    this.#sweep = new GateSweep(context)
    this.#unmatched = new UnmatchedSweep(context)
    this.#timer = setInterval(() => void this.#run(), context.everyMs)
    this.#timer.unref()
    void this.#begin(from, recoverTo)
  }

  folded(seq: number): void {
    this.#folded = seq
    for (const wake of this.#waiters.splice(0)) wake()
  }

  /**
   * Something was lost just now. What was enqueued a moment ago is looked at when it is old enough,
   * and not half a minute later.
   */
  lookNow(): void {
    void this.#run()
    setTimeout(() => void this.#run(), GRACE_MS + DECISION_MS).unref()
  }

  stop(): void {
    this.#stopped = true
    clearInterval(this.#timer)
    for (const wake of this.#waiters.splice(0)) wake()
  }

  /**
   * The first look: when all is folded that was there; at once after a recovery, which left all
   * tasks to it.
   */
  async #begin(from: number, recoverTo: number): Promise<void> {
    while (!this.#stopped && !this.#context.connection.isClosed) {
      try {
        const last = Math.max(recoverTo, await this.#last())
        if (!(await this.#untilFolded(last, Number.POSITIVE_INFINITY))) return
        if (from < recoverTo) this.lookNow()
        else setTimeout(() => void this.#run(), GRACE_MS).unref()
        return
      } catch {
        await this.#pause(FOLD_LOOK_MS)
      }
    }
  }

  async #last(): Promise<number> {
    const { connection, names, shard } = this.#context
    return (await connection.read((nc) => streamBounds(nc, names.log(shard)))).last
  }

  /**
   * Whether all of the log up to a sequence is folded, within some time. What has left the log (a
   * schedule) is not waited for.
   */
  async #untilFolded(seq: number, waitMs: number): Promise<boolean> {
    const { connection, names, shard } = this.#context
    const deadline = performance.now() + waitMs
    while (!this.#stopped) {
      const from = this.#folded + 1
      if (from > seq) return true
      if (!(await connection.read((nc) => anyBetween(nc, names.log(shard), from, seq)))) return true
      if (performance.now() > deadline) return false
      await this.#pause(FOLD_LOOK_MS)
    }
    return false
  }

  /** Until something is folded, this is stopped, or `ms` are over. */
  async #pause(ms: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms)
      this.#waiters.push(() => {
        clearTimeout(timer)
        resolve()
      })
    })
  }

  async #run(): Promise<void> {
    if (this.#busy || this.#stopped) return
    this.#busy = true
    try {
      await this.#reconcile()
      await this.#sweepLimitedQueues()
      await this.#sweepSchedules()
      await this.#unmatched.look()
      await this.#sweepResumes()
      await this.#sweepGates()
    } catch (error) {
      if (!this.#context.connection.isClosed)
        this.#context.logger.warn(`reconciler: ${messageOf(error)}; it looks again in ${this.#context.everyMs} ms`)
    } finally {
      this.#busy = false
    }
  }

  async #reconcile(): Promise<void> {
    const { connection, names, shard } = this.#context
    const before = await expectedOf(this.#source, this.#context.clock.now() - GRACE_MS)
    if (before.tasks.size === 0 && before.undecided.size === 0) return
    const present = await tasksOnWork(connection, names.work(shard))
    if (!(await this.#untilFolded(await this.#last(), FOLD_WAIT_MS))) return
    const still = await expectedOf(this.#source, Number.POSITIVE_INFINITY)
    const lost = [...before.tasks.keys()].flatMap((id) => (present.has(id) ? [] : (still.tasks.get(id) ?? [])))
    if (lost.length > 0) await this.#enqueue(lost)
    const undecided = [...before.undecided].filter((run) => still.undecided.has(run))
    if (undecided.length > 0) await this.#decide(undecided)
  }

  async #enqueue(lost: readonly TaskEffect[]): Promise<void> {
    const { names, shard, logger } = this.#context
    this.#repairs += 1
    const suffix = `#${shard}.${this.#folded}.${this.#repairs}`
    const nowMs = this.#context.clock.now()
    const again = lost.map((effect) => carryOut(this.#context, effect, nowMs, logger, suffix))
    await Promise.all(again)
    const tasks = lost.map((effect) => effect.task.id)
    emit('flowstone:engine.repaired', { shard, tasks })
    logger.warn(`enqueued again, as missing on ${names.work(shard)}: ${counted(tasks.length, 'task')}`, {
      shard,
      tasks: tasks.slice(0, 5),
    })
  }

  /** Runs that wait for a decision. It may be on its way: so they are looked at once more. */
  async #decide(runs: readonly string[]): Promise<void> {
    const { shard, store, logger } = this.#context
    const deadline = performance.now() + DECISION_MS
    while (performance.now() < deadline && !this.#stopped) await this.#pause(deadline - performance.now())
    if (!(await this.#untilFolded(await this.#last(), FOLD_WAIT_MS))) return
    const { undecided } = await expectedOf(this.#source, Number.POSITIVE_INFINITY)
    for (const id of runs) {
      const run = undecided.has(id) ? store.get(stateKey.run(id)) : undefined
      if (!run || this.#stopped) continue
      const restored = await restoreDecisions(this.#context, run, logger)
      if (restored.length === 0) continue
      const decisions = restored.map((effect) => (effect.do === 'fact' ? effect.fact.name : effect.do))
      emit('flowstone:engine.repaired', { shard, tasks: [], runs: [id] })
      logger.warn(`run ${id} lacked decisions on the log; they are restored: ${decisions.join(', ')}`, {
        shard,
      })
    }
  }

  async #sweepGates(): Promise<void> {
    if (this.#looks++ % LOOKS_PER_SWEEP !== 0) return
    await this.#sweepChildren()
    const gates = await this.#sweep.look()
    if (gates.length === 0) return
    emit('flowstone:engine.repaired', { shard: this.#context.shard, tasks: [], gates })
    this.#context.logger.warn(
      `timers are set again: ${counted(gates.length, 'gate')} past the deadline, without a word of a timer`,
      {
        partition: this.#context.shard,
        gates: gates.slice(0, 5),
      },
    )
  }

  async #sweepChildren(): Promise<void> {
    const gates = await sweepChildren(this.#context, {
      keysUnder: (start) => this.#keysUnder(start),
      doc: (key) => this.#doc(key),
    })
    if (gates.length === 0) return
    const { shard, logger } = this.#context
    emit('flowstone:engine.repaired', { shard, tasks: [], gates })
    logger.warn(
      `continued: ${counted(gates.length, 'execution')} that waited for runs that had ended, or were not there`,
      {
        shard,
        gates: gates.slice(0, 5),
      },
    )
  }

  /**
   * Limited queues outlive their barrier when an engine dies between closing and removing, when a
   * worker comes late, or when a retry comes due afterwards.
   */
  async #sweepLimitedQueues(): Promise<void> {
    const { connection, names, shard } = this.#context
    const jsm = await jetstreamManager(connection.nc)
    const stream = names.work(shard)
    for await (const { name } of jsm.consumers.list(stream)) {
      const limitedQueue = names.parseLimitedQueue(name)
      if (limitedQueue && (await this.#isClosed(limitedQueue))) await jsm.consumers.delete(stream, name)
    }
    const info = await jsm.streams.info(stream, { subjects_filter: names.allLimitedQueues(shard) })
    for (const subject of Object.keys(info.state.subjects ?? {})) {
      const limitedQueue = names.parseLimitedQueue(subject)
      if (limitedQueue && (await this.#isClosed(limitedQueue))) await jsm.streams.purge(stream, { filter: subject })
    }
  }

  /**
   * Tasks that were to begin later, of what has ended meanwhile: an engine died before it took them
   * away, or a worker handed them back afterwards.
   */
  async #sweepSchedules(): Promise<void> {
    const { connection, names, shard } = this.#context
    const jsm = await jetstreamManager(connection.nc)
    const info = await jsm.streams.info(names.work(shard), { subjects_filter: names.allSchedules(shard) })
    const owners = new Map<string, ScheduleOwner>()
    for (const subject of Object.keys(info.state.subjects ?? {})) {
      const owner = names.parseSchedule(subject)
      if (owner) owners.set(`${owner.run}.${owner.asset}`, owner)
    }
    for (const owner of owners.values()) {
      const run = await this.#doc(stateKey.run(owner.run))
      if (!run) continue
      const asset = run.assets[owner.asset]
      if (run.finishedMs !== undefined || (asset && isEnded(asset)))
        await dropSchedules(connection, names, shard, owner)
      else if (await this.#isClosed(owner)) await dropSchedules(connection, names, shard, owner, 'instances')
    }
  }

  /**
   * A scatter that is closed early leaves instances that were to continue after a gate. Their tasks
   * bring no outcome any more.
   */
  async #sweepResumes(): Promise<void> {
    const { names, shard, log } = this.#context
    const facts: FactDraft[] = []
    for (const key of await this.#keysUnder('resuming.')) {
      const [run = '', asset = '', gate = ''] = key.split('.')
      if (!(await this.#isClosed({ run, asset }))) continue
      const left = await this.#gate(run, asset, gate)
      const fact = left && forgotten(left)
      if (fact) facts.push(fact)
    }
    await Promise.all(facts.map((fact) => log.append(factEntry(names, shard, fact))))
  }

  async #isClosed({ run, asset }: { run: string; asset: string }): Promise<boolean> {
    const barrier = await this.#doc(stateKey.barrier(run, asset))
    return barrier !== undefined && barrier.status !== 'open'
  }

  async #doc<D>(key: Key<D>): Promise<D | undefined> {
    const { store } = this.#context
    if (!store.has(key)) await store.load([key])
    return store.get(key)
  }

  async #gate(run: string, asset: string, gate: string): Promise<GateState | undefined> {
    return await storedGate((key) => this.#doc(key), { run, asset, gate })
  }

  /** The rest of the keys of the state bucket that begin so. */
  async #keysUnder(start: string): Promise<string[]> {
    const { connection, names, shard } = this.#context
    const jsm = await jetstreamManager(connection.nc)
    const bucket = names.stateBucket(shard)
    const prefix = names.kvSubject(bucket, start)
    const info = await jsm.streams.info(names.kvStream(bucket), { subjects_filter: `${prefix}>` })
    return Object.keys(info.state.subjects ?? {}).map((subject) => subject.slice(prefix.length))
  }
}
