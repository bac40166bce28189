/** Gates as an asset's code opens them: `ctx.signalGate`, `ctx.openGate`, `ctx.approval`. */

import { z } from 'zod'
import { InvalidError } from '../../streams/errors.ts'
import { shown } from '../../streams/shown.ts'
import { checkText } from '../../streams/text.ts'
import { isJsonSafe, jsonCopy, NO_VALUE } from '../../streams/value.ts'
import { type Duration, parseDuration } from '../options/duration.ts'
import { refuseUnknown } from '../options/unknown.ts'
import { payloadSchema } from './payload-schema.ts'
import type { ChildOptions } from './run-options.ts'

/** Options of a gate: how long it waits, what follows then, and which payload it takes. */
export interface GateOptions {
  /**
   * How long it waits at the most; `Infinity`: for ever. Default `'1h'`. By the server's clock,
   * also while everything is down.
   */
  readonly timeout?: Duration
  /**
   * What follows when nobody answered in time: `fail` (default) or `cancel` the asset or instance.
   * `retry` waits on, `maxTimeoutRetries` times, and then does what `afterRetries` says. Where the
   * asset has `onTimeout`, that is called after the last timeout and decides. It is also called
   * after each timeout that is retried, but then decides nothing.
   */
  readonly timeoutAction?: 'fail' | 'retry' | 'cancel'
  /** With `retry`: how often. Default 3, at most 100. */
  readonly maxTimeoutRetries?: number
  /**
   * With `retry`: how long it waits each time; the last one goes on. Default 5, 15 and 45 minutes.
   */
  readonly retryDelays?: readonly Duration[]
  /** With `retry`: what follows in the end. Default `fail`. */
  readonly afterRetries?: 'fail' | 'cancel'
  /**
   * What people who are to answer should see. JSON, at most 16 KiB; it stands on the log and on the
   * page for people, so no secrets.
   */
  readonly metadata?: unknown
  /**
   * What a payload must look like: another one is refused, and the gate waits on. It is kept as
   * JSON Schema: what that does not hold, such as transforms and refinements, is refused.
   */
  readonly payloadSchema?: z.ZodType
  /**
   * A name of your own for the gate, such as the id of an outside job, any text of at most 1,024
   * bytes: `flow.gates.signalByCorrelationKey` finds the gate by it. Only its hash is kept. It is
   * no secret, and opens nothing over HTTP.
   */
  readonly correlationKey?: string
}

/** Options of an approval: a gate that people decide. */
export interface ApprovalOptions extends Omit<GateOptions, 'payload' | 'metadata'> {
  /** What is to be decided, for people. */
  readonly message: string
  /** What they need to know for it: JSON. */
  readonly context?: unknown
}

/** What an approval is answered with: the payload of its signal, and what `onSignal` gets. */
export interface Decision {
  readonly approved: boolean
  readonly comment?: string | undefined
  readonly by?: string | undefined
}

export const decision = z.object({
  approved: z.boolean(),
  comment: z.string().max(4000).optional(),
  by: z.string().max(256).optional(),
})

/**
 * A gate that is open: start the outside job, or write to somebody, then `return gate.wait()`.
 */
export interface OpenedGate {
  readonly id: string
  /**
   * Whoever has it may answer. Give it to the outside job and to nobody else. Read it by its name:
   * copies, JSON and logs of this object are without it, and without `callbackUrl`.
   */
  readonly token: string
  /**
   * Where the token is taken by HTTP POST, and where people see the page of the gate. Throws
   * InvalidError where `connect({ gates: { baseUrl } })` and FLOWSTONE_BASE_URL say nothing.
   */
  readonly callbackUrl: string
  /**
   * False when an earlier execution of this code opened it and was lost: the outside job may run
   * already.
   */
  readonly isNew: boolean
  /**
   * Return this: the worker is free until the gate is answered. A signal that came before is taken
   * at once.
   */
  wait(): Suspension
}

export interface GateSpec {
  readonly kind: 'signal' | 'approval'
  readonly timeoutMs: number | undefined
  readonly retriesMs: number[]
  readonly afterRetries: 'fail' | 'cancel'
  readonly metadata: unknown
  readonly payload: Record<string, unknown> | undefined
  readonly correlationKey: string | undefined
}

/** What code waits at: a gate opened before, one to be opened now, or a run to be started now. */
export type Awaited = { readonly opened: string } | { readonly spec: GateSpec } | { readonly child: ChildSpec }

/** What `ctx.run` was called with; checked by the worker. */
export interface ChildSpec {
  readonly target: unknown
  readonly options: ChildOptions
}

/**
 * What an asset's code returns to wait. Made by `ctx.signalGate`, `ctx.approval`, `gate.wait()` and
 * `ctx.run`, and good only as what the code returns.
 */
export class Suspension {
  readonly #at: Awaited

  constructor(at: Awaited) {
    this.#at = at
  }

  /** Within a value it would be stored empty, and nobody would wait. */
  readonly [NO_VALUE] =
    'a gate, or a run; return it by itself, one at a time: what is returned within a value waits for nobody'

  /** For the worker. */
  static of(suspension: Suspension): Awaited {
    return suspension.#at
  }
}

/** A run that code waits for. `V`: its value. */
export class ChildRun<V = unknown> extends Suspension {
  /** Only a type. */
  declare readonly value?: V
}

