/**
 * The reconciler: no open thing lacks what will move it. It compares the tasks that open runs and barriers expect with those that are on WORK, and enqueues
 * again what is missing.
 *
 * Sound because a task leaves WORK only after its outcome is on the log: a task that is not on WORK, whose outcome is not among the facts up to the log's end as of
 * after the look at WORK, is lost.
 */
import { jetstreamManager } from '@nats-io/jetstream'
import { isSuspended, segmentOf } from '../../projections/bits.ts'
import type { Command } from '../../projections/commands.ts'
import { leaseCommand } from '../../projections/lease.ts'
import { attemptCommand, isEnded } from '../../projections/run.ts'
import { type GateState, specOf, stateKey } from '../../projections/state.ts'
import { forgotten, resumeCommand } from '../../projections/suspended.ts'
import { messageOf } from '../../streams/errors.ts'
import type { FactDraft } from '../../streams/facts.ts'
import type { ScheduleOwner } from '../../streams/subjects.ts'
import { streamBounds } from '../log/nats.ts'
import { emit, type Logger } from '../telemetry.ts'
import { AsideSweep } from './aside-sweep.ts'
import { type DispatchContext, dropSchedules } from './dispatch.ts'
import { factEntry, taskEntry } from './entries.ts'
import { GateSweep } from './gate-sweep.ts'

/** What was enqueued less than this ago may still be on its way. */
const GRACE_MS = 5000
/** Timers of gates are kept by the server, and do not get lost by anything that happens here. */
const LOOKS_PER_SWEEP = 10

type TaskCommand = Extract<Command, { do: 'task' }>

export class Reconciler {
  readonly #context: DispatchContext & { readonly everyMs: number; readonly logger: Logger }
  #folded = 0
  #timer: NodeJS.Timeout | undefined
  #first = true
  #busy = false
  #stopped = false
  #waiters: { seq: number; wake: () => void }[] = []
  #repairs = 0
  #looks = 0
  readonly #sweep: GateSweep
  readonly #aside: AsideSweep

  constructor(context: DispatchContext & { readonly everyMs: number; readonly logger: Logger }) {
    this.#context = context
    this.#sweep = new GateSweep(context)
    this.#aside = new AsideSweep(context)
    this.#timer = setInterval(() => void this.#run(), context.everyMs)
    this.#timer.unref()
  }

