/**
 * How two documents differ: field by field, in words that a person can look up. Two documents are
 * the same when they say the same: the order of their members does not count.
 */
import type { RunList, RunListEntry } from '../state.ts'

export interface Difference {
  /** `assets.first.status`; empty for the whole document. */
  readonly field: string
  /** Undefined: it is not there. */
  readonly expected: unknown
  readonly found: unknown
}

/** The first few fields in which they differ; empty when they say the same. */
export function differences(expected: unknown, found: unknown, most = 5): Difference[] {
  const all: Difference[] = []
  compare('', expected, found, all, most)
  return all
}

function compare(field: string, expected: unknown, found: unknown, all: Difference[], most: number): void {
  if (all.length >= most || expected === found) return
  if (expected instanceof Uint8Array || found instanceof Uint8Array) {
    const at = firstOtherByte(expected, found)
    if (at !== undefined)
      all.push({ field: `${field}[byte ${at}]`, expected: byteAt(expected, at), found: byteAt(found, at) })
    return
  }
  if (!isObject(expected) || !isObject(found) || Array.isArray(expected) !== Array.isArray(found)) {
    if (!Object.is(expected, found)) all.push({ field, expected, found })
    return
  }
  for (const name of new Set([...Object.keys(expected), ...Object.keys(found)]))
    compare(inner(field, name, expected), Reflect.get(expected, name), Reflect.get(found, name), all, most)
}

function inner(field: string, name: string, parent: object): string {
  if (Array.isArray(parent)) return `${field}[${name}]`
  return field === '' ? name : `${field}.${name}`
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null
}

function firstOtherByte(a: unknown, b: unknown): number | undefined {
  if (!(a instanceof Uint8Array) || !(b instanceof Uint8Array)) return 0
  for (let i = 0; i < Math.max(a.length, b.length); i++) if (a[i] !== b[i]) return i
  return undefined
}

function byteAt(bytes: unknown, at: number): unknown {
  return bytes instanceof Uint8Array ? bytes[at] : bytes
}

/**
 * A document without what base and state may say differently: in lists of the base a sealed run is
 * shown whole.
 */
export function comparable(key: string, doc: unknown): unknown {
  if (!key.startsWith('runs.') || !isObject(doc)) return doc
  const bare = (entries: readonly RunListEntry[]): RunListEntry[] => entries.map(([run, timeMs]) => [run, timeMs])
  if (Array.isArray(doc)) return bare(doc as RunListEntry[])
  const list = doc as RunList
  return Array.isArray(list.runs) ? { ...list, runs: bare(list.runs) } : doc
}

/** The run that a document is of; undefined for what outlives runs. */
export function runOfKey(key: string): string | undefined {
  const [kind = '', first, , third] = key.split('.')
  if (kind === 'waiting') return third
  return OF_RUNS.has(kind) ? first : undefined
}

const OF_RUNS: ReadonlySet<string> = new Set([
  'run',
  'open',
  'barrier',
  'segment',
  'key_chunks',
  'failures',
  'gates',
  'gate',
  'child',
  'resuming',
])
