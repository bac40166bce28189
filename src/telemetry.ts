/**
 * Telemetry: every event goes to a channel of Node's diagnostics_channel, and costs nothing while
 * nobody listens. The table in docs/telemetry.md is made from what stands here; later capabilities
 * extend it.
 */

import { channel } from 'node:diagnostics_channel'
import { printable } from '../streams/text.ts'
import type { ErrorView } from '../streams/thrown.ts'

/** What is published on `node:diagnostics_channel`, by the name of its channel. */
export interface TelemetryEvents {
  /** A run was asked for, by whomever. */
  'flowstone:run.requested': RunEvent
  /** A run has ended. `durationMs`: since it was asked for, by the server's clock. */
  'flowstone:run.finished': RunEvent & {
    readonly status: 'succeeded' | 'failed' | 'cancelled'
    readonly durationMs: number
    readonly error?: ErrorView
  }
  /** A worker begins to run a piece of user code of an asset. */
  'flowstone:materialization.start': MaterializationEvent
  /** It ended with a value. */
  'flowstone:materialization.stop': MaterializationEvent & { readonly durationMs: number }
  /** It threw, timed out, or was aborted. */
  'flowstone:materialization.exception': MaterializationEvent & {
    readonly durationMs: number
    readonly error: unknown
    readonly outcome: string
    /** It will not be tried again. */
    readonly isLast: boolean
  }
  /** A worker took a task from its queue. */
  'flowstone:task.received': {
    readonly worker: string
    readonly task: string
    readonly kind: string
    readonly delivery: number
  }
  /** The worker that had a task before has died, or was cut off. */
  'flowstone:task.lost': {
    readonly worker: string
    readonly task: string
    readonly kind: string
    readonly run: string
    readonly asset: string
  }
  /** A worker put a task back, unfinished. */
  'flowstone:task.returned': { readonly worker: string; readonly task: string; readonly reason: string }
  /**
   * Code held up the event loop of a worker's process. `assets`: what the worker held then.
   */
  'flowstone:worker.blocked': {
    readonly worker: string
    readonly blockedMs: number
    readonly assets: readonly string[]
  }
  /** A lease of instances was run to its end. */
  'flowstone:lease.stop': LeaseCounts & {
    readonly worker: string
    readonly run: string
    readonly pipeline: string
    readonly asset: string
    readonly durationMs: number
  }
  /** The first keys of a scatter are stored: it is open. */
  'flowstone:scatter.start': ScatterEvent
  /**
   * All instances have ended, and no more of them failed than may. `failed` is more than 0 for a
   * partial failure.
   */
  'flowstone:scatter.complete': ScatterEndEvent
  /** It failed: by its instances, its threshold, its time limit, or by itself. */
  'flowstone:scatter.failed': ScatterEndEvent & { readonly error?: ErrorView }
  /** It was cancelled, by itself or with its run. */
  'flowstone:scatter.cancel': ScatterEndEvent
  /** The results of a scatter are there, and its gather is due. */
  'flowstone:scatter.gather_ready': ScatterEndEvent
  /** An instance ended with a value. */
  'flowstone:scatter.instance_complete': InstanceEvent
  /** An attempt of an instance failed. `isLast`: it will not be tried again. */
  'flowstone:scatter.instance_fail': InstanceEvent & {
    readonly error: unknown
    readonly outcome: string
    readonly isLast: boolean
  }
  /** A gate was opened. */
  'flowstone:gate.create': GateEvent & { readonly kind: 'signal' | 'approval'; readonly timeoutMs?: number }
  /** A signal was accepted, in the process that gave it. */
  'flowstone:gate.signal': GateEvent & { readonly waitedMs: number }
  /** An attempt to answer was refused, in this process. `gate`: where the gate is known. */
  'flowstone:gate.refuse': { readonly reason: string; readonly gate?: string }
  /** Its last deadline has passed. */
  'flowstone:gate.timeout': GateEvent & { readonly waitedMs: number; readonly timeouts: number }
  /** A deadline has passed, and it waits on. */
  'flowstone:gate.timeout_retry': GateEvent & { readonly timeouts: number; readonly waitMs: number }
  /** It was cancelled by `flow.gates.cancel`, or because what opened it ended. */
  'flowstone:gate.cancel': GateEvent & { readonly waitedMs?: number; readonly reason?: string }
  /** It ended, in whichever way. */
  'flowstone:gate.end': GateEvent & {
    readonly pipeline: string
    readonly kind: 'signal' | 'approval'
    readonly outcome: 'signaled' | 'timed_out' | 'cancelled'
    readonly waitedMs: number
  }
  /** A worker continues after it. `delayMs`: the time since it ended. */
  'flowstone:gate.resume': GateEvent & { readonly how: 'signal' | 'timeout'; readonly delayMs: number }
  /** The source of an item reader failed, and is asked again in `waitMs` from `position` on. */
  'flowstone:items.retry': {
    readonly reader: string
    readonly position: string
    /** How often in a row, this time included. */
    readonly failures: number
    readonly waitMs: number
    readonly error: unknown
  }
  /** A scatter over an item reader goes on where an earlier attempt was. */
  'flowstone:items.resume': {
    readonly worker: string
    readonly run: string
    readonly asset: string
    readonly reader: string
    readonly position: string
    /** Keys that are stored. */
    readonly keys: number
  }
  /** An engine took over a shard, at this sequence. */
  'flowstone:engine.active': { readonly engine: string; readonly shard: number; readonly seq: number }
  /** An engine stopped working on a shard, and stands by or ends. */
  'flowstone:engine.standby': { readonly engine: string; readonly shard: number; readonly reason: string }
  /** A checkpoint was stored. */
  'flowstone:engine.checkpoint': {
    readonly engine: string
    readonly shard: number
    readonly seq: number
    readonly keys: number
    readonly durationMs: number
  }
  /** A message on the log that is no fact FlowStone knows; it is stepped over. */
  'flowstone:engine.bad_fact': { readonly shard: number; readonly seq: number; readonly reason: string }
  /**
   * The reconciler enqueued tasks that were missing, or set timers of gates again that were past
   * their deadline.
   */
  'flowstone:engine.repaired': {
    readonly shard: number
    readonly tasks: readonly string[]
    readonly gates?: readonly string[]
    /** Runs that waited for what had been decided and was not on the log. */
    readonly runs?: readonly string[]
  }
  /** A limit was asked for tokens. */
  'flowstone:rate_limit.check': {
    readonly bucket: string
    readonly tokens: number
    readonly allowed: boolean
    /** When there will be room, if it was refused. */
    readonly waitMs?: number
    /** How long the answer took. */
    readonly durationMs: number
  }
  /** Somebody waited for a limit, until it was their turn (`granted`) or in vain. */
  'flowstone:rate_limit.wait': {
    readonly bucket: string
    readonly tokens: number
    readonly granted: boolean
    readonly durationMs: number
  }
  /** A slot was taken, after `durationMs` of waiting. */
  'flowstone:rate_limit.slot_acquired': SlotEvent
  /**
   * It was given back after `durationMs`, or lost: its lease ran out before it could be renewed.
   */
  'flowstone:rate_limit.slot_released': SlotEvent & { readonly lost: boolean }
  /** The connection to the server broke. */
  'flowstone:connection.away': { readonly server: string }
  /** It is there again. */
  'flowstone:connection.back': { readonly server: string; readonly awayMs: number }
  /** The server refuses the credentials; it is tried again. */
  'flowstone:connection.refused': { readonly server: string; readonly reason: string }
  /** The connection was closed; `reason`: where nobody asked for it. */
  'flowstone:connection.closed': { readonly reason?: string }
  /** The server denied a subject; once for each permission. */
  'flowstone:connection.denied': {
    readonly operation: 'publish' | 'subscribe'
    readonly subject: string
    readonly permission: string
  }
  /** A core message that could not be read, and was dropped. */
  'flowstone:connection.bad_message': { readonly subject: string; readonly reason: string }
  /** A stream takes no message, because a limit of storage is reached. */
  'flowstone:storage.full': { readonly stream: string; readonly limit: string }
  /** It takes messages again. */
  'flowstone:storage.room': { readonly stream: string; readonly fullMs: number }
}

