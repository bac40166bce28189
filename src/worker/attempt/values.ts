/**
 * What tasks refer to: dependencies' values and key chunks of keys, read from the log once and kept
 * for the tasks that follow.
 */

import { FlowStoneError } from '../../../streams/errors.ts'
import { factPath } from '../../../streams/facts.ts'
import type { AssetName, RunId } from '../../../streams/ids.ts'
import { ListReader, readList } from '../../../streams/list.ts'
import { share, shareList } from '../../../streams/readonly.ts'
import type { StoredValue, ValueAt } from '../../../streams/schemas.ts'
import type { Names } from '../../../streams/subjects.ts'
import { isPlainData } from '../../../streams/value.ts'
import type { AnyAsset } from '../../define/asset-type.ts'
import { parseWith, type StandardSchema } from '../../define/standard-schema.ts'
import type { Io, Sight } from '../../io/manager.ts'
import { storedValueAt } from '../../io/stored-values.ts'
import type { Connection } from '../../log/connection.ts'
import { sealedUnder } from '../../log/history.ts'
import { directGet } from '../../log/nats.ts'
import { factOf } from '../../log/read-fact.ts'
import { unlessAborted } from '../../options/timer.ts'
import type { SignalSource } from './run-code.ts'

const VALUES_MAX = 32
const KEY_CHUNKS_MAX = 16
/** Of the values of chains that are under way, all together. */
const KEPT_BYTES = 32 * 1024 * 1024

interface Kept<T> {
  readonly made: Promise<T>
  /** Aborted when nobody waits for it any more. */
  readonly left: AbortController
  waiting: number
  isThere: boolean
}

/**
 * Keeps the newest `max` promises; what failed is forgotten at once, so the next caller tries
 * again.
 */
class Recent<T> {
  readonly #entries = new Map<string, Kept<T>>()
  readonly #max: number

  constructor(max: number) {
    this.#max = max
  }

  /**
   * What `make` brings, or the reason of `signal` as soon as that is aborted. The signal of `make`
   * is aborted when all who waited for it have left: it may never come, so later callers ask anew.
   */
  async get(key: string, make: (signal: AbortSignal) => Promise<T>, signal?: AbortSignal): Promise<T> {
    const kept = this.#entries.get(key) ?? this.#make(make)
    this.#keep(key, kept)
    kept.waiting += 1
    try {
      return await unlessAborted(kept.made, signal)
    } catch (error) {
      if (this.#entries.get(key) === kept && !kept.isThere && (!signal?.aborted || kept.waiting === 1))
        this.#entries.delete(key)
      throw error
    } finally {
      kept.waiting -= 1
      if (kept.waiting === 0 && !kept.isThere) kept.left.abort(signal?.reason)
    }
  }

  put(key: string, value: T): void {
    this.#keep(key, { made: Promise.resolve(value), left: new AbortController(), waiting: 0, isThere: true })
  }

  #make(make: (signal: AbortSignal) => Promise<T>): Kept<T> {
    const left = new AbortController()
    const kept: Kept<T> = { made: make(left.signal), left, waiting: 0, isThere: false }
    kept.made.then(
      () => {
        kept.isThere = true
      },
      () => undefined,
    )
    return kept
  }

  #keep(key: string, kept: Kept<T>): void {
    this.#entries.delete(key)
    this.#entries.set(key, kept)
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= this.#max) break
      this.#entries.delete(oldest)
    }
  }
}

/** Keys of a scatter, from `offset` on. Nobody can change them for others. */
export class KeyChunk {
  readonly offset: number
  /** The index behind its last key. */
  readonly end: number
  readonly #keys: ListReader

  constructor(offset: number, keys: ListReader) {
    this.offset = offset
    this.end = offset + keys.count
    this.#keys = keys
  }

  /** For one reader, who asks for keys about in order. */
  fork(): KeyChunk {
    return new KeyChunk(this.offset, this.#keys.fork())
  }

  key(index: number): unknown {
    return this.#keys.item(index - this.offset)
  }
}

/** The values of an execution's dependencies. */
export class Deps {
  readonly #sights: readonly (readonly [string, Sight])[]
  readonly #same: Readonly<Record<string, unknown>> | undefined

  constructor(sights: readonly (readonly [string, Sight])[]) {
    this.#sights = sights
    this.#same = sights.every(([, sight]) => 'isSame' in sight && sight.isSame) ? this.#all() : undefined
  }

  /**
   * For one execution: it sees nothing of what another does with them. A promise only where a value
   * has to be loaded for each, until the signal is aborted.
   */
  get(source?: SignalSource): Readonly<Record<string, unknown>> | Promise<Readonly<Record<string, unknown>>> {
    if (this.#same) return this.#same
    return this.#sights.some(([, sight]) => 'load' in sight) ? this.#loaded(source?.signal) : this.#all()
  }

  #all(): Readonly<Record<string, unknown>> {
    return frozen(this.#sights.map(([name, sight]) => [name, 'load' in sight ? undefined : sight.get()]))
  }

  async #loaded(signal: AbortSignal | undefined): Promise<Readonly<Record<string, unknown>>> {
    const entries = this.#sights.map(
      async ([name, sight]) => [name, 'load' in sight ? await sight.load(signal) : sight.get()] as const,
    )
    return frozen(await Promise.all(entries))
  }
}

