/**
 * Values that several executions of a process look at: made read-only all through, so that none of
 * them sees what another did. Bytes cannot be made so: a value that holds some is copied for each
 * execution, as far as it has to be.
 */
import { types } from 'node:util'

export const READ_ONLY_ADVICE =
  'What a dependency, a scatter key or a gate brings is read-only, because other executions use it too: change a copy of it, such as structuredClone(x), [...list] or list.toSorted()'

/** A value that is shared, and how an execution gets its own sight of it. */
export interface Shared {
  /** Whether `get` always gives the same. */
  readonly isSame: boolean
  get(): unknown
}

/** Takes the value over: nobody else may hold it. */
export function share(value: unknown): Shared {
  const withBytes = new Set<object>()
  protect(value, withBytes)
  if (withBytes.size === 0) return { isSame: true, get: () => value }
  return { isSame: false, get: () => copyOf(value, withBytes) }
}

/** As `share`, of each item. Takes the list over. */
export function shareList(list: readonly unknown[]): (k: number) => unknown {
  const withBytes = new Set<object>()
  for (let k = 0; k < list.length; k++) protect(list[k], withBytes)
  return withBytes.size === 0 ? (k) => list[k] : (k) => copyOf(list[k], withBytes)
}

/** Whether there are bytes in it. */
function protect(value: unknown, withBytes: Set<object>): boolean {
  if (typeof value !== 'object' || value === null) return false
  if (ArrayBuffer.isView(value) || types.isAnyArrayBuffer(value)) {
    withBytes.add(value)
    return true
  }
  let has = false
  if (Array.isArray(value)) for (let i = 0; i < value.length; i++) has = protect(value[i], withBytes) || has
  else if (types.isMap(value)) {
    for (const entry of value) for (const inner of entry) has = protect(inner, withBytes) || has
    Object.setPrototypeOf(value, READ_ONLY_MAP)
  } else if (types.isSet(value)) {
    for (const inner of value) has = protect(inner, withBytes) || has
    Object.setPrototypeOf(value, READ_ONLY_SET)
  } else if (types.isDate(value)) Object.setPrototypeOf(value, READ_ONLY_DATE)
  else
    for (const name in value)
      if (Object.hasOwn(value, name)) has = protect((value as Record<string, unknown>)[name], withBytes) || has
  Object.freeze(value)
  if (has) withBytes.add(value)
  return has
}

function copyOf(value: unknown, withBytes: ReadonlySet<object>): unknown {
  if (typeof value !== 'object' || value === null || !withBytes.has(value)) return value
  if (types.isArrayBuffer(value)) return value.slice(0)
  if (types.isTypedArray(value)) return value.slice()
  const of = (inner: unknown): unknown => copyOf(inner, withBytes)
  if (Array.isArray(value)) return Object.freeze(value.map(of))
  if (types.isMap(value)) {
    const copy = new Map([...value].map(([key, inner]) => [of(key), of(inner)]))
    return Object.freeze(Object.setPrototypeOf(copy, READ_ONLY_MAP))
  }
  if (types.isSet(value)) return Object.freeze(Object.setPrototypeOf(new Set([...value].map(of)), READ_ONLY_SET))
  return Object.freeze(Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, of(inner)])))
}

const READ_ONLY_DATE = readOnly(
  Date.prototype,
  Object.getOwnPropertyNames(Date.prototype).filter((name) => name.startsWith('set')),
)
const READ_ONLY_MAP = readOnly(Map.prototype, ['set', 'delete', 'clear', 'getOrInsert', 'getOrInsertComputed'])
const READ_ONLY_SET = readOnly(Set.prototype, ['add', 'delete', 'clear'])

/**
 * As the prototype, but for what changes an instance: its state is no property, and freezing does
 * not reach it.
 */
function readOnly(prototype: object, changing: readonly string[]): object {
  const refuse = (name: string) => () => {
    throw new TypeError(`Cannot modify this with ${name}()`)
  }
  return Object.create(
    prototype,
    Object.fromEntries(changing.filter((name) => name in prototype).map((name) => [name, { value: refuse(name) }])),
  )
}
