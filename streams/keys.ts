/**
 * Scatter keys: one canonical text for keys that mean the same, and its hash. The same in any
 * process and any language.
 *
 * Canonical form: JSON after RFC 8785 (members sorted by UTF-16 code units, no white space, numbers
 * as ECMAScript prints them). A date stands as its ISO 8601 text, bytes as base64, and an undefined
 * member is left out. Hash: xxh64, seed 0, of the UTF-8 bytes, as 16 hex digits.
 *
 *     { path: '/a', n: 1 }   →  {"n":1,"path":"/a"}   →  87d5b8d0ecc58ccc
 *
 * `docs/scatter-keys.json` has more of these, for other languages to check themselves against.
 */
import { InvalidError } from './errors.ts'
import { hash64, hashBigInt } from './ids.ts'

export const DEPTH_MAX = 100

/**
 * The key as text. Throws InvalidError for what JSON cannot say (functions, cycles, NaN). Also for
 * halves of surrogate pairs, which UTF-8 cannot say, and for objects that hide what they hold (a
 * URL, a Map).
 */
export function canonicalKey(key: unknown, at = 'key'): string {
  const text = canonical(key, at, 0)
  // JSON.stringify writes half a surrogate pair as an escape; so does it a backslash before `ud…`
  // in a text, hence the second look.
  if (text.includes('\\ud')) checkKey(key, at)
  return text
}

function canonical(key: unknown, at: string, depth: number): string {
  if (depth > DEPTH_MAX) throw new InvalidError(`${at} is nested too deeply, or refers to itself`)
  switch (typeof key) {
    case 'string':
    case 'boolean':
      return JSON.stringify(key)
    case 'number':
      if (Number.isFinite(key)) return JSON.stringify(key)
      throw new InvalidError(`${at} is ${key}, which is no JSON number`)
    case 'undefined':
      return 'null'
    case 'object':
      break
    default:
      throw new InvalidError(`${at} is a ${typeof key}; a key is made of text, numbers, booleans, lists and objects`)
  }
  if (key === null) return 'null'
  if (key instanceof Date) {
    if (Number.isNaN(key.getTime())) throw new InvalidError(`${at} is an invalid date`)
    return JSON.stringify(key.toISOString())
  }
  if (key instanceof Uint8Array) return JSON.stringify(Buffer.from(key).toString('base64'))
  if (Array.isArray(key)) {
    let text = '['
    // By index, not by map(): that leaves holes.
    for (let i = 0; i < key.length; i++) text += (i > 0 ? ',' : '') + canonical(key[i], `${at}[${i}]`, depth + 1)
    return `${text}]`
  }
  return canonicalObject(key, at, depth)
}

/** Written for speed: every key of every scatter comes through here. */
function canonicalObject(key: object, at: string, depth: number): string {
  const names = Object.keys(key)
  checkObject(key, names, at)
  let ordered = true
  for (let i = 1; i < names.length; i++) {
    // Already in order, as it mostly is, there is nothing to sort.
    if ((names[i] ?? '') < (names[i - 1] ?? '')) {
      names.sort()
      ordered = false
      break
    }
  }
  // Plain members in order are what JSON.stringify makes canonical by itself, several times as
  // fast.
  if (ordered && hasPlainMembers(key, names)) return JSON.stringify(key)
  let text = '{'
  for (const name of names) {
    const value: unknown = Reflect.get(key, name)
    if (value === undefined) continue
    if (text.length > 1) text += ','
    text += `${JSON.stringify(name)}:`
    text += typeof value === 'string' ? JSON.stringify(value) : canonical(value, `${at}.${name}`, depth + 1)
  }
  return `${text}}`
}

function hasPlainMembers(key: object, names: readonly string[]): boolean {
  const members = key as Readonly<Record<string, unknown>>
  for (const name of names) {
    const value = members[name]
    if (typeof value === 'string' || typeof value === 'boolean') continue
    if (typeof value !== 'number' || !Number.isFinite(value)) return false
  }
  return true
}

