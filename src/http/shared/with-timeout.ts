/**
 * Gates that answer in time or not at all: senders hang up after some seconds, and what waits for
 * them would pile up here while NATS is away.
 */

import { after } from '../../options/timer.ts'
import { HttpProblem } from './problem.ts'
import type { GatesOverHttp } from './request-context.ts'

/** The same, and `unavailable` (503) after `ms`. What was asked for goes on, and may come about. */
export function withTimeout(gates: GatesOverHttp, ms: number): GatesOverHttp {
  return {
    verify: (token, attempt) => gates.verify(token, attempt),
    getByToken: (token) => within(ms, gates.getByToken(token)),
    signal: (token, payload, options) => within(ms, gates.signal(token, payload, options)),
    signalByCorrelationKey: (correlationKey, payload, options) =>
      within(ms, gates.signalByCorrelationKey(correlationKey, payload, options)),
  }
}

/** What the promise brings, or `unavailable` after `ms`. */
export async function within<T>(ms: number, answer: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>()
  const timer = after(ms, () => late.reject(new HttpProblem('unavailable', undefined, { 'Retry-After': '5' })))
  try {
    return await Promise.race([answer, late.promise])
  } finally {
    timer.cancel()
  }
}
