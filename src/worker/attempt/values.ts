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

const VALUES_MAX = 32
const KEY_CHUNKS_MAX = 16
/** A value that takes longer, and that somebody gave up. */
const STUCK_MS = 30_000
/** Of the values of chains that are under way, all together. */
const KEPT_BYTES = 32 * 1024 * 1024

/**
 * Keeps the newest `max` promises; what failed is forgotten at once, so the next caller tries
 * again.
 */
class Recent<T> {
  readonly #entries = new Map<string, Promise<T>>()
  /** Of those that are not there yet. */
  readonly #sinceMs = new WeakMap<Promise<T>, number>()
  readonly #max: number

  constructor(max: number) {
    this.#max = max
  }

  get(key: string, make: () => Promise<T>): Promise<T> {
    const found = this.#entries.get(key)
    if (found) {
      this.#entries.delete(key)
      this.#entries.set(key, found)
      return found
    }
    const made = make()
    this.#keep(key, made)
    this.#sinceMs.set(made, performance.now())
    made.then(
      () => this.#sinceMs.delete(made),
      () => {
        if (this.#entries.get(key) === made) this.#entries.delete(key)
      },
    )
    return made
  }

  /** Called where nobody waits for it any more: it may never come, so later callers ask anew. */
  forgetIfStuck(key: string): void {
    const made = this.#entries.get(key)
    const sinceMs = made && this.#sinceMs.get(made)
    if (sinceMs !== undefined && performance.now() - sinceMs >= STUCK_MS) this.#entries.delete(key)
  }

  put(key: string, value: T): void {
    this.#entries.delete(key)
    this.#keep(key, Promise.resolve(value))
  }

  #keep(key: string, made: Promise<T>): void {
    this.#entries.set(key, made)
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
   * has to be loaded for each.
   */
  get(): Readonly<Record<string, unknown>> | Promise<Readonly<Record<string, unknown>>> {
    if (this.#same) return this.#same
    return this.#sights.some(([, sight]) => 'load' in sight) ? this.#loaded() : this.#all()
  }

  #all(): Readonly<Record<string, unknown>> {
    return frozen(this.#sights.map(([name, sight]) => [name, 'load' in sight ? undefined : sight.get()]))
  }

  async #loaded(): Promise<Readonly<Record<string, unknown>>> {
    const entries = this.#sights.map(
      async ([name, sight]) => [name, 'load' in sight ? await sight.load() : sight.get()] as const,
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
  async deps(
    deps: Readonly<Record<string, ValueAt>>,
    { definition }: AnyAsset,
    signalOf?: () => AbortSignal,
  ): Promise<Deps> {
    const entries = await Promise.all(
      Object.entries(deps).map(async ([name, at]) => {
        const { inputSchema } = definition.dependsOn.find((asset) => asset.name === name)?.definition ?? {}
        const schema = at.input === undefined ? undefined : inputSchema
        // Others may wait for the same value: it goes on being loaded.
        const key = `${keyOfValue(at)}${schema ? `:${idOf(schema)}` : ''}`
        const load = async (): Promise<Sight> => {
          const stored = await storedValueAt(this.#connection, this.#names, at)
          if (!schema) return await this.#io.loadShared(stored)
          return await this.#given(`input ${name}`, schema, stored)
        }
        const kept = this.#kept.get(key)
        if (kept) return [name, await kept.sight] as const
        const signal = signalOf?.()
        try {
          return [name, await unlessAborted(this.#values.get(key, load), signal)] as const
        } catch (error) {
          if (signal?.aborted) this.#values.forgetIfStuck(key)
          throw error
        }
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
    const load = async (): Promise<Sight> => await this.#io.loadShared(stored)
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
  async #given(at: string, schema: StandardSchema, stored: StoredValue): Promise<Sight> {
    const load = async (): Promise<unknown> => await parseWith(at, schema, await this.#io.load(stored))
    const value = await load()
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
