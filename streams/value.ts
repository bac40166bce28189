/**
 * Values of users: what can be stored, and their bytes. A value is encoded at the moment it is
 * given, so later changes to it are not seen. What cannot be stored is refused with its place:
 * `value.items[3].callback is a function`.
 */
import { types } from 'node:util'
import { decodeMsgpack, Encoded, encodeExtension, encodeMsgpack, encodeWide } from './codec.ts'
import { InvalidError, messageOf } from './errors.ts'
import { HALF } from './text.ts'

/**
 * Says of an object what it is, and why it is no value: for classes of ours that users may take for
 * one.
 */
export const NO_VALUE = Symbol.for('flowstone.no-value')

/** More would take the stack of whoever reads it. */
export const DEPTH_MAX = 200
/** A map of MessagePack with 16 bits of length holds so many members. */
const MEMBERS_MAX = 65_535
/**
 * Members of an array beside its elements are looked for up to this length: their names have to be
 * listed with those of the elements.
 */
const LISTED_MAX = 10_000
const PLACE_MAX = 200

/**
 * Checks a value before it is encoded. Returns about how many bytes it takes when encoded, with
 * text counted by its UTF-16 units: where it is not ASCII it takes up to three times as much.
 * @throws InvalidError with the place of what cannot be stored.
 */
export function measure(value: unknown, at = 'value'): number {
  return sizeOfPrimitive(value) ?? new Walk(at).from(value)
}

/**
 * The value as it is now, to be put into a list or a fact. Text, numbers and the like stay as they
 * are, small plain objects and lists are copied, all else becomes bytes.
 * @throws InvalidError with the place of what cannot be stored: `at`, or `at[position]`, and what
 * follows.
 */
export function snapshot(value: unknown, at = 'value', position?: number): Snapshot {
  if (sizeOfPrimitive(value) !== undefined) return value as Snapshot
  const copy = copied(value)
  return copy === UNCOPIED ? new Encoded(encodeValue(value, placeOf(at, position))) : (copy as Copied)
}

function placeOf(at: string, position: number | undefined): string {
  return position === undefined ? at : `${at}[${position}]`
}

export type Snapshot = string | number | boolean | null | undefined | Encoded | Copied

/** A plain object or list that nobody else has. */
export interface Copied {
  readonly [COPIED]: never
}
declare const COPIED: unique symbol

/** About how many bytes it takes on the wire; text is counted by its UTF-16 units. */
export function sizeOfSnapshot(given: Snapshot): number {
  if (given instanceof Encoded) return given.bytes.length
  return sizeOfPrimitive(given) ?? (given === lastCopy ? lastBytes : measure(given))
}

/** What it stands for. Of a copy, the copy itself. */
export function valueOfSnapshot(given: Snapshot): unknown {
  return given instanceof Encoded ? decodeMsgpack(given.bytes) : given
}

/**
 * Bounds of what is copied: nearly all keys and values of scatters, of which there may be millions.
 * To encode each by itself takes several times as long.
 */
const COPY_BYTES = 4096
const COPY_MEMBERS = 64
const COPY_DEPTH = 8
const UNCOPIED = Symbol('not copied')
let lastCopy: unknown
let lastBytes = 0

/**
 * A copy, or `UNCOPIED` for what is not plain, not small, or cannot be stored: that is looked at
 * with care, by a `Walk`.
 */
function copied(value: unknown): unknown {
  lastBytes = 0
  try {
    lastCopy = copyOf(value, COPY_DEPTH)
    return lastCopy
  } catch {
    // A getter, or a proxy, that throws. The walk says where.
    return UNCOPIED
  }
}

function copyOf(value: unknown, depth: number): unknown {
  const quick = sizeOfPrimitive(value)
  if (quick !== undefined) {
    lastBytes += quick
    return value
  }
  if (typeof value !== 'object' || value === null || depth === 0 || lastBytes > COPY_BYTES) return UNCOPIED
  lastBytes += 5
  return Array.isArray(value) ? copyOfList(value, depth) : copyOfObject(value, depth)
}

