/** The option `logs` of a worker. */

import { InvalidError } from '../../streams/errors.ts'
import { LOG_LEVELS, type LogLevel } from '../../streams/logs.ts'
import { shown } from '../../streams/shown.ts'
import { type OptionNames, refuseUnknown } from '../options/unknown.ts'

/** What a worker keeps of `ctx.log`. */
export interface LogOptions {
  /** Lines of less than this are not kept. Default `'debug'`: all are. */
  readonly level?: LogLevel
  /**
   * Lines that are kept each second, twice as many at once, and as many warnings and errors
   * besides. What is beyond is left out, and a line says how many. Default 10,000.
   */
  readonly maxPerSecond?: number
}

export interface LogSettings {
  readonly isOn: boolean
  readonly level: LogLevel
  readonly maxPerSecond: number
}

const OPTIONS: OptionNames<LogOptions> = { level: true, maxPerSecond: true }
const MAX_PER_SECOND = 10_000

export function parseLogOptions(at: string, given: boolean | LogOptions = true): LogSettings {
  if (typeof given === 'boolean') return { isOn: given, level: 'debug', maxPerSecond: MAX_PER_SECOND }
  refuseUnknown(at, given, OPTIONS)
  const { level = 'debug', maxPerSecond = MAX_PER_SECOND } = given
  if (!(typeof maxPerSecond === 'number' && maxPerSecond >= 1))
    throw new InvalidError(`${at}.maxPerSecond must be a number from 1, or Infinity, got ${maxPerSecond}`)
  return { isOn: true, level: parseLevel(`${at}.level`, level), maxPerSecond }
}

export function parseLevel(at: string, level: string): LogLevel {
  const known = LOG_LEVELS.find((one) => one === level)
  if (!known)
    throw new InvalidError(
      `${at} must be ${LOG_LEVELS.slice(0, -1).join(', ')} or ${LOG_LEVELS.at(-1)}, got ${shown(level)}`,
    )
  return known
}