/** Refuses what would come back from the log as something else. */
function checkObject(key: object, names: readonly string[], at: string): void {
  const prototype: unknown = Object.getPrototypeOf(key)
  if (prototype !== Object.prototype && prototype !== null) {
    const hides = names.length === 0 || 'toJSON' in key || ArrayBuffer.isView(key)
    if (hides || key instanceof Map || key instanceof Set || key instanceof Error) {
      const name = key.constructor?.name || 'an object of a class'
      throw new InvalidError(`${at} is a ${name}; turn it into text, an object or an array first`)
    }
  } else if ('toJSON' in key && typeof key.toJSON === 'function') {
    throw new InvalidError(`${at} has a toJSON function; call it first`)
  }
  if (names.includes('__proto__')) throw new InvalidError(`${at} has a member __proto__, which no object can be given`)
}

/**
 * The part of `canonicalKey` that is needed also where no duplicates are looked for: throws
 * InvalidError for what would come back from the log as something else. That is half a surrogate
 * pair, in a text or a name (UTF-8 has no bytes for it), and an object that hides what it holds.
 */
export function checkKey(key: unknown, at = 'key'): void {
  if (typeof key === 'string') {
    if (key.isWellFormed()) return
    throw new InvalidError(
      `${at} has half a surrogate pair (an emoji cut in two?); a key is a text of whole characters: see toWellFormed()`,
    )
  }
  if (typeof key !== 'object' || key === null || key instanceof Date || key instanceof Uint8Array) return
  if (Array.isArray(key)) {
    for (let i = 0; i < key.length; i++) checkKey(key[i], `${at}[${i}]`)
    return
  }
  const names = Object.keys(key)
  checkObject(key, names, at)
  for (const name of names) {
    if (!name.isWellFormed()) throw new InvalidError(`${at} has a member whose name has half a surrogate pair`)
    checkKey(Reflect.get(key, name), `${at}.${name}`)
  }
}

/**
 * What the canonical text stands for: a plain JSON value, with its members in order. Keys that mean
 * the same become the same.
 */
export function normalizeKey(key: unknown): unknown {
  return JSON.parse(canonicalKey(key))
}

/** 16 hex digits: equal for keys that mean the same. */
export function scatterKeyHash(key: unknown): string {
  return hash64(canonicalKey(key))
}

/** The same as a number, for sets of many. */
export function scatterKeyNumber(key: unknown, at?: string): bigint {
  return hashBigInt(canonicalKey(key, at))
}

/**
 * Whether both are the same scatter key: their canonical texts are equal. Throws InvalidError for
 * what is no key.
 */
export function sameKey(a: unknown, b: unknown): boolean {
  return canonicalKey(a) === canonicalKey(b)
}

/** Below 0, 0 or above 0, for `sort`: the order of the canonical texts, by UTF-16 code units. */
export function compareKeys(a: unknown, b: unknown): number {
  const [first, second] = [canonicalKey(a), canonicalKey(b)]
  return first < second ? -1 : first > second ? 1 : 0
}

/**
 * A set of 64-bit hashes at some 12 bytes each: ten million keys are checked for duplicates in 128
 * to 256 MB. Kept as halves, since each access to a 64-bit element would make an object.
 */
export class HashSet {
  /** Lower and upper half of each. */
  #slots = new Uint32Array(2 * 1024)
  #size = 0

  get size(): number {
    return this.#size
  }

  /** False if it was there already. */
  add(hash: bigint): boolean {
    whole[0] = hash
    // 0 marks an empty slot.
    const low = halves[0] || (halves[1] ? 0 : 1)
    const high = halves[1] ?? 0
    if (this.#size * 8 >= this.#slots.length * 3) this.#grow()
    if (!insert(this.#slots, low, high)) return false
    this.#size += 1
    return true
  }

  #grow(): void {
    const slots = this.#slots
    const wider = new Uint32Array(slots.length * 2)
    for (let at = 0; at < slots.length; at += 2) {
      const low = slots[at] ?? 0
      const high = slots[at + 1] ?? 0
      if (low !== 0 || high !== 0) insert(wider, low, high)
    }
    this.#slots = wider
  }
}

const whole = new BigUint64Array(1)
const halves = new Uint32Array(whole.buffer)

function insert(slots: Uint32Array, low: number, high: number): boolean {
  const mask = slots.length - 1
  for (let at = (low * 2) & mask; ; at = (at + 2) & mask) {
    const there = slots[at]
    if (there === low && slots[at + 1] === high) return false
    if (there === 0 && slots[at + 1] === 0) {
      slots[at] = low
      slots[at + 1] = high
      return true
    }
  }
}
