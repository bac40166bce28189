/** The option `logs` of a worker. */
import { InvalidError } from '../../streams/errors.ts'
import { LOG_LEVELS, type LogLevel } from '../../streams/logs.ts'
import { type OptionNames, refuseUnknown } from '../options/unknown.ts'

/** What a worker keeps of `ctx.log`. */
export interface LogOptions {
  /** Lines of less than this are not kept. Default `'debug'`: all are. */
  readonly level?: LogLevel
}

export interface LogSettings {
  readonly isOn: boolean
  readonly level: LogLevel
}

const OPTIONS: OptionNames<LogOptions> = { level: true }

export function parseLogOptions(at: string, given: boolean | LogOptions = true): LogSettings {
  if (typeof given === 'boolean') return { isOn: given, level: 'debug' }
  refuseUnknown(at, given, OPTIONS)
  return { isOn: true, level: parseLevel(`${at}.level`, given.level ?? 'debug') }
}

export function parseLevel(at: string, level: string): LogLevel {
  const known = LOG_LEVELS.find((one) => one === level)
  if (!known)
    throw new InvalidError(`${at} must be ${LOG_LEVELS.slice(0, -1).join(', ')} or ${LOG_LEVELS.at(-1)}, got ${level}`)
  return known
}
