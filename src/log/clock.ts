/**
 * The clock of the server, as far as a client can know it. Clocks of hosts differ, sometimes by
 * minutes. So times that are compared with a time of the server, or written beside one, come from
 * this clock and never from `Date.now()`. Examples are deadlines of gates and schedules, and
 * limits.
 *
 * An answer of the server that carries its time was made after the question was sent and before the
 * answer came. So, on the monotonic clock of this process:
 *
 *     answer's time + (since the answer came)   ≤   server's time   ≤   answer's time + (since the question was sent)
 *
 * `atLeast` is the left side: it is never ahead of the server. It serves what must not happen too
 * early, such as the next grant of a limit. `atMost` is the right side, `now` the middle.
 *
 * A clock that is stopped with its process (SIGSTOP) or with its machine only makes the left side
 * smaller. The two clocks may drift apart. So both sides give way by `DRIFT` as their reading ages,
 * and the clock is read again when that is due.
 */
import { decode } from '../../streams/codec.ts'
import { FlowStoneError } from '../../streams/errors.ts'
import { apiSubject } from '../../streams/jetstream.ts'
import { ask } from './ask.ts'
import type { Connection } from './connection.ts'

const FRESH_MS = 60_000
/** A sample that took longer than this is too vague; the best of a few is taken. */
const GOOD_RTT_MS = 5
const SAMPLES_MAX = 3

/**
 * How much faster or slower one of two clocks may run than the other. Quartz is good for half of
 * that.
 */
const DRIFT = 1e-4

/** A bound: server's time minus monotonic time, as it was known at a moment of the latter. */
interface Bound {
  readonly offset: number
  readonly atMs: number
}

interface Sample {
  readonly least: Bound
  readonly most: Bound
}

export class ServerClock {
  readonly #connection: Connection
  readonly #stream: string
  readonly #freshMs: number
  #sample: Sample | undefined
  #readMs = 0
  #reading: Promise<void> | undefined

  /**
   * `stream`: any stream of the namespace; the server that leads it is asked for its information.
   * `freshMs`: how old a reading gets before it is taken anew; the bounds give way by a
   * ten-thousandth of that.
   */
  constructor(connection: Connection, stream: string, freshMs = FRESH_MS) {
    this.#connection = connection
    this.#stream = stream
    this.#freshMs = freshMs
  }

  /**
   * Reads the clock; must have resolved once before it is asked, and then it keeps itself fresh.
   */
  async ready(): Promise<void> {
    if (this.#sample && performance.now() - this.#readMs < this.#freshMs) return
    this.#reading ??= this.#read().finally(() => {
      this.#reading = undefined
    })
    await this.#reading
  }

  /** Best guess of the server's time, in milliseconds since 1970. Not rounded. */
  now(): number {
    return (this.atLeast() + this.atMost()) / 2
  }

  /** The server's time is this or later. */
  atLeast(): number {
    return leastOf(this.#known())
  }

  /** The server's time is this or earlier. */
  atMost(): number {
    return mostOf(this.#known())
  }

  /**
   * Takes a time of the server that was just received (of a stored message, say): it may be later
   * than what was thought possible.
   */
  heard(serverMs: number): void {
    const sample = this.#sample
    if (!sample || serverMs <= leastOf(sample)) return
    const least = { offset: serverMs - performance.now(), atMs: performance.now() }
    this.#sample = { least, most: serverMs > mostOf(sample) ? least : sample.most }
  }

  #known(): Sample {
    if (!this.#sample) throw new FlowStoneError('internal', 'the server clock was asked before it was read')
    // An older reading is vaguer, and no less true: nobody waits for the new one.
    if (performance.now() - this.#readMs >= this.#freshMs && !this.#connection.isClosed) this.ready().catch(() => {})
    return this.#sample
  }

  async #read(): Promise<void> {
    let best: Sample | undefined
    for (let i = 0; i < SAMPLES_MAX && !(best && mostOf(best) - leastOf(best) < GOOD_RTT_MS); i++) {
      const sample = await this.#connection.read((nc) => this.#ask(nc))
      best = best ? tighter(best, sample) : sample
    }
    if (!best) return
    this.#readMs = performance.now()
    const before = this.#sample
    // Bounds that exclude each other: the server's clock was set, or another server leads now. The
    // new ones hold.
    const agree = before && leastOf(before) <= mostOf(best) && leastOf(best) <= mostOf(before)
    this.#sample = agree ? tighter(before, best) : best
  }

  async #ask(nc: Connection['nc']): Promise<Sample> {
    const sentMs = performance.now()
    const reply = await ask(nc, apiSubject(nc, `STREAM.INFO.${this.#stream}`), '', { timeoutMs: 5000 })
    const cameMs = performance.now()
    const body = decode(reply.data, undefined)
    const serverMs = Date.parse(String(typeof body === 'object' && body !== null ? Reflect.get(body, 'ts') : ''))
    if (Number.isNaN(serverMs)) throw new FlowStoneError('protocol', `the information on ${this.#stream} has no time`)
    // Its time has more digits than are read here.
    const most = { offset: serverMs + 1 - sentMs, atMs: sentMs }
    return { least: { offset: serverMs - cameMs, atMs: cameMs }, most }
  }
}

function leastOf({ least }: Sample): number {
  const nowMs = performance.now()
  return nowMs + least.offset - (nowMs - least.atMs) * DRIFT
}

function mostOf({ most }: Sample): number {
  const nowMs = performance.now()
  return nowMs + most.offset + (nowMs - most.atMs) * DRIFT
}

function tighter(a: Sample, b: Sample): Sample {
  return {
    least: leastOf(a) >= leastOf(b) ? a.least : b.least,
    most: mostOf(a) <= mostOf(b) ? a.most : b.most,
  }
}
