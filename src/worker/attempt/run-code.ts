/**
 * Runs a piece of user code under a time limit and an abort signal, and says how it ended in terms
 * the engine decides on.
 */
import { types } from 'node:util'
import { CancelledError, InvalidError, RetryableError, TerminalError, TimeoutError } from '../../../streams/errors.ts'
import { READ_ONLY_ADVICE } from '../../../streams/readonly.ts'
import type { AttemptOutcome, ErrorInfo } from '../../../streams/schemas.ts'
import { infoOf, read } from '../../../streams/thrown.ts'
import { NO_GATE_SECRET } from '../../gates/token.ts'
import { isAway } from '../../log/unreachable.ts'
import { type Listener, onAbort } from '../../options/abort.ts'
import { after, type Timer } from '../../options/timer.ts'
import { HandBack } from '../pull/disposition.ts'

/** Makes a signal when it is asked for one: most code never does. */
export interface SignalSource {
  readonly signal: AbortSignal
}

export interface Failure {
  readonly outcome: AttemptOutcome
  readonly error: ErrorInfo
  readonly retryAfterMs?: number
  /** What was thrown, for telemetry. */
  readonly thrown: unknown
}

/** For what waits until the server is back. */
const AWAY_MS = 1000
/** A wait is at most this long: beyond the calendar no schedule can be made of it. */
const RETRY_AFTER_MAX_MS = 365 * 86_400_000

/**
 * Calls `code` with a signal that is aborted with `parent` or after `timeoutMs`. Code that ignores
 * its signal is not waited for: its result is dropped. What `code` returns at once is returned at
 * once, because a scatter may have millions of such instances. Timers and signals are made only for
 * code that lasts or asks for them.
 */
export function runCode<T>(
  parent: AbortSignal,
  timeoutMs: number | undefined,
  code: (source: SignalSource) => T | Promise<T>,
): T | Promise<T> {
  parent.throwIfAborted()
  if (timeoutMs === undefined) return whileWanted(parent, code({ signal: parent }))
  const timed = new Timed(parent, timeoutMs)
  let result: T | Promise<T>
  try {
    result = code(timed)
  } catch (error) {
    timed.end()
    throw error
  }
  return timed.of(result)
}

/** What was called comes to, unless `parent` is aborted before. */
export function whileWanted<T>(parent: AbortSignal, result: T | Promise<T>): T | Promise<T> {
  return isThenable(result) ? untilEnd(parent, undefined, result) : result
}

/** Code under a time limit, of which a scatter may have millions. Most of it ends at once. */
export class Timed implements SignalSource {
  readonly #parent: AbortSignal
  readonly #timeoutMs: number
  #limit: Limit | undefined

  constructor(parent: AbortSignal, timeoutMs: number) {
    this.#parent = parent
    this.#timeoutMs = timeoutMs
  }

  get signal(): AbortSignal {
    this.#limit ??= new Limit(this.#parent, this.#timeoutMs)
    return this.#limit.signal
  }

  /** What the code has returned, as far as it comes in time. */
  of<T>(result: T | Promise<T>): T | Promise<T> {
    if (!isThenable(result)) {
      this.#limit?.end()
      return result
    }
    this.#limit ??= new Limit(this.#parent, this.#timeoutMs)
    return untilEnd(this.#parent, this.#limit, result)
  }

  /** The code has thrown. */
  end(): void {
    this.#limit?.end()
  }
}

/** What the code comes to, or why it is not waited for any longer. */
function untilEnd<T>(parent: AbortSignal, limit: Limit | undefined, result: Promise<T>): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const off = limit ? limit.onEnd(reject) : onAbort(parent, reject)
    Promise.resolve(result).then(
      (value) => {
        off()
        limit?.end()
        resolve(value)
      },
      (error: unknown) => {
        off()
        limit?.end()
        reject(error)
      },
    )
  })
}

/** A time limit. Its signal is made when somebody asks for it. */
class Limit {
  #controller: AbortController | undefined
  readonly #timer: Timer
  #off = (): void => undefined
  #listener: Listener | undefined
  #ended: { readonly reason: unknown } | undefined

  constructor(parent: AbortSignal, timeoutMs: number) {
    this.#timer = after(timeoutMs, () =>
      this.#abort(new TimeoutError(`it ran longer than its time limit of ${timeoutMs} ms`)),
    )
    this.#off = onAbort(parent, (reason) => this.#abort(reason))
  }

  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController()
      if (this.#ended) this.#controller.abort(this.#ended.reason)
    }
    return this.#controller.signal
  }

  onEnd(listener: Listener): () => void {
    this.#listener = listener
    if (this.#ended) listener(this.#ended.reason)
    return () => {
      this.#listener = undefined
    }
  }

  end(): void {
    this.#timer.cancel()
    this.#off()
  }

  #abort(reason: unknown): void {
    if (this.#ended) return
    this.#ended = { reason }
    // Its code may never come to an end, and a timer would keep the process.
    this.end()
    this.#controller?.abort(reason)
    this.#listener?.(reason)
  }
}

/**
 * Not only promises of this realm: query builders are thenable too, and run only when they are
 * awaited.
 */
export function isThenable<T>(result: T | Promise<T>): result is Promise<T> {
  return typeof result === 'object' && result !== null && 'then' in result && typeof result.then === 'function'
}

/**
 * Never throws, whatever was thrown: an error of another copy of this package, of another realm, a
 * proxy, nothing.
 */
export function failureOf(given: unknown): Failure {
  const thrown = plain(given)
  if (thrown instanceof HandBack)
    return { outcome: 'returned', error: { code: 'returned', message: thrown.message }, thrown }
  const error = advised(infoOf(given))
  if (isAway(thrown)) return { outcome: 'returned', error, retryAfterMs: AWAY_MS, thrown }
  if (thrown instanceof TimeoutError && error.message.startsWith('it ran longer'))
    return { outcome: 'timeout', error, thrown }
  if (thrown instanceof TerminalError || thrown instanceof InvalidError || thrown instanceof CancelledError)
    return { outcome: 'terminal', error, thrown }
  // This process lacks a setting, and will still lack it at the next attempt. Nobody chooses
  // which worker runs the next attempt, so a wrong setup is better reported at once.
  if (error.code === NO_GATE_SECRET) return { outcome: 'terminal', error, thrown }
  const wait = thrown instanceof RetryableError ? read(thrown, 'retryAfterMs') : undefined
  const after = typeof wait === 'number' ? wait : Number.NaN
  // NaN, as of a date that was not understood: the backoff decides.
  if (Number.isNaN(after)) return { outcome: 'error', error, thrown }
  return { outcome: 'error', error, retryAfterMs: Math.min(RETRY_AFTER_MAX_MS, Math.max(0, Math.round(after))), thrown }
}

/** For a proxy, which may throw whenever somebody looks at it: an error that says what it said. */
function plain(thrown: unknown): unknown {
  return types.isProxy(thrown) ? new Error(infoOf(thrown).message) : thrown
}

const READ_ONLY =
  /^Cannot (assign to read only property|add property|delete property|define property|redefine property|modify)|object is not extensible/

/** A write to something that all executions of a process share says what to do in its place. */
function advised(error: ErrorInfo): ErrorInfo {
  if (!READ_ONLY.test(error.message)) return error
  return { ...error, message: `${error.message}. ${READ_ONLY_ADVICE}` }
}
