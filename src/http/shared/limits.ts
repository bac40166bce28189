/** What bounds a request of any kind: its source's rate, its body, and the time of its answer. */
import { InvalidError } from '../../../streams/errors.ts'
import { shown } from '../../../streams/shown.ts'
import type { PinoLogger } from '../../logs/logger.ts'
import { type Duration, parseDuration } from '../../options/duration.ts'
import type { Logger } from '../../telemetry.ts'
import type { AddressOptions } from './address.ts'
import type { BodyLimits } from './body.ts'
import { BodyBudget } from './budget.ts'
import { HttpProblem } from './problem.ts'
import { FixedLimiter, type Rate } from './rate.ts'

/** Options of every handler: limits on what is taken, and where it is reached. */
export interface CommonOptions extends AddressOptions {
  /** Largest body, in bytes; more is 413. Default 1 MiB. */
  readonly maxBodyBytes?: number
  /** How long a body may take to arrive; longer is 408. Default `'10s'`. */
  readonly bodyTimeout?: Duration
  /**
   * How long NATS may take to store what was sent; longer is 503, and the sender may send it again.
   * Default `'10s'`.
   */
  readonly answerTimeout?: Duration
  /**
   * Where this is reached from outside, such as `https://flows.example.com`: what a browser's
   * Origin is compared with, and what addresses of runs begin with. Default: that of the flow
   * (`connect({ gates: { baseUrl } })`). Without any, browsers are compared with the Host header,
   * and addresses of runs are paths.
   */
  readonly baseUrl?: string
  /**
   * Faults of this side go there, without address and body. Default: warnings and errors to
   * standard error.
   */
  readonly logger?: Logger | PinoLogger
}

export const COMMON_OPTIONS = [
  'maxBodyBytes',
  'bodyTimeout',
  'answerTimeout',
  'baseUrl',
  'logger',
  'trustProxy',
  'proxyHeader',
  'address',
] as const satisfies readonly (keyof CommonOptions)[]

const BUDGET_BYTES = 64 * 1_048_576
/** What one source address may have of it. */
const BUDGET_SHARE = 1 / 8
const PATIENCE_MAX_MS = 3_600_000

export interface Limits extends BodyLimits {
  readonly answerMs: number
}

/** Throws InvalidError for limits that cannot be. */
export function limitsOf(options: CommonOptions): Limits {
  const { maxBodyBytes = 1_048_576 } = options
  if (!Number.isInteger(maxBodyBytes) || maxBodyBytes < 1)
    throw new InvalidError(`maxBodyBytes must be a whole number from 1, got ${maxBodyBytes}`)
  return {
    maxBytes: maxBodyBytes,
    timeoutMs: parseTimeout('bodyTimeout', options.bodyTimeout),
    answerMs: parseTimeout('answerTimeout', options.answerTimeout),
  }
}

/** Throws InvalidError for what is no address of the web. */
export function checkBaseUrl(baseUrl: string | undefined): string | undefined {
  if (baseUrl === undefined || /^https?:$/.test(URL.canParse(baseUrl) ? new URL(baseUrl).protocol : '')) return baseUrl
  throw new InvalidError(`baseUrl must be an address such as https://flows.example.com, got ${shown(baseUrl)}`)
}

export function bodyBudget({ maxBytes }: BodyLimits): BodyBudget {
  return new BodyBudget(Math.max(BUDGET_BYTES, 2 * maxBytes), Math.max(BUDGET_BYTES * BUDGET_SHARE, maxBytes))
}

/** Longer than an hour nobody waits for an answer. */
function parseTimeout(field: string, duration: Duration = '10s'): number {
  const ms = parseDuration(field, duration)
  if (ms > 0 && ms <= PATIENCE_MAX_MS) return ms
  throw new InvalidError(`${field} must be more than 0 and at most 1 h, got ${shown(duration)}`)
}

/** Throws InvalidError for what is no object of limits. */
export function checkRateLimit(rateLimit: unknown): void {
  if (typeof rateLimit !== 'object' || rateLimit === null)
    throw new InvalidError(`rateLimit must be an object such as { address: false }, got ${shown(rateLimit)}`)
}

/** For each source address, by `limiterName`. */
export function addressLimiter(rate: Rate | false | undefined): FixedLimiter | undefined {
  return limiter('rateLimit.address', rate ?? [500, 'second'])
}

export function limiter(field: string, rate: Rate | false): FixedLimiter | undefined {
  return rate === false ? undefined : new FixedLimiter(field, rate)
}

/** Throws the problem `rate_limited`. */
export function enforceLimit(limit: FixedLimiter | undefined, name: string): void {
  const waitMs = limit?.take(name) ?? 0
  if (waitMs > 0)
    throw new HttpProblem('rate_limited', undefined, { 'Retry-After': String(Math.max(1, Math.ceil(waitMs / 1000))) })
}

/** Text or a quoted string (as the header's draft has it), up to 255 characters. */
export function idempotencyKeyOf(headers: Headers): string | undefined {
  const given = headers.get('idempotency-key')?.trim()
  if (given === undefined) return undefined
  const key = /^"((?:[^"\\]|\\["\\])*)"$/.exec(given)?.[1]?.replaceAll(/\\(.)/g, '$1') ?? given
  if (key === '' || key.length > 255)
    throw new HttpProblem('malformed_request', 'Idempotency-Key must have 1 to 255 characters.')
  return key
}

export function methodNotAllowed(allow: string): HttpProblem {
  return new HttpProblem('method_not_allowed', undefined, { Allow: allow })
}

/** What a framework knows of the connection, as hono takes it. */
export function toBindings(env: unknown): object {
  return typeof env === 'object' && env !== null ? env : {}
}
