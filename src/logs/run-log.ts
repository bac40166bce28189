/** `ctx.log`: bound to the run, the asset, the attempt and the instance that logs. */
import { messageOf } from '../../streams/errors.ts'
import { type NewLine, newLine } from '../../streams/log-columns.ts'
import { isError, loggableFields } from '../../streams/loggable.ts'
import { LOG_LEVELS, LOG_PHASES, type LogPhase } from '../../streams/logs.ts'
import type { Names } from '../../streams/subjects.ts'
import type { Task } from '../../streams/tasks.ts'
import { cut } from '../../streams/text.ts'
import type { Logger } from '../telemetry.ts'
import type { LogScope } from './buffer.ts'
import { fieldsFor, takerOf } from './logger.ts'
import type { LogSettings } from './options.ts'
import type { LogSink } from './sink.ts'

/** Fields of a line of a log, or an error, which becomes the field `error` with its causes. */
export type LogFields = Readonly<Record<string, unknown>> | Error

/**
 * `ctx.log`: lines that are kept for 7 days beside the run, and go to the worker's logger too. A
 * line never fails, waits for nothing, and is cut at 16 KiB. Fields may be anything: errors are
 * written with their causes.
 */
export interface RunLog {
  /** What happens all the time. */
  debug(message: string, fields?: LogFields): void
  /** What somebody may want to know. */
  info(message: string, fields?: LogFields): void
  /** What is wrong, and may get right by itself. */
  warn(message: string, fields?: LogFields): void
  /** What is wrong, and somebody has to look at. */
  error(message: string, fields?: LogFields): void
}

type Level = 0 | 1 | 2 | 3
type TaskPart = Pick<Task, 'run' | 'asset' | 'pipeline' | 'partition' | 'attempt'>

/** Of a key: a longer one is cut. */
const KEY_CHARS = 64
const WARN: Level = 2
/** Of fields that fail when they are read, for the worker's logger. */
const UNREADABLE_CHARS = 16_000

export interface RunLogsParts {
  readonly logger: Logger
  readonly names: Names
  readonly worker: string
  /** Undefined: nothing is kept. */
  readonly sink: LogSink | undefined
  readonly settings: LogSettings
}

/** What all logs of a worker have in common. */
interface Common extends RunLogsParts {
  /** From this level on lines are kept. */
  readonly fromLevel: number
  /** Whether the logger takes a level. */
  readonly takes: (level: number) => boolean
  /** Filled for line after line. Undefined: it is being filled. */
  line: NewLine | undefined
}

/** The logs of a worker. */
export class RunLogs {
  readonly #common: Common

  constructor(parts: RunLogsParts) {
    const fromLevel = parts.sink ? LOG_LEVELS.indexOf(parts.settings.level) : LOG_LEVELS.length
    this.#common = { ...parts, fromLevel, takes: takerOf(parts.logger), line: newLine() }
  }

  of(task: TaskPart, phase: LogPhase): TaskLogs {
    return new TaskLogs(this.#common, task, phase)
  }
}

/** What the lines of a task have in common. */
export class TaskLogs {
  readonly #common: Common
  readonly #task: TaskPart
  readonly #phase: LogPhase
  readonly #phaseAt: number
  #scope: LogScope | undefined

  constructor(common: Common, task: TaskPart, phase: LogPhase) {
    this.#common = common
    this.#task = task
    this.#phase = phase
    this.#phaseAt = LOG_PHASES.indexOf(phase)
  }

  write(level: Level, message: unknown, fields: unknown, index: number | undefined, key: unknown): void {
    const { fromLevel, sink, takes } = this.#common
    if (level >= fromLevel && sink?.takes(this.#scopeOf(), level)) {
      // Fields may have getters that log.
      const line = this.#common.line ?? newLine()
      this.#common.line = undefined
      try {
        this.#fill(line, sink, message, fields)
        line.level = level
        line.index = index ?? -1
        if (index !== undefined) line.key.takeKey(key, KEY_CHARS)
        sink.add(this.#scopeOf(), line)
      } finally {
        this.#common.line = line
      }
    }
    if (takes(level)) this.#tell(level, message, fields, index, key)
  }

  #fill(line: NewLine, sink: LogSink, message: unknown, fields: unknown): void {
    const half = sink.lineChars / 2
    const text = textOf(message)
    const said = text.length <= half ? text : cut(text, half, '…')
    line.message = said
    line.fields.takeFields(fields === undefined && isError(message) ? message : fields, sink.lineChars - said.length)
    line.timeMs = sink.nowMs()
    line.phase = this.#phaseAt
    line.attempt = this.#task.attempt
  }

  /** To the logger of the worker. */
  #tell(level: Level, message: unknown, fields: unknown, index: number | undefined, key: unknown): void {
    const { logger, worker } = this.#common
    const { run, pipeline, asset, partition, attempt } = this.#task
    const bound = {
      run,
      pipeline,
      asset,
      ...(partition === undefined ? {} : { partition }),
      phase: this.#phase,
      attempt,
      ...(index === undefined ? {} : { index, key }),
      worker,
    }
    logger[LOG_LEVELS[level]](textOf(message), fieldsFor(logger, { ...bound, ...fieldsOf(message, fields) }))
  }

  #scopeOf(): LogScope {
    this.#scope ??= this.#makeScope()
    return this.#scope
  }

  #makeScope(): LogScope {
    const { names, worker, sink } = this.#common
    const { run, asset, pipeline, partition, attempt } = this.#task
    const place = { run, asset, pipeline }
    return {
      subjects: [names.logLines(place, 'low'), names.logLines(place, 'high')],
      source: { pipeline, worker, partition },
      dropped: (dropped) => {
        const said = dropped === 1 ? 'a line was dropped here' : `${dropped} lines were dropped here`
        const line = newLine()
        line.timeMs = sink?.nowMs() ?? Date.now()
        line.level = WARN
        line.message = `${said}: too many at a time`
        line.fields.takePlain({ dropped })
        line.phase = this.#phaseAt
        line.attempt = attempt
        return line
      },
    }
  }
}

/** JavaScript may give anything. */
function textOf(message: unknown): string {
  return typeof message === 'string' ? message : messageOf(message)
}

function fieldsOf(message: unknown, fields: unknown): Readonly<Record<string, unknown>> {
  if (isError(fields)) return { error: fields }
  if (fields === undefined) return isError(message) ? { error: message } : {}
  try {
    return typeof fields === 'object' && fields !== null && !Array.isArray(fields) ? { ...fields } : { value: fields }
  } catch {
    return loggableFields(fields, UNREADABLE_CHARS) || {}
  }
}

/** There is one for each instance, so it is small. */
export class BoundLog implements RunLog {
  readonly #logs: TaskLogs
  readonly #index: number | undefined
  readonly #key: unknown

  constructor(logs: TaskLogs, index?: number, key?: unknown) {
    this.#logs = logs
    this.#index = index
    this.#key = key
  }

  debug(message: string, fields?: LogFields): void {
    this.#write(0, message, fields)
  }

  info(message: string, fields?: LogFields): void {
    this.#write(1, message, fields)
  }

  warn(message: string, fields?: LogFields): void {
    this.#write(2, message, fields)
  }

  error(message: string, fields?: LogFields): void {
    this.#write(3, message, fields)
  }

  #write(level: Level, message: unknown, fields: unknown): void {
    try {
      this.#logs.write(level, message, fields, this.#index, this.#key)
    } catch {
      // A revoked proxy, or a logger that fails: that must not fail the code that logs.
    }
  }
}
