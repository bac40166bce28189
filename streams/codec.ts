/**
 * Bytes on the wire. Facts that outsiders read are JSON; bulk facts and tasks are MessagePack (plain maps, no msgpackr records, so any language
 * reads them). The `Content-Type` header says which; a reader takes both.
 */
import { Packr, RESET_BUFFER_MODE } from 'msgpackr'
import { FlowStoneError, InvalidError, messageOf } from './errors.ts'
import { type Encoding, unsqueeze } from './squeeze.ts'

export type Format = 'json' | 'msgpack'
export const CONTENT_TYPE = { json: 'application/json', msgpack: 'application/msgpack' } as const

const OPTIONS = { useRecords: false, encodeUndefinedAsNil: false } as const
let packr = new Packr({ ...OPTIONS, copyBuffers: true })
/** Bytes in what this gives are views of the message, and good for as long as that is. */
const viewing = new Packr({ ...OPTIONS, copyBuffers: false })
/** A buffer that a very large value has made larger than this is not kept. */
const BUFFER_MAX = 16 * 1024 * 1024
const utf8 = new TextDecoder('utf-8', { fatal: true })
const utf8Encoder = new TextEncoder()

export function encode(value: unknown, format: Format): Uint8Array {
  return format === 'json' ? encodeJson(value) : encodeMsgpack(value)
}

export function encodeJson(value: unknown): Uint8Array {
  return utf8Encoder.encode(JSON.stringify(value))
}

/** MessagePack. Throws InvalidError for what no other process could read: functions, symbols, cycles, class instances that hide their state. */
export function encodeMsgpack(value: unknown): Uint8Array<ArrayBuffer> {
  try {
    // A copy: msgpackr gives a view of its buffer, which the next value is written over. (Left to itself it makes a new buffer, of four times the largest value so far,
    // whenever one is full, and memory that is let go in such pieces does not go back to the system.)
    const view = packr.pack(value, RESET_BUFFER_MODE)
    const bytes = new Uint8Array(view)
    if (view.buffer.byteLength > BUFFER_MAX) packr = new Packr({ ...OPTIONS, copyBuffers: true })
    return bytes
  } catch (cause) {
    const why = cause instanceof RangeError ? 'it refers to itself, or is nested too deeply' : messageOf(cause)
    throw new InvalidError(`value cannot be encoded: ${why}`, { cause })
  }
}

/** `views`: byte fields are not copied, as suits what is only carried on. */
export function decode(bytes: Uint8Array, contentType: string | undefined, views = false): unknown {
  try {
    if (contentType?.startsWith(CONTENT_TYPE.msgpack)) return (views ? viewing : packr).unpack(plainBytes(bytes))
    return JSON.parse(utf8.decode(bytes))
  } catch (cause) {
    throw new FlowStoneError('undecodable', `payload is not ${contentType ?? 'JSON'}: ${messageOf(cause)}`, { cause })
  }
}

/** Node's Buffer would give Buffers back for bytes that went in as Uint8Array. */
function plainBytes(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

export function decodeMsgpack(bytes: Uint8Array): unknown {
  return decode(bytes, CONTENT_TYPE.msgpack)
}

/** The list in an opaque field, which `encoding` says is compressed. Throws `undecodable` when there is none. */
export function decodeList(field: Uint8Array | readonly unknown[], encoding?: Encoding): readonly unknown[] {
  if (!(field instanceof Uint8Array)) return field
  const list = decodeMsgpack(unsqueeze(field, encoding))
  if (Array.isArray(list)) return list
  throw new FlowStoneError('undecodable', 'a list was expected in an opaque field')
}

/** Says of an object what it is, and why it is no value: for classes of ours that users may take for one. */
export const NO_VALUE = Symbol('no value')

/**
 * Whether JSON gives the value back as it was. Dates, bytes, maps, undefined, NaN and big integers do not survive JSON; those travel as
 * MessagePack.
 */
export function isJsonSafe(value: unknown, depth = 0): boolean {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return true
    case 'number':
      return Number.isFinite(value) && !Object.is(value, -0)
    case 'object':
      break
    default:
      return false
  }
  if (value === null) return true
  if (depth > 64) return false
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) if (!isJsonSafe(value[i], depth + 1)) return false
    return true
  }
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype !== Object.prototype && prototype !== null) return false
  for (const [key, inner] of Object.entries(value))
    if (key === '__proto__' || !isJsonSafe(inner, depth + 1)) return false
  return true
}

