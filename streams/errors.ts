/**
 * Errors of FlowStone. One base class with a stable `code`; few subclasses, one for each thing that
 * a caller does differently. Every message says what to do next.
 */

import type { ErrorCode } from './error-codes.ts'

/**
 * A process may load several copies of this package (a monorepo, a bundle, another realm of a test
 * runner), and each has classes of its own. `instanceof` looks for this brand, so an error of one
 * copy is known to the others. Classes that users derive go by the class itself.
 */
const BRAND = Symbol.for('flowstone.error')
/** Of prototypes that are looked at: those of a proxy may have no end. */
const LEVELS_MAX = 50

/** What FlowStone throws and rejects with. `code` says what it is; the message says what to do. */
export class FlowStoneError extends Error {
  static readonly [BRAND]: string = 'FlowStoneError'
  /** Stable, machine readable, snake_case. Messages may change between releases, codes do not. */
  readonly code: string

  /** `code`: one of ours, or one of your own for errors that you derive from this class. */
  constructor(code: ErrorCode | (string & {}), message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.name = new.target.name
    this.code = code
  }

  /** Also true of an error of another copy of this package in the same process. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    // biome-ignore lint/complexity/noThisInStatic: the class that is asked about, which may be one that derives from this
    return isMadeBy(this, value)
  }
}

/**
 * Whether the class is among those that the value's prototypes come from: the class itself, or for
 * one of ours another copy of it.
 */
function isMadeBy(wanted: object, value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false
  const brand = brandOf(wanted)
  try {
    let prototype: unknown = Object.getPrototypeOf(value)
    for (let level = 0; level < LEVELS_MAX && typeof prototype === 'object' && prototype !== null; level++) {
      const made: unknown = Object.getOwnPropertyDescriptor(prototype, 'constructor')?.value
      if (made === wanted || (brand !== undefined && brandOf(made) === brand)) return true
      prototype = Object.getPrototypeOf(prototype)
    }
  } catch {
    // A proxy that does not let itself be looked at is none of ours.
  }
  return false
}

function brandOf(made: unknown): unknown {
  return typeof made === 'function' && Object.hasOwn(made, BRAND) ? Reflect.get(made, BRAND) : undefined
}

/**
 * The caller's input is wrong; the same call fails again. The message names the field and what is
 * allowed.
 */
export class InvalidError extends FlowStoneError {
  static override readonly [BRAND] = 'InvalidError'
  constructor(message: string, options?: { cause?: unknown }) {
    super('invalid', message, options)
  }
}

/** Somebody else was first, or the thing is in another state than the caller thought. */
export class ConflictError extends FlowStoneError {
  static override readonly [BRAND] = 'ConflictError'
  constructor(message: string, options?: { cause?: unknown }) {
    super('conflict', message, options)
  }
}

/** Thrown by user code: trying again may help. `retryAfterMs` overrides the backoff. */
export class RetryableError extends FlowStoneError {
  static override readonly [BRAND] = 'RetryableError'
  readonly retryAfterMs: number | undefined

  constructor(message: string, options?: { retryAfterMs?: number; cause?: unknown }) {
    super('retryable', message, options)
    this.retryAfterMs = options?.retryAfterMs
  }
}

/** Thrown by user code: trying again cannot help, so no attempt is left. */
export class TerminalError extends FlowStoneError {
  static override readonly [BRAND] = 'TerminalError'
  constructor(message: string, options?: { cause?: unknown }) {
    super('terminal', message, options)
  }
}

/** The run, or the piece of work, was cancelled. */
export class CancelledError extends FlowStoneError {
  static override readonly [BRAND] = 'CancelledError'
  constructor(message: string, options?: { cause?: unknown }) {
    super('cancelled', message, options)
  }
}

/** A bound on time was passed. */
export class TimeoutError extends FlowStoneError {
  static override readonly [BRAND] = 'TimeoutError'
  constructor(message: string, options?: { cause?: unknown }) {
    super('timeout', message, options)
  }
}

/** A gate refused a signal. `reason` says why. */
export class SignalRejectedError extends FlowStoneError {
  static override readonly [BRAND] = 'SignalRejectedError'
  readonly reason:
    | 'malformed_token'
    | 'invalid_signature'
    | 'expired'
    | 'not_found'
    | 'already_signaled'
    | 'cancelled'
    | 'invalid_payload'

  constructor(reason: SignalRejectedError['reason'], message: string, options?: { cause?: unknown }) {
    super('signal_rejected', message, options)
    this.reason = reason
  }
}

/** A limit was not free in time. `retryAfterMs`: when it will have room, as far as is known. */
export class RateLimitedError extends FlowStoneError {
  static override readonly [BRAND] = 'RateLimitedError'
  readonly retryAfterMs: number | undefined

  constructor(message: string, options?: { retryAfterMs?: number; cause?: unknown }) {
    super('rate_limited', message, options)
    this.retryAfterMs = options?.retryAfterMs
  }
}

/** What an awaited run ended with when it did not succeed. `asset` is the one at fault. */
export class RunFailedError extends FlowStoneError {
  static override readonly [BRAND] = 'RunFailedError'
  readonly runId: string
  readonly asset: string | undefined
  /** How the run ended. An asset's own error may have the code `cancelled`, too. */
  readonly status: 'failed' | 'cancelled'

  constructor(
    code: string,
    message: string,
    details: { runId: string; asset?: string; status?: 'failed' | 'cancelled'; cause?: unknown },
  ) {
    super(code, message, { cause: details.cause })
    this.runId = details.runId
    this.asset = details.asset
    this.status = details.status ?? 'failed'
  }
}

/**
 * The message of anything thrown, also of what is no Error, or is one of another realm, or lets
 * nobody look at it.
 */
export function messageOf(thrown: unknown): string {
  try {
    if (typeof thrown === 'string') return thrown
    if (isErrorLike(thrown))
      return String(thrown.message || Reflect.get(thrown, 'name') || 'an error without a message')
    return JSON.stringify(thrown) ?? String(thrown)
  } catch {
    return `a thrown ${typeof thrown} that cannot be shown`
  }
}

/**
 * Has a message that is more than a member: an Error of any realm, or an instance of a class with
 * one. May throw for a proxy.
 */
export function isErrorLike(thrown: unknown): thrown is { readonly message: unknown } {
  if (typeof thrown !== 'object' || thrown === null) return false
  if (thrown instanceof Error) return true
  if (!('message' in thrown) || typeof thrown.message !== 'string') return false
  const prototype: unknown = Object.getPrototypeOf(thrown)
  return prototype !== null && prototype !== Object.prototype
}