function copyOfList(value: readonly unknown[], depth: number): unknown {
  const { length } = value
  if (length > COPY_MEMBERS || Object.getPrototypeOf(value) !== Array.prototype) return UNCOPIED
  const copy: unknown[] = []
  for (let i = 0; i < length; i++) {
    const inner = copyOf(value[i], depth - 1)
    // A hole is no undefined.
    if (inner === UNCOPIED || (inner === undefined && !(i in value))) return UNCOPIED
    copy.push(inner)
  }
  // Without holes, more names are members beside the elements.
  return Object.keys(value).length === length ? copy : UNCOPIED
}

function copyOfObject(value: object, depth: number): unknown {
  if (Object.getPrototypeOf(value) !== Object.prototype) return UNCOPIED
  const names = Object.keys(value)
  if (names.length > COPY_MEMBERS) return UNCOPIED
  const copy: Record<string, unknown> = {}
  for (const name of names) {
    if (name === '__proto__' || !name.isWellFormed()) return UNCOPIED
    const inner = copyOf((value as Readonly<Record<string, unknown>>)[name], depth - 1)
    if (inner === UNCOPIED) return UNCOPIED
    lastBytes += name.length + 3
    copy[name] = inner
  }
  return copy
}

/**
 * Whether all of it is of kinds that have nothing but what they hold: plain objects, lists, Map,
 * Set, dates, bytes. Of anything else a copy is another thing.
 */
export function isPlainData(value: unknown, depth = 0): boolean {
  if (typeof value !== 'object' || value === null) return typeof value !== 'function' && typeof value !== 'symbol'
  if (depth > DEPTH_MAX) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  const made: unknown = prototype === null ? Object : Reflect.get(Object(prototype), 'constructor')
  if (types.isMap(value) || types.isSet(value))
    return (made === Map || made === Set) && [...value].every((inner) => isPlainData(inner, depth + 1))
  if (made === Array) return Array.isArray(value) && value.every((inner) => isPlainData(inner, depth + 1))
  if (made === Object) return Object.values(value).every((inner) => isPlainData(inner, depth + 1))
  return types.isDate(value) || types.isTypedArray(value) || types.isArrayBuffer(value)
}

/** MessagePack of a user's value. Throws InvalidError with the place of what cannot be stored. */
export function encodeValue(value: unknown, at = 'value'): Uint8Array<ArrayBuffer> {
  if (value instanceof Encoded) return value.bytes
  const walk = new Walk(at)
  walk.from(value)
  try {
    return walk.special ? encodeWide(toWire(value)) : encodeMsgpack(value)
  } catch (cause) {
    throw new InvalidError(`${at} cannot be stored: ${messageOf(cause)}`, { cause })
  }
}

/**
 * A copy of a value that is to be JSON on the wire, such as an I/O manager's reference.
 * @throws InvalidError with the place of what JSON does not give back as it was.
 */
export function jsonCopy(value: unknown, at: string): unknown {
  new Walk(at).from(value)
  let text: string | undefined
  try {
    text = isJsonSafe(value) ? JSON.stringify(value) : undefined
  } catch (cause) {
    throw new InvalidError(`${at} cannot be stored: ${messageOf(cause)}`, { cause })
  }
  if (text !== undefined) return JSON.parse(text)
  const place = unsafePlace(value, at)
  throw new InvalidError(
    `${place} is no JSON: only text, finite numbers, booleans, null, lists and plain objects may be here`,
  )
}

/** The first place that JSON would change. */
function unsafePlace(value: unknown, at: string): string {
  if (typeof value === 'object' && value !== null) {
    for (const [key, inner] of Object.entries(value))
      if (!isJsonSafe(inner))
        return cutPlace(unsafePlace(inner, Array.isArray(value) ? `${at}[${key}]` : `${at}.${key}`))
  }
  return at
}

/**
 * Whether JSON gives the value back as it was. Dates, bytes, maps, undefined, NaN and big integers
 * do not survive JSON; those travel as MessagePack.
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
 * Of what is stored as it stands: nothing of it can change, and nothing of it has to be looked
 * into. Undefined for all else.
 */
function sizeOfPrimitive(value: unknown): number | undefined {
  switch (typeof value) {
    case 'string':
      return value.isWellFormed() ? value.length + 3 : undefined
    case 'number':
      return Object.is(value, -0) ? undefined : 9
    case 'boolean':
    case 'undefined':
      return 3
    default:
      return value === null ? 1 : undefined
  }
}

