/**
 * Any value as JSON for a log: it never throws, never runs for long, and never gives more than it
 * is allowed. What JSON has no word for is a text that says what it is.
 */
import { cut } from './text.ts'
import { infoOf, read } from './thrown.ts'

const DEPTH_MAX = 6
const MEMBERS_MAX = 100
const TEXT_MAX = 4000
const NAME_MAX = 100
const MORE = '…'
/** About so many characters a number takes. */
const NUMBER_CHARS = 10
/** A key that is longer is written out to be cut. */
const KEY_MAX = 100_000
const KEY_TEXT_MAX = 24

/** At most about `max` characters of JSON: what is beyond is left out, and `…` says so. */
export function loggable(value: unknown, max: number): string {
  return new Writer(max).value(value, 0) ?? 'null'
}

type Fields = Readonly<Record<string, unknown>>

/**
 * A value taken apart: what a line of a log needs of fields or a key. One of these serves line
 * after line: nothing is made for a line.
 */
export class Members {
  /** Undefined: it is no object, and has one value. Empty: there is nothing. */
  names: readonly string[] | undefined = NO_NAMES
  /** As plain JSON that nobody changes. There may be more than there are names. */
  readonly values: unknown[] = []
  /** About how many characters of JSON it takes. */
  chars = 0
  readonly #names: string[] = []
  /** Texts of the key before, and their beginnings. */
  readonly #whole: string[] = []
  readonly #cut: string[] = []

  hasNames(names: readonly string[] | undefined): boolean {
    const own = this.names
    if (own === undefined || names === undefined) return own === names
    const { length } = own
    if (length !== names.length) return false
    for (let i = 0; i < length; i++) if (own[i] !== names[i]) return false
    return true
  }

  whole(): unknown {
    if (!this.names) return this.values[0]
    return Object.fromEntries(this.names.map((name, i) => [name, this.values[i]]))
  }

  /** The fields of a line as they are now, in at most about `max` characters. */
  takeFields(fields: unknown, max: number): void {
    this.names = NO_NAMES
    this.chars = 0
    if (fields === undefined || fields === null) return
    try {
      if (this.#takeFlat(fields, max)) return
    } catch {
      // A getter has thrown, or it is a revoked proxy: what can be read is written.
    }
    const value = loggableFields(fields, max, this)
    if (value !== 0) this.#takeEntries(value)
  }

  /** A key, which nobody can change. It stands with each line of its instance: so it is cut. */
  takeKey(key: unknown, max: number): void {
    if (typeof key === 'string') this.#takeOne(cut(key, max, MORE), Math.min(max, key.length))
    else if (typeof key === 'number' && Number.isFinite(key)) this.#takeOne(key, NUMBER_CHARS)
    else if (!this.#takeFlat(key, KEY_MAX)) {
      const text = loggable(key, max)
      const value: unknown = JSON.parse(text)
      if (isRecord(value)) this.#takeEntries(value)
      else this.#takeOne(value, 0)
      this.chars = text.length
    } else if (this.chars > max) this.#shorten(max)
  }

  /** Plain JSON that was taken before. Undefined: nothing. */
  takePlain(value: unknown): void {
    this.chars = 0
    if (value === undefined) this.names = NO_NAMES
    else if (isRecord(value)) this.#takeEntries(value)
    else this.#takeOne(value, 0)
  }

  #takeOne(value: unknown, chars: number): void {
    this.names = undefined
    this.values[0] = value
    this.chars = chars
  }

  #takeEntries(record: Fields): void {
    const names = Object.keys(record)
    if (names.length === 0) {
      this.#takeOne(record, 2)
      return
    }
    this.names = names
    for (let i = 0; i < names.length; i++) this.values[i] = record[names[i] ?? '']
  }

  /**
   * An object of texts, numbers and switches, which needs no care. False: it is another thing, or
   * too large. Most fields are such objects, and a scatter may log a hundred thousand in a second.
   */
  #takeFlat(value: unknown, max: number): boolean {
    if (!isRecord(value)) return false
    const prototype: unknown = Object.getPrototypeOf(value)
    if (prototype !== Object.prototype && prototype !== null) return false
    const [names, values] = [this.#names, this.values]
    let chars = 0
    let count = 0
    for (const name in value) {
      const member = value[name]
      if (typeof member === 'string' && member.length <= TEXT_MAX) chars += member.length
      else if (typeof member === 'number' ? !Number.isFinite(member) : typeof member !== 'boolean' && member !== null)
        return false
      chars += name.length + NUMBER_CHARS
      if (chars > max || count === MEMBERS_MAX || name.length > NAME_MAX) return false
      names[count] = name
      values[count] = member
      count += 1
    }
    if (count === 0) return false
    names.length = count
    this.names = names
    this.chars = chars
    return true
  }

  /** What is the same in each key is cut once. */
  #begins(text: string, i: number): string {
    if (this.#whole[i] === text) return this.#cut[i] ?? ''
    this.#whole[i] = text
    const begins = cut(text, KEY_TEXT_MAX, MORE)
    this.#cut[i] = begins
    return begins
  }

  /** The first members, with the beginnings of their texts. */
  #shorten(max: number): void {
    const [names, values] = [this.#names, this.values]
    let chars = 0
    for (let i = 0; i < names.length; i++) {
      const name = names[i] ?? ''
      const member = values[i]
      const shown = typeof member === 'string' ? this.#begins(member, i) : member
      chars += name.length + (typeof shown === 'string' ? shown.length : NUMBER_CHARS)
      if (chars > max) {
        names[i] = MORE
        values[i] = MORE
        names.length = i + 1
        break
      }
      values[i] = shown
    }
    this.chars = Math.min(chars, max)
  }
}

