/**
 * The server's clock, as far as a client can know it. Clocks of hosts differ, sometimes by minutes, so whatever is compared with or written beside a time of the
 * server (deadlines of gates and schedules, limits) is told by this clock and never by `Date.now()`.
 *
 * An answer of the server that carries its time was made after the question was sent and before the answer came. So, on this process's monotonic clock:
 *
 *     answer's time + (since the answer came)   ≤   server's time   ≤   answer's time + (since the question was sent)
 *
 * `atLeast` is the left side: it is never ahead of the server. What must not happen too early (a limit's next grant) goes by it. `now` is the middle.
 * A clock that is stopped with its process (SIGSTOP) or with its machine only makes the left side smaller. Drift between the two clocks is left out: some
 * 50 microseconds a second at the worst, so the clock is read again after `FRESH_MS`.
 */
import { decode } from '../../streams/codec.ts'
import { FlowStoneError } from '../../streams/errors.ts'
import type { Connection } from './connection.ts'

const FRESH_MS = 60_000
/** A sample that took longer than this is too vague; the best of a few is taken. */
const GOOD_RTT_MS = 5
const SAMPLES_MAX = 3

interface Sample {
  /** Server's time minus monotonic time when the answer came, and when the question was sent. */
  readonly least: number
  readonly most: number
  readonly takenMs: number
}

export class ServerClock {
  readonly #connection: Connection
  readonly #stream: string
  #sample: Sample | undefined
  #reading: Promise<void> | undefined

  /** `stream`: any stream of the namespace; the server is asked for its information. */
  constructor(connection: Connection, stream: string) {
    this.#connection = connection
    this.#stream = stream
  }

  /** Reads the clock; must have resolved once before `now` and `atLeast` are asked, which then keep it fresh by themselves. */
  async ready(): Promise<void> {
    if (this.#sample && performance.now() - this.#sample.takenMs < FRESH_MS) return
    this.#reading ??= this.#read().finally(() => {
      this.#reading = undefined
    })
    await this.#reading
  }

  /** Best guess of the server's time, in milliseconds since 1970. Not rounded. */
  now(): number {
    const { least, most } = this.#known()
    return performance.now() + (least + most) / 2
  }

  /** The server's time is this or later. */
  atLeast(): number {
    return performance.now() + this.#known().least
  }

  /** Takes a time of the server that was just received (of a stored message, say): it may be later than what was thought possible. */
  heard(serverMs: number): void {
    const least = serverMs - performance.now()
    if (this.#sample && least > this.#sample.least)
      this.#sample = { ...this.#sample, least, most: Math.max(least, this.#sample.most) }
  }

  #known(): Sample {
    if (!this.#sample) throw new FlowStoneError('internal', 'the server clock was asked before it was read')
    // An older reading is vaguer by its drift, and no less true: nobody waits for the new one.
    if (performance.now() - this.#sample.takenMs >= FRESH_MS && !this.#connection.isClosed) this.ready().catch(() => {})
    return this.#sample
  }

  async #read(): Promise<void> {
    let best: Sample | undefined
    for (let i = 0; i < SAMPLES_MAX && !(best && best.most - best.least < GOOD_RTT_MS); i++) {
      const sample = await this.#connection.read((nc) => this.#ask(nc))
      if (!best || sample.most - sample.least < best.most - best.least) best = sample
    }
    this.#sample = best
  }

  async #ask(nc: Connection['nc']): Promise<Sample> {
    const sentMs = performance.now()
    const reply = await nc.request(`$JS.API.STREAM.INFO.${this.#stream}`, '', { timeout: 5000 })
    const cameMs = performance.now()
    const body = decode(reply.data, undefined)
    const serverMs = Date.parse(String(typeof body === 'object' && body !== null ? Reflect.get(body, 'ts') : ''))
    if (Number.isNaN(serverMs)) throw new FlowStoneError('protocol', `the information on ${this.#stream} has no time`)
    return { least: serverMs - cameMs, most: serverMs + 1 - sentMs, takenMs: cameMs }
  }
}
