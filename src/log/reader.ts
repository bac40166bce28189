/**
 * Reads a stream in order from a sequence, and continues as messages come. A consumer that looks
 * alive may deliver nothing, so the reader asks the stream from time to time how far it is.
 */
import type { Msg } from '@nats-io/nats-core'
import { FlowStoneError } from '../../streams/errors.ts'
import type { Connection } from './connection.ts'
import { ReceivedHeaders, receivedText } from './headers.ts'
import { anyBetween, headerMap, type StoredMessage, streamBounds } from './nats.ts'
import { OrderedPull } from './ordered-pull.ts'
import { reportsOf } from './reports.ts'

const LOOK_MS = 5000
/** A stream that seems to end before what was read of it is looked at again. */
const SHORT_LOOK_MS = 1000
/**
 * A caller that waits for a position checks after these times whether any message can still come.
 * Mostly one comes sooner, and the question would hold it up.
 */
const GONE_FIRST_MS = 50
const GONE_LOOK_MS = 500
/** Between two consumers of which the first one gave nothing, so that they do not pile up. */
const PAUSE_MS = 100
const PAUSE_MAX_MS = 1000
/** So many messages are held here, or bytes of them, and it asks for no more. */
const HELD_MAX = 500
const HELD_BYTES = 512 * 1024

export class Reader {
  readonly #connection: Connection
  readonly #stream: string
  #next: number
  #held: StoredMessage[] = []
  #heldBytes = 0
  #wake: (() => void) | undefined
  #pull: OrderedPull | undefined
  #stopped = false
  #timer: NodeJS.Timeout | undefined
  #seenAtLook = -1
  #isShort = false
  #created: string | undefined
  #failure: FlowStoneError | undefined
  readonly #filter: string | undefined
  readonly #offReconnect: () => void

  /**
   * Starts with the message at `from`, or the first one after it. `filter`: only messages of this
   * subject.
   */
  constructor(connection: Connection, stream: string, from: number, filter?: string) {
    this.#filter = filter
    // A server that was started again has forgotten the consumer, and its silence would be noticed
    // only when heartbeats are missed.
    this.#offReconnect = connection.onReconnect(() => this.#pull?.stop())
    this.#connection = connection
    this.#stream = stream
    this.#next = from
    this.#timer = setInterval(() => void this.#look(), LOOK_MS)
    this.#timer.unref()
    void this.#pump()
  }