  folded(seq: number, _timeMs: number): void {
    this.#folded = seq
    if (this.#waiters.length === 0) return
    const ready = this.#waiters.filter((waiter) => waiter.seq <= seq)
    this.#waiters = this.#waiters.filter((waiter) => waiter.seq > seq)
    for (const { wake } of ready) wake()
  }

  /** The engine has folded all there is: time for the look at start; at once after a recovery, which left all tasks to it. */
  caughtUp(recovered: boolean): void {
    if (!this.#first) return
    this.#first = false
    setTimeout(() => void this.#run(), recovered ? 0 : GRACE_MS).unref()
  }

  stop(): void {
    this.#stopped = true
    clearInterval(this.#timer)
    for (const { wake } of this.#waiters.splice(0)) wake()
  }

  async #run(): Promise<void> {
    if (this.#busy || this.#stopped) return
    this.#busy = true
    try {
      await this.#reconcile()
      await this.#sweepLanes()
      await this.#sweepSchedules()
      await this.#aside.look()
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
    const { connection, names, p, work } = this.#context
    const before = await this.#expected(this.#context.clock.now() - GRACE_MS)
    if (before.size === 0) return
    const present = await this.#present()
    const { last } = await streamBounds(connection.nc, names.log(p))
    if (this.#folded < last) {
      await new Promise<void>((wake) => {
        this.#waiters.push({ seq: last, wake })
        setTimeout(wake, 10_000).unref()
      })
    }
    if (this.#folded < last || this.#stopped) return
    const still = await this.#expected(Number.POSITIVE_INFINITY)
    const lost = [...before.keys()].flatMap((id) => (present.has(id) ? [] : (still.get(id) ?? [])))
    if (lost.length === 0) return
    this.#repairs += 1
    const suffix = `#${p}.${this.#folded}.${this.#repairs}`
    await Promise.all(lost.map((command) => work.append(taskEntry(names, p, command, 0, suffix))))
    const tasks = lost.map((command) => command.task.id)
    emit('flowstone:engine.repaired', { partition: p, tasks })
    this.#context.logger.warn(`${tasks.length} task(s) were missing and are enqueued again`, {
      partition: p,
      tasks: tasks.slice(0, 5),
    })
  }

  async #sweepGates(): Promise<void> {
    if (this.#looks++ % LOOKS_PER_SWEEP !== 0) return
    const gates = await this.#sweep.look()
    if (gates.length === 0) return
    emit('flowstone:engine.repaired', { partition: this.#context.p, tasks: [], gates })
    this.#context.logger.warn(
      `${gates.length} gate(s) were past their deadline without a word of their timers, which are set again`,
      {
        partition: this.#context.p,
        gates: gates.slice(0, 5),
      },
    )
  }

  /** Lanes outlive their barrier when an engine dies between closing and removing, when a worker comes late, or when a retry comes due afterwards. */
  async #sweepLanes(): Promise<void> {
    const { connection, names, p } = this.#context
    const jsm = await jetstreamManager(connection.nc)
    const stream = names.work(p)
    for await (const { name } of jsm.consumers.list(stream)) {
      const lane = names.parseLane(name)
      if (lane && (await this.#isClosed(lane))) await jsm.consumers.delete(stream, name)
    }
    const info = await jsm.streams.info(stream, { subjects_filter: names.allLanes(p) })
    for (const subject of Object.keys(info.state.subjects ?? {})) {
      const lane = names.parseLane(subject)
      if (lane && (await this.#isClosed(lane))) await jsm.streams.purge(stream, { filter: subject })
    }
  }

  /** Tasks that were to begin later, of what has ended meanwhile: an engine died before it took them away, or a worker handed them back afterwards. */
  async #sweepSchedules(): Promise<void> {
    const { connection, names, p, store } = this.#context
    const jsm = await jetstreamManager(connection.nc)
    const info = await jsm.streams.info(names.work(p), { subjects_filter: names.allSchedules(p) })
    const owners = new Map<string, ScheduleOwner>()
    for (const subject of Object.keys(info.state.subjects ?? {})) {
      const owner = names.parseSchedule(subject)
      if (owner) owners.set(`${owner.run}.${owner.asset}`, owner)
    }
    for (const owner of owners.values()) {
      const runKey = stateKey.run(owner.run)
      if (!store.has(runKey)) await store.load([runKey])
      const run = store.get(runKey)
      if (!run) continue
      const asset = run.assets[owner.asset]
      if (run.finishedMs !== undefined || (asset && isEnded(asset))) await dropSchedules(connection, names, p, owner)
      else if (await this.#isClosed(owner)) await dropSchedules(connection, names, p, owner, 'instances')
    }
  }

  /** A scatter that is closed early leaves instances that were to go on from a gate, and whose tasks bring no outcome any more. */
  async #sweepResumes(): Promise<void> {
    const { names, p, log } = this.#context
    const facts: FactDraft[] = []
    for (const key of await this.#keysUnder('resuming.')) {
      const [run = '', asset = '', gate = ''] = key.split('.')
      if (!(await this.#isClosed({ run, asset }))) continue
      const left = await this.#gate(run, asset, gate)
      const fact = left && forgotten(left)
      if (fact) facts.push(fact)
    }
    await Promise.all(facts.map((fact) => log.append(factEntry(names, p, fact))))
  }

  async #isClosed({ run, asset }: { run: string; asset: string }): Promise<boolean> {
    const { store } = this.#context
    const key = stateKey.barrier(run, asset)
    if (!store.has(key)) await store.load([key])
    const barrier = store.get(key)
    return barrier !== undefined && barrier.status !== 'open'
  }

  /** Tasks that open runs wait for. `until`: only of what was enqueued before. */
  async #expected(until: number): Promise<Map<string, TaskCommand>> {
    const { store } = this.#context
    const expected = new Map<string, TaskCommand>()
    const add = (command: Command): void => {
      if (command.do === 'task') expected.set(command.task.id, command)
    }
    for (const runId of await this.#openRuns()) {
      const runKey = stateKey.run(runId)
      if (!store.has(runKey)) await store.load([runKey])
      const run = store.get(runKey)
      if (!run || run.finishedMs !== undefined) continue
      const pipelineKey = stateKey.pipeline(run.pipeline, run.version)
      if (!store.has(pipelineKey)) await store.load([pipelineKey])
      const pipeline = store.get(pipelineKey)
      if (!pipeline) continue
      for (const [name, asset] of Object.entries(run.assets)) {
        const spec = specOf(pipeline, name)
        if (!spec || isEnded(asset) || asset.ending) continue
        if (
          (asset.status === 'queued' || asset.status === 'running') &&
          asset.attempt > 0 &&
          (asset.queuedMs ?? 0) < until
        )
          add(attemptCommand(run, spec, asset))
        const key = stateKey.barrier(runId, name)
        if (!spec.scatter) continue
        if (!store.has(key)) await store.load([key])
        const barrier = store.get(key)
        if (barrier?.status !== 'open' || barrier.closing) continue
        for (const [id, lease] of Object.entries(barrier.leases))
          if (lease.fedMs < until) add(leaseCommand({ run, spec }, barrier, id))
        if (!barrier.suspended) continue
        for (const gate of await this.#resuming(runId, name)) {
          const { resume, over, index } = gate
          if (!resume || over || index === undefined || resume.queuedMs >= until) continue
          const segmentKey = stateKey.segment(runId, name, segmentOf(index))
          if (!store.has(segmentKey)) await store.load([segmentKey])
          const segment = store.get(segmentKey)
          // An older execution may have brought its value meanwhile.
          if (segment && isSuspended(segment, index)) add(resumeCommand({ run, spec }, gate))
        }
      }
    }
    return expected
  }

  async #openRuns(): Promise<string[]> {
    return await this.#keysUnder('open.')
  }

  /** Gates from which an instance of this scatter goes on now. */
  async #resuming(run: string, asset: string): Promise<GateState[]> {
    const gates: GateState[] = []
    for (const name of await this.#keysUnder(stateKey.resuming(run, asset, ''))) {
      const gate = await this.#gate(run, asset, name)
      if (gate) gates.push(gate)
    }
    return gates
  }

  async #gate(run: string, asset: string, gate: string): Promise<GateState | undefined> {
    const { store } = this.#context
    const key = stateKey.gate(run, asset, gate)
    if (!store.has(key)) await store.load([key])
    return store.get(key)
  }

  /** The rest of the keys of the state bucket that begin so. */
  async #keysUnder(start: string): Promise<string[]> {
    const { connection, names, p } = this.#context
    const jsm = await jetstreamManager(connection.nc)
    const bucket = names.stateBucket(p)
    const prefix = names.kvSubject(bucket, start)
    const info = await jsm.streams.info(names.kvStream(bucket), { subjects_filter: `${prefix}>` })
    return Object.keys(info.state.subjects ?? {}).map((subject) => subject.slice(prefix.length))
  }

  /** Ids of all tasks on WORK, held by a worker or not, due or scheduled. */
  async #present(): Promise<Set<string>> {
    const { connection, names, p } = this.#context
    const stream = names.work(p)
    const present = new Set<string>()
    const { first, last, messages } = await streamBounds(connection.nc, stream)
    if (messages === 0) return present
    const jsm = await jetstreamManager(connection.nc)
    for (let seq = first; seq <= last; ) {
      let next = seq
      try {
        for await (const message of await jsm.direct.getBatch(stream, { seq, batch: 1000 })) {
          const id = message.header.get('Fs-Task')
          if (id) present.add(id)
          next = message.seq + 1
        }
      } catch (error) {
        // All from here on was acknowledged meanwhile.
        if (messageOf(error) !== 'message not found') throw error
      }
      if (next === seq) break
      seq = next
    }
    return present
  }
}
