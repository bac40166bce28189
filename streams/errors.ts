/**
 * Errors of FlowStone. One base class with a stable `code`; few subclasses, one for each thing that a caller does differently.
 * Every message says what to do next.
 */

export class FlowStoneError extends Error {
  /** Stable, machine readable, snake_case. Messages may change between releases, codes do not. */
  readonly code: string

  constructor(code: string, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.name = new.target.name
    this.code = code
  }
}

/** The caller's input is wrong; the same call fails again. The message names the field and what is allowed. */
export class InvalidError extends FlowStoneError {
  constructor(message: string, options?: { cause?: unknown }) {
    super('invalid', message, options)
  }
}

/** Somebody else was first, or the thing is in another state than the caller thought. */
export class ConflictError extends FlowStoneError {
  constructor(message: string, options?: { cause?: unknown }) {
    super('conflict', message, options)
  }
}

/** Thrown by user code: trying again may help. `retryAfterMs` overrides the backoff. */
export class RetryableError extends FlowStoneError {
  readonly retryAfterMs: number | undefined

  constructor(message: string, options?: { retryAfterMs?: number; cause?: unknown }) {
    super('retryable', message, options)
    this.retryAfterMs = options?.retryAfterMs
  }
}

/** Thrown by user code: trying again cannot help, so no attempt is left. */
export class TerminalError extends FlowStoneError {
  constructor(message: string, options?: { cause?: unknown }) {
    super('terminal', message, options)
  }
}

/** The run, or the piece of work, was cancelled. */
export class CancelledError extends FlowStoneError {
  constructor(message: string, options?: { cause?: unknown }) {
    super('cancelled', message, options)
  }
}

/** A bound on time was passed. */
export class TimeoutError extends FlowStoneError {
  constructor(message: string, options?: { cause?: unknown }) {
    super('timeout', message, options)
  }
}

/** A signal that a gate did not take. `reason` says why; */
export class SignalRejectedError extends FlowStoneError {
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
  readonly retryAfterMs: number | undefined

  constructor(message: string, options?: { retryAfterMs?: number; cause?: unknown }) {
    super('rate_limited', message, options)
    this.retryAfterMs = options?.retryAfterMs
  }
}

/** What an awaited run ended with when it did not succeed. `asset` is the one at fault. */
export class RunFailedError extends FlowStoneError {
  readonly runId: string
  readonly asset: string | undefined

  constructor(code: string, message: string, details: { runId: string; asset?: string; cause?: unknown }) {
    super(code, message, { cause: details.cause })
    this.runId = details.runId
    this.asset = details.asset
  }
}

/** The message of anything thrown, also of what is no Error. */
export function messageOf(thrown: unknown): string {
  try {
    // A message may be anything: it is but a property.
    if (thrown instanceof Error) return String(thrown.message || thrown.name)
    if (typeof thrown === 'string') return thrown
    return JSON.stringify(thrown) ?? String(thrown)
  } catch {
    return `a thrown ${typeof thrown} that cannot be shown`
  }
}
