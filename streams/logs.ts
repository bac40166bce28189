/**
 * Lines of `ctx.log` on the wire. A message holds lines of one run, asset and worker; run and asset
 * are in its subject. No fold reads it. A line that cannot be read is passed over.
 */
import { z } from 'zod'
import { decode } from './codec.ts'
import { type LogColumns, plainColumns, type ReadLine, readColumns } from './log-columns.ts'
import type { Names } from './subjects.ts'

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const
/** How much a line of a log matters. */
export type LogLevel = (typeof LOG_LEVELS)[number]

export const LOG_PHASES = ['execute', 'scatter', 'gather', 'signal', 'timeout'] as const
/** Which code logged: `signal` and `timeout` are `onSignal` (also `onRun`) and `onTimeout`. */
export type LogPhase = (typeof LOG_PHASES)[number]

/**
 * Part of a subject: lines of debug and info, and lines of warn and error, stand apart. So whoever
 * looks for what went wrong reads only that.
 */
export type LogClass = 'low' | 'high'

export function classOf(level: LogLevel): LogClass {
  return level === 'warn' || level === 'error' ? 'high' : 'low'
}

/** A line that user code logged with `ctx.log`. */
export interface LogLine {
  /** By the server's clock, as far as the worker knew it. */
  readonly at: Date
  readonly level: LogLevel
  readonly message: string
  /** What was given besides: plain JSON. */
  readonly fields?: Readonly<Record<string, unknown>>
  readonly run: string
  readonly pipeline: string
  readonly asset: string
  readonly partition?: string
  readonly phase: LogPhase
  readonly attempt: number
  /** Of an instance of a scatter: its place, from 0, and its key as plain JSON, cut where long. */
  readonly index?: number
  readonly key?: unknown
  readonly worker: string
}

/** What the lines of a message have in common. */
export interface LogSource {
  readonly pipeline: string
  readonly worker: string
  readonly partition?: string | undefined
}

/** Many lines at once, because that costs a fraction of as many texts. */
export function encodeLines({ pipeline, worker, partition }: LogSource, lines: LogColumns): Uint8Array {
  return Buffer.from(JSON.stringify({ v: 2, pipeline, worker, partition, lines: lines.plain() }))
}

const source = { pipeline: z.string(), worker: z.string(), partition: z.string().optional() }

/**
 * A line of version 1 was a row: time, level, message, fields (0: none), phase, attempt, and of an
 * instance its index and key.
 */
const message = z.discriminatedUnion('v', [
  z.object({ v: z.literal(2), ...source, lines: plainColumns }),
  z.object({ v: z.literal(1), ...source, lines: z.array(z.array(z.unknown())) }),
])

/** Empty for what is no message of lines, or one of a newer FlowStone. */
export function decodeLines(names: Names, subject: string, payload: Uint8Array): LogLine[] {
  const place = names.parseLogs(subject)
  let body: unknown
  try {
    body = decode(payload, undefined)
  } catch {
    return []
  }
  const { data } = message.safeParse(body)
  if (!place || !data) return []
  const { pipeline, worker, partition } = data
  const of = { ...place, pipeline, worker, ...(partition === undefined ? {} : { partition }) }
  const lines: LogLine[] = []
  for (const line of data.v === 1 ? data.lines.map(ofRow) : readColumns(data.lines)) {
    const read = lineOf(line)
    if (read) lines.push({ ...read, ...of })
  }
  return lines
}

function ofRow([timeMs, level, text, fields, phase, attempt, index, key]: readonly unknown[]): ReadLine {
  return { timeMs, level, message: text, fields, phase, attempt, index, key }
}

type OwnPart = Omit<LogLine, 'run' | 'asset' | 'pipeline' | 'worker' | 'partition'>

function lineOf(line: ReadLine): OwnPart | undefined {
  const { timeMs, message: text, fields, attempt, index, key } = line
  const level = LOG_LEVELS[Number(line.level)]
  const phase = LOG_PHASES[Number(line.phase)]
  if (typeof timeMs !== 'number' || !level || typeof text !== 'string' || !phase) return undefined
  const at = new Date(timeMs)
  if (!Number.isFinite(at.getTime()) || !Number.isSafeInteger(attempt)) return undefined
  return {
    at,
    level,
    message: text,
    ...(isFields(fields) ? { fields } : {}),
    phase,
    attempt: Number(attempt),
    ...(typeof index === 'number' ? { index, key } : {}),
  }
}

function isFields(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