function keyOfValue({ shard, seq, input = '' }: ValueAt): string {
  return `${shard}:${seq}:${input}`
}

const schemaIds = new WeakMap<StandardSchema, number>()
let lastSchemaId = 0

/** Versions of a pipeline may have schemas of their own, which make other values of one input. */
function idOf(schema: StandardSchema): number {
  const id = schemaIds.get(schema) ?? ++lastSchemaId
  schemaIds.set(schema, id)
  return id
}

function frozen(entries: Iterable<readonly [string, unknown]>): Readonly<Record<string, unknown>> {
  return Object.freeze(Object.fromEntries(entries))
}

export class Values {
  readonly #connection: Connection
  readonly #names: Names
  readonly #io: Io
  readonly #values = new Recent<Sight>(VALUES_MAX)
  readonly #keyChunks = new Recent<KeyChunk>(KEY_CHUNKS_MAX)
  readonly #kept = new Map<string, { readonly sight: Promise<Sight>; readonly bytes: number }>()
  #keptBytes = 0

  constructor(connection: Connection, names: Names, io: Io) {
    this.#connection = connection
    this.#names = names
    this.#io = io
  }

  /**
   * Values of dependencies by name, read once for all tasks of this process that follow. Rejects
   * with the signal's reason as soon as that is aborted. The signal is made only where a value is
   * waited for.
   */
  async deps(deps: Readonly<Record<string, ValueAt>>, { definition }: AnyAsset, source?: SignalSource): Promise<Deps> {
    const entries = await Promise.all(
      Object.entries(deps).map(async ([name, at]) => {
        const { inputSchema } = definition.dependsOn.find((asset) => asset.name === name)?.definition ?? {}
        const schema = at.input === undefined ? undefined : inputSchema
        const key = `${keyOfValue(at)}${schema ? `:${idOf(schema)}` : ''}`
        const load = async (signal: AbortSignal): Promise<Sight> => {
          const stored = await storedValueAt(this.#connection, this.#names, at, signal)
          if (!schema) return await this.#io.loadShared(stored, signal)
          return await this.#given(`input ${name}`, schema, stored, signal)
        }
        const kept = this.#kept.get(key)
        if (kept) return [name, await kept.sight] as const
        return [name, await this.#values.get(key, load, source?.signal)] as const
      }),
    )
    return new Deps(entries)
  }

  /**
   * A value that this process put on the log itself need not be read again: it is kept until
   * `release`, unless there are too many. `bytes`: about its size.
   */
  keep(at: ValueAt, stored: StoredValue, bytes: number): void {
    const key = keyOfValue(at)
    const load = async (signal?: AbortSignal): Promise<Sight> => await this.#io.loadShared(stored, signal)
    const isRoom = this.#keptBytes + bytes <= KEPT_BYTES && !this.#kept.has(key)
    const sight = isRoom ? load() : this.#values.get(key, load)
    // What cannot be loaded now fails the execution that needs it.
    sight.catch(() => undefined)
    if (!isRoom) return
    this.#kept.set(key, { sight, bytes })
    this.#keptBytes += bytes
  }

  release(at: ValueAt): void {
    const key = keyOfValue(at)
    this.#keptBytes -= this.#kept.get(key)?.bytes ?? 0
    this.#kept.delete(key)
  }

  /** What an input's schema makes of what a run was given. */
  async #given(at: string, schema: StandardSchema, stored: StoredValue, signal: AbortSignal): Promise<Sight> {
    const load = async (by?: AbortSignal): Promise<unknown> =>
      await parseWith(at, schema, await this.#io.load(stored, by))
    const value = await load(signal)
    return isPlainData(value) ? share(structuredClone(value)) : { load }
  }

  /** Keys that this process stored itself need not be read again. */
  rememberKeyChunk(run: RunId, asset: AssetName, offset: number, keys: Uint8Array): void {
    this.#keyChunks.put(`${run}.${asset}.${offset}`, new KeyChunk(offset, new ListReader(keys, shareList)))
  }

  async keyChunk(shard: number, run: RunId, asset: AssetName, offset: number): Promise<KeyChunk> {
    const keyChunk = await this.#keyChunks.get(`${run}.${asset}.${offset}`, async () => {
      const subject = this.#names.fact(shard, factPath('scatter.items', { run, asset, offset: String(offset) }))
      const message = await this.#connection.read((nc) =>
        directGet(nc, this.#names.log(shard), { last_by_subj: subject }),
      )
      const source = { connection: this.#connection, names: this.#names }
      const path = this.#names.factPath(subject) ?? ''
      const fact = message ? factOf(this.#names, shard, message) : await sealedUnder(source, shard, path)
      if (fact?.name !== 'scatter.items')
        throw new FlowStoneError(
          'missing_items',
          `keys at offset ${offset} of scatter ${run}.${asset} are not on the log`,
        )
      return new KeyChunk(offset, readList(fact.data.keys, fact.data.encoding, shareList))
    })
    return keyChunk.fork()
  }
}
