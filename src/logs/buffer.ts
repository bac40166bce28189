/**
 * Lines that wait to be sent, by the subject they go to. It holds a bounded number of characters.
 * What is beyond is dropped and counted, and a line says how many.
 */
import { LINES_MAX, LogColumns, type NewLine } from '../../streams/log-columns.ts'
import { encodeLines, type LogSource } from '../../streams/logs.ts'

/** Where lines of a task go. */
export interface LogScope {
  /** Of lines below warn, and of the others. */
  readonly subjects: readonly [low: string, high: string]
  readonly source: LogSource
  /** The line that says how many were dropped. */
  readonly dropped: (lines: number) => NewLine
}

/** A message of lines. */
export interface LogMessage {
  readonly subject: string
  readonly payload: Uint8Array
  /** How many lines are in it. */
  readonly lines: number
}

export interface BufferLimits {
  /** Characters that wait, those that are being sent included. */
  readonly maxChars: number
  /** Characters of a message. A single line may be longer. */
  readonly messageChars: number
  /** Bytes of a message, which characters that are escaped may reach. */
  readonly messageBytes: number
}

interface Lines {
  readonly subject: string
  readonly scope: LogScope
  readonly columns: LogColumns
  chars: number
}

interface Dropped {
  readonly scope: LogScope
  lines: number
}

/** What a line may take besides its texts. */
const LINE_CHARS = 100
/** So many different subjects are remembered of which lines were dropped. */
const DROPPED_MAX = 1000

export class LogBuffer {
  readonly #limits: BufferLimits
  #open = new Map<string, Lines>()
  #full: Lines[] = []
  #dropped = new Map<string, Dropped>()
  #chars = 0
  #sending = 0

  constructor(limits: BufferLimits) {
    this.#limits = limits
  }

  /** Characters that wait and are not being sent. */
  get chars(): number {
    return this.#chars
  }

  get isEmpty(): boolean {
    return this.#chars === 0 && this.#dropped.size === 0
  }

  /** False: there is no room; it was dropped, and counted. */
  add(scope: LogScope, line: NewLine): boolean {
    const chars = mostChars(line)
    if (this.#chars + this.#sending + chars > this.#limits.maxChars) {
      this.drop(scope)
      return false
    }
    this.#put(scope, line, chars)
    return true
  }

  /** All that waits, and what was dropped. It takes its room until `sent`. */
  take(): LogMessage[] {
    const dropped = [...this.#dropped.values()]
    this.#dropped = new Map()
    for (const { scope, lines } of dropped) {
      const line = scope.dropped(lines)
      this.#put(scope, line, mostChars(line))
    }
    const all = [...this.#full, ...this.#open.values()]
    this.#open = new Map()
    this.#full = []
    this.#sending += this.#chars
    this.#chars = 0
    return all.flatMap(({ subject, scope, columns }) => this.#encode(subject, scope, columns))
  }

  /** What was taken before is sent, or given up. */
  sent(): void {
    this.#sending = 0
  }

  #put(scope: LogScope, line: NewLine, most: number): void {
    const [low, high] = scope.subjects
    const subject = line.level > 1 ? high : low
    let open = this.#open.get(subject)
    if (!open || this.#isFull(open, most) || !isSame(open.scope.source, scope.source)) {
      if (open) this.#full.push(open)
      open = { subject, scope, columns: new LogColumns(), chars: 0 }
      this.#open.set(subject, open)
    }
    const chars = open.columns.add(line)
    open.chars += chars
    this.#chars += chars
  }

  #isFull({ chars, columns }: Lines, more: number): boolean {
    return chars > 0 && (chars + more > this.#limits.messageChars || columns.count === LINES_MAX)
  }

  #encode(subject: string, scope: LogScope, columns: LogColumns): LogMessage[] {
    const payload = encodeLines(scope.source, columns)
    if (payload.length <= this.#limits.messageBytes) return [{ subject, payload, lines: columns.count }]
    // Escapes have made it several times as long.
    if (columns.count > 1) return columns.halves().flatMap((half) => this.#encode(subject, scope, half))
    this.drop(scope)
    return []
  }

  /** A line is left out: it is counted. */
  drop(scope: LogScope): void {
    const [, subject] = scope.subjects
    const dropped = this.#dropped.get(subject)
    if (dropped) dropped.lines += 1
    else if (this.#dropped.size < DROPPED_MAX) this.#dropped.set(subject, { scope, lines: 1 })
  }
}

function mostChars({ message, fields, key }: NewLine): number {
  return message.length + fields.chars + key.chars + LINE_CHARS
}

/** Those of one worker differ only where two pipelines, or partitions, have a run in common. */
function isSame(a: LogSource, b: LogSource): boolean {
  return a === b || (a.worker === b.worker && a.pipeline === b.pipeline && a.partition === b.partition)
}
