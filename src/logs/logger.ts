/** Loggers of others, and how a line of `ctx.log` gets to them. */

import { InvalidError } from '../../streams/errors.ts'
import { isError, loggable } from '../../streams/loggable.ts'
import { LOG_LEVELS, type LogLevel } from '../../streams/logs.ts'
import { reasonOf } from '../../streams/thrown.ts'
import { type Logger, quietLogger } from '../telemetry.ts'

/** What FlowStone needs of pino, which takes the fields first. */
export interface PinoLogger {
  /** What is on every line of it. */
  bindings(): Readonly<Record<string, unknown>>
  /** Whether lines of this level are written. */
  isLevelEnabled(level: string): boolean
  /** What happens all the time. */
  debug(fields: object, message?: string): void
  /** What somebody may want to know. */
  info(fields: object, message?: string): void
  /** What is wrong, and may get right by itself. */
  warn(fields: object, message?: string): void
  /** What is wrong, and somebody has to look at. */
  error(fields: object, message?: string): void
}

type Fields = Readonly<Record<string, unknown>>

const pinoOf = new WeakMap<Logger, PinoLogger>()
/** Of others, made so that they never throw. */
const guarded = new WeakSet<Logger>()
/** Those that print warnings and errors, a line each, and nothing else. */
const printing = new WeakSet<Logger>([quietLogger])

export function printingLogger(logger: Logger): Logger {
  printing.add(logger)
  return logger
}

/**
 * One that takes message and fields, and never throws: whoever logs has other things to do, and a
 * logger may have been closed before. Throws InvalidError for what is no logger.
 */
export function loggerOf(given: Logger | PinoLogger | undefined): Logger {
  if (given === undefined) return quietLogger
  for (const level of LOG_LEVELS)
    if (typeof given?.[level] !== 'function')
      throw new InvalidError(
        `logger must have debug, info, warn and error, as pino and console have; it has no ${level}`,
      )
  if (isPino(given)) {
    const logger = loggerWith((level, message, fields) => given[level](fields ?? {}, message))
    pinoOf.set(logger, given)
    return logger
  }
  if (pinoOf.has(given) || printing.has(given) || guarded.has(given)) return given
  // As console has it, what is given is written, also undefined.
  const logger = loggerWith((level, message, fields) =>
    fields === undefined ? given[level](message) : given[level](message, fields),
  )
  guarded.add(logger)
  return logger
}

function loggerWith(write: (level: LogLevel, message: string, fields?: Fields) => void): Logger {
  const at =
    (level: LogLevel) =>
    (message: string, fields?: Fields): void => {
      try {
        write(level, message, fields)
      } catch {
        // Nobody reads it.
      }
    }
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
}

function isPino(given: Logger | PinoLogger): given is PinoLogger {
  return (
    'bindings' in given &&
    typeof given.bindings === 'function' &&
    'isLevelEnabled' in given &&
    typeof given.isLevelEnabled === 'function'
  )
}

/** Of what a line that is printed shows. */
const PRINTED_CHARS = 4000
const ERROR_CHARS = 16_000

/**
 * Fields as a logger shows them: errors would be `{}` in its JSON. pino knows an error by the name
 * `err`, and the default logger prints one line.
 */
export function fieldsFor(logger: Logger, fields: Fields): Fields {
  if (pinoOf.has(logger)) {
    const { error, ...rest } = fields
    return isError(error) && !('err' in rest) ? { ...rest, err: error } : fields
  }
  const isPrinted = printing.has(logger)
  const entries = Object.entries(fields).map(([name, value]): [string, unknown] => {
    if (isError(value)) return [name, isPrinted ? reasonOf(value) : JSON.parse(loggable(value, ERROR_CHARS))]
    return [name, isPrinted ? JSON.parse(loggable(value, PRINTED_CHARS)) : value]
  })
  return Object.fromEntries(entries)
}

/** Whether a line of a level (its place in the list) would be written, as far as is known. */
export function takerOf(logger: Logger): (level: number) => boolean {
  if (printing.has(logger)) return (level) => level > 1
  const pino = pinoOf.get(logger)
  return pino ? (level) => pino.isLevelEnabled(LOG_LEVELS[level] ?? 'info') : () => true
}
