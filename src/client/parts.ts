/** Workers and engines of a flow, which end with it. */
import { FlowStoneError } from '../../streams/errors.ts'
import { atMost } from '../options/timer.ts'
import { Worker } from '../worker/worker.ts'

/**
 * How long a close waits for engines, and for what is to be stored behind them. What an engine
 * cannot write, because the server is away or full, is folded again.
 */
const LAST_MS = 10_000
const LAST_MIN_MS = 500

interface Part {
  /** Of an engine: why it does not work. */
  readonly refused?: FlowStoneError | undefined
  stop(): Promise<void>
}

export class Parts {
  readonly #all: Part[] = []
  #isClosed = false

  get isEmpty(): boolean {
    return this.#all.length === 0
  }

  /** Throws FlowStoneError `closed`. */
  mustBeOpen(): void {
    if (this.#isClosed) throw new FlowStoneError('closed', 'the flow was closed; nothing can be started')
  }

  /** Throws FlowStoneError `unavailable` where an engine of this flow does not work. */
  mustWork(): void {
    const refused = this.#all.find((part) => part.refused)?.refused
    if (refused)
      throw new FlowStoneError('unavailable', `the engine does not work: ${refused.message}`, { cause: refused })
  }

  /** One that has started. Where the flow was closed meanwhile it is stopped: throws `closed`. */
  async add<P extends Part>(part: P): Promise<P> {
    if (this.#isClosed) await part.stop()
    this.mustBeOpen()
    this.#all.push(part)
    return part
  }

  /**
   * Workers first: they finish or hand back. Returns for how many milliseconds more a close waits
   * while the server is away.
   */
  async stop(): Promise<number> {
    this.#isClosed = true
    const workers = this.#all.filter((part) => part instanceof Worker)
    await Promise.all(workers.map((part) => part.stop()))
    const engines = this.#all.filter((part) => !(part instanceof Worker))
    const untilMs = performance.now() + LAST_MS
    await atMost(LAST_MS, Promise.all(engines.map((part) => part.stop())))
    return this.isEmpty ? LAST_MIN_MS : Math.max(LAST_MIN_MS, untilMs - performance.now())
  }
}
