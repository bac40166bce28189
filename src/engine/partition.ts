/**
 * The engine of one log partition.
 *
 *   stand by ──claim free──▶ take over ──▶ work ──stopped──▶ release the claim
 *      ▲                        (fence: write the engine key)   │
 *      └──────── fenced, claim lost, or an error: drop all that is in memory
 *
 * At work: take facts that are there, fold each and decide (projections/step.ts), carry out the decisions, checkpoint. Append first, then checkpoint: if this process
 * dies in between, the successor folds the same facts from the older documents, decides the same, and its appends meet what is already there.
 * The checkpoint may lag (50 ms or 1,000 facts); it never holds up the folding of what comes next.
 */

import type { Command } from '../../projections/commands.ts'
import { step } from '../../projections/step.ts'
import { FlowStoneError, messageOf } from '../../streams/errors.ts'
import { type Fact, isTimer } from '../../streams/facts.ts'
import { ensureStateBucket, type Topology } from '../../streams/topology.ts'
import type { Appender } from '../log/appender.ts'
import type { ServerClock } from '../log/clock.ts'
import type { Connection } from '../log/connection.ts'
import type { StoredMessage } from '../log/nats.ts'
import { Reader } from '../log/reader.ts'
import { emit, type Logger } from '../telemetry.ts'
import { Checkpointer } from './checkpoint.ts'
import { Claim } from './claim.ts'
import { type DispatchContext, dispatch } from './dispatch.ts'
import { Facts } from './facts.ts'
import { DrainGate } from './gate.ts'
import { tellOfGate } from './gate-events.ts'
import { Reconciler } from './reconciler.ts'
import { tellOfScatter } from './scatter-events.ts'
import { Store, TOUCHED_SOFT } from './store.ts'
import { Triggers } from './triggers.ts'

const BATCH_FACTS = 1000
const CHECKPOINT_LAG_MS = 50
/** Folding waits for a checkpoint before it would have touched more than one can take. */
const TOUCHED_HARD = 900

export interface EnginePartitionOptions {
  readonly engine: string
  readonly p: number
  readonly topology: Topology
  readonly connection: Connection
  readonly clock: ServerClock
  readonly logger: Logger
  readonly logOf: (p: number) => Appender
  readonly workOf: (p: number) => Appender
  readonly reconcileMs: number
}

export class EnginePartition {
  readonly #options: EnginePartitionOptions
  #stopping = false
  #reader: Reader | undefined
  readonly #stop = new AbortController()
  #wake: (() => void) | undefined
  #done: Promise<void> | undefined
  #active = Promise.withResolvers<void>()

  constructor(options: EnginePartitionOptions) {
    this.#options = options
  }

  start(): void {
    this.#done = this.#live()
  }

  /** Resolves when this engine is at work here: at once, or when the one before has gone. */
  get active(): Promise<void> {
    return this.#active.promise
  }

  /** Finishes what is folded, checkpoints, and gives up the claim, so that a standby takes over at once. */
  async stop(): Promise<void> {
    this.#stopping = true
    this.#stop.abort()
    this.#reader?.stop()
    this.#wake?.()
    await this.#done
  }

  async #live(): Promise<void> {
    const { connection, topology, p, engine, logger } = this.#options
    const claim = new Claim(connection, topology.names, p, engine)
    while (!this.#stopping && !connection.isClosed) {
      try {
        if (!(await claim.tryTake())) {
          await claim.untilFree(this.#stop.signal)
          continue
        }
      } catch {
        await connection.ready(200)
        continue
      }
      claim.keep()
      let reason = 'stopped'
      try {
        await this.#work(claim)
      } catch (error) {
        reason = error instanceof FlowStoneError ? error.code : 'error'
        if (reason !== 'fenced' && reason !== 'claim_lost' && !connection.isClosed) {
          logger.error(`engine of partition ${p} starts again: ${messageOf(error)}`, { engine })
          await this.#pause(500)
        }
      } finally {
        this.#reader?.stop()
        await claim.release()
        emit('flowstone:engine.standby', { engine, partition: p, reason })
      }
    }
  }

  async #work(claim: Claim): Promise<void> {
    const { connection, topology, clock, p, engine, logger } = this.#options
    const { names, partitions } = topology
    await ensureStateBucket(connection.nc, topology, p)
    const checkpointer = new Checkpointer(connection, names, p, engine)
    const { seq: from, recoverTo } = await checkpointer.takeOver()
    if (from < recoverTo)
      logger.warn(`the state of partition ${p} was lost; it is folded again from its log, up to ${recoverTo}`, {
        engine,
      })
    const store = new Store(connection, names, p)
    const facts = new Facts(store, names, p)
    const log = this.#options.logOf(p)
    const work = this.#options.workOf(p)
    const { logOf } = this.#options
    const context: DispatchContext = { connection, names, p, partitions, clock, store, log, work, logOf }

