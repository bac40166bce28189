/** Options of `flow.worker`. */

import { InvalidError } from '../../streams/errors.ts'
import { shown } from '../../streams/shown.ts'
import type { Resources } from '../define/asset-type.ts'
import type { PipelineHooks } from '../define/hooks.ts'
import type { IoManager } from '../io/manager.ts'
import type { PinoLogger } from '../logs/logger.ts'
import { type LogOptions, type LogSettings, parseLogOptions } from '../logs/options.ts'
import { type Duration, parseDuration } from '../options/duration.ts'
import { type OptionNames, refuseUnknown } from '../options/unknown.ts'
import type { Logger } from '../telemetry.ts'

/** Options of `flow.worker`. */
export interface WorkerOptions {
  /**
   * How many pieces of user code run at a time in this process: executions, or instances of
   * scatters. Default 10.
   */
  readonly concurrency?: number
  /** Only these queues. Default: all that the pipelines' assets name. */
  readonly queues?: readonly string[]
  readonly resources?: Resources
  /**
   * A worker that gives no sign for this long is taken for dead, and its tasks go to others.
   * Default `'30s'`, 500 ms to one day. The same for all workers of a queue.
   */
  readonly ackWait?: Duration
  /**
   * How long a stop waits for running code before that is aborted and handed back. Default `'30s'`.
   */
  readonly drainTimeout?: Duration
  /**
   * Close the flow on SIGTERM and SIGINT: its workers finish or hand back, its engines checkpoint,
   * its connection ends. The process then ends by itself, unless something else of yours keeps it.
   * Default false.
   */
  readonly handleSignals?: boolean
  /**
   * How long code may hold up the event loop: so long its tasks are kept alive by a thread of their
   * own. After that this worker is taken for dead, and its tasks go to others. Default `'10m'`.
   */
  readonly maxBlocked?: Duration
  /**
   * The process is there for this worker alone: after `maxBlocked` it is ended. Default false; true
   * for `flowstone worker` and `dev`.
   */
  readonly ownsProcess?: boolean
  /**
   * Where lines of `ctx.log` go besides, and what this worker itself has to say: pino, or anything
   * that takes a message and fields. Default: that of `connect`.
   */
  readonly logger?: Logger | PinoLogger
  /**
   * What is kept of `ctx.log` beside the runs; false: nothing. How long it is kept is a matter of
   * the namespace: see `logsMaxAgeMs` of `connect`. Default `{ level: 'debug' }`.
   */
  readonly logs?: boolean | LogOptions
}

/**
 * What a file with pipelines may export as `worker`, for `flowstone worker` and `flowstone dev`:
 * options of `flow.worker`, and the `io` of `connect`. Options of the command come
 * first.
 */
export interface WorkerConfig extends Omit<WorkerOptions, 'handleSignals' | 'ownsProcess'> {
  /** I/O managers by name. `flowstone run` reads values with them, too. */
  readonly io?: Readonly<Record<string, IoManager>>
  /** Hooks of those pipelines that the file exports and that have none of their own. */
  readonly hooks?: PipelineHooks
}

export const WORKER_DEFAULTS = { concurrency: 10, drainTimeout: '30s', ackWait: '30s', maxBlocked: '10m' } as const

const OPTIONS: OptionNames<WorkerOptions> = {
  concurrency: true,
  queues: true,
  resources: true,
  ackWait: true,
  drainTimeout: true,
  handleSignals: true,
  maxBlocked: true,
  ownsProcess: true,
  logger: true,
  logs: true,
}
/** Longer, and what a dead worker held would lie there for days. */
const ACK_WAIT_MAX_MS = 86_400_000

export function parseWorkerOptions(options: WorkerOptions): {
  readonly concurrency: number
  readonly drainMs: number
  readonly ackWaitMs: number
  readonly maxBlockedMs: number
  readonly logs: LogSettings
} {
  refuseUnknown('worker', options, OPTIONS)
  const concurrency = options.concurrency ?? WORKER_DEFAULTS.concurrency
  if (!Number.isInteger(concurrency) || concurrency < 1)
    throw new InvalidError(`worker: concurrency must be a whole number from 1, got ${shown(concurrency)}`)
  const queues: unknown = options.queues
  if (queues !== undefined && !(Array.isArray(queues) && queues.every((one) => typeof one === 'string')))
    throw new InvalidError(`worker: queues must be a list of names, got ${shown(queues)}`)
  const drainMs = parseDuration('worker: drainTimeout', options.drainTimeout ?? WORKER_DEFAULTS.drainTimeout)
  const ackWaitMs = parseDuration('worker: ackWait', options.ackWait ?? WORKER_DEFAULTS.ackWait, {
    maxMs: ACK_WAIT_MAX_MS,
  })
  if (ackWaitMs < 500)
    throw new InvalidError(
      'worker: ackWait must be at least 500 ms; shorter, and workers are taken for dead while they work',
    )
  const maxBlockedMs = parseDuration('worker: maxBlocked', options.maxBlocked ?? WORKER_DEFAULTS.maxBlocked, {
    minMs: 1000,
  })
  return { concurrency, drainMs, ackWaitMs, maxBlockedMs, logs: parseLogOptions('worker: logs', options.logs) }
}
