/**
 * The messages of a stream in order, from a consumer that is deleted when nobody reads any more. It
 * ends at whatever is out of order: a message that was skipped, silence, a consumer that is gone.
 * Whoever reads makes another one, which begins behind the last message that came.
 *
 * The client library has such a consumer, too. It has at most 100 messages on their way, and hands
 * each on through an iterator. See docs/decisions/own-protocol.md for what that costs.
 */
import { errors, type Msg, type Subscription } from '@nats-io/nats-core'
import { decode, encodeJson } from '../../streams/codec.ts'
import type { FlowStoneError } from '../../streams/errors.ts'
import { apiSubject } from '../../streams/jetstream.ts'
import { every, type Timer } from '../options/timer.ts'
import { ask, inboxOf } from './ask.ts'
import type { Connection } from './connection.ts'
import { crowdedError } from './crowded.ts'
import { listen } from './listen.ts'
import { ApiError, ERR, noStream } from './nats.ts'

/** Where in the reply subject what is, counted from the stream's sequence. */
const CONSUMER_SEQ = 1
const NANOS = 2
/** The reply subject has domain and account in front of the rest, or it has not. */
const AT_SHORT = 5
const AT_LONG = 7
const LONG_TOKENS = 11

/** Messages of a request, and bytes of them. */
const BATCH = 500
/**
 * Open requests get messages in turn. The first one is for half as many, so that not all of them
 * end together.
 */
const OPEN_MAX = 2
const BATCH_BYTES = 1024 * 1024
/** What a message has beside its payload. */
const EXTRA_BYTES = 64 * 1024
const LARGEST_BYTES = 256 * 1024 * 1024
const EXPIRES_MS = 30_000
const HEARTBEAT_MS = 1000
/** Two heartbeats are missing, so it asks whether the server is there. */
const SILENCE_MS = 2500
const LOOK_MS = 500
/** A server that has just started answers in milliseconds, or not at all. */
const ANSWER_MS = 2000
/**
 * The server forgets a consumer that nobody asked for so long. One that was not asked for nearly as
 * long is not asked any more: over a leaf node, nobody would say that it is gone.
 */
const FORGET_MS = 60_000
const OLD_MS = 50_000
const NANOS_PER_MS = 1_000_000

const HEARTBEAT = 100
const EXPIRED = 408
const CONFLICT = 409
/** A request with a bound of bytes has got all its messages. */
const COMPLETED = 'batch completed'
/** The next message does not fit into what is left of the bound. */
const TOO_LARGE = 'exceeds maxbytes'

export interface PullOptions {
  readonly stream: string
  /** Sequence of the first message. */
  readonly from: number
  /** Only messages under these subjects, of which none covers another one. */
  readonly filters?: readonly string[] | undefined
  readonly onMessage: (message: Msg, seq: number, timeMs: number) => void
  /** Whether there is room for another request's messages: 500, and some 1 MB. */
  readonly hasRoom: () => boolean
}

export class OrderedPull {
  /** Resolves when nothing more comes. */
  readonly ended: Promise<void>
  readonly #end: () => void
  readonly #connection: Connection
  readonly #options: PullOptions
  readonly #consumer: string
  readonly #subject: string
  readonly #inbox: string
  readonly #subscription: Subscription
  readonly #looking: Timer
  readonly #offDenied: () => void
  #hasEnded = false
  #denied: FlowStoneError | undefined
  /** The consumer counts what it delivers. */
  #delivered = 0
  /** Messages that were asked for and did not come yet. */
  #asked = 0
  #requests = 0
  /** Where the answers go of requests that have not ended, as far as is known. */
  readonly #open = new Set<string>()
  readonly #batch: number
  #maxBytes: number
  #askedMs = 0
  /** It asked again because nothing came, not even a heartbeat. */
  #hasAskedAgain = false
  #isLooking = false
  #heardMs = performance.now()
  #lookedMs = this.#heardMs

