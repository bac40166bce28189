/** What anything thrown is answered with, and what the log says of it. */
import {
  FlowStoneError,
  InvalidError,
  messageOf,
  RateLimitedError,
  SignalRejectedError,
} from '../../../streams/errors.ts'
import { cut } from '../../../streams/text.ts'
import type { Logger } from '../../telemetry.ts'
import { HttpProblem } from './problem.ts'
import { reasonOf } from './reasons.ts'

/**
 * The problem to answer with. Faults of this side are logged, and never with the address: it holds
 * the token.
 */
export function toProblem(error: unknown, logger: Logger): HttpProblem {
  const problem = problemOf(error)
  if (problem.status >= 500 && !(error instanceof HttpProblem))
    logger.error(`http: a request failed (${problem.reason}): ${cut(withoutTokens(messageOf(error)), 500)}`)
  return problem
}

/** Whatever threw, and whatever it put into its words. */
function withoutTokens(text: string): string {
  return text.replaceAll(/\bv1\.[\w.~-]{20,}/g, 'v1.…')
}

/**
 * What anything thrown means to the sender. The sender sees the error's message only when the fault
 * is in the payload.
 */
export function problemOf(thrown: unknown): HttpProblem {
  if (thrown instanceof HttpProblem) return thrown
  if (thrown instanceof SignalRejectedError)
    return thrown.reason === 'invalid_payload'
      ? new HttpProblem('invalid_payload', shortened(messageOf(thrown)))
      : new HttpProblem(thrown.reason)
  if (!(thrown instanceof FlowStoneError)) return isOfNats(thrown) ? later() : new HttpProblem('internal')
  // Beside its token and its payload the sender gave nothing that could be invalid.
  if (thrown instanceof InvalidError) return new HttpProblem('invalid_payload', shortened(messageOf(thrown)))
  if (thrown.code === 'not_found') return new HttpProblem('not_found')
  const reason = reasonOf(thrown.code)
  if (reason === 'unavailable') return later()
  const retryAfterMs = thrown instanceof RateLimitedError ? (thrown.retryAfterMs ?? 1000) : undefined
  return new HttpProblem(
    reason,
    undefined,
    retryAfterMs === undefined ? {} : { 'Retry-After': String(Math.max(1, Math.ceil(retryAfterMs / 1000))) },
  )
}

/** The same request may succeed in a while. */
function later(): HttpProblem {
  return new HttpProblem('unavailable', undefined, { 'Retry-After': '2' })
}

/** NATS away, or too busy. */
function isOfNats(thrown: unknown): boolean {
  return (
    thrown instanceof Error &&
    /^(TimeoutError|RequestError|NoRespondersError|ConnectionError|ClosedConnectionError|DrainingConnectionError)$/.test(
      thrown.name,
    )
  )
}

function shortened(text: string): string {
  return cut(text, 1000, '…')
}
