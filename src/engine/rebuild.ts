/**
 * Rebuild: deletes the state buckets and folds them again from the log. Tasks are left to the next
 * engine, whose reconciler compares them with WORK. Other decisions that are not on the log (as
 * when the log lost its end) are carried out here.
 */
import { randomBytes } from 'node:crypto'
import { step } from '../../projections/handlers.ts'
import { Pending } from '../../projections/run/pending.ts'
import { ENGINE_KEY, stateKey } from '../../projections/state.ts'
import { ConflictError, FlowStoneError, messageOf } from '../../streams/errors.ts'
import { isTimer } from '../../streams/facts.ts'
import { jetstreamManager } from '../../streams/jetstream.ts'
import { ensureStateBucket, type Topology } from '../../streams/topology.ts'
import type { Io } from '../io/manager.ts'
import type { Appender } from '../log/appender.ts'
import type { ServerClock } from '../log/clock.ts'
import type { Connection } from '../log/connection.ts'
import { leaderGet, type StoredMessage, streamBounds } from '../log/nats.ts'
import { Reader } from '../log/reader.ts'
import type { Logger } from '../telemetry.ts'
import { beginHistory, historyLost } from './history/lost.ts'
import { emptyForeignBase, restoreFromBase } from './history/restore.ts'
import { ensureBuckets } from './maintenance/upkeep.ts'
import { carryOut } from './shard/carry-out.ts'
import { Checkpointer } from './shard/checkpoint.ts'
import { Claim } from './shard/claim.ts'
import { dispatchContext } from './shard/dispatch.ts'
import { Facts, PoisonError } from './shard/facts.ts'
import { logRefusal, type Mark, newEpoch, type Position, positionIn } from './shard/position.ts'
import { hasBegun } from './shard/seen-before.ts'
import { Store } from './shard/store.ts'

/**
 * A checkpoint is due after so many changed documents. Most facts change a few, so it fits one
 * batch. What is open changes again after it, so few checkpoints are best.
 */
const TOUCHED_MAX = 950

/** What `flow.rebuild` did. */
export interface RebuildReport {
  /** Facts folded, over all shards. */
  readonly facts: number
  readonly durationMs: number
}

export interface RebuildDeps {
  readonly connection: Connection
  readonly topology: Topology
  readonly clock: ServerClock
  readonly logger: Logger
  readonly logOf: (shard: number) => Appender
  readonly workOf: (shard: number) => Appender
  readonly io: Io
}

export async function rebuild(deps: RebuildDeps): Promise<RebuildReport> {
  const { connection, topology } = deps
  const startedMs = performance.now()
  const jsm = await jetstreamManager(connection.nc)
  // One of its own for each rebuild: a claim under the same name counts as kept.
  const name = `rebuild-${randomBytes(6).toString('hex')}`
  let facts = 0
  for (let shard = 0; shard < topology.shards; shard++) {
    // The claim is in a bucket that may be lost too.
    await ensureBuckets(connection, topology, shard)
    const claim = new Claim(connection, topology.names, shard, name)
    if (!(await claim.tryTake()))
      throw new ConflictError(`an engine is active on shard ${shard}; stop all engines of the namespace, then rebuild`)
    claim.keep()
    try {
      const folded = await foldedTo(deps, shard)
      const why = await emptyForeignBase({ connection, names: topology.names, shard })
      if (why !== undefined)
        deps.logger.warn(
          `the history of shard ${shard} ${why}: runs in it can be read, and their newest values are not taken over`,
        )
      const of = { connection, names: topology.names, shard }
      if (await historyLost(of)) {
        deps.logger.warn(`the history of shard ${shard} is gone: what was sealed is lost, and it begins anew`)
        await beginHistory(of)
      }
      const bucket = topology.names.kvStream(topology.names.stateBucket(shard))
      await jsm.streams.delete(bucket).catch(() => false)
      await ensureStateBucket(connection.nc, topology, shard)
      facts += await rebuildShard(deps, shard, name, folded)
    } finally {
      await claim.release()
    }
  }
  return { facts, durationMs: performance.now() - startedMs }
}

/** What the position of a bucket that is emptied says on. */
type Folded = Pick<Position, 'recoverTo' | 'epoch'>

/**
 * How much of the log is folded. Facts that no engine has folded yet are left to the next engine,
 * because nobody has carried out their decisions. All of the log is folded when the position is
 * unknown: it is missing (the bucket was deleted), or the state was not made from this log.
 */
async function foldedTo({ connection, topology }: RebuildDeps, shard: number): Promise<Folded> {
  const { names } = topology
  const { last } = await connection.read((nc) => streamBounds(nc, names.log(shard)))
  const bucket = names.stateBucket(shard)
  const found = await connection.read((nc) =>
    leaderGet(nc, names.kvStream(bucket), { last_by_subj: names.kvSubject(bucket, ENGINE_KEY) }),
  )
  let position: Position | undefined
  try {
    position = positionIn(bucket, found)
  } catch (error) {
    // A position that no engine wrote is deleted with the bucket. One that a newer engine wrote is
    // kept.
    if (!(error instanceof FlowStoneError) || error.code !== 'bad_state') throw error
    return { recoverTo: last }
  }
  if (!position) return { recoverTo: (await hasBegun(connection, names, shard)) ? last : 0 }
  if (await logRefusal(connection, names, shard, position)) return { recoverTo: last, epoch: newEpoch() }
  const { epoch } = position
  const recoverTo = Math.min(last, Math.max(position.seq, position.redo?.seq ?? 0, position.recoverTo))
  return { recoverTo, ...(epoch === undefined ? {} : { epoch }) }
}

