/**
 * Lines of a message of logs, in columns. Lines of one place in the code have most in
 * common: level, text, names of fields. So a line is a number (its form), and what differs.
 *
 * A column holds runs of equal values: `[values]`, or `[values, counts]` where one is repeated.
 * What stays the same for a thousand lines stands there once.
 */
import { z } from 'zod'
import { Members } from './loggable.ts'

/** A line as it is put into columns. What it holds may be used again for the next line. */
export interface NewLine {
  timeMs: number
  /** Level and phase: their places in the lists of `logs.ts`. */
  level: number
  phase: number
  attempt: number
  message: string
  /** None: no members. */
  readonly fields: Members
  /** Of an instance; -1: there is none, and no key. */
  index: number
  readonly key: Members
}

export function newLine(): NewLine {
  return {
    timeMs: 0,
    level: 0,
    phase: 0,
    attempt: 1,
    message: '',
    fields: new Members(),
    index: -1,
    key: new Members(),
  }
}

/** About what a line takes, and its form, besides texts and numbers. */
const LINE_CHARS = 8
const FORM_CHARS = 80
/** Characters that a number takes, or a switch, with what stands between. */
const SCALAR_CHARS = 10
/** Texts that get a form of their own. Others, made up for each line, share one. */
const TEXTS_MAX = 16
/** Names of fields differ from line to line: they are kept as objects then. */
const FORMS_MAX = 32
/** A reader looks at all lines of a message at once. */
export const LINES_MAX = 4000
/** What a reader takes of a message that somebody else has made. */
const READ_MAX = 100_000

/** Runs of equal values. To add what is the same again costs a comparison. */
class Column {
  readonly #values: unknown[] = []
  /** Where each run begins. */
  readonly #starts: number[] = []
  #last: unknown