/** A run, from the engine that folds what is said of it. */
export interface RunEvent {
  readonly engine: string
  readonly run: string
  readonly pipeline: string
  readonly target: string
  readonly partition?: string
  /** It is a call of a hook, or of the code of a schedule, sensor or subscription. */
  readonly internal?: true
  /** Its span, as W3C Trace Context writes it. */
  readonly traceparent: string
}

/**
 * Instances of a lease, by how they ended here. `returned`: given back, as for a limit that has no
 * room.
 */
export interface LeaseCounts {
  readonly instances: number
  readonly succeeded: number
  readonly failed: number
  readonly suspended: number
  readonly returned: number
}

export interface SlotEvent {
  readonly bucket: string
  readonly slot: string
  readonly weight: number
  readonly fence: number
  readonly durationMs: number
}

export interface GateEvent {
  /** `<run>.<asset>.<gate>`. */
  readonly gate: string
  readonly run: string
  readonly asset: string
}

/** Which code of which asset ran, and where. */
export interface MaterializationEvent {
  readonly worker: string
  readonly run: string
  readonly pipeline: string
  readonly asset: string
  /** `signal` and `timeout`: `onSignal` and `onTimeout`. */
  readonly phase: 'execute' | 'scatter' | 'gather' | 'signal' | 'timeout'
  readonly attempt: number
  readonly partition?: string
}

