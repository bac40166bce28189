/**
 * Pulls tasks from one consumer, by request: as many as asked for at once, or the next one when it
 * comes. A subscription for each of the two, because a delivery carries the subject of its stream
 * and does not say which request it answers.
 */
import type { Msg, Subscription } from '@nats-io/nats-core'
import { encodeJson } from '../../../streams/codec.ts'
import { apiSubject } from '../../../streams/jetstream.ts'
import { inboxOf } from '../../log/ask.ts'
import type { Connection } from '../../log/connection.ts'
import { listen } from '../../log/listen.ts'
import { headerMap } from '../../log/nats.ts'
import { every, type Timer } from '../../options/timer.ts'

export interface Delivery {
  readonly subject: string
  readonly payload: Uint8Array
  readonly headers: ReadonlyMap<string, string>
  /** Where to acknowledge. */
  readonly reply: string
  /** How often this message was delivered, this time included. */
  readonly count: number
  readonly streamSeq: number
  /** Which delivery of its consumer this is, from 1, redeliveries counted. */
  readonly consumerSeq: number
  /** Server time of the message. */
  readonly timeMs: number
  readonly shard: number
  /** The server cannot have sent it longer ago than this: it answers a request of then. */
  readonly underWayMs: number
  /** How many messages the consumer had to deliver after this one. */
  readonly behind: number
  /** Until it is acknowledged, it keeps one of few places. */
  readonly isLimited: boolean
}

/** Statuses that say no more than: nothing there now. */
const NOTHING_THERE: ReadonlySet<number> = new Set([404, 408])
const BLOCK_MS = 30_000
const BLOCK_GRACE_MS = 1000
/**
 * The server confirms at the first interval that it still knows of a request. Without a
 * confirmation for the second, the request is sent again: a change of leader loses requests
 * silently.
 */
const HEARTBEAT_MS = 700
const SILENCE_MS = 1800
const LOOK_MS = 250
const HEARTBEAT = 100
const NANOS_PER_MS = 1_000_000

export class Puller {
  readonly #connection: Connection
  readonly #subject: string
  readonly shard: number
  readonly #inbox: string
  readonly #subscriptions: readonly Subscription[]
  readonly #onDelivery: (delivery: Delivery) => void
  readonly #onTrouble: () => void
  readonly #standing: boolean
  #quick: { want: number; got: number; done: (got: number) => void } | undefined
  /**
   * Tasks that were asked for as they come, and did not come yet; and when the server lets go of
   * the last of these requests.
   */
  #asked = 0
  #askedUntilMs = 0
  /** When the oldest request was made that may still be answered. */
  #blockSinceMs = 0
  #quickSinceMs = 0
  #heardMs = 0
  #lookedMs = 0
  #looking: Timer | undefined
  readonly #offReconnect: () => void
  #inTrouble = false
  #stopped = false
  /**
   * The server said last that there is nothing more: to ask again for what is there would be of no
   * use, to ask for what comes is.
   */
  #dry = false