/**
 * Checks a user's value before it is encoded, and names the place of what cannot be: `value.items[3].callback is a function`. msgpackr would turn some of
 * these silently into null or {}. Returns about how many bytes the value takes when encoded, with text
 * counted by its UTF-16 units: where it is not ASCII it takes up to three times as much. (Counting its bytes takes ten times as long, and every value comes through here.)
 */
export function measure(value: unknown, at = 'value', seen: object[] = []): number {
  switch (typeof value) {
    case 'string':
      return value.length + 3
    case 'number':
      return 9
    case 'boolean':
    case 'undefined':
      return 3
    case 'bigint':
      throw new InvalidError(`${at} is a bigint, which cannot be stored; use a number or a string`)
    case 'function':
    case 'symbol':
      throw new InvalidError(`${at} is a ${typeof value}, which cannot be stored`)
    default:
  }
  if (typeof value !== 'object' || value === null) return 1
  const list = Array.isArray(value)
  // Plain objects and lists are nearly all there is, and every value and key of a scatter comes through here.
  if (!list && Object.getPrototypeOf(value) !== Object.prototype) {
    const size = measureSpecial(value, at)
    if (size !== undefined) return size
  }
  if (seen.includes(value))
    throw new InvalidError(`${at} refers back to a value that contains it; only trees can be stored`)
  seen.push(value)
  let size = 5
  if (list) {
    for (let i = 0; i < value.length; i++) {
      const inner: unknown = value[i]
      size += measureQuick(inner) ?? measure(inner, `${at}[${i}]`, seen)
    }
  } else {
    const members = value as Readonly<Record<string, unknown>>
    for (const key of Object.keys(members)) {
      // msgpackr reads it back as `__proto_`.
      if (key === '__proto__')
        throw new InvalidError(`${at} has a member __proto__, which cannot be stored; give it another name`)
      const inner = members[key]
      size += key.length + 2 + (measureQuick(inner) ?? measure(inner, `${at}.${key}`, seen))
    }
  }
  seen.pop()
  return size
}

/** Undefined for what needs a closer look. */
function measureQuick(value: unknown): number | undefined {
  return typeof value === 'string' ? value.length + 3 : typeof value === 'number' ? 9 : undefined
}

/** Instances of classes; undefined for one that is stored as a plain object. */
function measureSpecial(value: object, at: string): number | undefined {
  if (value instanceof Date) return 12
  if (value instanceof Uint8Array) return value.length + 5
  if (NO_VALUE in value) throw new InvalidError(`${at} is ${String(value[NO_VALUE])}`)
  if (value instanceof Promise) throw new InvalidError(`${at} is a Promise; await it before you return it`)
  if (value instanceof Map || value instanceof Set) {
    throw new InvalidError(
      `${at} is a ${value.constructor.name}; turn it into an object or an array first (Object.fromEntries, [...set])`,
    )
  }
  if (value instanceof Error || ArrayBuffer.isView(value) || value instanceof ArrayBuffer) {
    throw new InvalidError(`${at} is ${value.constructor.name}; store a plain object, or bytes as Uint8Array`)
  }
  if (hidesAll(value)) {
    throw new InvalidError(
      `${at} is a ${value.constructor?.name || 'class instance'}, which would be stored empty; turn it into text or a plain object first`,
    )
  }
  return undefined
}

/** A URL, a Response, a RegExp: it has nothing of its own to be seen, and a class that gets at what it holds. */
function hidesAll(value: object): boolean {
  if (Array.isArray(value) || Object.keys(value).length > 0) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  // Also the plain objects of another realm: above theirs there is nothing.
  if (typeof prototype !== 'object' || prototype === null || Object.getPrototypeOf(prototype) === null) return false
  return Object.getOwnPropertyNames(prototype).length > 1
}