/** What can be stepped over has been, when it is tried again. */
async function rebuildShard(deps: RebuildDeps, shard: number, name: string, folded: Folded): Promise<number> {
  const poison = new Set<number>()
  for (;;) {
    try {
      return await new Folding(deps, shard, name, poison).run(folded)
    } catch (error) {
      if (!(error instanceof PoisonError)) throw error
      deps.logger.warn(`message ${error.seq} of the log of shard ${shard} is stepped over: ${error.message}`)
      poison.add(error.seq)
      // From its beginning, so that what was decided until there is not forgotten.
      const { connection, topology } = deps
      const jsm = await jetstreamManager(connection.nc)
      await jsm.streams.purge(topology.names.kvStream(topology.names.stateBucket(shard)))
    }
  }
}

class Folding {
  readonly #deps: RebuildDeps
  readonly #shard: number
  readonly #name: string
  readonly #poison: ReadonlySet<number>
  readonly #checkpointer: Checkpointer
  readonly #store: Store
  readonly #facts: Facts
  readonly #pending: Pending
  #count = 0
  #mark: Mark | undefined

  constructor(deps: RebuildDeps, shard: number, name: string, poison: ReadonlySet<number>) {
    this.#deps = deps
    this.#shard = shard
    this.#name = name
    this.#poison = poison
    const { connection, topology } = deps
    this.#checkpointer = new Checkpointer(connection, topology.names, shard, name)
    this.#store = new Store(connection, topology.names, shard, this.#checkpointer)
    this.#facts = new Facts(this.#store, topology.names, shard)
    this.#pending = new Pending(topology.shards)
  }

  async run(wanted: Folded): Promise<number> {
    const upTo = wanted.recoverTo
    const { connection, topology } = this.#deps
    const store = this.#store
    const checkpointer = this.#checkpointer
    // If this process dies half way, the next engine knows that these facts are old.
    const { names } = topology
    const { seq } = await checkpointer.takeOver(wanted)
    const from = seq > 0 ? seq : await this.#restored()
    if (upTo <= from) return 0
    const reader = new Reader(connection, names.log(this.#shard), from + 1, { onDenied: 'throw' })
    let folded = from
    let writing = Promise.resolve()
    try {
      while (folded < upTo) {
        // What has left the log (a schedule that fired, or was taken away) is not waited for.
        const messages = await reader.take(1000, upTo)
        if (messages.length === 0) break
        for (const [i, message] of messages.entries()) {
          if (message.seq > upTo) break
          await this.#fold(messages, i)
          folded = message.seq
          if (store.touched < TOUCHED_MAX) continue
          // Folding goes on while the server stores what was folded.
          await writing
          writing = checkpointer.write(store.takeTouched(), folded, this.#mark)
          writing.catch(() => undefined)
        }
        if ((messages.at(-1)?.seq ?? 0) >= upTo) break
      }
      await this.#carryOut()
      await writing
      do await checkpointer.write(store.takeTouched(), upTo, this.#mark)
      while (store.hasMore)
    } finally {
      reader.stop()
      // What comes after an error must not meet it.
      await writing.catch(() => undefined)
    }
    return this.#count
  }

  /** Where the base ends, which the state begins with. */
  async #restored(): Promise<number> {
    const { connection, topology } = this.#deps
    const of = { connection, names: topology.names, shard: this.#shard, engine: this.#name }
    return await restoreFromBase(of, this.#checkpointer)
  }

  async #fold(messages: readonly StoredMessage[], i: number): Promise<void> {
    const message = messages[i]
    if (!message || this.#poison.has(message.seq)) return
    const path = this.#deps.topology.names.factPath(message.subject) ?? ''
    if (isTimer(path)) return
    this.#mark = { seq: message.seq, ms: message.timeMs }
    try {
      const fact = this.#facts.decode(message)
      await this.#facts.load(fact, messages, i + 1)
      try {
        this.#pending.add(fact, step(this.#store, fact))
      } catch (error) {
        throw new PoisonError(fact, error)
      }
      this.#count += 1
    } catch (error) {
      // As the engine does: what is no fact of ours is stepped over.
      if (!(error instanceof FlowStoneError) || error.code === 'newer_version' || error instanceof PoisonError)
        throw error
      this.#deps.logger.debug(`message ${message.seq} is no fact: ${messageOf(error)}`)
    }
  }

  /** Before the last checkpoint: should this die before that, what is left is found again. */
  async #carryOut(): Promise<void> {
    const { connection, topology, clock, logger, logOf, workOf, io } = this.#deps
    const { names, shards } = topology
    const shard = this.#shard
    const [log, work] = [logOf(shard), workOf(shard)]
    const store = this.#store
    const context = dispatchContext({ connection, names, shard, shards, clock, store, log, work, logOf, io })
    for (const { effect, timeMs } of this.#pending.left()) {
      if (effect.do === 'plan') await this.#loadForPlan(effect.run)
      await carryOut(context, effect, timeMs, logger)
    }
  }

  async #loadForPlan(run: string): Promise<void> {
    const store = this.#store
    const key = stateKey.run(run)
    if (!store.has(key)) await store.load([key])
    const doc = store.get(key)
    const pipeline = doc && stateKey.pipeline(doc.pipeline, doc.version)
    if (pipeline && !store.has(pipeline)) await store.load([pipeline])
  }
}