  /** `at`: how many were added before. False: it is the same as the one before. */
  add(value: unknown, at: number): boolean {
    if (value === this.#last && at > 0) return false
    this.#last = value
    this.#values.push(value)
    this.#starts.push(at)
    return true
  }

  /** `count`: how many were added. */
  plain(count: number): PlainColumn {
    const [values, starts] = [this.#values, this.#starts]
    if (values.length === count) return [values]
    return [values, starts.map((start, i) => (starts[i + 1] ?? count) - start)]
  }
}

type PlainColumn = readonly (readonly unknown[])[]

/** What lines have in common. */
interface Form {
  readonly at: number
  readonly level: number
  readonly phase: number
  /** Undefined: any. */
  onlyText: string | undefined
  readonly text: Column
  /** Undefined: its one column holds whole objects. */
  readonly fields: readonly string[] | undefined
  /** Undefined: they are of no instance. */
  readonly key: { readonly names: readonly string[] | undefined } | undefined
  /** Of the fields, and then of the key. */
  readonly columns: readonly Column[]
  count: number
}

export class LogColumns {
  readonly #forms: Form[] = []
  readonly #order = new Column()
  readonly #times = new Column()
  readonly #attempts = new Column()
  readonly #indexes = new Column()
  #last: Form | undefined
  #texts = 0
  #firstMs = 0
  #lastIndex = 0
  /** Lines, and those of instances. */
  #count = 0
  #instances = 0

  get count(): number {
    return this.#count
  }

  /** About how many characters it has become longer. */
  add(line: NewLine): number {
    let chars = LINE_CHARS
    let form = this.#last
    if (!form || !isOf(form, line)) {
      const known = this.#forms.length
      form = this.#formOf(line)
      this.#last = form
      if (this.#forms.length > known) chars += FORM_CHARS + namesChars(form.fields) + namesChars(form.key?.names)
    }
    const at = this.#count++
    const of = form.count++
    if (at === 0) this.#firstMs = line.timeMs
    this.#order.add(form.at, at)
    this.#times.add(line.timeMs - this.#firstMs, at)
    this.#attempts.add(line.attempt, at)
    if (form.text.add(line.message, of)) chars += line.message.length
    chars += addMembers(form.columns, 0, form.fields, line.fields, of)
    if (!form.key) return chars
    this.#indexes.add(line.index - this.#lastIndex, this.#instances++)
    this.#lastIndex = line.index
    return chars + addMembers(form.columns, form.fields?.length ?? 1, form.key.names, line.key, of)
  }

  #formOf(line: NewLine): Form {
    const forms = this.#forms
    const same = forms.find((form) => isOf(form, line))
    if (same) return same
    if (this.#texts < TEXTS_MAX) {
      this.#texts += 1
      return this.#newForm(line, line.message, line.fields.names, line.key.names)
    }
    const open = forms.find((form) => isShaped(form, line))
    if (open) {
      open.onlyText = undefined
      return open
    }
    if (forms.length < FORMS_MAX) return this.#newForm(line, undefined, line.fields.names, line.key.names)
    const whole = forms.find((form) => isAlike(form, line) && !form.fields && !form.key?.names)
    return whole ?? this.#newForm(line, undefined, undefined, undefined)
  }

  #newForm(
    { level, phase, index }: NewLine,
    onlyText: string | undefined,
    fieldNames: readonly string[] | undefined,
    keyNames: readonly string[] | undefined,
  ): Form {
    const fields = fieldNames && [...fieldNames]
    const key = index < 0 ? undefined : { names: keyNames && [...keyNames] }
    const count = (fields?.length ?? 1) + (key ? (key.names?.length ?? 1) : 0)
    const columns = Array.from({ length: count }, () => new Column())
    const common = { level, phase, onlyText, fields, key, columns }
    const form: Form = { ...common, at: this.#forms.length, text: new Column(), count: 0 }
    this.#forms.push(form)
    return form
  }

  /** The same lines in two, for what is too long as one. */
  halves(): readonly [LogColumns, LogColumns] {
    const halves = [new LogColumns(), new LogColumns()] as const
    const half = Math.ceil(this.#count / 2)
    const line = newLine()
    for (const read of readColumns(this.plain())) {
      line.timeMs = Number(read.timeMs)
      line.level = Number(read.level)
      line.phase = Number(read.phase)
      line.attempt = Number(read.attempt)
      line.message = String(read.message)
      line.fields.takePlain(read.fields)
      line.index = read.index === undefined ? -1 : Number(read.index)
      line.key.takePlain(read.key)
      halves[halves[0].count < half ? 0 : 1].add(line)
    }
    return halves
  }

  /** Plain JSON. */
  plain(): PlainColumns {
    return {
      at: this.#firstMs,
      forms: this.#forms.map(({ level, phase, text, fields, key, columns, count }) => ({
        level,
        phase,
        text: text.plain(count),
        ...(fields?.length === 0 ? {} : { fields: fields ?? 0 }),
        ...(key ? { key: key.names ?? 0 } : {}),
        ...(columns.length > 0 ? { columns: columns.map((column) => column.plain(count)) } : {}),
      })),
      order: this.#order.plain(this.#count),
      times: this.#times.plain(this.#count),
      attempts: this.#attempts.plain(this.#count),
      indexes: this.#indexes.plain(this.#instances),
    }
  }
}

function isOf(form: Form, line: NewLine): boolean {
  return (form.onlyText === undefined || form.onlyText === line.message) && isShaped(form, line)
}

function isShaped(form: Form, line: NewLine): boolean {
  return (
    isAlike(form, line) &&
    line.fields.hasNames(form.fields) &&
    (form.key === undefined || line.key.hasNames(form.key.names))
  )
}

function isAlike(form: Form, line: NewLine): boolean {
  return form.level === line.level && form.phase === line.phase && (form.key === undefined) === line.index < 0
}

function namesChars(names: readonly string[] | undefined): number {
  let chars = 0
  for (const name of names ?? []) chars += name.length + SCALAR_CHARS
  return chars
}

function addMembers(
  columns: readonly Column[],
  from: number,
  names: readonly string[] | undefined,
  members: Members,
  at: number,
): number {
  if (!names) return columns[from]?.add(members.whole(), at) ? members.chars : 0
  let chars = 0
  for (let i = 0; i < names.length; i++) {
    const value = members.values[i]
    if (!columns[from + i]?.add(value, at)) continue
    if (typeof value === 'string') chars += value.length + 3
    else chars += typeof value === 'object' && value !== null ? members.chars : SCALAR_CHARS
  }
  return chars
}