    const reader = new Reader(connection, names.log(p), from + 1)
    this.#reader = reader
    const failure = Promise.withResolvers<never>()
    failure.promise.catch(() => undefined)
    let failed = false
    const fail = (error: unknown): void => {
      failed = true
      failure.reject(error)
      // This term's own: what fails late must not stop the reader of the next term.
      reader.stop()
    }
    claim.onLost = () => fail(new FlowStoneError('claim_lost', `another engine claimed partition ${p}`))

    // One partition takes what outsiders ask for; runs go to whichever theirs is.
    const triggers = p === 0 ? new Triggers({ connection, names, log, logger }) : undefined
    const reconciler = new Reconciler({ ...context, everyMs: this.#options.reconcileMs, logger })
    emit('flowstone:engine.active', { engine, partition: p, seq: from })
    this.#active.resolve()

    /** Decisions being carried out, by checkpoint: one may be written only when all decisions of its facts are on their streams. */
    const gate = new DrainGate()
    let folded = from
    let factsSince = 0
    let writing: Promise<void> | undefined
    let timer: NodeJS.Timeout | undefined

    const checkpoint = async (): Promise<void> => {
      clearTimeout(timer)
      timer = undefined
      const startedMs = performance.now()
      const seq = folded
      const entries = store.takeTouched()
      factsSince = 0
      await gate.drain()
      if (seq === checkpointer.seq && entries.length === 0) return
      await checkpointer.write(entries, seq)
      emit('flowstone:engine.checkpoint', {
        engine,
        partition: p,
        seq,
        keys: entries.length,
        durationMs: performance.now() - startedMs,
      })
    }
    const checkpointSoon = (): void => {
      if (writing || failed) return
      writing = checkpoint()
        .catch(fail)
        .finally(() => {
          writing = undefined
          if ((factsSince > 0 || store.hasMore) && !this.#stopping && !failed)
            timer ??= setTimeout(checkpointSoon, CHECKPOINT_LAG_MS)
        })
    }

    try {
      while (!this.#stopping && !failed) {
        const messages = await reader.take(BATCH_FACTS)
        if (messages.length === 0 && !failed && !this.#stopping)
          throw new FlowStoneError('reader_stopped', `the reader of partition ${p} stopped`)
        for (const [i, message] of messages.entries()) {
          if (failed || this.#stopping) break
          const commands = await this.#fold(store, facts, messages, i)
          folded = message.seq
          factsSince += 1
          reconciler.folded(message.seq, message.timeMs)
          for (const command of commands) {
            // Enqueued before, and done perhaps: the reconciler enqueues what is missing, once all is folded.
            if (command.do === 'task' && message.seq <= recoverTo) continue
            if (command.do === 'fact' && command.fact.name === 'trigger.refused')
              logger.warn(`a trigger of ${command.fact.data.asset} was refused: ${command.fact.data.reason}`)
            gate.add(dispatch(context, command, message.timeMs).catch(fail))
          }
          if (store.touched >= TOUCHED_SOFT) checkpointSoon()
          if (store.touched >= TOUCHED_HARD) {
            await writing
            checkpointSoon()
            await writing
          }
          // A slow stream of tasks holds up the reading, not the memory.
          if (gate.size > 5000) await gate.drain()
        }
        if (factsSince >= BATCH_FACTS) checkpointSoon()
        else if (factsSince > 0 && !writing) timer ??= setTimeout(checkpointSoon, CHECKPOINT_LAG_MS)
        if (reader.isEmpty && folded >= recoverTo) reconciler.caughtUp(from < recoverTo)
      }
      if (failed) await failure.promise
      await writing
      do await checkpoint()
      while (store.hasMore)
    } finally {
      clearTimeout(timer)
      reconciler.stop()
      triggers?.stop()
      reader.stop()
    }
  }

  /** Folds one message of the log. What is no fact of ours is stepped over, and told. */
  async #fold(store: Store, facts: Facts, messages: readonly StoredMessage[], i: number): Promise<Command[]> {
    const { topology, p } = this.#options
    const { names } = topology
    const message = messages[i]
    if (!message) return []
    const path = names.factPath(message.subject) ?? ''
    if (isTimer(path)) return []
    let fact: Fact
    try {
      fact = facts.decode(message)
    } catch (error) {
      // A newer FlowStone wrote this: to step over it would fold a wrong state. Stop here, and let a newer engine take over.
      if (error instanceof FlowStoneError && error.code === 'newer_version') throw error
      emit('flowstone:engine.bad_fact', { partition: p, seq: message.seq, reason: messageOf(error) })
      this.#options.logger.warn(
        `message ${message.seq} of the log of partition ${p} is stepped over: ${messageOf(error)}`,
      )
      return []
    }
    await facts.load(fact, messages, i + 1)
    const commands = step(store, fact)
    tellOfScatter(this.#options.engine, store, fact)
    tellOfGate(store, fact)
    return commands
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms)
      this.#wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }
}
