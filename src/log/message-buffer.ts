/** What a consumer brought and nobody has taken yet. */
import type { Msg } from '@nats-io/nats-core'
import { ReceivedHeaders, receivedText } from './headers.ts'
import { headerMap, type StoredMessage } from './nats.ts'

const MESSAGES = 500
const BYTES = 512 * 1024

/** Messages of a stream in order, however many consumers bring them, one after the other. */
export class MessageBuffer {
  #messages: StoredMessage[] = []
  #bytes = 0
  #next: number

  /** `from`: sequence of the first message that is taken in. */
  constructor(from: number) {
    this.#next = from
  }

  /** Behind the last message that came: where the next consumer begins. */
  get next(): number {
    return this.#next
  }

  get isEmpty(): boolean {
    return this.#messages.length === 0
  }

  /** False: whoever fills it asks for no more. */
  get hasRoom(): boolean {
    return this.#messages.length < MESSAGES && this.#bytes < BYTES
  }

  /** False when it came before: a consumer that was made late starts where the one before began. */
  add(message: Msg, seq: number, timeMs: number): boolean {
    if (seq < this.#next) return false
    this.#next = seq + 1
    this.#messages.push(stored(message, seq, timeMs))
    this.#bytes += message.data.length
    return true
  }

  /** The first ones, at most `max`. */
  take(max: number): StoredMessage[] {
    const all = this.#messages
    const taken = all.length <= max ? all : all.slice(0, max)
    this.#messages = all.length <= max ? [] : all.slice(max)
    for (const { payload } of taken) this.#bytes -= payload.length
    return taken
  }
}

function stored(message: Msg, seq: number, timeMs: number): StoredMessage {
  const { subject, data: payload } = message
  const text = receivedText(message)
  return {
    subject,
    seq,
    timeMs,
    payload,
    headers: text === undefined ? headerMap(message.headers) : new ReceivedHeaders(text),
  }
}
