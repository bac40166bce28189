/**
 * Runs a scatter function and stores its keys: scatter.started, slabs of keys, scatter.sized.
 *
 * A list that fits goes as one atomic batch. Anything longer goes slab by slab, and instances start while later keys still come. When an earlier attempt stored
 * slabs already (its worker died), the keys must be the same again: they are compared by hash, slab by slab, and skipped; where they differ the scatter fails
 * rather than mix two lists.
 */
import { encodeMsgpack, measure } from '../../streams/codec.ts'
import { ConflictError, FlowStoneError, InvalidError, TerminalError } from '../../streams/errors.ts'
import type { FactDraft } from '../../streams/facts.ts'
import { factPath } from '../../streams/facts.ts'
import { type AssetName, hashBytes64, type RunId } from '../../streams/ids.ts'
import { canonicalKey, HashSet, scatterKeyNumber } from '../../streams/keys.ts'
import type { Names } from '../../streams/subjects.ts'
import { factEntry } from '../engine/dispatch.ts'
import type { Appender } from '../log/appender.ts'
import type { Connection } from '../log/connection.ts'
import { leaderGet } from '../log/nats.ts'
import { factOf, type Values } from './values.ts'

/** A slab is closed at this many bytes of keys, at this many keys, or when a slow source has not filled it within this time of its first key. */
const SLAB_BYTES = 200 * 1024
const REMEMBERED_SLABS = 8
const SLAB_KEYS = 20_000
const SLAB_WAIT_MS = 100
const LIST_BATCH_BYTES = 6 * 1024 * 1024

export interface ScatterTarget {
  readonly connection: Connection
  readonly names: Names
  readonly log: Appender
  readonly p: number
  readonly run: RunId
  readonly asset: AssetName
  readonly attempt: number
  readonly worker: string
  readonly signal: AbortSignal
  readonly duplicates: 'error' | 'drop' | 'allow'
  readonly values: Values
}

export async function storeKeys(target: ScatterTarget, source: unknown): Promise<number> {
  if (isList(source)) {
    const list = target.duplicates === 'allow' ? source : [...distinct(source, target.duplicates)]
    const total = await storeList(target, list)
    return total ?? (await storeStream(target, list))
  }
  if (!isIterable(source)) {
    throw new TerminalError(
      `scatter must return a list, an iterable or an async iterable of keys, got ${source === null ? 'null' : typeof source}`,
    )
  }
  if (target.duplicates === 'allow') return await storeStream(target, source)
  const seen = new Seen(target.duplicates)
  return await storeStream(
    target,
    Symbol.asyncIterator in source ? distinctAsync(source, seen) : distinct(source, target.duplicates, seen),
  )
}

const LISTED_MAX = 10

/** Watches for keys that came before. */
class Seen {
  readonly #hashes = new HashSet()
  readonly #mode: 'error' | 'drop'
  readonly #twice: string[] = []
  #count = 0
  #position = 0

  constructor(mode: 'error' | 'drop') {
    this.#mode = mode
  }

