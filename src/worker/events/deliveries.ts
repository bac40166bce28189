/** Messages of a consumer that was just made, in order. Whatever breaks the order ends it. */
import type { Connection } from '../../log/connection.ts'
import { after } from '../../options/timer.ts'
import { type Delivery, Puller } from '../pull/puller.ts'

/** The consumer is gone, or messages were lost on their way: go on with another consumer. */
export class SessionEnd extends Error {}

const LOOK_MS = 5000

export class Deliveries {
  readonly #connection: Connection
  readonly #puller: Puller
  readonly #held: Delivery[] = []
  #next = 1
  #broken = false
  #wake: (() => void) | undefined

  constructor(connection: Connection, stream: string, consumer: string) {
    this.#connection = connection
    const trouble = (): void => {
      this.#broken = true
      this.#wake?.()
    }
    const delivery = (one: Delivery): void => {
      if (one.consumerSeq !== this.#next || one.count !== 1) trouble()
      else {
        this.#next += 1
        this.#held.push(one)
      }
      this.#wake?.()
    }
    this.#puller = new Puller(connection, stream, consumer, 0, { delivery, trouble })
  }

  /** What is there, `want` at most; empty after a while without any. Throws SessionEnd. */
  async take(want: number, signal: AbortSignal): Promise<Delivery[]> {
    if (this.#held.length === 0 && !this.#broken) await this.#puller.pull(want)
    if (this.#held.length === 0 && !this.#broken && !signal.aborted) {
      this.#puller.block()
      await this.#woken(signal)
    }
    // What came before it broke came in order.
    if (this.#broken && this.#held.length === 0) throw new SessionEnd('the consumer is gone')
    // More may be here: what an earlier request asked for may come late.
    return this.#held.splice(0, want)
  }

  ack(deliveries: readonly Delivery[]): void {
    for (const { reply } of deliveries) this.#connection.tell(reply, '+ACK')
  }

  async close(): Promise<void> {
    this.#puller.stop()
    await this.#puller.close()
  }

  async #woken(signal: AbortSignal): Promise<void> {
    await new Promise<void>((resolve) => {
      const done = (): void => {
        timer.cancel()
        signal.removeEventListener('abort', done)
        resolve()
      }
      const timer = after(LOOK_MS, done)
      this.#wake = done
      signal.addEventListener('abort', done)
    })
    this.#wake = undefined
  }
}