  constructor(
    connection: Connection,
    stream: string,
    consumer: string,
    shard: number,
    on: { delivery: (delivery: Delivery) => void; trouble: () => void },
    /**
     * Asks always for what comes: of a limited queue there is hardly ever more there than the
     * server may let out.
     */
    options: { standing?: boolean } = {},
  ) {
    this.#standing = options.standing ?? false
    this.#connection = connection
    this.#subject = apiSubject(connection.nc, `CONSUMER.MSG.NEXT.${stream}.${consumer}`)
    this.shard = shard
    this.#onDelivery = on.delivery
    this.#onTrouble = on.trouble
    const { nc } = connection
    this.#inbox = inboxOf(nc)
    this.#subscriptions = [
      listen(nc, `${this.#inbox}.quick`, (message) => this.#receiveQuick(message)),
      listen(nc, `${this.#inbox}.block`, (message) => this.#receiveBlocked(message)),
    ]
    // Requests do not outlive a connection.
    this.#offReconnect = connection.onReconnect(() => this.#trouble())
  }

  /**
   * Whether the consumer may be gone: nobody answered for it, it was deleted, or the server is
   * another one. Asking it again is of no use then.
   */
  get inTrouble(): boolean {
    return this.#inTrouble
  }

  /** The consumer is there, as far as is known. */
  restored(): void {
    this.#inTrouble = false
  }

  /**
   * Takes what is there now, `want` at most; resolves with how many came. Where there was nothing a
   * moment ago, it only has the next one sent (see `block`).
   */
  async pull(want: number): Promise<number> {
    if (this.#dry || this.#standing) {
      this.block(want)
      return 0
    }
    this.#quickSinceMs = performance.now()
    return await new Promise<number>((resolve) => {
      const timer = setTimeout(() => this.#endQuick(), 2000)
      this.#quick = {
        want,
        got: 0,
        done: (got) => {
          clearTimeout(timer)
          resolve(got)
        },
      }
      this.#connection.tell(this.#subject, encodeJson({ batch: want, no_wait: true }), {
        reply: `${this.#inbox}.quick`,
      })
    })
  }

  /**
   * Has the next task sent when there is one; of a limited queue, the next `want` ones. What was
   * asked for before counts.
   */
  block(want = 1): void {
    const now = performance.now()
    if (now > this.#askedUntilMs) this.#asked = 0
    const more = (this.#standing ? want : 1) - this.#asked
    // Not for each that came.
    if (more <= 0 || this.#asked > want / 2) return
    if (this.#asked === 0) this.#blockSinceMs = now
    this.#asked += more
    const request = {
      batch: more,
      expires: BLOCK_MS * NANOS_PER_MS,
      idle_heartbeat: HEARTBEAT_MS * NANOS_PER_MS,
    }
    this.#askedUntilMs = now + BLOCK_MS + BLOCK_GRACE_MS
    this.#connection.tell(this.#subject, encodeJson(request), {
      reply: `${this.#inbox}.block`,
    })
    this.#heardMs = now
    this.#lookedMs = now
    this.#looking ??= every(LOOK_MS, () => this.#look())
  }

  /** Asks for no more. What was sent already still arrives, until `close`. */
  stop(): void {
    this.#stopped = true
    this.#offReconnect()
    this.#looking?.cancel()
    this.#looking = undefined
    this.#endQuick()
  }

  /**
   * What the server has sent by now is still handed on; a delivery that nobody takes would come
   * again only after `ackWait`, as if its worker had died.
   */
  async close(): Promise<void> {
    if (this.#connection.isClosed) return
    await Promise.all(this.#subscriptions.map((subscription) => subscription.drain().catch(() => undefined)))
  }

  /**
   * A message without a reply is a status of the server: nothing there (404), expired (408), or
   * trouble.
   */
  #receiveQuick(message: Msg): void {
    const quick = this.#quick
    if (!message.reply) {
      this.#status(message)
      this.#endQuick()
      return
    }
    if (quick) {
      quick.got += 1
      if (quick.got >= quick.want) this.#endQuick()
    }
    this.#deliver(message, quick ? this.#quickSinceMs : Number.NEGATIVE_INFINITY)
  }

  /** Whether what was asked for was lost on the way. */
  #look(): void {
    const now = performance.now()
    // Code that held up this process held up what came meanwhile, too.
    const late = now - this.#lookedMs > LOOK_MS * 2
    this.#lookedMs = now
    if (this.#stopped || this.#asked === 0 || this.#inTrouble || this.#connection.isClosed) {
      this.#looking?.cancel()
      this.#looking = undefined
      return
    }
    if (late || !this.#connection.isUp) this.#heardMs = now
    if (now - this.#heardMs < SILENCE_MS) return
    const lost = this.#asked
    const sinceMs = this.#blockSinceMs
    this.#asked = 0
    this.block(lost)
    // Should it not be lost after all, it may still be answered.
    this.#blockSinceMs = sinceMs
  }

  #receiveBlocked(message: Msg): void {
    this.#heardMs = performance.now()
    if (message.reply) {
      const isAsked = this.#asked > 0
      this.#asked = Math.max(0, this.#asked - 1)
      this.#deliver(message, isAsked ? this.#blockSinceMs : Number.NEGATIVE_INFINITY)
      return
    }
    if (message.headers?.code === HEARTBEAT) return
    // The request came to its end with some of it open, and nobody else notices.
    const open = Number(message.headers?.get('Nats-Pending-Messages') ?? Number.NaN)
    this.#asked = Number.isNaN(open) ? 0 : Math.max(0, this.#asked - open)
    this.#status(message)
    if (!this.#inTrouble && !this.#stopped) this.block()
  }

  #status(message: Msg): void {
    if (NOTHING_THERE.has(message.headers?.code ?? 0)) this.#dry = true
    else this.#trouble()
  }

  #trouble(): void {
    this.#inTrouble = true
    this.#dry = false
    this.#asked = 0
    this.#endQuick()
    this.#onTrouble()
  }

  #deliver(message: Msg, sinceMs: number): void {
    const delivery = parseDelivery(message, this.shard, performance.now() - sinceMs, this.#standing)
    if (!delivery) return
    this.#dry = delivery.behind === 0
    this.#onDelivery(delivery)
  }

  #endQuick(): void {
    const quick = this.#quick
    this.#quick = undefined
    quick?.done(quick.got)
  }
}

/**
 * `$JS.ACK.<stream>.<consumer>.<count>.<stream seq>.<consumer seq>.<nanoseconds>.<pending>`, or
 * with domain and account hash in front.
 */
function parseDelivery(message: Msg, shard: number, underWayMs: number, isLimited: boolean): Delivery | undefined {
  const tokens = (message.reply ?? '').split('.')
  const at = tokens.length === 9 ? 4 : 6
  const [count, streamSeq, consumerSeq = 0, nanos, behind = 1] = tokens.slice(at).map(Number)
  if (count === undefined || streamSeq === undefined || nanos === undefined) return undefined
  return {
    subject: message.subject,
    payload: message.data,
    headers: headerMap(message.headers),
    reply: message.reply ?? '',
    count,
    streamSeq,
    consumerSeq,
    timeMs: Math.floor(nanos / NANOS_PER_MS),
    shard,
    underWayMs,
    behind,
    isLimited,
  }
}
