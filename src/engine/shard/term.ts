/**
 * One term of an active engine on a shard: from the take-over to whatever ends it. All that is in
 * memory ends with the term.
 */
import type { Effect } from '../../../projections/effects.ts'
import { step } from '../../../projections/handlers.ts'
import { HOOK_ASSETS } from '../../../projections/hooks/hooks.ts'
import { FlowStoneError, messageOf } from '../../../streams/errors.ts'
import { type DraftOf, type Fact, isTimer } from '../../../streams/facts.ts'
import { cut } from '../../../streams/text.ts'
import { describe } from '../../../streams/thrown.ts'
import type { StoredMessage } from '../../log/nats.ts'
import { Reader } from '../../log/reader.ts'
import { emit, type Logger } from '../../telemetry.ts'
import { Changed } from '../history/changed.ts'
import { basePosition, restoreFromBase } from '../history/restore.ts'
import { Sealer } from '../history/sealer.ts'
import { Stored } from '../history/stored.ts'
import { Reconciler } from '../maintenance/reconciler.ts'
import { ensureBuckets } from '../maintenance/upkeep.ts'
import { Prover } from '../proof/prover.ts'
import { Alarms } from '../schedules/alarms.ts'
import { carryOut } from './carry-out.ts'
import { Checkpointer } from './checkpoint.ts'
import { DecidedBefore } from './decided-before.ts'
import { type DispatchContext, dispatchContext } from './dispatch.ts'
import { Facts, PoisonError } from './facts.ts'
import { Feed } from './feed.ts'
import { tellOfGate } from './gate-events.ts'
import { InFlight } from './in-flight.ts'
import type { EngineShardOptions } from './options.ts'
import type { Mark } from './position.ts'
import { tellOfRun } from './run-events.ts'
import { tellOfScatter } from './scatter-events.ts'
import { Store, TOUCHED_SOFT } from './store.ts'
import { Triggers } from './triggers.ts'

const BATCH_FACTS = 1000
/**
 * A document that changes often is written once for all its changes up to the next checkpoint. So
 * while much changes, checkpoints are rarer.
 */
const CHECKPOINT_LAG_MS = 50
const BUSY_LAG_MS = 250
const BUSY_DOCUMENTS = 64
const BUSY_FACTS = 128
/**
 * Folding waits for a checkpoint before more is touched than fits one batch, as far as it can: one
 * fact may touch any number.
 */
const TOUCHED_HARD = 900
/**
 * How often the buckets and the fence are looked at, so that an engine without work notices too.
 */
const LOOK_MS = 5000

export class Term {
  readonly #options: EngineShardOptions
  readonly #poison: ReadonlyMap<number, string>
  readonly #onActive: () => void
  readonly #failure = Promise.withResolvers<never>()
  #failed = false
  #stopping = false
  #reader: Reader | undefined
  /**
   * Decisions being carried out, by checkpoint: one may be written only when all decisions of its
   * facts are on their streams.
   */
  readonly #gate = new InFlight()
  readonly #decidedBefore = new DecidedBefore()
  readonly #store: Store
  readonly #checkpointer: Checkpointer
  /** For those who look at the past. */
  readonly #changed: Changed | undefined
  #folded = 0
  #recoverTo = 0
  #mark: Mark | undefined
  #factsSince = 0
  #lagMs = CHECKPOINT_LAG_MS
  readonly #stored: Stored
  #repair = ''
  #writing: Promise<void> | undefined
  #timer: NodeJS.Timeout | undefined
  #lookTimer: NodeJS.Timeout | undefined
  #looking = false
  #reconciler: Reconciler | undefined
  #feed: Feed | undefined
  #prover: Prover | undefined
  #context: DispatchContext | undefined

  constructor(options: EngineShardOptions, poison: ReadonlyMap<number, string>, onActive: () => void) {
    this.#options = options
    this.#poison = poison
    this.#onActive = onActive
    const { connection, topology, shard, engine } = options
    this.#checkpointer = new Checkpointer(connection, topology.names, shard, engine)
    this.#changed = options.sealAfterMs === undefined ? undefined : new Changed(options.snapshotEvery)
    const changed = this.#changed ? { changed: this.#changed } : {}
    this.#store = new Store(connection, topology.names, shard, this.#checkpointer, changed)
    this.#stored = new Stored(this.#checkpointer)
    this.#failure.promise.catch(() => undefined)
  }

