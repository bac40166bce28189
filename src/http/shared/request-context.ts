/** What a request passes through on its way to the gate, and what is known of its sender there. */

import type { GateView, SignalAccepted, SignalOptions } from '../../gates/types.ts'
import type { Duration } from '../../options/duration.ts'
import type { BodyLimits } from './body.ts'

/** What of `flow.gates` is needed here. */
export interface GatesOverHttp {
  /** Where they are reached from outside, if that is known. */
  readonly baseUrl?: string | undefined
  /**
   * Throws SignalRejectedError for a token that is not good. It asks no server, and runs before a
   * body is read. `attempt`: it is an attempt to answer, whose refusal is noted.
   */
  verify(token: string, attempt?: Pick<SignalOptions, 'source'>): string
  /** Answers the gate of a token. Throws SignalRejectedError when it is too late or not good. */
  signal(token: string, payload: unknown, options?: SignalOptions): Promise<SignalAccepted>
  /** Answers the gate that was opened with this correlation key, as `flow.gates` does. */
  signalByCorrelationKey(
    correlationKey: string,
    payload: unknown,
    options?: SignalOptions & { readonly keepFor?: Duration },
  ): Promise<SignalAccepted>
  /** The gate of a token, as it is now. */
  getByToken(token: string): Promise<GateView | undefined>
}

/** All of the rim that a request passes through on its way to the gate. */
export interface RequestContext {
  readonly gates: GatesOverHttp
  readonly limits: BodyLimits
  readonly recorded: readonly string[]
}

export interface Sender {
  readonly source: string
  readonly headers: Readonly<Record<string, string>>
}