  isNew(key: unknown): boolean {
    const position = this.#position++
    // Names the place of what no key can be, before the canonical form stumbles over it.
    measure(key, `key[${position}]`)
    if (this.#hashes.add(scatterKeyNumber(key, `key[${position}]`))) return true
    this.#count += 1
    if (this.#twice.length < LISTED_MAX) this.#twice.push(`${canonicalKey(key).slice(0, 100)} (again at ${position})`)
    return false
  }

  /** Throws, with the duplicates listed, where those are an error. */
  check(): void {
    if (this.#mode === 'drop' || this.#count === 0) return
    const more = this.#count > LISTED_MAX ? ` and ${this.#count - LISTED_MAX} more` : ''
    throw new TerminalError(
      `the scatter function gave ${this.#count} duplicate key(s): ${this.#twice.join(', ')}${more}; set scatterOptions.duplicates to 'drop' or 'allow'`,
    )
  }
}

function* distinct(source: Iterable<unknown>, mode: 'error' | 'drop', seen = new Seen(mode)): Generator<unknown> {
  for (const key of source) if (seen.isNew(key)) yield key
  seen.check()
}

async function* distinctAsync(source: AsyncIterable<unknown>, seen: Seen): AsyncGenerator<unknown> {
  for await (const key of source) if (seen.isNew(key)) yield key
  seen.check()
}

interface Draft {
  readonly keys: unknown[]
  readonly bytes: number
}

function isList(source: unknown): source is readonly unknown[] {
  return Array.isArray(source)
}

function isIterable(source: unknown): source is Iterable<unknown> | AsyncIterable<unknown> {
  return typeof source === 'object' && source !== null && (Symbol.iterator in source || Symbol.asyncIterator in source)
}

/** All of a list in one batch: all of it or none. Undefined when it is too long for that, or when something is stored already. */
async function storeList(target: ScatterTarget, list: readonly unknown[]): Promise<number | undefined> {
  const slabs: Draft[] = []
  let keys: unknown[] = []
  let bytes = 0
  let all = 0
  for (const [i, key] of list.entries()) {
    const size = sizeOfKey(key, i)
    if (keys.length > 0 && (bytes + size > SLAB_BYTES || keys.length >= SLAB_KEYS)) {
      slabs.push({ keys, bytes })
      keys = []
      bytes = 0
    }
    keys.push(key)
    bytes += size
    all += size
    if (all > LIST_BATCH_BYTES) return undefined
  }
  if (keys.length > 0) slabs.push({ keys, bytes })
  if (slabs.length > 900) return undefined
  const facts: FactDraft[] = [startedFact(target)]
  let offset = 0
  for (const slab of slabs) {
    facts.push(itemsFact(target, offset, slab.keys))
    offset += slab.keys.length
  }
  facts.push(sizedFact(target, list.length))
  try {
    await target.log.append(...facts.map((fact) => factEntry(target.names, target.p, fact)))
    remember(target, slabs)
    return list.length
  } catch (error) {
    if (error instanceof ConflictError) return undefined
    throw error
  }
}

/** The first of them are leased first; the cache holds a few. */
function remember({ values, run, asset }: ScatterTarget, slabs: readonly Draft[]): void {
  let offset = 0
  for (const { keys } of slabs.slice(0, REMEMBERED_SLABS)) {
    values.rememberSlab(run, asset, { offset, keys })
    offset += keys.length
  }
}

async function storeStream(target: ScatterTarget, source: Iterable<unknown> | AsyncIterable<unknown>): Promise<number> {
  await ignoreConflict(target.log.append(factEntry(target.names, target.p, startedFact(target))))
  const iterator: AsyncIterator<unknown> | Iterator<unknown> =
    Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]()
  const buffer: { key: unknown; size: number }[] = []
  let bufferBytes = 0
  /** When the oldest key of the buffer came. */
  let sinceMs = 0
  let late: Promise<undefined> | undefined
  let offset = 0
  let read = 0
  let ended = false
  let pending: Promise<IteratorResult<unknown>> | undefined

  /** Reads one key into the buffer; false if none came before `late`, or at the end. */
  const readOne = async (late?: Promise<undefined>): Promise<boolean> => {
    target.signal.throwIfAborted()
    if (pending === undefined) {
      const next = iterator.next()
      if (!(next instanceof Promise)) return take(next)
      pending = next
    }
    const result = late === undefined ? await pending : await Promise.race([pending, late])
    if (result === undefined) return false
    pending = undefined
    return take(result)
  }
  const take = (result: IteratorResult<unknown>): boolean => {
    if (result.done) {
      ended = true
      return false
    }
    const size = sizeOfKey(result.value, read++)
    if (buffer.length === 0) {
      sinceMs = performance.now()
      // One timer a slab, not one a key.
      late = wait(SLAB_WAIT_MS)
    }
    buffer.push({ key: result.value, size })
    bufferBytes += size
    return true
  }
  /** Stores the first `count` keys of the buffer, or finds them stored. */
  const store = async (count: number): Promise<void> => {
    const stored = await storeSlab(
      target,
      offset,
      buffer.slice(0, count).map(({ key }) => key),
    )
    if (stored !== undefined) {
      // Stored by an earlier attempt, perhaps cut elsewhere: compare just as many keys as it has.
      while (buffer.length < stored.count && !ended) await readOne()
      const same =
        buffer.length >= stored.count && hashKeys(buffer.slice(0, stored.count).map(({ key }) => key)) === stored.hash
      if (!same) {
        const range = `${offset} to ${offset + stored.count - 1}`
        throw new TerminalError(
          `the scatter function gave other keys than its earlier attempt at positions ${range}; it must give the same keys each time it is called`,
        )
      }
    }
    const done = buffer.splice(0, stored?.count ?? count)
    for (const { size } of done) bufferBytes -= size
    sinceMs = performance.now()
    late = wait(SLAB_WAIT_MS)
    offset += done.length
  }
  try {
    while (!ended) {
      // Counted from the slab's first key: a source that gives one now and then must not hold back what it gave before.
      await readOne(buffer.length > 0 ? late : undefined)
      const due = !ended && buffer.length > 0 && performance.now() - sinceMs >= SLAB_WAIT_MS
      if (due || bufferBytes >= SLAB_BYTES || buffer.length >= SLAB_KEYS) await store(buffer.length)
    }
    while (buffer.length > 0) await store(Math.min(buffer.length, SLAB_KEYS))
  } finally {
    if (!ended) void Promise.resolve(iterator.return?.()).catch(() => undefined)
  }
  await refuseRest(target, offset)
  await storeTotal(target, offset)
  return offset
}

/** Throws when an earlier attempt stored keys behind the last one of this: what runs of them would be counted, and belong to no list. */
async function refuseRest(target: ScatterTarget, offset: number): Promise<void> {
  const { names, p, run, asset } = target
  const subject = names.fact(p, factPath('scatter.items', { run, asset, offset: String(offset) }))
  if (!(await target.connection.read((nc) => leaderGet(nc, names.log(p), { last_by_subj: subject })))) return
  throw new TerminalError(
    `the scatter function gave ${offset} keys, its earlier attempt more; it must give the same keys each time it is called`,
  )
}

async function storeSlab(
  target: ScatterTarget,
  offset: number,
  keys: unknown[],
): Promise<{ count: number; hash: string } | undefined> {
  const entry = factEntry(target.names, target.p, itemsFact(target, offset, keys))
  try {
    await target.log.append(entry)
    return undefined
  } catch (error) {
    if (!(error instanceof ConflictError)) throw error
  }
  const message = await target.connection.read((nc) =>
    leaderGet(nc, target.names.log(target.p), { last_by_subj: entry.subject }),
  )
  const fact = message && factOf(target.names, target.p, message)
  if (fact?.name !== 'scatter.items')
    throw new FlowStoneError(
      'missing_items',
      `keys at offset ${offset} of scatter ${target.run}.${target.asset} cannot be read back`,
    )
  return { count: fact.data.count, hash: fact.data.hash }
}

async function storeTotal(target: ScatterTarget, total: number): Promise<void> {
  const { names, p, run, asset } = target
  if (!(await ignoreConflict(target.log.append(factEntry(names, p, sizedFact(target, total)))))) return
  const subject = names.fact(p, factPath('scatter.sized', { run, asset }))
  const message = await target.connection.read((nc) => leaderGet(nc, names.log(p), { last_by_subj: subject }))
  const fact = message && factOf(names, p, message)
  if (fact?.name === 'scatter.sized' && fact.data.total !== total) {
    throw new TerminalError(
      `the scatter function gave ${total} keys, its earlier attempt ${fact.data.total}; it must give the same keys each time it is called`,
    )
  }
}

/** Whether somebody was first. */
async function ignoreConflict(appending: Promise<unknown>): Promise<boolean> {
  try {
    await appending
    return false
  } catch (error) {
    if (error instanceof ConflictError) return true
    throw error
  }
}

function sizeOfKey(key: unknown, position: number): number {
  const size = measure(key, `key[${position}]`)
  if (size > SLAB_BYTES)
    throw new InvalidError(
      `key[${position}] takes ${size} bytes; a key is at most ${SLAB_BYTES}: put large data in a value, and its name in the key`,
    )
  return size
}

function hashKeys(keys: unknown[]): string {
  return hashBytes64(encodeMsgpack(keys))
}

function startedFact({ run, asset, attempt, worker }: ScatterTarget): FactDraft {
  return { name: 'scatter.started', ids: { run, asset }, data: { attempt, worker } }
}

function itemsFact({ run, asset }: ScatterTarget, offset: number, list: unknown[]): FactDraft {
  const keys = encodeMsgpack(list)
  return {
    name: 'scatter.items',
    ids: { run, asset, offset: String(offset) },
    data: { count: list.length, keys, hash: hashBytes64(keys) },
  }
}

function sizedFact({ run, asset }: ScatterTarget, total: number): FactDraft {
  return { name: 'scatter.sized', ids: { run, asset }, data: { total } }
}

function wait(ms: number): Promise<undefined> {
  return new Promise((resolve) => setTimeout(resolve, ms, undefined))
}