  /**
   * Waits for messages, and takes those available, at most `max`. Empty only when stopped, or, with
   * `upTo`, when no more can come up to that sequence. Throws FlowStoneError `log_changed` when the
   * stream is no longer the one that was read until now, and `closed` with its connection.
   */
  async take(max: number, upTo?: number): Promise<StoredMessage[]> {
    for (let waitMs = GONE_FIRST_MS; this.#held.length === 0 && !this.#stopped; waitMs = GONE_LOOK_MS) {
      if (upTo !== undefined && this.#next > upTo) return []
      await new Promise<void>((resolve) => {
        const timer = upTo === undefined ? undefined : setTimeout(resolve, waitMs)
        this.#wake = () => {
          this.#wake = undefined
          clearTimeout(timer)
          // Who reads what is there takes it with what else has come in this turn of the event
          // loop. Who waits for what is new gets it at once.
          if (upTo === undefined) resolve()
          else setImmediate(resolve)
        }
      })
      if (upTo === undefined || this.#held.length > 0 || this.#stopped) continue
      if (await this.#nothingUpTo(upTo)) return []
    }
    if (this.#failure) throw this.#failure
    const taken = this.#held.length <= max ? this.#held : this.#held.slice(0, max)
    this.#held = this.#held.length <= max ? [] : this.#held.slice(max)
    for (const { payload } of taken) this.#heldBytes -= payload.length
    this.#pull?.more()
    return taken
  }

  async #nothingUpTo(seq: number): Promise<boolean> {
    const from = this.#next
    if (from > seq) return true
    try {
      return !(await anyBetween(this.#connection.nc, this.#stream, from, seq)) && this.#next === from
    } catch {
      // Asked again soon.
      return false
    }
  }

  get isEmpty(): boolean {
    return this.#held.length === 0
  }

  stop(): void {
    this.#stopped = true
    clearInterval(this.#timer)
    this.#offReconnect()
    this.#pull?.stop()
    this.#wake?.()
  }

  async #pump(): Promise<void> {
    for (let pauseMs = PAUSE_MS; !this.#stopped; ) {
      const from = this.#next
      try {
        const opening = this.#open()
        const pull = await this.#connection.untilDisconnect(() => opening)
        // It may still come, from the next server; by then another one is there.
        if (!pull) opening.then((late) => late.stop()).catch(() => undefined)
        this.#pull = pull
        if (this.#stopped) pull?.stop()
        await pull?.ended
        pauseMs = this.#next > from ? PAUSE_MS : Math.min(PAUSE_MAX_MS, pauseMs * 2)
      } catch (error) {
        // The server is away or forgot the consumer; a new one starts at #next.
        if (error instanceof FlowStoneError && error.code === 'too_many_readers') {
          reportsOf(this.#connection.nc)?.crowded(this.#stream, error)
          pauseMs = PAUSE_MAX_MS
        }
      }
      // Who waits would take an empty answer for the end of the stream.
      if (this.#connection.isClosed) this.#fail('closed', `the connection was closed while ${this.#stream} was read`)
      if (!this.#stopped) await this.#connection.ready(pauseMs)
    }
  }

  async #open(): Promise<OrderedPull> {
    return await OrderedPull.open(this.#connection, {
      stream: this.#stream,
      from: this.#next,
      filters: this.#filter === undefined ? [] : [this.#filter],
      hasRoom: () => this.#held.length < HELD_MAX && this.#heldBytes < HELD_BYTES,
      onMessage: (message, seq, timeMs) => {
        // A consumer that was made late starts where the one before should have been; what came
        // twice is dropped.
        if (this.#stopped || seq < this.#next) return
        this.#next = seq + 1
        this.#held.push(toStored(message, seq, timeMs))
        this.#heldBytes += message.data.length
        this.#wake?.()
      },
    })
  }

  async #look(): Promise<void> {
    if (this.#connection.isClosed || this.#stopped) return
    try {
      const { nc } = this.#connection
      // Before the stream is asked: messages may overtake its answer, which then ends before them.
      const read = this.#next - 1
      const { last, created } = await streamBounds(nc, this.#stream, 2000)
      this.#created ??= created
      const wasShort = this.#isShort
      this.#isShort = last < read
      // In a cluster the server that is read may be a moment ahead of the leader.
      if (this.#isShort && !wasShort && created === this.#created) {
        setTimeout(() => void this.#look(), SHORT_LOOK_MS).unref()
        return
      }
      if (created !== this.#created || this.#isShort) {
        const what = `stream ${this.#stream} is another one than before`
        this.#fail('log_changed', `${what}: made ${created}, its last message is ${last}`)
        return
      }
      const from = this.#next
      const behind =
        this.#held.length === 0 &&
        last >= from &&
        (this.#filter !== undefined || (await anyBetween(nc, this.#stream, from, last)))
      // Behind, and not a step further since the last look: this consumer is dead, whatever it
      // says.
      if (behind && this.#seenAtLook === this.#next) this.#pull?.stop()
      this.#seenAtLook = behind ? from : -1
    } catch (error) {
      // Anything else is asked again at the next look.
      if (error instanceof FlowStoneError && error.code === 'no_stream') this.#fail('log_changed', error.message)
    }
  }

  #fail(code: 'log_changed' | 'closed', message: string): void {
    if (this.#stopped) return
    this.#failure = new FlowStoneError(code, message)
    this.stop()
  }
}

/** As it came from a consumer. */
export function toStored(message: Msg, seq: number, timeMs: number): StoredMessage {
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
