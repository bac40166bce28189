/**
 * A worker: pulls tasks of its pipelines' queues, runs the user's code, puts outcomes on the log,
 * acknowledges. It knows no scheduling rule.
 *
 * A task is acknowledged only after its outcome is stored. The tasks of a worker that dies are
 * delivered again. Whoever gets one a second time does not run it blindly. It reports the attempt
 * or the lease as lost, and the engine decides.
 */
import type { Subscription } from '@nats-io/nats-core'
import { ensureTaskConsumer } from '../../streams/consumers.ts'
import { messageOf } from '../../streams/errors.ts'
import { hash64 } from '../../streams/ids.ts'
import { jetstreamManager } from '../../streams/jetstream.ts'
import { decodeTask, type Task } from '../../streams/tasks.ts'
import type { Topology } from '../../streams/topology.ts'
import type { Pipeline } from '../define/pipeline.ts'
import { loggerOf } from '../logs/logger.ts'
import { RunLogs } from '../logs/run-log.ts'
import { LogSink } from '../logs/sink.ts'
import { after, atMost, every, type Timer } from '../options/timer.ts'
import { emit, type Logger } from '../telemetry.ts'
import { Code, servedQueues } from './attempt/code.ts'
import { LimitWaiters } from './attempt/limits.ts'
import { Performer } from './attempt/perform.ts'
import type { WorkerShared } from './attempt/shared.ts'
import { Values } from './attempt/values.ts'
import { CurrentVersions } from './control/current-version.ts'
import { Helper } from './control/helper.ts'
import { beforeExit, lastWordsOf } from './control/last-words.ts'
import { Liveness, messageName } from './control/liveness.ts'
import { Watch } from './control/watch.ts'
import { answerStatusRequests } from './control/worker-status.ts'
import { SubscriptionReader } from './events/reader.ts'
import { answerRetries } from './events/retries.ts'
import { parseWorkerOptions, type WorkerOptions } from './options.ts'
import type { WorkerParts } from './parts.ts'
import { HandBack } from './pull/disposition.ts'
import { HeldTasks } from './pull/held-tasks.ts'
import { InFlightTask } from './pull/in-flight-task.ts'
import { Isolation, isolationText } from './pull/isolation.ts'
import { Judge } from './pull/judge.ts'
import { LimitedQueues } from './pull/limited-queues.ts'
import { type Delivery, Puller } from './pull/puller.ts'
import { nak, onDelivery, requeue } from './pull/requeue.ts'
import { Slots } from './pull/slots.ts'
import { UnmatchedTasks } from './pull/unmatched.ts'

const SHORT_TASK_MS = 20
/** Tasks are held ahead for about this long, and at most so many. */
const AHEAD_MS = 40
const AHEAD_MAX = 16
const LIMITED_AHEAD = 4
/** Tasks whose outcomes are being stored: while there are so many, no more are asked for. */
const STORING_MAX = 200
const RESTORE_PAUSE_MS = 50
/** A stop gives what goes back to its queue so much time at the least. */
const LEAVE_MS = 2000
/**
 * Tasks beyond one for each slot that the helper thread can look after: those ahead, and those that
 * wait.
 */
const HELPER_SLOTS = 256
/** How long one task may have the worker to itself: `ackWait`, within these bounds. */
const ALONE_MIN_MS = 5000
const ALONE_MAX_MS = 30_000

interface Source {
  readonly priority: number
  readonly pullers: readonly Puller[]
  /** Makes the consumer of a puller again, should it be gone. */
  readonly restore: (puller: Puller) => Promise<void>
}

/** A running worker, from `flow.worker`. It ends with its connection, or by `stop`. */
export class Worker {
  readonly id: string
  readonly #shared: WorkerShared
  readonly #code: Code
  readonly #held = new HeldTasks()
  readonly #sources: Source[] = []
  readonly #topology: Topology
  readonly #drainMs: number
  readonly #ackWaitMs: number
  readonly #logger: Logger
  readonly #logs: LogSink | undefined
  #heartbeats: Timer | undefined
  readonly #watch: Watch
  #statusRequests: Subscription[] = []
  #stopping: Promise<void> | undefined
  #draining = false
  #readers: readonly SubscriptionReader[] = []
  #versions: CurrentVersions | undefined
  #wake: (() => void) | undefined
  #waking: NodeJS.Immediate | undefined
  /** Instances a task stands for, smoothed: how many tasks to ask for. */
  #tasksSize = 8
  #lastTaskMs = 1000
  #limitedQueues: LimitedQueues | undefined
  #unmatched: UnmatchedTasks | undefined
  #offExit: (() => void) | undefined
  readonly #maxBlockedMs: number
  /** By message. */
  readonly #puttingBack = new Map<string, Promise<void>>()
  readonly #alone: Isolation
  readonly #liveness: Liveness
  readonly #performer: Performer