  /**
   * Makes the consumer, and asks for the first messages. Rejects when the server does not make it:
   * FlowStoneError `too_many_readers` where it may not, `no_stream`, or `jetstream`.
   */
  static async open(connection: Connection, options: PullOptions): Promise<OrderedPull> {
    const { stream, from, filters = [] } = options
    const [filter] = filters.length === 1 ? filters : []
    const { nc } = connection
    const name = inboxOf(nc).split('.').at(-1) ?? ''
    const config = {
      name,
      deliver_policy: 'by_start_sequence',
      opt_start_seq: Math.max(1, from),
      ack_policy: 'none',
      max_deliver: 1,
      num_replicas: 1,
      mem_storage: true,
      inactive_threshold: FORGET_MS * NANOS_PER_MS,
      ...(filter === undefined ? {} : { filter_subject: filter }),
      ...(filters.length > 1 ? { filter_subjects: filters } : {}),
    }
    const rest = filter === undefined ? '' : `.${filter}`
    const subject = apiSubject(nc, `CONSUMER.CREATE.${stream}.${name}${rest}`)
    const request = encodeJson({ stream_name: stream, config })
    const reply = await ask(nc, subject, request, { timeoutMs: ANSWER_MS }).catch((error: unknown) => {
      // The server may have made it, or be about to.
      if (error instanceof errors.TimeoutError) forget(connection, stream, name)
      throw error
    })
    const body: unknown = Object(decode(reply.data, undefined))
    const error: unknown = Reflect.get(Object(body), 'error')
    if (error !== undefined) throw refusal(stream, Object(error))
    return new OrderedPull(connection, name, options, Object(Reflect.get(Object(body), 'config')))
  }

