/**
 * Reads a stream in order from a sequence, and continues as messages come. A consumer that looks
 * alive may deliver nothing, so the reader asks the stream from time to time how far it is.
 */
import { FlowStoneError } from '../../streams/errors.ts'
import type { Connection } from './connection.ts'
import { MessageBuffer } from './message-buffer.ts'
import { anyBetween, type StoredMessage, streamBounds } from './nats.ts'
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

export interface ReaderOptions {
  /** Only messages of this subject. */
  readonly filter?: string
  /**
   * What follows when the server does not let it read: it waits until somebody gives it the
   * permission (default), or `take` throws FlowStoneError `denied`.
   */
  readonly onDenied?: 'wait' | 'throw'
}

export class Reader {
  readonly #connection: Connection
  readonly #stream: string
  readonly #buffer: MessageBuffer
  #wake: (() => void) | undefined
  #pull: OrderedPull | undefined
  #stopped = false
  #timer: NodeJS.Timeout | undefined
  #seenAtLook = -1
  #isShort = false
  #created: string | undefined
  #failure: FlowStoneError | undefined
  readonly #options: ReaderOptions
  readonly #offReconnect: () => void

  /** Starts with the message at `from`, or the first one after it. */
  constructor(connection: Connection, stream: string, from: number, options: ReaderOptions = {}) {
    this.#options = options
    // A server that was started again has forgotten the consumer, and its silence would be noticed
    // only when heartbeats are missed.
    this.#offReconnect = connection.onReconnect(() => this.#pull?.stop())
    this.#connection = connection
    this.#stream = stream
    this.#buffer = new MessageBuffer(from)
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
    for (let waitMs = GONE_FIRST_MS; this.#buffer.isEmpty && !this.#stopped; waitMs = GONE_LOOK_MS) {
      if (upTo !== undefined && this.#buffer.next > upTo) return []
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
      if (upTo === undefined || !this.#buffer.isEmpty || this.#stopped) continue
      if (await this.#nothingUpTo(upTo)) return []
    }
    if (this.#failure) throw this.#failure
    const taken = this.#buffer.take(max)
    this.#pull?.more()
    return taken
  }

  async #nothingUpTo(seq: number): Promise<boolean> {
    const from = this.#buffer.next
    if (from > seq) return true
    try {
      return !(await anyBetween(this.#connection.nc, this.#stream, from, seq)) && this.#buffer.next === from
    } catch {
      // Asked again soon.
      return false
    }
  }

  get isEmpty(): boolean {
    return this.#buffer.isEmpty
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
      const from = this.#buffer.next
      try {
        const opening = this.#open()
        const pull = await this.#connection.untilDisconnect(() => opening)
        // It may still come, from the next server; by then another one is there.
        if (!pull) opening.then((late) => late.stop()).catch(() => undefined)
        this.#pull = pull
        if (this.#stopped) pull?.stop()
        await pull?.ended
        if (pull?.denied) throw pull.denied
        pauseMs = this.#buffer.next > from ? PAUSE_MS : Math.min(PAUSE_MAX_MS, pauseMs * 2)
      } catch (error) {
        // The server is away or forgot the consumer; a new one starts behind what came.
        const refusal = error instanceof FlowStoneError ? error : undefined
        if (refusal?.code === 'denied' && this.#options.onDenied === 'throw') this.#fail(refusal)
        if (refusal?.code === 'too_many_readers') reportsOf(this.#connection.nc)?.crowded(this.#stream, refusal)
        if (refusal?.code === 'denied' || refusal?.code === 'too_many_readers') pauseMs = PAUSE_MAX_MS
      }
      // Who waits would take an empty answer for the end of the stream.
      if (this.#connection.isClosed)
        this.#fail(new FlowStoneError('closed', `the connection was closed while ${this.#stream} was read`))
      if (!this.#stopped) await this.#connection.ready(pauseMs)
    }
  }

  async #open(): Promise<OrderedPull> {
    const { filter } = this.#options
    return await OrderedPull.open(this.#connection, {
      stream: this.#stream,
      from: this.#buffer.next,
      filters: filter === undefined ? [] : [filter],
      hasRoom: () => this.#buffer.hasRoom,
      onMessage: (message, seq, timeMs) => {
        if (!this.#stopped && this.#buffer.add(message, seq, timeMs)) this.#wake?.()
      },
    })
  }

  async #look(): Promise<void> {
    if (this.#connection.isClosed || this.#stopped) return
    try {
      const { nc } = this.#connection
      // Before the stream is asked: messages may overtake its answer, which then ends before them.
      const read = this.#buffer.next - 1
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
        this.#fail(new FlowStoneError('log_changed', `${what}: made ${created}, its last message is ${last}`))
        return
      }
      const from = this.#buffer.next
      const behind =
        this.#buffer.isEmpty &&
        last >= from &&
        (this.#options.filter !== undefined || (await anyBetween(nc, this.#stream, from, last)))
      // Behind, and not a step further since the last look: this consumer is dead, whatever it
      // says.
      if (behind && this.#seenAtLook === this.#buffer.next) this.#pull?.stop()
      this.#seenAtLook = behind ? from : -1
    } catch (error) {
      // Anything else is asked again at the next look.
      if (error instanceof FlowStoneError && error.code === 'no_stream')
        this.#fail(new FlowStoneError('log_changed', error.message))
    }
  }

  #fail(error: FlowStoneError): void {
    if (this.#stopped) return
    this.#failure = error
    this.stop()
  }
}
