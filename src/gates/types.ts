/** What can be seen of signal gates and done to them, from any process. */
import type { SignalRejectedError } from '../../streams/errors.ts'

/**
 * `waiting` → `signaled` | `timed_out` | `cancelled`, once; which one the server decided (see
 * `projections/gate/gate.ts`).
 */
export type GateStatus = 'waiting' | 'signaled' | 'timed_out' | 'cancelled'

/** A gate, as far as the state bucket knows. */
export interface GateView {
  /** `<run>.<asset>.<gate>`: where the gate stands on the log. Not a secret: it opens nothing. */
  readonly id: string
  readonly run: string
  readonly asset: string
  /** The instance that opened it, for a gate within a scatter. */
  readonly index: number | undefined
  readonly status: GateStatus
  readonly openedAt: Date
  /** When it times out, or is retried; undefined: never. */
  readonly deadline: Date | undefined
  /** How often it has timed out so far, and how often that may yet be retried. */
  readonly timeouts: number
  readonly retriesLeft: number
  /** What the asset's code said about it: shown to people, so never trusted. */
  readonly metadata: unknown
  /** `approval`: its payload is a decision (`ctx.approval`). */
  readonly kind: 'signal' | 'approval'
  readonly endedAt: Date | undefined
  readonly signal: GateSignal | undefined
  /** Why it was cancelled, if a reason was given. */
  readonly reason: string | undefined
  /**
   * Attempts to answer it that were refused. Undefined where there was none in the last 7 days, and
   * in the past (`flow.at`). May miss some, as when very many gates are tried at a time.
   */
  readonly refused: RefusedSignals | undefined
}

/** Attempts to answer a gate that were refused. */
export interface RefusedSignals {
  readonly count: number
  /** How many for each reason. */
  readonly reasons: Readonly<Partial<Record<SignalRejection, number>>>
  /** The newest first, at most 10; of those with a forged token at most 3. */
  readonly last: readonly RefusedSignal[]
}

/** An attempt to answer a gate that was refused. */
export interface RefusedSignal {
  readonly at: Date
  readonly reason: SignalRejection
  /** Where it came from, as the caller said: an address, a name. */
  readonly source?: string | undefined
  /** Who acted, as facts have it. */
  readonly by?: string | undefined
}

/** A signal that a gate took: its payload, who sent it, and the headers that were kept. */
export interface GateSignal {
  /** Undefined where the object store has lost it. */
  readonly payload: unknown
  readonly source: string | undefined
  readonly headers: Readonly<Record<string, string>>
}

/** Who signals, and with what: kept with the gate for audit. */
export interface SignalOptions {
  /** Where the signal came from: an address, a user's name. At most 256 characters. */
  readonly source?: string
  /** Headers worth keeping. Names in lower case; at most 4 KiB in all. */
  readonly headers?: Readonly<Record<string, string>>
  /**
   * The same key again, by the same or another process, is the same signal: answered `accepted`
   * once more.
   */
  readonly idempotencyKey?: string
}

/** The answer to a signal that was accepted; `gate` is the id of the gate that took it. */
export interface SignalAccepted {
  readonly status: 'accepted'
  readonly gate: string
  /** Whether it was accepted before, under the same idempotency key. */
  readonly repeated: boolean
}

/** Why a signal was refused. */
export type SignalRejection = SignalRejectedError['reason']