const column = z.array(z.array(z.unknown())).min(1).max(2)
const names = z.union([z.literal(0), z.array(z.string())])

export const plainColumns = z.object({
  at: z.number(),
  forms: z.array(
    z.object({
      level: z.number(),
      phase: z.number(),
      text: column,
      /** Missing: none. 0: whole. */
      fields: names.optional(),
      key: names.optional(),
      columns: z.array(column).optional(),
    }),
  ),
  order: column,
  times: column,
  attempts: column,
  indexes: column,
})
type PlainColumns = {
  readonly at: number
  readonly forms: readonly PlainForm[]
  readonly order: PlainColumn
  readonly times: PlainColumn
  readonly attempts: PlainColumn
  readonly indexes: PlainColumn
}
interface PlainForm {
  readonly level: number
  readonly phase: number
  readonly text: PlainColumn
  readonly fields?: 0 | readonly string[] | undefined
  readonly key?: 0 | readonly string[] | undefined
  readonly columns?: readonly PlainColumn[] | undefined
}

/** A line as it was put in: nothing about it is checked. */
export interface ReadLine {
  readonly timeMs: unknown
  readonly level: unknown
  readonly phase: unknown
  readonly attempt: unknown
  readonly message: unknown
  readonly fields: unknown
  readonly index: unknown
  readonly key: unknown
}

/** Walks along a column. */
class Reader {
  readonly #values: readonly unknown[]
  readonly #counts: readonly unknown[] | undefined
  #at = -1
  #left = 0

  constructor([values = [], counts]: PlainColumn) {
    this.#values = values
    this.#counts = counts
  }

  get isAtEnd(): boolean {
    return this.#left <= 0 && this.#at + 1 >= this.#values.length
  }

  next(): unknown {
    if (this.#left <= 0) {
      this.#at += 1
      this.#left = this.#counts ? Number(this.#counts[this.#at]) : 1
      if (!(this.#left >= 1)) this.#left = 1
    }
    this.#left -= 1
    return this.#values[this.#at]
  }
}

/** Of what is no message of columns there may be lines that miss something. */
export function* readColumns({ at, forms, ...columns }: PlainColumns): Generator<ReadLine> {
  const readers = forms.map((form) => new FormReader(form))
  const [order, times] = [new Reader(columns.order), new Reader(columns.times)]
  const [attempts, indexes] = [new Reader(columns.attempts), new Reader(columns.indexes)]
  let index = 0
  for (let count = 0; count < READ_MAX && !order.isAtEnd; count++) {
    const form = readers[Number(order.next())]
    if (!form) return
    const timeMs = at + Number(times.next())
    const attempt = attempts.next()
    if (form.hasKey) index += Number(indexes.next())
    yield { timeMs, attempt, ...form.next(), index: form.hasKey ? index : undefined }
  }
}

class FormReader {
  readonly #form: PlainForm
  readonly #text: Reader
  readonly #columns: readonly Reader[]

  constructor(form: PlainForm) {
    this.#form = form
    this.#text = new Reader(form.text)
    this.#columns = (form.columns ?? []).map((one) => new Reader(one))
  }

  get hasKey(): boolean {
    return this.#form.key !== undefined
  }

  next(): Omit<ReadLine, 'timeMs' | 'attempt' | 'index'> {
    const { level, phase, fields, key } = this.#form
    const message = this.#text.next()
    const values = this.#columns.map((one) => one.next())
    const ofKey = fields === undefined ? 0 : fields === 0 ? 1 : fields.length
    return {
      level,
      phase,
      message,
      fields: fields === undefined ? undefined : objectOf(fields, values, 0),
      key: key === undefined ? undefined : objectOf(key, values, ofKey),
    }
  }
}

function objectOf(names: 0 | readonly string[], values: readonly unknown[], from: number): unknown {
  if (names === 0) return values[from]
  return Object.fromEntries(names.map((name, i) => [name, values[from + i]]))
}