  /** Ends the term with this error. */
  fail(error: unknown): void {
    this.#failed = true
    this.#failure.reject(error)
    // This term's own: what fails late must not stop the reader of the next term.
    this.#reader?.stop()
  }

  /** Asks for its end: `work` checkpoints what is folded, and resolves. */
  stop(): void {
    this.#stopping = true
    this.#reader?.stop()
  }

  async work(): Promise<void> {
    const { connection, topology, clock, shard, engine, logger, logOf, workOf, io } = this.#options
    const { names, shards } = topology
    await ensureBuckets(connection, topology, shard)
    const { seq, recoverTo, epoch } = await this.#checkpointer.takeOver()
    const from = seq > 0 ? seq : await restoreFromBase({ connection, names, shard, engine }, this.#checkpointer)
    this.#repair = epoch === undefined ? '' : `#${epoch}`
    if (seq === 0 && recoverTo > 0)
      logger.warn(`the state of shard ${shard} was lost; it is folded again from its log, up to ${recoverTo}`, {
        engine,
      })
    this.#folded = from
    this.#changed?.begin(from)
    this.#recoverTo = recoverTo
    const store = this.#store
    const [log, work] = [logOf(shard), workOf(shard)]
    // One shard has the schedules and sensors.
    const alarms = shard === 0 ? new Alarms({ connection, names, clock, store, log, io, logger }) : undefined
    const alarm = (key: string): void => alarms?.changed(key)
    const context = dispatchContext({ connection, names, shard, shards, clock, store, log, work, logOf, io, alarm })
    this.#context = context
    const reader = new Reader(connection, names.log(shard), from + 1)
    this.#reader = reader
    const facts = new Facts(store, names, shard)
    // One shard takes the triggers of external clients; each run goes to its own shard.
    const triggers = shard === 0 ? new Triggers({ connection, names, log, logger }) : undefined
    this.#reconciler = new Reconciler({ ...context, everyMs: this.#options.reconcileMs, logger }, from, recoverTo)
    const feed = new Feed({ connection, names, shard, logger, from })
    this.#feed = feed
    feed.start()
    const prover = this.#newProver(from)
    this.#prover = prover
    prover.start()
    const sealer = this.#sealer()
    sealer?.start()
    alarms?.begin()
    emit('flowstone:engine.active', { engine, shard, seq: from })
    this.#onActive()
    this.#lookTimer = setInterval(() => void this.#look(), LOOK_MS)
    this.#lookTimer.unref()
    try {
      while (!this.#stopping && !this.#failed) {
        const messages = await reader.take(BATCH_FACTS)
        if (messages.length === 0 && !this.#failed && !this.#stopping)
          throw new FlowStoneError('reader_stopped', `the reader of shard ${shard} stopped`)
        await this.#foldAll(facts, messages, recoverTo)
      }
      if (this.#failed) await this.#failure.promise
      await this.#writing
      do await this.#checkpoint()
      while (store.hasMore)
      await Promise.all([feed.finish(), prover.finish()])
      if (this.#failed) await this.#failure.promise
    } finally {
      clearTimeout(this.#timer)
      clearInterval(this.#lookTimer)
      this.#reconciler.stop()
      sealer?.stop()
      feed.stop()
      prover.stop()
      triggers?.stop()
      alarms?.stop()
      reader.stop()
    }
  }

  #newProver(from: number): Prover {
    const { connection, topology, clock, shard, logger, proof } = this.#options
    const { names } = topology
    const sealedTo = async (): Promise<number> => (await basePosition({ connection, names, shard }))?.seq ?? 0
    return new Prover({ connection, names, shard, clock, logger, from, ...proof, sealedTo })
  }

  #sealer(): Sealer | undefined {
    const { connection, topology, clock, shard, engine, logger, sealAfterMs, snapshotEvery, retention, archive } =
      this.#options
    if (sealAfterMs === undefined || !this.#changed) return undefined
    return new Sealer({
      connection,
      names: topology.names,
      shard,
      shards: topology.shards,
      engine,
      clock,
      logger,
      retention,
      archive,
      afterMs: sealAfterMs,
      snapshotEvery,
      state: this.#store,
      stored: this.#stored,
      changed: this.#changed,
      shownTo: () => this.#feed?.shownTo ?? 0,
      provenTo: () => this.#prover?.provenTo ?? 0,
      leaving: async (records) => await this.#prover?.leaving(records),
      isStopped: () => this.#stopping || this.#failed,
      // Not between the folding of a fact and the note of its position.
      touched: () => {
        setImmediate(() => {
          if (!this.#stopping) this.#checkpointSoon()
        })
      },
    })
  }

  async #foldAll(facts: Facts, messages: readonly StoredMessage[], recoverTo: number): Promise<void> {
    const { logger, topology } = this.#options
    for (const [i, message] of messages.entries()) {
      if (this.#failed || this.#stopping) break
      const isOld = message.seq <= recoverTo
      const path = topology.names.factPath(message.subject)
      if (isOld) this.#decidedBefore.see(path)
      const isFact = !isTimer(path ?? '')
      const effects = isFact ? await this.#fold(facts, messages, i) : []
      this.#folded = message.seq
      // With the position: a checkpoint may come while documents for a fact are read.
      if (isFact) this.#mark = { seq: message.seq, ms: message.timeMs }
      this.#factsSince += 1
      this.#changed?.fact(message.payload.length)
      this.#reconciler?.folded(message.seq)
      this.#feed?.offer(message)
      this.#prover?.offer(message)
      for (const effect of effects) {
        // Enqueued before, and done perhaps: the reconciler enqueues what is missing, once all is
        // folded.
        if (isOld && (effect.do === 'task' || this.#decidedBefore.hold(effect, message.timeMs))) continue
        if (effect.do === 'fact' && effect.fact.name === 'trigger.refused')
          logger.warn(`a trigger of ${effect.fact.data.asset} was refused: ${effect.fact.data.reason}`)
        if (effect.do === 'fact' && effect.fact.name === 'run.finished') tellOfCall(effect.fact, logger)
        this.#carryOut(effect, message.timeMs)
      }
      if (this.#store.touched >= TOUCHED_SOFT) this.#checkpointSoon()
      if (this.#store.touched >= TOUCHED_HARD) {
        await this.#writing
        this.#checkpointSoon()
        await this.#writing
      }
      // A slow stream of tasks holds up the reading, not the memory.
      if (this.#gate.size > 5000) await this.#gate.drain()
    }
    // Old facts come as fast as they are read: documents of open runs would be written each time.
    const isRecovering = this.#folded < recoverTo
    if (this.#factsSince >= BATCH_FACTS && !isRecovering) this.#checkpointSoon()
    else if (this.#factsSince > 0 && !this.#writing)
      this.#timer ??= setTimeout(() => this.#checkpointSoon(), this.#lagMs)
  }

  #carryOut(effect: Effect, timeMs: number): void {
    if (!this.#context) return
    const done = carryOut(this.#context, effect, timeMs, this.#options.logger, this.#repair)
    this.#gate.add(done.catch((error) => this.fail(error)))
  }

  async #checkpoint(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    const startedMs = performance.now()
    const seq = this.#folded
    const mark = this.#mark
    const entries = this.#store.takeTouched()
    const cut = this.#changed?.cut(seq, mark)
    const isBusy = entries.length >= BUSY_DOCUMENTS || this.#factsSince >= BUSY_FACTS
    this.#factsSince = 0
    this.#lagMs = isBusy ? BUSY_LAG_MS : CHECKPOINT_LAG_MS
    for (const { effect, timeMs } of this.#decidedBefore.take()) this.#carryOut(effect, timeMs)
    await this.#gate.drain()
    if (seq === this.#checkpointer.seq && entries.length === 0) return
    // A decision that could not be carried out: its fact must be folded again.
    if (this.#failed) return
    await this.#checkpointer.write(entries, seq, mark)
    this.#stored.remember()
    if (cut) this.#changed?.offer(cut)
    emit('flowstone:engine.checkpoint', {
      engine: this.#options.engine,
      shard: this.#options.shard,
      seq,
      keys: entries.length,
      durationMs: performance.now() - startedMs,
    })
  }

  #checkpointSoon(): void {
    if (this.#writing || this.#failed) return
    this.#writing = this.#checkpoint()
      .catch((error: unknown) => this.fail(error))
      .finally(() => {
        this.#writing = undefined
        if ((this.#factsSince > 0 || this.#store.hasMore) && !this.#stopping && !this.#failed)
          this.#timer ??= setTimeout(() => this.#checkpointSoon(), this.#lagMs)
      })
  }

  /** Folds one message of the log. Steps over what is no fact of ours, and reports it. */
  async #fold(facts: Facts, messages: readonly StoredMessage[], i: number): Promise<Effect[]> {
    const { topology, engine } = this.#options
    const teller = { engine, namespace: topology.names.ns }
    const message = messages[i]
    if (!message) return []
    let fact: Fact
    try {
      fact = facts.decode(message)
    } catch (error) {
      // A newer FlowStone wrote this: to step over it would fold a wrong state. Stop here, and let
      // a newer engine take over.
      if (error instanceof FlowStoneError && error.code === 'newer_version') throw error
      this.#stepOver(message.seq, messageOf(error))
      return []
    }
    const poison = this.#poison.get(message.seq)
    if (poison !== undefined) {
      this.#stepOver(message.seq, poison)
      return endOf(fact, poison)
    }
    await facts.load(fact, messages, i + 1)
    let effects: Effect[]
    try {
      effects = step(this.#store, fact)
    } catch (error) {
      // Its documents may be changed half. The next term begins without them, and steps over it.
      throw new PoisonError(fact, error)
    }
    tellOfScatter(teller, this.#store, fact)
    tellOfGate(teller, this.#store, fact)
    // What was lost and is folded again has had its events.
    if (fact.seq > this.#recoverTo) tellOfRun(teller, this.#store, fact)
    return effects
  }

  #stepOver(seq: number, reason: string): void {
    const { shard, logger } = this.#options
    emit('flowstone:engine.bad_fact', { shard, seq, reason })
    logger.warn(`message ${seq} of the log of shard ${shard} is stepped over: ${reason}`)
  }

  /** Whether all that it needs is still there, and still its own. */
  async #look(): Promise<void> {
    if (this.#looking || this.#failed || this.#stopping) return
    this.#looking = true
    const { connection, topology, shard, logger, engine } = this.#options
    try {
      // The state first: one that was lost ends the term, and the next one makes it anew.
      await this.#checkpointer.look()
      const made = await ensureBuckets(connection, topology, shard)
      for (const name of made) logger.warn(`${name} was gone and is made again, empty`, { engine, shard })
      if (made.length > 0) this.#reconciler?.lookNow()
    } catch (error) {
      // Anything else is asked again at the next look.
      if (error instanceof FlowStoneError && (error.code === 'fenced' || error.code === 'no_stream')) this.fail(error)
    } finally {
      this.#looking = false
    }
  }
}

/** A call of a hook that was given up: nobody has heard what it was to say. */
function tellOfCall({ ids, data }: DraftOf<'run.finished'>, logger: Logger): void {
  if (data.status === 'succeeded' || !data.target.startsWith(HOOK_ASSETS)) return
  const why = data.error === undefined ? data.status : describe(data.error)
  logger.warn(`a call of ${data.pipeline}/${data.target} was given up: ${why} (run ${ids.run})`)
}

/** What cannot be folded leaves its run without something. It must not wait for ever. */
function endOf(fact: Fact, reason: string): Effect[] {
  const message = cut(reason, 1000)
  if (fact.name === 'run.requested') {
    const { pipeline, target, partition } = fact.data
    const { run } = fact.ids
    const data = {
      run,
      pipeline,
      target,
      ...(partition === undefined ? {} : { partition }),
      status: 'failed',
      error: { code: 'poison', message },
      durationMs: 0,
    } as const
    return [{ do: 'fact', fact: { name: 'run.finished', ids: { run }, data } }]
  }
  if (!('run' in fact.ids) || fact.name === 'run.cancel_requested' || fact.name === 'run.finished') return []
  const { run } = fact.ids
  return [{ do: 'fact', fact: { name: 'run.cancel_requested', ids: { run }, data: { reason: message } } }]
}