const NO_NAMES: readonly string[] = []

function isRecord(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Any fields. 0: there are none. */
export function loggableFields(fields: unknown, max: number, size = { chars: 0 }): Fields | 0 {
  try {
    if (isError(fields)) return parsed(loggable({ error: fields }, max), size)
    const isObject = typeof fields === 'object' && !Array.isArray(fields)
    if (fields === undefined || fields === null) return 0
    if (isObject) {
      const text = loggable(fields, max)
      if (text === '{}') return 0
      if (text.startsWith('{')) return parsed(text, size)
    }
  } catch {
    // A revoked proxy.
  }
  return parsed(loggable({ value: fields }, max), size)
}

function parsed(text: string, size: { chars: number }): Fields | 0 {
  size.chars = text.length
  const value: unknown = JSON.parse(text)
  return isRecord(value) ? value : 0
}

export function isError(value: unknown): value is Error {
  try {
    return value instanceof Error || Object.prototype.toString.call(value) === '[object Error]'
  } catch {
    return false
  }
}

class Writer {
  #left: number
  /** What is being written: to meet it again is a cycle. */
  readonly #open = new Set<object>()

  constructor(max: number) {
    this.#left = max
  }

  /** Undefined: JSON leaves it out. */
  value(value: unknown, depth: number): string | undefined {
    switch (typeof value) {
      case 'string':
        return this.#text(value)
      case 'number':
        return this.#spend(Number.isFinite(value) ? String(value) : `"${value}"`)
      case 'boolean':
        return this.#spend(value ? 'true' : 'false')
      case 'undefined':
        return undefined
      case 'bigint':
        return this.#text(value.toString())
      case 'symbol':
        return this.#text(String(value))
      case 'function':
        return this.#text('[function]')
      case 'object':
        if (value === null) return this.#spend('null')
        try {
          return this.#object(value, depth)
        } catch (error) {
          return this.#text(`[unreadable: ${infoOf(error).message}]`)
        }
      default:
        return undefined
    }
  }

  #spend(text: string): string {
    this.#left -= text.length
    return text
  }

  #text(value: string): string {
    const max = Math.min(TEXT_MAX, Math.max(0, this.#left))
    return this.#spend(JSON.stringify(value.length <= max ? value : cut(value, max, MORE)))
  }

  #object(value: object, depth: number): string | undefined {
    if (this.#open.has(value)) return this.#text('[circular]')
    if (value instanceof Date) return this.#text(Number.isNaN(value.getTime()) ? 'Invalid Date' : value.toISOString())
    if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer)
      return this.#text(`[${value.constructor.name} of ${value.byteLength} bytes]`)
    if (value instanceof RegExp || value instanceof URL) return this.#text(String(value))
    if (depth >= DEPTH_MAX) return this.#text(Array.isArray(value) ? '[Array]' : '[Object]')
    this.#open.add(value)
    try {
      if (isError(value)) return this.#error(value, depth)
      if (Array.isArray(value)) return this.#list(value, value.length, depth)
      if (value instanceof Set) return this.#list(value, value.size, depth)
      if (value instanceof Map) return this.#members(value.entries(), value.size, depth)
      const toJSON = read(value, 'toJSON')
      if (typeof toJSON === 'function') return this.value(toJSON.call(value, ''), depth + 1)
      if (value instanceof Promise) return this.#text('[Promise]')
      const names = Object.keys(value)
      return this.#members(membersOf(value, names), names.length, depth)
    } finally {
      this.#open.delete(value)
    }
  }

  /** With its causes, and what it has besides, such as `status`. */
  #error(error: Error, depth: number): string {
    const { message, stack, cause, errors } = infoOf(error)
    const own = Object.keys(error).filter((name) => name !== 'cause' && name !== 'errors')
    const known = { name: read(error, 'name'), message, stack, cause, errors }
    return this.#members(
      (function* () {
        yield* Object.entries(known)
        for (const name of own) if (!Object.hasOwn(known, name)) yield [name, read(error, name)] as const
      })(),
      own.length + 5,
      depth,
    )
  }

  #list(items: Iterable<unknown>, count: number, depth: number): string {
    const texts: string[] = []
    for (const item of items) {
      if (this.#isFull(texts.length)) {
        texts.push(`"${MORE} ${count - texts.length} more"`)
        break
      }
      texts.push(this.value(item, depth + 1) ?? this.#spend('null'))
    }
    return `[${texts.join(',')}]`
  }

  #members(entries: Iterable<readonly [unknown, unknown]>, count: number, depth: number): string {
    let text = ''
    let taken = 0
    for (const [name, member] of entries) {
      if (this.#isFull(taken)) {
        text += `${text === '' ? '' : ','}"${MORE}":"${count - taken} more"`
        break
      }
      taken += 1
      const written = this.value(member, depth + 1)
      if (written === undefined) continue
      const shown = JSON.stringify(cut(typeof name === 'string' ? name : nameOf(name), NAME_MAX, MORE))
      this.#spend(shown)
      text += `${text === '' ? '' : ','}${shown}:${written}`
    }
    return `{${text}}`
  }

  #isFull(taken: number): boolean {
    return this.#left <= 0 || taken >= MEMBERS_MAX
  }
}

function* membersOf(value: object, names: readonly string[]): Generator<readonly [string, unknown]> {
  for (const name of names) yield [name, memberOf(value, name)]
}

function memberOf(value: object, name: string): unknown {
  try {
    return Reflect.get(value, name)
  } catch (error) {
    return `[unreadable: ${infoOf(error).message}]`
  }
}

function nameOf(key: unknown): string {
  return typeof key === 'object' && key !== null ? loggable(key, NAME_MAX) : String(key)
}
