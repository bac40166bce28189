/**
 * The engine of one shard.
 *
 *   stand by ──claim free──▶ take over ──▶ work ──stopped──▶ release the claim
 *      ▲                        (fence: write the engine key)   │
 *      └──────── fenced, claim lost, or an error: drop all that is in memory
 *
 * Work (term.ts): take the next facts, fold each and decide (projections/handlers.ts), carry out
 * the decisions, checkpoint. The order is: append first, then checkpoint. If this process dies in
 * between, its successor folds the same facts from the older documents and decides the same. Its
 * appends then find the entries on the log already.
 *
 * Some problems end only when a person acts, such as a log that the state was not made from. The
 * engine reports such a problem once, and checks it from time to time. The claim stays free
 * meanwhile, so that a rebuild can take it.
 */

import { FlowStoneError, messageOf } from '../../../streams/errors.ts'
import { emit } from '../../telemetry.ts'
import { Claim } from './claim.ts'
import { PoisonError } from './facts.ts'
import type { EngineShardOptions } from './options.ts'
import { REFUSALS } from './position.ts'
import { refusalOf } from './refusal.ts'
import { Term } from './term.ts'

/** After an error the next term begins later each time. */
const AGAIN_MS = 500
const AGAIN_MAX_MS = 10_000
const GOOD_TERM_MS = 30_000
const REFUSED_LOOK_MS = 2000
/** Trouble with the claim is said once in this time. */
const SAY_MS = 30_000

export class EngineShard {
  readonly #options: EngineShardOptions
  #stopping = false
  #term: Term | undefined
  readonly #stop = new AbortController()
  #wake: (() => void) | undefined
  #done: Promise<void> | undefined
  #active = Promise.withResolvers<void>()
  #refused: FlowStoneError | undefined
  /** The last term met a fact that this version cannot read. */
  #unreadable = false
  /** Facts that cannot be folded: stepped over from now on. */
  readonly #poison = new Map<number, string>()
  #againMs = AGAIN_MS
  #saidMs = Number.NEGATIVE_INFINITY
  #denied: FlowStoneError | undefined
  #termSinceMs = 0

  constructor(options: EngineShardOptions) {
    this.#options = options
    this.#active.promise.catch(() => undefined)
  }

  start(): void {
    this.#done = this.#live()
  }

  /**
   * Resolves when this engine is active here: at once, or after the engine before has gone. Rejects
   * when this engine refuses to work.
   */
  get active(): Promise<void> {
    return this.#active.promise
  }

  get isActive(): boolean {
    return this.#term !== undefined
  }

  /** Why it does not work, though it could. */
  get refused(): FlowStoneError | undefined {
    return this.#refused
  }

  /**
   * Its NATS user lacks a permission: it stands by until somebody gives it. A term that lasts shows
   * that it was given; so may a new connection.
   */
  get denied(): FlowStoneError | undefined {
    if (this.#term && performance.now() - this.#termSinceMs > GOOD_TERM_MS) this.#denied = undefined
    return this.#denied
  }

  /**
   * Finishes what is folded, checkpoints, and gives up the claim, so that a standby takes over at
   * once.
   */
  async stop(): Promise<void> {
    this.#stopping = true
    this.#stop.abort()
    this.#term?.stop()
    this.#wake?.()
    await this.#done
  }

  async #live(): Promise<void> {
    const { connection, topology, shard, engine, logger } = this.#options
    const { names } = topology
    const off = connection.onReconnect(() => {
      this.#denied = undefined
    })
    const claim = new Claim(connection, names, shard, engine, (message) => logger.warn(message, { engine }))
    while (!this.#stopping && !connection.isClosed) {
      try {
        const refusal = await refusalOf(connection, names, shard)
        // Nobody else may know of a fact that this version cannot read: the next term finds out.
        if (refusal || !this.#unreadable) this.#refuse(refusal)
        if (refusal) {
          await this.#pause(REFUSED_LOOK_MS)
          continue
        }
        if (!(await claim.tryTake())) {
          await claim.untilFree(this.#stop.signal)
          continue
        }
      } catch (error) {
        this.#sayTrouble(await this.#explained(error))
        await connection.ready(200)
        continue
      }
      await this.#hold(claim)
    }
    off()
  }

  async #explained(thrown: unknown): Promise<unknown> {
    const error = await this.#options.connection.explained(thrown)
    if (error instanceof FlowStoneError && error.code === 'denied') this.#denied = error
    return error
  }

  /** One term, from the claim to its end. */
  async #hold(claim: Claim): Promise<void> {
    const { connection, shard, engine, logger } = this.#options
    claim.keep()
    let reason = 'stopped'
    let pauseMs = 0
    this.#termSinceMs = performance.now()
    this.#term = new Term(this.#options, this.#poison, () => this.#active.resolve())
    claim.onLost = () => this.#term?.fail(new FlowStoneError('claim_lost', `another engine claimed shard ${shard}`))
    try {
      if (!this.#stopping) await this.#term.work()
    } catch (thrown) {
      const error = await this.#explained(thrown)
      reason = error instanceof FlowStoneError ? error.code : 'error'
      this.#unreadable = false
      if (error instanceof FlowStoneError && REFUSALS.has(reason)) {
        this.#unreadable = true
        this.#refuse(error)
        pauseMs = REFUSED_LOOK_MS
      }
      if (error instanceof PoisonError) this.#poison.set(error.seq, error.message)
      if (reason !== 'fenced' && reason !== 'claim_lost' && !connection.isClosed && !REFUSALS.has(reason)) {
        logger.error(`engine of shard ${shard} starts again: ${messageOf(error)}`, { engine })
        if (performance.now() - this.#termSinceMs > GOOD_TERM_MS || error instanceof PoisonError)
          this.#againMs = AGAIN_MS
        pauseMs = this.#againMs
        this.#againMs = Math.min(this.#againMs * 2, AGAIN_MAX_MS)
      }
    } finally {
      this.#term.stop()
      this.#term = undefined
      await claim.release()
      emit('flowstone:engine.standby', { engine, shard, reason })
    }
    // Without the claim: another engine may have more luck.
    if (pauseMs > 0) await this.#pause(pauseMs)
  }

  #refuse(refusal: FlowStoneError | undefined): void {
    const { engine, shard, logger } = this.#options
    if (refusal && refusal.message !== this.#refused?.message) {
      logger.error(`engine of shard ${shard} does not work: ${refusal.message}`, { engine, code: refusal.code })
      this.#active.reject(refusal)
    } else if (!refusal && this.#refused) logger.info(`engine of shard ${shard} can work again`, { engine })
    this.#refused = refusal
  }

  #sayTrouble(error: unknown): void {
    const { connection, shard, engine, logger } = this.#options
    if (connection.isClosed || performance.now() - this.#saidMs < SAY_MS) return
    this.#saidMs = performance.now()
    logger.warn(`engine of shard ${shard} cannot read its claim: ${messageOf(error)}; it tries again`, { engine })
  }

  #pause(ms: number): Promise<void> {
    if (this.#stopping) return Promise.resolve()
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms)
      this.#wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }
}