  private constructor(connection: Connection, consumer: string, options: PullOptions, limits: object) {
    const { nc } = connection
    const { promise, resolve } = Promise.withResolvers<void>()
    this.ended = promise
    this.#end = resolve
    this.#connection = connection
    this.#options = options
    this.#consumer = consumer
    this.#subject = apiSubject(nc, `CONSUMER.MSG.NEXT.${options.stream}.${consumer}`)
    this.#inbox = inboxOf(nc)
    // A server may bound what one request asks for.
    const limit = Number(Reflect.get(limits, 'max_batch'))
    this.#batch = limit > 0 ? Math.min(limit, BATCH) : BATCH
    this.#maxBytes = Math.max(BATCH_BYTES, connection.maxPayload + EXTRA_BYTES)
    this.#subscription = listen(
      nc,
      `${this.#inbox}.*`,
      (message) => this.#receive(message),
      () => this.stop(),
    )
    void this.#subscription.closed.then(() => this.stop())
    this.#offDenied = connection.onDenied(this.#subject, (error) => {
      this.#denied = error
      this.stop()
    })
    this.#looking = every(LOOK_MS, () => this.#look(), { unref: true })
    this.more()
  }

  get hasEnded(): boolean {
    return this.#hasEnded
  }

  /** Of one that has ended because it may not ask for messages: FlowStoneError `denied`. */
  get denied(): FlowStoneError | undefined {
    return this.#denied
  }

  /** When anything came from the server, also a heartbeat (ms, as `performance.now()`). */
  get heardMs(): number {
    return this.#heardMs
  }

  /** Asks for more, if there is room and little is on its way. */
  more(): void {
    if (this.#hasEnded || this.#open.size >= OPEN_MAX || !this.#options.hasRoom()) return
    const now = performance.now()
    if (this.#requests > 0 && now - this.#askedMs > OLD_MS) {
      this.stop()
      return
    }
    const batch = this.#requests === 0 ? Math.ceil(this.#batch / 2) : this.#batch
    if (this.#asked === 0) this.#heardMs = now
    this.#askedMs = now
    this.#asked += batch
    this.#requests += 1
    const reply = `${this.#inbox}.${this.#requests}`
    this.#open.add(reply)
    const request = {
      batch,
      max_bytes: this.#maxBytes,
      expires: EXPIRES_MS * NANOS_PER_MS,
      idle_heartbeat: HEARTBEAT_MS * NANOS_PER_MS,
    }
    this.#connection.tell(this.#subject, encodeJson(request), { reply })
  }

  stop(): void {
    if (this.#hasEnded) return
    this.#hasEnded = true
    this.#looking.cancel()
    this.#offDenied()
    try {
      this.#subscription.unsubscribe()
    } catch {
      // The connection is closed.
    }
    forget(this.#connection, this.#options.stream, this.#consumer)
    this.#end()
  }

  #receive(message: Msg): void {
    if (this.#hasEnded) return
    this.#heardMs = performance.now()
    this.#hasAskedAgain = false
    const { reply } = message
    if (!reply) {
      this.#status(message)
      return
    }
    const tokens = reply.split('.')
    const at = tokens.length < LONG_TOKENS ? AT_SHORT : AT_LONG
    if (Number(tokens[at + CONSUMER_SEQ]) !== this.#delivered + 1) {
      this.stop()
      return
    }
    this.#delivered += 1
    this.#asked -= 1
    // Older servers do not say that a request has got all.
    if (this.#asked === 0) this.#open.clear()
    // A number of JavaScript has no place for all digits of nanoseconds.
    const timeMs = Number(tokens[at + NANOS]?.slice(0, -6))
    this.#options.onMessage(message, Number(tokens[at]), timeMs)
    this.more()
  }

  /** What a request says that is not answered by a message. */
  #status(message: Msg): void {
    const { headers } = message
    const code = headers?.code ?? 0
    if (code === HEARTBEAT) return
    const says = code === CONFLICT ? (headers?.description.toLowerCase() ?? '') : ''
    const isTooLarge = says.includes(TOO_LARGE)
    if (code !== EXPIRED && says !== COMPLETED && !isTooLarge) {
      this.stop()
      return
    }
    const left = Number(headers?.get('Nats-Pending-Messages') ?? Number.NaN)
    if (!this.#open.delete(message.subject)) return
    this.#asked = Number.isNaN(left) ? 0 : Math.max(0, this.#asked - left)
    if (this.#asked === 0) this.#open.clear()
    // The next message alone is larger than a whole request.
    const leftBytes = Number(headers?.get('Nats-Pending-Bytes') ?? 0)
    if (isTooLarge && leftBytes >= this.#maxBytes) this.#maxBytes = Math.min(LARGEST_BYTES, this.#maxBytes * 2)
    this.more()
  }

  #look(): void {
    const now = performance.now()
    // What held up this process held up what came meanwhile, too.
    const isLate = now - this.#lookedMs > LOOK_MS * 2
    this.#lookedMs = now
    if (isLate || this.#asked === 0 || !this.#connection.isUp) this.#heardMs = now
    if (now - this.#heardMs > SILENCE_MS) void this.#inSilence()
  }

  /**
   * Nothing was heard, not even a heartbeat. What the server has sent stands before its answer to a
   * ping: on a slow line that may be one large message. If there was nothing, it is asked again: a
   * request whose bytes were used up to the last one ends without a word. In vain: the consumer is
   * gone.
   */
  async #inSilence(): Promise<void> {
    if (this.#isLooking) return
    this.#isLooking = true
    const sinceMs = this.#heardMs
    this.#connection.suspect()
    try {
      await this.#connection.nc.flush()
    } catch {
      // It is closed, or connects anew. Then another one is made.
      return
    } finally {
      this.#isLooking = false
    }
    if (this.#hasEnded || this.#heardMs !== sinceMs) return
    if (this.#hasAskedAgain) {
      this.stop()
      return
    }
    this.#hasAskedAgain = true
    this.#asked = 0
    this.#open.clear()
    this.more()
  }
}

function refusal(stream: string, error: object): FlowStoneError {
  const errCode: unknown = Reflect.get(error, 'err_code')
  if (errCode === ERR.noStream) return noStream(stream)
  const description = String(Reflect.get(error, 'description'))
  return crowdedError(stream, errCode) ?? new ApiError(stream, Number(Reflect.get(error, 'code') ?? 0), description)
}

/**
 * The server would keep it for a minute. It has a bound for the consumers of a stream, and many
 * readers may come and go in that time.
 */
function forget(connection: Connection, stream: string, consumer: string): void {
  connection.tell(apiSubject(connection.nc, `CONSUMER.DELETE.${stream}.${consumer}`), '')
}