/** One walk through one value. */
class Walk {
  /** Whether it holds something that MessagePack has no type for, or very large objects. */
  special = false
  readonly #at: string
  readonly #seen: object[] = []
  readonly #trail: (string | number)[] = []
  /** The member that is looked at now: it may be a getter that throws. */
  #reading: string | number | undefined

  constructor(at: string) {
    this.#at = at
  }

  from(value: unknown): number {
    try {
      return this.#sizeOf(value)
    } catch (error) {
      if (error instanceof InvalidError) throw error
      // A getter, or a proxy.
      if (this.#reading !== undefined) this.#trail.push(this.#reading)
      throw new InvalidError(`${this.#place()} cannot be read: ${messageOf(error)}`, { cause: error })
    }
  }

  #sizeOf(value: unknown): number {
    const size = sizeOfPrimitive(value)
    if (size !== undefined) return size
    switch (typeof value) {
      case 'object':
        return value === null ? 1 : this.#sizeOfObject(value)
      case 'number':
        this.special = true
        return 12
      case 'bigint':
        this.special = true
        return value.toString().length + 20
      case 'string':
        throw new InvalidError(`${this.#place()} ${HALF}`)
      default:
        return this.#refuse(`a ${typeof value}, which cannot be stored`)
    }
  }

  #sizeOfObject(value: object): number {
    this.#reading = undefined
    const list = Array.isArray(value)
    // Plain objects and lists are nearly all there is, and every value and key of a scatter comes
    // through here.
    if (!list && Object.getPrototypeOf(value) !== Object.prototype) {
      const size = this.#sizeOfSpecial(value)
      if (size !== undefined) return size
    }
    this.#enter(value)
    const size = list ? this.#sizeOfList(value) : this.#sizeOfMembers(value)
    this.#seen.pop()
    return size
  }

  #enter(value: object): void {
    if (this.#seen.includes(value))
      throw new InvalidError(`${this.#place()} refers back to a value that contains it; only trees can be stored`)
    if (this.#seen.length >= DEPTH_MAX)
      this.#refuse(`nested deeper than ${DEPTH_MAX} levels; store it flatter, or as text (JSON.stringify)`)
    this.#seen.push(value)
  }

  #sizeOfList(list: readonly unknown[]): number {
    let size = 5
    for (let i = 0; i < list.length; i++) {
      this.#reading = i
      const inner = list[i]
      const quick = sizeOfPrimitive(inner)
      if (quick !== undefined) {
        if (inner === undefined && !(i in list)) {
          this.#trail.push(i)
          this.#refuse('a hole in the list; put null there')
        }
        size += quick
      } else size += this.#inner(i, inner)
    }
    this.#reading = undefined
    if (list.length <= LISTED_MAX) {
      const name = Object.keys(list)[list.length]
      if (name !== undefined)
        throw new InvalidError(
          `${this.#place()} is a list with a member ${JSON.stringify(name)} besides its elements, which would be lost; store a plain object, or [...list]`,
        )
    }
    return size
  }

  #sizeOfMembers(value: object): number {
    const members = value as Readonly<Record<string, unknown>>
    const names = Object.keys(members)
    if (names.length > MEMBERS_MAX) this.special = true
    let size = 5
    for (const name of names) {
      // msgpackr reads it back as `__proto_`.
      if (name === '__proto__')
        throw new InvalidError(`${this.#place()} has a member __proto__, which cannot be stored; give it another name`)
      if (!name.isWellFormed()) throw new InvalidError(`${this.#place()} has a member whose name ${HALF}`)
      this.#reading = name
      const inner = members[name]
      size += name.length + 3 + (sizeOfPrimitive(inner) ?? this.#inner(name, inner))
    }
    return size
  }

  #inner(step: string | number, value: unknown): number {
    this.#trail.push(step)
    this.#reading = undefined
    const size = this.#sizeOf(value)
    this.#trail.pop()
    return size
  }

  /** Instances of classes; undefined for one that is stored as a plain object. */
  #sizeOfSpecial(value: object): number | undefined {
    if (types.isDate(value)) {
      if (value.constructor !== Date) this.special = true
      return 15
    }
    if (types.isUint8Array(value)) {
      if (value.constructor !== Uint8Array && !Buffer.isBuffer(value)) this.special = true
      return value.length + 5
    }
    if (types.isTypedArray(value) || types.isArrayBuffer(value)) {
      this.special = true
      return value.byteLength + 40
    }
    if (types.isMap(value) || types.isSet(value)) return this.#sizeOfCollection(value)
    if (NO_VALUE in value) this.#refuse(String(value[NO_VALUE]))
    if (types.isPromise(value)) this.#refuse('a Promise; await it before you return it')
    const name = nameOfClass(value)
    if (types.isNativeError(value) || value instanceof Error)
      this.#refuse(`${name}; store a plain object, such as { message: error.message }`)
    if (ArrayBuffer.isView(value) || types.isAnyArrayBuffer(value))
      this.#refuse(`${name}; store its bytes as Uint8Array`)
    if (givesAll(value))
      this.#refuse(`a ${tagOf(value) ?? name}, which would be stored empty; store the list of what it gives`)
    if (types.isBoxedPrimitive(value) || hidesAll(value))
      this.#refuse(`a ${name}, which would be stored empty; turn it into text or a plain object first`)
    if ('toJSON' in value && typeof value.toJSON === 'function')
      this.#refuse(`a ${name}, which would not come back as one; store what its toJSON() gives, or a plain object`)
    return undefined
  }

  #sizeOfCollection(value: Map<unknown, unknown> | Set<unknown>): number {
    this.special = true
    this.#enter(value)
    let size = 20
    let i = 0
    for (const [key, inner] of value.entries()) {
      size += this.#inner(`keys()[${i}]`, key) + (types.isMap(value) ? this.#inner(`values()[${i}]`, inner) : 0)
      i += 1
    }
    this.#seen.pop()
    return size
  }

  #refuse(why: string, is = 'is'): never {
    throw new InvalidError(`${this.#place()} ${is} ${why}`)
  }

  #place(): string {
    let place = this.#at
    for (const step of this.#trail) place += typeof step === 'number' ? `[${step}]` : `.${step}`
    return cutPlace(place)
  }
}

