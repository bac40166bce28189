/** What the lines of a run's code say. Pure. */

import type { LogLine, RunLogs } from './api/types.ts'
import type { UiState } from './words.ts'

/** Of a long log the page keeps the last lines that it has read. */
export const KEPT_MAX = 20_000

export const LEVELS = ['debug', 'info', 'warn', 'error'] as const

/** What was read so far. */
export interface LogsRead {
  readonly lines: readonly LogLine[]
  /** Where the next page begins; undefined: nothing was read. */
  readonly next: string | undefined
  /** Whether there was more when the last page was read. */
  readonly more: boolean
  /** How many lines were read and are no longer kept. */
  readonly left: number
}

export const NOTHING_READ: LogsRead = { lines: [], next: undefined, more: true, left: 0 }

export function withPage({ lines, left }: LogsRead, page: RunLogs): LogsRead {
  const all = [...lines, ...page.lines]
  const over = Math.max(0, all.length - KEPT_MAX)
  return { lines: over > 0 ? all.slice(over) : all, next: page.next, more: page.more, left: left + over }
}

export function toneOf({ level }: Pick<LogLine, 'level'>): UiState | undefined {
  return level === 'error' ? 'fail' : level === 'warn' ? 'retry' : undefined
}

/** `pages[17] #2`. */
export function placeOf({ asset, index, phase, attempt }: LogLine): string {
  const of = index === undefined ? asset : `${asset}[${index}]`
  return [of, ...(phase === 'execute' ? [] : [phase]), ...(attempt === 1 ? [] : [`#${attempt}`])].join(' ')
}

/** One line: a message may have several. */
export function messageLine({ message, fields }: Pick<LogLine, 'message' | 'fields'>): string {
  const [first = ''] = message.split('\n')
  const shown = Object.entries(fields ?? {}).map(([name, value]) => `${name}=${shownOf(value)}`)
  return shown.length === 0 ? first : `${first} ${shown.join(' ')}`
}

function shownOf(value: unknown): string {
  const isError = typeof value === 'object' && value !== null && 'message' in value
  return JSON.stringify(isError ? value.message : value) ?? ''
}
