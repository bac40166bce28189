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

/** Plain JSON that nobody changes, and about how many characters it takes. */
export interface Loggable<T = unknown> {
  readonly value: T
  readonly chars: number
}

type Fields = Readonly<Record<string, unknown>>

/** The fields of a line as they are now. 0: there are none. */
export function loggableFields(fields: unknown, max: number): Loggable<Fields | 0> {
  if (fields === undefined || fields === null) return { value: 0, chars: 0 }
  try {
    return fieldsNow(fields, max)
  } catch {
    // A getter has thrown, or it is a revoked proxy. What can be read is written.
    const text = loggable(fields, max)
    return text.startsWith('{') ? { value: JSON.parse(text), chars: text.length } : readBack({ value: fields }, max)
  }
}

function fieldsNow(fields: NonNullable<unknown>, max: number): Loggable<Fields | 0> {
  const chars = charsOfFlat(fields, max)
  if (chars >= 0) return { value: { ...fields }, chars }
  if (isError(fields)) return readBack({ error: fields }, max)
  if (typeof fields !== 'object' || Array.isArray(fields)) return readBack({ value: fields }, max)
  const text = loggable(fields, max)
  if (text === '{}') return { value: 0, chars: 0 }
  return text.startsWith('{') ? { value: JSON.parse(text), chars: text.length } : readBack({ value: fields }, max)
}

/** A key, which nobody can change. It stands in each line of its instance: what is long is cut. */
export function loggableKey(key: unknown, max: number): Loggable {
  if (typeof key === 'string') return { value: cut(key, max, MORE), chars: Math.min(max, key.length) }
  if (typeof key === 'number' && Number.isFinite(key)) return { value: key, chars: NUMBER_CHARS }
  const chars = charsOfFlat(key, KEY_MAX)
  if (chars >= 0) return chars <= max ? { value: key, chars } : shortened(key, max)
  const text = loggable(key, max)
  return { value: JSON.parse(text), chars: text.length }
}

/** Of a flat object: the first members, with the beginnings of their texts. */
function shortened(key: unknown, max: number): Loggable {
  const value: Record<string, unknown> = {}
  let chars = 0
  for (const [name, member] of Object.entries(Object(key))) {
    const shown = typeof member === 'string' ? cut(member, KEY_TEXT_MAX, MORE) : member
    chars += name.length + (typeof shown === 'string' ? shown.length : NUMBER_CHARS)
    if (chars > max) {
      value[MORE] = MORE
      break
    }
    value[name] = shown
  }
  return { value, chars: Math.min(chars, max) }
}

function readBack(fields: Fields, max: number): Loggable<Fields> {
  const text = loggable(fields, max)
  return { value: JSON.parse(text), chars: text.length }
}

/**
 * Of an object of texts, numbers and switches, which needs no care. -1: it is another thing, or too
 * large. Most fields are such objects, and a scatter may log a hundred thousand in a second.
 */
function charsOfFlat(value: unknown, max: number): number {
  if (typeof value !== 'object' || value === null) return -1
  const prototype = Object.getPrototypeOf(value)
  if (prototype !== Object.prototype && prototype !== null) return -1
  let chars = 0
  let members = 0
  for (const name in value) {
    const member: unknown = Reflect.get(value, name)
    if (typeof member === 'string' && member.length <= TEXT_MAX) chars += member.length
    else if (typeof member === 'number' ? !Number.isFinite(member) : typeof member !== 'boolean' && member !== null)
      return -1
    chars += name.length + NUMBER_CHARS
    members += 1
    if (chars > max || members > MEMBERS_MAX || name.length > NAME_MAX) return -1
  }
  return members === 0 ? -1 : chars
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