/** Beginning and end of a long one. */
function cutPlace(place: string): string {
  if (place.length <= PLACE_MAX) return place.toWellFormed()
  return `${place.slice(0, PLACE_MAX / 2)}…${place.slice(-PLACE_MAX / 2)}`.toWellFormed()
}

function nameOfClass(value: object): string {
  const name: unknown = value.constructor?.name
  return typeof name === 'string' && name !== '' ? name : 'class instance'
}

/** An iterator, a generator: what it has is not seen before it is asked for it. */
function givesAll(value: object): boolean {
  if (Array.isArray(value) || Object.keys(value).length > 0) return false
  return Symbol.iterator in value || Symbol.asyncIterator in value
}

function tagOf(value: object): string | undefined {
  return Symbol.toStringTag in value ? String(value[Symbol.toStringTag]) : undefined
}

/**
 * A URL, a Response, a RegExp: it has nothing of its own to be seen, and a class that gets at what
 * it holds.
 */
function hidesAll(value: object): boolean {
  if (Array.isArray(value) || Object.keys(value).length > 0) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  // Also the plain objects of another realm: above theirs there is nothing.
  if (typeof prototype !== 'object' || prototype === null || Object.getPrototypeOf(prototype) === null) return false
  return Object.getOwnPropertyNames(prototype).length > 1
}

/** With what MessagePack has no type for as an extension. The value was checked before. */
function toWire(value: unknown): unknown {
  if (typeof value === 'bigint') return encodeExtension(['bigint', value.toString()])
  if (typeof value === 'number') return Object.is(value, -0) ? encodeExtension(['-0']) : value
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map(toWire)
  if (types.isDate(value)) return new Date(value.getTime())
  if (types.isUint8Array(value)) return bytesOf(value)
  if (types.isTypedArray(value)) return encodeExtension([kindOf(value), bytesOf(value)])
  if (types.isArrayBuffer(value)) return encodeExtension(['ArrayBuffer', new Uint8Array(value)])
  if (types.isMap(value))
    return encodeExtension(['Map', [...value].map(([key, inner]) => [toWire(key), toWire(inner)])])
  if (types.isSet(value)) return encodeExtension(['Set', [...value].map(toWire)])
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, toWire(inner)]))
}

/** `Float32Array` and the like, also of a subclass or another realm. */
function kindOf(value: NodeJS.TypedArray): string {
  const kind: unknown = Reflect.get(Object.getPrototypeOf(Uint8Array.prototype), Symbol.toStringTag, value)
  return String(kind)
}

function bytesOf({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength)
}