  private constructor(parts: WorkerParts, pipelines: readonly Pipeline[], options: WorkerOptions) {
    const { connection, topology, clock, io, limiter, logOf, workOf } = parts
    const { concurrency, drainMs, ackWaitMs, maxBlockedMs, logs } = parseWorkerOptions(options)
    const logger = options.logger === undefined ? parts.logger : loggerOf(options.logger)
    const { names } = topology
    this.id = `worker-${hash64(parts.random).slice(0, 10)}`
    this.#topology = topology
    this.#logger = logger
    this.#drainMs = drainMs
    this.#ackWaitMs = ackWaitMs
    this.#maxBlockedMs = maxBlockedMs
    const limitMs = Math.min(ALONE_MAX_MS, Math.max(ALONE_MIN_MS, this.#ackWaitMs))
    this.#alone = new Isolation({
      limitMs,
      say: (what) => this.#logger.warn(isolationText(what, limitMs, this.#held.values())),
    })
    const slots = new Slots(concurrency)
    slots.onFree(() => this.#wakeSoon())
    const values = new Values(connection, names, io)
    const { maxPerSecond } = logs
    this.#logs = logs.isOn ? new LogSink({ connection, names, clock, logger, maxPerSecond }) : undefined
    this.#shared = {
      id: this.id,
      connection,
      names,
      clock,
      by: parts.by,
      gates: parts.gates,
      refusals: parts.refusals,
      children: { connection, names, shards: topology.shards, io, register: parts.register },
      io,
      values,
      logger,
      logs: new RunLogs({ logger, names, worker: this.id, sink: this.#logs, settings: logs }),
      resources: options.resources ?? {},
      slots,
      places: new Map(),
      limiter,
      waiters: new LimitWaiters(concurrency),
      logOf,
      workOf,
      isDraining: () => this.#draining,
      helper: undefined,
    }
    this.#watch = new Watch(this.#shared, this.#held.all)
    this.#code = new Code(pipelines)
    this.#liveness = new Liveness(connection, names, {
      id: this.id,
      pipelines: [...new Set(pipelines.map(({ name }) => name))],
      ackWaitMs: this.#ackWaitMs,
      isHeld: (message) => this.#held.has(message) || this.#puttingBack.has(message),
    })
    const judge = new Judge(this.#shared, this.#liveness)
    this.#performer = new Performer(this.#shared, {
      code: this.#code,
      watch: this.#watch,
      alone: this.#alone,
      judge,
      liveness: this.#liveness,
    })
  }

  static async start(parts: WorkerParts, pipelines: readonly Pipeline[], options: WorkerOptions = {}): Promise<Worker> {
    const worker = new Worker(parts, pipelines, options)
    try {
      await worker.#begin(pipelines, options)
    } catch (error) {
      // What it has begun of itself would go on.
      await worker.stop().catch(() => undefined)
      throw error
    }
    return worker
  }

  async #begin(pipelines: readonly Pipeline[], options: WorkerOptions): Promise<void> {
    const { connection, names } = this.#shared
    this.#startHelper(options, pipelines)
    const jsm = await jetstreamManager(connection.nc)
    const wanted = servedQueues(pipelines, options.queues)
    for (const { pipeline, queue, priority } of wanted) {
      const pullers: Puller[] = []
      const ensure = (shard: number): Promise<string> =>
        ensureTaskConsumer(jsm, names, { shard, pipeline, queue, priority }, { ackWaitMs: this.#ackWaitMs })
      const restore = async (puller: Puller): Promise<void> => {
        if ((await connection.untilDisconnect(() => ensure(puller.shard))) !== undefined) puller.restored()
      }
      this.#sources.push({ priority, pullers, restore })
      for (let shard = 0; shard < this.#topology.shards; shard++) {
        const on = { delivery: (delivery: Delivery) => this.#receive(delivery), trouble: () => this.#wake?.() }
        pullers.push(new Puller(connection, names.work(shard), await ensure(shard), shard, on))
      }
    }
    // Before a task may come: what is begun by nobody known could not be missed.
    await this.#liveness.start()
    const code = this.#code
    const common = {
      connection,
      topology: this.#topology,
      logger: this.#logger,
      ackWaitMs: this.#ackWaitMs,
      onDelivery: (delivery: Delivery) => this.#receive(delivery),
      onChange: () => this.#wake?.(),
    }
    this.#limitedQueues = new LimitedQueues({
      ...common,
      queues: wanted,
      fits: (limitedQueue) => code.has(limitedQueue),
    })
    this.#unmatched = new UnmatchedTasks({ ...common, code, queues: options.queues })
    await Promise.all([this.#limitedQueues.start(), this.#unmatched.start()])
    this.#watch.start()
    const queuesOf = new Map<string, Set<string>>()
    for (const { pipeline, queue } of wanted) queuesOf.set(pipeline, (queuesOf.get(pipeline) ?? new Set()).add(queue))
    this.#statusRequests = answerStatusRequests(this.#shared, this.#held.all, queuesOf, code, () => this.#draining)
    this.#startReaders(pipelines)
    const newest = new Map(pipelines.map(({ name, spec }) => [name, spec]))
    this.#versions = new CurrentVersions(this.#shared, this.#topology, [...newest.values()])
    this.#heartbeats = every(this.#ackWaitMs / 3, () => {
      for (const held of this.#held.values()) held.heartbeat()
    })
    // What it runs first may be what ends this process.
    await this.#shared.helper?.ready()
    this.#pullLoop().catch((error: unknown) => {
      if (!connection.isClosed) this.#logger.error(`worker ${this.id} takes no more tasks: ${messageOf(error)}`)
    })
  }

  /** Of two versions of a pipeline the last one reads. */
  #startReaders(pipelines: readonly Pipeline[]): void {
    const all = new Map(
      pipelines.flatMap((pipeline) =>
        pipeline.subscriptions.map(
          (subscription) => [`${pipeline.name}/${subscription.name}`, { pipeline, subscription }] as const,
        ),
      ),
    )
    const topology = this.#topology
    this.#statusRequests.push(...answerRetries(this.#shared, topology, [...all.values()]))
    this.#readers = [...all.values()].map(
      ({ pipeline, subscription }) => new SubscriptionReader(this.#shared, topology, pipeline.spec, subscription),
    )
    for (const reader of this.#readers) reader.start()
  }

  #startHelper(options: WorkerOptions, pipelines: readonly Pipeline[]): void {
    const { connection, names, logger } = this.#shared
    const helper = Helper.start(connection, {
      worker: this.id,
      questions: pipelines.map(({ name }) => names.holders(name)),
      slots: this.#shared.slots.size + HELPER_SLOTS,
      ackWaitMs: this.#ackWaitMs,
      maxBlockedMs: this.#maxBlockedMs,
      owned: options.ownsProcess ?? false,
      logger,
      onBlocked: (blockedMs) => {
        const assets = [...new Set([...this.#held.values()].map(({ label }) => label))].slice(0, 5)
        emit('flowstone:worker.blocked', { worker: this.id, blockedMs, assets })
        const who = assets.length === 0 ? 'no task' : assets.join(', ')
        logger.warn(
          `the event loop was held up for ${(blockedMs / 1000).toFixed(1)} s while this worker had ${who}; code that computes for long belongs into a thread or process of its own`,
        )
      },
    })
    if (!helper) return
    this.#shared.helper = helper
    this.#offExit = beforeExit((ending) => {
      const held = [...this.#held.values()]
      helper.lastWords(lastWordsOf(this.#shared, held, ending, this.#liveness.subject))
    })
  }

  /** How many tasks this worker holds: running, or fetched ahead. */
  get busy(): number {
    return this.#held.size
  }

  /**
   * Takes no more work, waits for what runs (`drainTimeout`), hands back the rest. Safe to call
   * twice.
   */
  stop(): Promise<void> {
    this.#stopping ??= this.#drain()
    return this.#stopping
  }

  async #drain(): Promise<void> {
    this.#draining = true
    const readers = Promise.all([...this.#readers, this.#versions].map((one) => one?.stop()))
    this.#alone.giveUp()
    this.#wake?.()
    for (const { pullers } of this.#sources) for (const puller of pullers) puller.stop()
    this.#limitedQueues?.stop()
    this.#unmatched?.stop()
    // Without a connection nothing of what is finished can be stored.
    const deadline = performance.now() + (this.#shared.connection.isClosed ? 0 : this.#drainMs)
    while (this.#held.size > 0 && performance.now() < deadline) await this.#settled(deadline - performance.now())
    for (const held of this.#held.values()) held.abort.abort(new HandBack())
    while (this.#held.size > 0 && performance.now() < deadline + 10_000) await this.#settled(1000)
    // No code runs any more.
    const logged = this.#logs?.stop()
    const pullers = this.#sources.flatMap((source) => source.pullers.map((puller) => puller.close()))
    const leaving = Promise.all([...pullers, this.#limitedQueues?.close(), this.#unmatched?.close()])
    // What cannot be stored now is delivered once more. A stop waits for no server and no room.
    const left = leaving.then(() => Promise.all([...this.#puttingBack.values(), readers]))
    await atMost(Math.max(LEAVE_MS, deadline - performance.now()), left)
    await logged
    this.#heartbeats?.cancel()
    this.#watch.stop()
    await atMost(LEAVE_MS, this.#liveness.stop())
    this.#offExit?.()
    this.#shared.helper?.stop()
    if (!this.#shared.connection.isClosed) for (const subscription of this.#statusRequests) subscription.unsubscribe()
  }

  /** Slots become free ten thousand times a second: one look a turn of the event loop is enough. */
  #wakeSoon(): void {
    this.#waking ??= setImmediate(() => {
      this.#waking = undefined
      this.#wake?.()
    })
  }

  #settled(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = after(ms, resolve)
      this.#wake = () => {
        this.#wake = undefined
        timer.cancel()
        resolve()
      }
    })
  }

  async #pullLoop(): Promise<void> {
    while (!this.#draining && !this.#shared.connection.isClosed) {
      const want = this.#room()
      if (want === 0) {
        // The next lease of a limited queue comes only when one of it is acknowledged. It is
        // requested beforehand, so that its place is not empty during a request.
        if (!this.#alone.isWanted) this.#askAhead()
        await this.#settled(1000)
        continue
      }
      await this.#restoreConsumers()
      let got = 0
      const levels = this.#levels()
      for (const pullers of levels) {
        const counts = await Promise.all(
          pullers.map((puller) => puller.pull(Math.max(1, Math.ceil((want - got) / pullers.length)))),
        )
        for (const count of counts) got += count
        if (got >= want || this.#draining) break
      }
      if (got > 0 || this.#draining) continue
      if (this.#troubled().length > 0) continue
      for (const pullers of levels) for (const puller of pullers) puller.block()
      await this.#settled(5000)
    }
  }

  /**
   * Only of limited queues that are all here: else it would be kept from a worker that has room.
   */
  #askAhead(): void {
    for (const { key, maxConcurrent, puller } of this.#limitedQueues?.open ?? []) {
      const here = this.#shared.places.get(key)?.size ?? 0
      if (here >= maxConcurrent) puller.block(LIMITED_AHEAD)
    }
  }

  /**
   * What to pull from, the most urgent first: the queues' shared consumers, and the limited queues
   * that are open.
   */
  #levels(): Puller[][] {
    const levels = new Map<number, Puller[]>()
    const add = (priority: number, pullers: readonly Puller[]): void =>
      void levels.set(priority, [...(levels.get(priority) ?? []), ...pullers])
    for (const { priority, pullers } of this.#sources) add(priority, pullers)
    for (const { priority, puller } of [...(this.#limitedQueues?.open ?? []), ...(this.#unmatched?.open ?? [])])
      add(priority, [puller])
    return [...levels].toSorted(([a], [b]) => a - b).map(([, pullers]) => pullers)
  }

  #troubled(): { puller: Puller; restore: Source['restore'] }[] {
    return this.#sources.flatMap(({ pullers, restore }) =>
      pullers.filter((puller) => puller.inTrouble).map((puller) => ({ puller, restore })),
    )
  }

  /**
   * A server that was started again may lack what it had not written, and somebody may have deleted
   * a consumer.
   */
  async #restoreConsumers(): Promise<void> {
    let warned = false
    for (let troubled = this.#troubled(); troubled.length > 0 && !this.#draining; troubled = this.#troubled()) {
      const { connection } = this.#shared
      await connection.ready(RESTORE_PAUSE_MS)
      if (connection.isClosed) return
      for (const { puller, restore } of troubled) {
        await restore(puller).catch((error: unknown) => {
          if (!warned && !connection.isClosed)
            this.#logger.warn(
              `a consumer on ${this.#shared.names.work(puller.shard)} does not answer: ${messageOf(error)}; trying on`,
            )
          warned = true
        })
      }
    }
  }

  /**
   * How many tasks to ask for now: enough to fill the free slots, and while tasks are short, some
   * ahead, so that no slot waits for the network. Nothing ahead where slots do not turn over: it
   * would only be kept from workers that have room.
   */
  #room(): number {
    const { slots } = this.#shared
    // What runs alone needs the process for itself.
    if (this.#alone.isWanted) return 0
    const moving = slots.free > 0 || slots.turnedOverWithin(SHORT_TASK_MS)
    const worthHolding = Math.max(2, Math.min(AHEAD_MAX, Math.ceil(AHEAD_MS / this.#lastTaskMs)))
    const storing = this.#storing()
    if (storing >= STORING_MAX) return 0
    const ahead = moving && this.#lastTaskMs < 100 ? worthHolding - (this.#held.size - storing) : 0
    if (slots.waiting > 0 || slots.free === 0) return Math.max(0, ahead)
    return Math.max(1, ahead, Math.floor(slots.free / Math.max(1, this.#tasksSize)))
  }

  /** Tasks whose code has run, and whose outcome is on its way to the log. */
  #storing(): number {
    let storing = 0
    for (const held of this.#held.values()) if (held.isStoring) storing += 1
    return storing
  }

  #receive(delivery: Delivery): void {
    const { connection } = this.#shared
    let task: Task
    try {
      task = decodeTask(delivery.payload, delivery.headers.get('Content-Type'))
    } catch (error) {
      this.#refuse(delivery, error)
      return
    }
    const met = this.#held.meet(task.id, delivery)
    if (met === 'again') return
    const held = new InFlightTask(connection, task, delivery, this.#shared.clock.now())
    if (met === 'repeat') {
      held.ack()
      return
    }
    const late = held.ageMs >= this.#ackWaitMs && delivery.underWayMs >= this.#ackWaitMs
    const worker = { draining: this.#draining, aloneWanted: this.#alone.isWanted }
    const given = onDelivery({ count: delivery.count, late }, task, worker)
    if (given === 'leave') {
      held.nak(0)
      return
    }
    if (given === 'return') {
      const name = messageName(held.shard, held.streamSeq)
      const putting = this.#performer.putBack(held, 0).finally(() => this.#puttingBack.delete(name))
      this.#puttingBack.set(name, putting)
      return
    }
    this.#held.add(held)
    if (this.#shared.helper) held.share(this.#shared.helper)
    emit('flowstone:task.received', { worker: this.id, task: task.id, kind: task.kind, delivery: delivery.count })
    // One by one, a lease takes one slot, however long it is.
    const size = task.kind === 'lease' && !task.serial ? task.to - task.from : 1
    this.#tasksSize = this.#tasksSize * 0.8 + size * 0.2
    const startedMs = performance.now()
    void this.#performer.perform(held, task).finally(() => {
      this.#lastTaskMs = held.seat?.usedMs ?? performance.now() - startedMs
      this.#held.delete(held)
      held.release()
      this.#logs?.soon()
      this.#wake?.()
    })
    this.#wake?.()
  }

  #refuse(delivery: Delivery, error: unknown): void {
    // Not ours, or of a newer FlowStone: left for a worker that can read it.
    this.#logger.warn(`a task is put back: ${messageOf(error)}`, { seq: delivery.streamSeq })
    if (delivery.count > 1) nak(this.#shared, delivery, 5000)
    else void requeue(this.#shared, delivery, 5000)
  }
}