const ALLOWED = [
  'timeout',
  'timeoutAction',
  'maxTimeoutRetries',
  'retryDelays',
  'afterRetries',
  'metadata',
  'payloadSchema',
  'correlationKey',
] as const
/** What an approval shows is its message and context, and its payload is a decision. */
const APPROVAL_ALLOWED = [
  'message',
  'context',
  ...ALLOWED.filter((key) => key !== 'metadata' && key !== 'payloadSchema'),
]
const TIMEOUT = '1h'
const RETRY_DELAYS = ['5m', '15m', '45m'] as const
const RETRIES = 3
export const RETRIES_MAX = 100
export const METADATA_MAX_BYTES = 16 * 1024
export const CORRELATION_KEY_MAX_BYTES = 1024
export const WAIT_MAX_MS = 10 * 365 * 86_400_000

/** Throws InvalidError that names the option at fault. */
export function parseGate(options: GateOptions = {}, kind: GateSpec['kind'] = 'signal'): GateSpec {
  const at = 'gate'
  if (typeof options !== 'object' || options === null || Array.isArray(options))
    throw new InvalidError(`${at}: options must be an object such as { timeout: '24h' }`)
  refuseUnknown(at, options, ALLOWED)
  const {
    timeout = TIMEOUT,
    timeoutAction = 'fail',
    maxTimeoutRetries,
    retryDelays,
    afterRetries,
    metadata,
    correlationKey,
  } = options
  if (!['fail', 'retry', 'cancel'].includes(timeoutAction))
    throw new InvalidError(`${at}: timeoutAction must be fail, retry or cancel, got ${shown(timeoutAction)}`)
  if (timeoutAction !== 'retry') {
    for (const key of ['maxTimeoutRetries', 'retryDelays', 'afterRetries'] as const)
      if (options[key] !== undefined) throw new InvalidError(`${at}: ${key} needs timeoutAction: 'retry'`)
  }
  const retries = timeoutAction === 'retry' ? (maxTimeoutRetries ?? RETRIES) : 0
  if (!Number.isInteger(retries) || retries < 0 || retries > RETRIES_MAX)
    throw new InvalidError(
      `${at}: maxTimeoutRetries must be a whole number from 0 to ${RETRIES_MAX}, got ${shown(maxTimeoutRetries)}`,
    )
  if (afterRetries !== undefined && afterRetries !== 'fail' && afterRetries !== 'cancel')
    throw new InvalidError(`${at}: afterRetries must be fail or cancel, got ${shown(afterRetries)}`)
  if (retryDelays !== undefined && !Array.isArray(retryDelays))
    throw new InvalidError(`${at}: retryDelays must be a list such as ['5m', '15m'], got ${shown(retryDelays)}`)
  const delays = (retryDelays ?? RETRY_DELAYS).map((delay, i) => waitMs(`${at}: retryDelays[${i}]`, delay))
  if (retries > 0 && delays.length === 0) throw new InvalidError(`${at}: retryDelays must name at least one wait`)
  if (
    metadata !== undefined &&
    (!isJsonSafe(metadata) || Buffer.byteLength(JSON.stringify(metadata)) > METADATA_MAX_BYTES)
  )
    throw new InvalidError(
      `${at}: ${kind === 'approval' ? 'message and context' : 'metadata'} must be JSON of at most ${METADATA_MAX_BYTES} bytes`,
    )
  if (correlationKey !== undefined) checkCorrelationKey(`${at}: correlationKey`, correlationKey)
  return {
    kind,
    timeoutMs: timeout === Number.POSITIVE_INFINITY ? undefined : waitMs(`${at}: timeout`, timeout),
    retriesMs: Array.from({ length: retries }, (_, i) => delays[Math.min(i, delays.length - 1)] ?? 0),
    afterRetries: timeoutAction === 'cancel' ? 'cancel' : (afterRetries ?? 'fail'),
    // A copy: it is looked at, and kept, as it is now.
    metadata:
      metadata === undefined ? undefined : jsonCopy(metadata, kind === 'approval' ? 'approval' : `${at}: metadata`),
    payload: options.payloadSchema === undefined ? undefined : payloadSchema(at, options.payloadSchema),
    correlationKey,
  }
}

function checkCorrelationKey(field: string, key: unknown): void {
  if (typeof key !== 'string' || key === '' || Buffer.byteLength(key) > CORRELATION_KEY_MAX_BYTES)
    throw new InvalidError(`${field} must be text of 1 to ${CORRELATION_KEY_MAX_BYTES} bytes`)
  checkText(field, key)
}

export function parseApproval(options: ApprovalOptions): GateSpec {
  const { message, context, ...rest } = options ?? {}
  if (typeof message !== 'string' || message === '')
    throw new InvalidError('approval: message must say what is to be decided')
  refuseUnknown('approval', options, APPROVAL_ALLOWED)
  const metadata = { message, ...(context === undefined ? {} : { context }) }
  return parseGate({ ...rest, metadata, payloadSchema: decision }, 'approval')
}

/**
 * How long something waits at a gate. Throws InvalidError beyond 10 years: no calendar may end
 * before it.
 */
export function waitMs(field: string, duration: Duration): number {
  const ms = parseDuration(field, duration, { maxMs: Number.POSITIVE_INFINITY })
  if (ms > 0 && ms <= WAIT_MAX_MS) return ms
  throw new InvalidError(`${field} must be more than 0 and at most 10 years, got ${shown(duration)}`)
}
