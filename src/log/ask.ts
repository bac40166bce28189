/**
 * Questions to the server, each with one answer. The library's own requests make an error with a
 * stack trace and a timer for each, also when all goes well, which is a tenth of a short asset's
 * time. Here one subscription takes all answers of a connection, and one timer looks after those
 * that do not come.
 */
import { createInbox, errors, type Msg, type MsgHdrs, type NatsConnection } from '@nats-io/nats-core'
import { listen } from './listen.ts'
import { holdWrites } from './one-write.ts'
import { deniedError, reportsOf } from './reports.ts'

interface Awaited {
  readonly subject: string
  readonly timeoutMs: number
  deadlineMs: number
  /** True when nothing more comes. */
  readonly take: (answer: Msg) => boolean
  readonly reject: (error: Error) => void
}

/** How late a missing answer may be noticed. */
const LOOK_MS = 100
const NO_RESPONDERS = 503

/**
 * The answer to a message. Rejects as the library's `request` does, with its errors; a missing
 * answer may be noticed up to 100 ms late.
 */
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

/**
 * As `ask`, for what is answered by several messages: all that come before one without a body,
 * which ends them, and that one. `timeoutMs` is the longest silence between them.
 */
export function askMany(
  nc: NatsConnection,
  subject: string,
  payload: Uint8Array | string,
  options: { readonly timeoutMs: number },
): Promise<{ readonly answers: Msg[]; readonly end: Msg }> {
  return new Promise((resolve, reject) => {
    const answers: Msg[] = []
    const take = (answer: Msg): boolean => {
      // A message of a stream may be empty too, such as the marker of a deleted document.
      const isEnd = answer.data.length === 0 && !answer.headers?.has('Nats-Subject')
      if (isEnd) resolve({ answers, end: answer })
      else answers.push(answer)
      return isEnd
    }
    askingOf(nc).ask(subject, payload, options, take, reject)
  })
}

/**
 * As `ask`, for what several may answer: all answers that come within `settleMs` of the first one;
 * none where nobody listens. Rejects when none comes within `timeoutMs`.
 */
export function askAll(
  nc: NatsConnection,
  subject: string,
  payload: Uint8Array | string,
  options: { readonly timeoutMs: number; readonly settleMs: number; readonly headers?: MsgHdrs },
): Promise<Msg[]> {
  return new Promise((resolve, reject) => {
    const answers: Msg[] = []
    const take = (answer: Msg): boolean => {
      answers.push(answer)
      if (answers.length === 1) setTimeout(() => resolve(answers), options.settleMs)
      // It is forgotten at its time.
      return false
    }
    const fail = (error: Error): void => {
      if (answers.length > 0 || error instanceof errors.NoRespondersError) resolve(answers)
      else reject(error)
    }
    askingOf(nc).ask(subject, payload, options, take, fail)
  })
}

function askingOf(nc: NatsConnection): Asking {
  const asking = ofConnection.get(nc)
  if (asking?.isOpen) return asking
  const made = new Asking(nc)
  ofConnection.set(nc, made)
  return made
}

/**
 * The server does not let this client publish to `subject`: what was asked there gets no answer.
 */
export function denyAsked(nc: NatsConnection, subject: string, error: Error): void {
  ofConnection.get(nc)?.deny(subject, error)
}

/**
 * A new inbox under the prefix that the connection was given; its permissions may allow no other.
 */
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
  /** Whether answers can arrive: the server may refuse the subscription. */
  isOpen = true

  constructor(nc: NatsConnection) {
    this.#nc = nc
    this.#inbox = `${inboxOf(nc)}.`
    listen(
      nc,
      `${this.#inbox}*`,
      (message) => this.#receive(message),
      () => this.#refused(),
    )
    void nc.closed().then(() => this.#rejectAll(new errors.ClosedConnectionError()))
  }

  ask(
    subject: string,
    payload: Uint8Array | string,
    { timeoutMs, headers }: { readonly timeoutMs: number; readonly headers?: MsgHdrs },
    take: Awaited['take'],
    reject: Awaited['reject'],
  ): void {
    const token = (this.#count++).toString(36)
    holdWrites(this.#nc)
    this.#nc.publish(subject, payload, { reply: this.#inbox + token, ...(headers ? { headers } : {}) })
    this.#awaited.set(token, { subject, timeoutMs, deadlineMs: performance.now() + timeoutMs, take, reject })
    this.#timer ??= setTimeout(() => this.#look(), Math.min(LOOK_MS, timeoutMs))
  }

  deny(subject: string, error: Error): void {
    for (const [token, awaited] of this.#awaited) {
      if (awaited.subject !== subject) continue
      this.#awaited.delete(token)
      awaited.reject(error)
    }
  }

  /** The next question tries it with another inbox: by then the permission may be there. */
  #refused(): void {
    this.isOpen = false
    const subject = `${this.#inbox}*`
    const denied = reportsOf(this.#nc)?.denies('subscribe', subject)
    this.#rejectAll(
      denied ? deniedError(denied) : new errors.PermissionViolationError(subject, 'subscription', subject),
    )
  }

  #receive(message: Msg): void {
    const token = message.subject.slice(this.#inbox.length)
    const awaited = this.#awaited.get(token)
    if (!awaited) return
    const nobody = message.data.length === 0 && codeOf(message) === NO_RESPONDERS
    if (nobody) awaited.reject(new errors.NoRespondersError(awaited.subject))
    if (nobody || awaited.take(message)) this.#awaited.delete(token)
    else awaited.deadlineMs = performance.now() + awaited.timeoutMs
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

  #rejectAll(error: Error): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    for (const { reject } of this.#awaited.values()) reject(error)
    this.#awaited.clear()
  }
}

/** Of an answer whose headers cannot be read: none. */
function codeOf(answer: Msg): number | undefined {
  try {
    return answer.headers?.code
  } catch {
    return undefined
  }
}