export interface ScatterEvent {
  readonly engine: string
  readonly run: string
  readonly asset: string
}

export interface ScatterEndEvent extends ScatterEvent {
  readonly total?: number
  readonly succeeded: number
  readonly failed: number
  /** From its first key to its end, by the server's clock. */
  readonly durationMs: number
}

export interface InstanceEvent {
  readonly worker: string
  readonly run: string
  readonly asset: string
  readonly index: number
  readonly key: unknown
  readonly attempt: number
  readonly durationMs: number
}

/** Names of all channels, for subscribers that want everything. */
export const TELEMETRY_CHANNELS = [
  'flowstone:run.requested',
  'flowstone:run.finished',
  'flowstone:materialization.start',
  'flowstone:materialization.stop',
  'flowstone:materialization.exception',
  'flowstone:task.received',
  'flowstone:task.lost',
  'flowstone:task.returned',
  'flowstone:worker.blocked',
  'flowstone:lease.stop',
  'flowstone:scatter.start',
  'flowstone:scatter.complete',
  'flowstone:scatter.failed',
  'flowstone:scatter.cancel',
  'flowstone:scatter.gather_ready',
  'flowstone:scatter.instance_complete',
  'flowstone:scatter.instance_fail',
  'flowstone:gate.create',
  'flowstone:gate.signal',
  'flowstone:gate.refuse',
  'flowstone:gate.timeout',
  'flowstone:gate.timeout_retry',
  'flowstone:gate.cancel',
  'flowstone:gate.end',
  'flowstone:gate.resume',
  'flowstone:items.retry',
  'flowstone:items.resume',
  'flowstone:engine.active',
  'flowstone:engine.standby',
  'flowstone:engine.checkpoint',
  'flowstone:engine.bad_fact',
  'flowstone:engine.repaired',
  'flowstone:rate_limit.check',
  'flowstone:rate_limit.wait',
  'flowstone:rate_limit.slot_acquired',
  'flowstone:rate_limit.slot_released',
  'flowstone:connection.away',
  'flowstone:connection.back',
  'flowstone:connection.refused',
  'flowstone:connection.closed',
  'flowstone:connection.denied',
  'flowstone:connection.bad_message',
  'flowstone:storage.full',
  'flowstone:storage.room',
] as const satisfies readonly (keyof TelemetryEvents)[]

const channels = new Map(TELEMETRY_CHANNELS.map((name) => [name, channel(name)]))

export function emit<N extends keyof TelemetryEvents>(name: N, event: TelemetryEvents[N]): void {
  const target = channels.get(name)
  if (target?.hasSubscribers) target.publish(event)
}

/**
 * The channel itself, for the hot path: what an event says is put together only when
 * `hasSubscribers`.
 */
export function channelOf<N extends keyof TelemetryEvents>(
  name: N,
): { readonly hasSubscribers: boolean; publish(event: TelemetryEvents[N]): void } {
  return channel(name)
}

/** What FlowStone writes its own words to. pino, winston and console fit. */
export interface Logger {
  /** What happens all the time. */
  debug(message: string, fields?: Readonly<Record<string, unknown>>): void
  /** What somebody may want to know. */
  info(message: string, fields?: Readonly<Record<string, unknown>>): void
  /** What is wrong, and may get right by itself. */
  warn(message: string, fields?: Readonly<Record<string, unknown>>): void
  /** What is wrong, and somebody has to look at. */
  error(message: string, fields?: Readonly<Record<string, unknown>>): void
}

/** The default: warnings and errors to standard error, one line each. */
export const quietLogger: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: (message, fields) => console.error(line('warn', message, fields)),
  error: (message, fields) => console.error(line('error', message, fields)),
}

function line(level: string, message: string, fields: Readonly<Record<string, unknown>> | undefined): string {
  return printable(`flowstone ${level}: ${message}${fields ? ` ${JSON.stringify(fields)}` : ''}`)
}
