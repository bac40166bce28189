/**
 * Questions to the server, each with one answer. The library's own requests make an error with a stack trace and a timer for each, also when all goes well, which is a
 * tenth of a short asset's time. Here one subscription takes all answers of a connection, and one timer looks after those that do not come.
 */
import { createInbox, errors, type Msg, type MsgHdrs, type NatsConnection } from '@nats-io/nats-core'

interface Awaited {
  readonly subject: string
  readonly deadlineMs: number
  /** True when nothing more comes. */
  readonly take: (answer: Msg) => boolean
  readonly reject: (error: Error) => void
}

/** How late a missing answer may be noticed. */
const LOOK_MS = 100
const NO_RESPONDERS = 503

/** The answer to a message. Rejects as the library's `request` does, with its errors; a missing answer may be noticed up to 100 ms late. */
export function ask(
  nc: NatsConnection,
  subject: string,
  payload: Uint8Array | string,
  options: { readonly timeoutMs: number; readonly headers?: MsgHdrs },
): Promise<Msg> {
  return new Promise((resolve, reject) => {
    const take = (answer: Msg): boolean => {
      resolve(answer)
      return true
    }
    askingOf(nc).ask(subject, payload, options, take, reject)
  })
}

/** As `ask`, for what is answered by several messages: all that come before one without a body, which ends them, and that one. */
export function askMany(
  nc: NatsConnection,
  subject: string,
  payload: Uint8Array | string,
  options: { readonly timeoutMs: number },
): Promise<{ readonly answers: Msg[]; readonly end: Msg }> {
  return new Promise((resolve, reject) => {
    const answers: Msg[] = []
    const take = (answer: Msg): boolean => {
      const isEnd = answer.data.length === 0
      if (isEnd) resolve({ answers, end: answer })
      else answers.push(answer)
      return isEnd
    }
    askingOf(nc).ask(subject, payload, options, take, reject)
  })
}

function askingOf(nc: NatsConnection): Asking {
  const asking = ofConnection.get(nc) ?? new Asking(nc)
  ofConnection.set(nc, asking)
  return asking
}

/** A new inbox under the prefix that the connection was given; its permissions may allow no other. */
export function inboxOf(nc: NatsConnection): string {
  const options: unknown = Reflect.get(nc, 'options')
  const prefix: unknown =
    typeof options === 'object' && options !== null ? Reflect.get(options, 'inboxPrefix') : undefined
  return createInbox(typeof prefix === 'string' ? prefix : undefined)
}

const ofConnection = new WeakMap<NatsConnection, Asking>()

class Asking {
  readonly #nc: NatsConnection
  readonly #inbox: string
  readonly #awaited = new Map<string, Awaited>()
  #count = 0
  #timer: NodeJS.Timeout | undefined

  constructor(nc: NatsConnection) {
    this.#nc = nc
    this.#inbox = `${inboxOf(nc)}.`
    nc.subscribe(`${this.#inbox}*`, { callback: (error, message) => (error ? undefined : this.#receive(message)) })
    void nc.closed().then(() => this.#rejectAll())
  }

  ask(
    subject: string,
    payload: Uint8Array | string,
    { timeoutMs, headers }: { readonly timeoutMs: number; readonly headers?: MsgHdrs },
    take: Awaited['take'],
    reject: Awaited['reject'],
  ): void {
    const token = (this.#count++).toString(36)
    this.#nc.publish(subject, payload, { reply: this.#inbox + token, ...(headers ? { headers } : {}) })
    this.#awaited.set(token, { subject, deadlineMs: performance.now() + timeoutMs, take, reject })
    this.#timer ??= setTimeout(() => this.#look(), Math.min(LOOK_MS, timeoutMs))
  }

  #receive(message: Msg): void {
    const token = message.subject.slice(this.#inbox.length)
    const awaited = this.#awaited.get(token)
    if (!awaited) return
    const nobody = message.data.length === 0 && message.headers?.code === NO_RESPONDERS
    if (nobody) awaited.reject(new errors.NoRespondersError(awaited.subject))
    if (nobody || awaited.take(message)) this.#awaited.delete(token)
  }

  #look(): void {
    this.#timer = undefined
    const now = performance.now()
    for (const [token, { deadlineMs, reject }] of this.#awaited) {
      if (deadlineMs > now) continue
      this.#awaited.delete(token)
      reject(new errors.TimeoutError())
    }
    if (this.#awaited.size > 0) this.#timer = setTimeout(() => this.#look(), LOOK_MS)
  }

  #rejectAll(): void {
    clearTimeout(this.#timer)
    for (const { reject } of this.#awaited.values()) reject(new errors.ClosedConnectionError())
    this.#awaited.clear()
  }
}
