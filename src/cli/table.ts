/**
 * Tables and lists of fields. In a pipe they are stable and nothing is cut. On a terminal a table
 * fits the width; these steps are taken in turn until it does:
 *
 * 1. all as in a pipe
 * 2. columns without any value go
 * 3. times become ages (`12 min ago`)
 * 4. long cells are cut, the longest first, but never an id
 * 5. each row becomes a list of fields
 */
import stringWidth from 'string-width'
import { relative } from '../../streams/amounts.ts'
import { jsonOf } from '../../streams/plain-json.ts'
import { printable } from '../../streams/text.ts'
import { painted } from './colour.ts'

const NONE = '-'
const GAP = '  '
/** What is cut keeps so many columns of the terminal. */
const CUT_MIN = 6
/** Columns and fields that say a state. */
const STATES = new Set(['status', 'state', 'what'])
/** Other commands take these: whoever reads them copies them. */
const IDS = new Set(['run', 'gate', 'scatter', 'seq', 'slot'])

interface Column {
  readonly head: string
  readonly values: readonly unknown[]
}

export interface TableOptions {
  /** Columns of the terminal; undefined in a pipe. */
  readonly width?: number | undefined
  readonly nowMs?: number
}

/** Columns as wide as what is in them; `head` in capitals. An empty list is said to be one. */
export function table(
  head: readonly string[],
  rows: readonly (readonly unknown[])[],
  none: string,
  { width = widthOf(process.stdout), nowMs = Date.now() }: TableOptions = {},
): string[] {
  if (rows.length === 0) return [none]
  const all = head.map((name, at): Column => ({ head: name, values: rows.map((row) => row[at]) }))
  const whole = all.map((column) => cellsOf(column, cell))
  if (width === undefined || widthOfAll(whole) <= width) return linesOf(whole)
  const some = all.filter(({ values }, at) => at === 0 || values.some((value) => cell(value) !== NONE))
  const fewer = some.map((column) => cellsOf(column, cell))
  if (widthOfAll(fewer) <= width) return linesOf(fewer)
  const aged = some.map((column) =>
    cellsOf(column, (value) => (value instanceof Date ? relative(value, nowMs) : cell(value))),
  )
  const fitting = narrowed(aged, width)
  return fitting ? linesOf(fitting) : rows.flatMap((row, at) => [...(at > 0 ? [''] : []), ...record(head, row)])
}

/** `name   value`, one a line; what is undefined is left out. */
export function fields(values: Readonly<Record<string, unknown>>): string[] {
  const known = Object.entries(values).filter(([, value]) => value !== undefined)
  const width = Math.max(0, ...known.map(([name]) => stringWidth(name)))
  return known.map(([name, value]) => {
    const text = cell(value)
    return `${padded(name, width)}${GAP}${STATES.has(name) ? painted(text) : text}`
  })
}

/** Columns of a terminal; undefined of what is none. */
export function widthOf(stream: Pick<NodeJS.WriteStream, 'isTTY' | 'columns'>): number | undefined {
  return stream.isTTY && stream.columns > 0 ? stream.columns : undefined
}

/** At most so many columns of the terminal. A letter of two columns is never cut in two. */
export function fitted(text: string, width: number): string {
  if (stringWidth(text) <= width) return text
  let out = ''
  let left = width - 1
  for (const { segment } of LETTERS.segment(text)) {
    left -= stringWidth(segment)
    if (left < 0) break
    out += segment
  }
  return `${out}…`
}

const LETTERS = new Intl.Segmenter()

export function padded(text: string, width: number): string {
  return text + ' '.repeat(Math.max(0, width - stringWidth(text)))
}

function cell(value: unknown): string {
  if (value === undefined || value === null) return NONE
  if (value instanceof Date) return value.toISOString()
  const text = typeof value === 'string' ? value : jsonOf(value)
  // One line each, and nothing that moves a terminal's cursor.
  return printable(text)
}

function cellsOf({ head, values }: Column, show: (value: unknown) => string): string[] {
  return [head.toUpperCase(), ...values.map(show)]
}

function widest(cells: readonly string[]): number {
  return Math.max(...cells.map((text) => stringWidth(text)))
}

function widthOfAll(columns: readonly (readonly string[])[]): number {
  return columns.reduce((sum, cells) => sum + widest(cells), GAP.length * (columns.length - 1))
}

function linesOf(columns: readonly (readonly string[])[]): string[] {
  const widths = columns.map(widest)
  return (columns[0] ?? []).map((_, row) =>
    columns
      .map((cells, at) => {
        const isLast = cells === columns.findLast((one) => one[row] !== '')
        const text = padded(cells[row] ?? '', isLast ? 0 : (widths[at] ?? 0))
        return row > 0 && STATES.has((cells[0] ?? '').toLowerCase()) ? painted(text) : text
      })
      .join(GAP)
      .trimEnd(),
  )
}

/** Undefined if the table does not fit, however much is cut. */
function narrowed(columns: readonly (readonly string[])[], width: number): string[][] | undefined {
  const widths = columns.map(widest)
  const isId = (at: number): boolean => at === 0 || IDS.has((columns[at]?.[0] ?? '').toLowerCase())
  let over = widthOfAll(columns) - width
  while (over > 0) {
    const widestAt = [...widths.keys()]
      .filter((at) => !isId(at) && (widths[at] ?? 0) > CUT_MIN)
      .sort((a, b) => (widths[b] ?? 0) - (widths[a] ?? 0))[0]
    if (widestAt === undefined) return undefined
    widths[widestAt] = (widths[widestAt] ?? 0) - 1
    over -= 1
  }
  return columns.map((cells, at) => cells.map((text) => fitted(text, widths[at] ?? 0)))
}

function record(head: readonly string[], row: readonly unknown[]): string[] {
  return fields(Object.fromEntries(head.map((name, at) => [name, row[at] ?? undefined])))
}
