/** Checks of the options of an asset. */
import { z } from 'zod'
import { InvalidError } from '../../streams/errors.ts'
import { checkName } from '../../streams/ids.ts'
import type { RetrySpec, ScatterSpec } from '../../streams/schemas.ts'
import { shown } from '../../streams/shown.ts'
import { parseDuration, parseRange } from '../options/duration.ts'
import { refuseUnknown } from '../options/unknown.ts'
import type { InstanceOptions, RetryOptions } from './asset-options.ts'
import type { FailureMode } from './asset-type.ts'

/** Throws for what is no function, and for what only a scatter has. */
export function checkParts(at: string, options: object): void {
  for (const key of ['execute', 'onSignal', 'onTimeout', 'onRun', 'scatter', 'gather'] as const) {
    const value: unknown = Reflect.get(options, key)
    if (typeof value !== 'function' && (key === 'execute' || value !== undefined))
      throw new InvalidError(`${at}: ${key} must be a function, got ${typeof value}`)
  }
  for (const key of ['gather', 'scatterOptions'] as const)
    if (Reflect.get(options, key) && !Reflect.get(options, 'scatter'))
      throw new InvalidError(`${at}: ${key} needs scatter`)
}

export function parseVolatile(at: string, value: unknown): boolean {
  if (value === undefined || typeof value === 'boolean') return value === true
  throw new InvalidError(`${at}: volatile must be true or false, got ${typeof value}`)
}

const INSTANCE_ALLOWED = [
  'maxConcurrent',
  'failureMode',
  'failureThreshold',
  'retry',
  'queue',
  'priority',
  'timeout',
  'totalTimeout',
  'duplicates',
  'rateLimit',
  'slots',
]
export const MAX_CONCURRENT = 2048
const INSTANCE_TIMEOUT_MS = 30 * 60_000
/** Beyond the calendar no schedule can be made of it. */
const TOTAL_MAX_MS = 365 * 86_400_000
/** What a timer in a process can hold. */
export const TIMER_MAX_MS = 2 ** 31 - 1

export function parseInstanceOptions(asset: string, options: InstanceOptions<FailureMode, never>): ScatterSpec {
  const at = `${asset}: scatterOptions`
  refuseUnknown(at, options, INSTANCE_ALLOWED)
  const { failureThreshold = 0, queue, priority, timeout, totalTimeout } = options
  const count = typeof failureThreshold === 'object' ? failureThreshold?.count : undefined
  if (count === undefined ? !isFraction(failureThreshold) : !(Number.isInteger(count) && count >= 0)) {
    throw new InvalidError(
      `${at}: failureThreshold must be a fraction from 0 to 1, or { count: a whole number }, got ${shown(failureThreshold)}`,
    )
  }
  const { maxConcurrent } = options
  if (
    maxConcurrent !== undefined &&
    !(Number.isInteger(maxConcurrent) && maxConcurrent >= 1 && maxConcurrent <= MAX_CONCURRENT)
  ) {
    throw new InvalidError(
      `${at}: maxConcurrent must be a whole number from 1 to ${MAX_CONCURRENT}, got ${shown(maxConcurrent)}`,
    )
  }
  const failureMode = oneOf(`${at}: failureMode`, options.failureMode ?? 'all_or_nothing', [
    'all_or_nothing',
    'partial',
  ])
  if (failureMode === 'all_or_nothing' && options.failureThreshold !== undefined) {
    throw new InvalidError(
      `${at}: failureThreshold needs failureMode 'partial'; with 'all_or_nothing' the first failed instance ends the scatter`,
    )
  }
  const { strategy, ...retry } = options.retry ?? {}
  return {
    ...(maxConcurrent === undefined ? {} : { maxConcurrent }),
    failureMode,
    threshold: count === undefined ? { fraction: Number(failureThreshold) } : { count },
    strategy: oneOf(`${at}: retry.strategy`, strategy ?? 'individual', ['individual', 'batch']),
    ...(options.retry === undefined ? {} : { retry: parseRetry(`${at}: retry`, retry) }),
    ...(timeout === Number.POSITIVE_INFINITY
      ? {}
      : { timeoutMs: positive(`${at}: timeout`, parseDuration(`${at}: timeout`, timeout ?? INSTANCE_TIMEOUT_MS)) }),
    ...(totalTimeout === undefined
      ? {}
      : {
          totalTimeoutMs: positive(
            `${at}: totalTimeout`,
            parseDuration(`${at}: totalTimeout`, totalTimeout),
            TOTAL_MAX_MS,
          ),
        }),
    ...(queue === undefined ? {} : { queue: checkName(`${at}: queue`, queue) }),
    ...(priority === undefined ? {} : { priority: parsePriority(`${at}: priority`, priority) }),
    duplicates: oneOf(`${at}: duplicates`, options.duplicates ?? 'error', ['error', 'drop', 'allow']),
  }
}

function isFraction(value: unknown): boolean {
  return typeof value === 'number' && value >= 0 && value <= 1
}

function oneOf<const T extends string>(field: string, value: string, allowed: readonly T[]): T {
  const found = allowed.find((candidate) => candidate === value)
  if (found !== undefined) return found
  throw new InvalidError(`${field} must be one of ${allowed.join(', ')}, got ${shown(value)}`)
}

export function parsePriority(field: string, value: unknown): number {
  const checked = z
    .int()
    .min(0)
    .max(3)
    .safeParse(value ?? 1)
  if (checked.success) return checked.data
  throw new InvalidError(`${field} must be 0, 1, 2 or 3, got ${shown(value)}`)
}

export function positive(field: string, ms: number, max = TIMER_MAX_MS): number {
  if (ms > 0 && ms <= max) return ms
  throw new InvalidError(`${field} must be more than 0 and at most ${Math.floor(max / 86_400_000)} days`)
}

export function parseRetry(at: string, retry: RetryOptions | undefined): RetrySpec {
  refuseUnknown(at, retry ?? {}, ['maxAttempts', 'backoff'])
  const maxAttempts = retry?.maxAttempts ?? 3
  if (!Number.isInteger(maxAttempts) || maxAttempts < 1)
    throw new InvalidError(`${at}.maxAttempts must be a whole number from 1, got ${shown(maxAttempts)}`)
  const { minMs, maxMs } = parseRange(`${at}.backoff`, retry?.backoff ?? '1s..60s')
  return { maxAttempts, backoffMinMs: minMs, backoffMaxMs: maxMs }
}
