/**
 * The engine's documents in memory, in front of the state bucket. Implements the folds' `View`.
 * What was touched since the last checkpoint is kept; clean documents may be dropped and are read
 * again when a fact needs them.
 */

import { editDoc, isMark, type Key, mayOutlive, type View } from '../../../projections/state.ts'
import { FlowStoneError } from '../../../streams/errors.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { Connection } from '../../log/connection.ts'
import { partKey, partsOf } from '../../log/document-parts.ts'
import { encodeDoc, readStored, type Stored } from '../../log/documents.ts'
import { type Entry, isGone } from '../../log/nats.ts'

/** A checkpoint is best one batch of 1,000 messages. With so many documents touched it is due. */
export const TOUCHED_SOFT = 800
const CLEAN_MAX = 20_000
const LATER_MAX = 20_000
/** Marks of deleted keys go after a while: they would be listed with the others for ever. */
export const DELETED = { 'KV-Operation': 'DEL', 'Nats-TTL': '60s' }

/** Says whether a bucket is still the one that an engine took over: `look` of its checkpointer. */
export interface Fence {
  /** Throws FlowStoneError `fenced`. */
  look(): Promise<void>
}

export class Store implements View {
  readonly #docs = new Map<string, unknown>()
  readonly #touched = new Set<string>()
  /** Marks that go when a checkpoint has room for it. */
  readonly #later = new Set<string>()
  readonly #connection: Connection
  readonly #bucket: string
  readonly #names: Names
  /** Into how many messages documents were split that do not fit one. */
  readonly #parts = new Map<string, number>()
  readonly #fence: Fence

  constructor(connection: Connection, names: Names, shard: number, fence: Fence) {
    this.#fence = fence
    this.#connection = connection
    this.#names = names
    this.#bucket = names.stateBucket(shard)
  }

  has = (key: string): boolean => this.#docs.has(key)

  get<D>(key: Key<D>): D | undefined {
    // The key's type says what stands behind it; only this project writes here.
    return this.#docs.get(key) as D | undefined
  }

  edit<D>(key: Key<D>, create?: () => NoInfer<D>): D {
    return editDoc(this, key, this.get(key), create)
  }

  put<D>(key: Key<D>, doc: D): void {
    this.#later.delete(key)
    this.#docs.set(key, doc)
    this.#touched.add(key)
  }

  delete<D>(key: Key<D>): void {
    // A thousand signals are a thousand gates that no longer wait; what else is to be written comes
    // first.
    if (mayOutlive(key) && this.#later.size < LATER_MAX) {
      this.#docs.delete(key)
      this.#touched.delete(key)
      this.#later.add(key)
      return
    }
    this.#docs.set(key, undefined)
    this.#touched.add(key)
  }

  /** What the next checkpoint must write. */
  get touched(): number {
    return this.#touched.size
  }

  /** Whether something is left that may be written later. */
  get hasMore(): boolean {
    return this.#later.size > 0
  }

  /**
   * Reads keys from the bucket, from its leader: a take-over must not start from a stale copy.
   * Throws FlowStoneError `fenced` when the bucket was deleted, emptied, made again or taken over:
   * what is not there then is no answer.
   */
  async load(keys: readonly string[]): Promise<void> {
    const found = await this.#readAll(keys)
    for (const [i, key] of keys.entries()) {
      const { doc, parts } = found[i] ?? { doc: undefined, parts: 1 }
      if (this.#docs.has(key)) continue
      this.#docs.set(key, doc)
      if (parts > 1) this.#parts.set(key, parts)
    }
  }

  /** A document as the bucket has it; it is not kept. Throws as `load` does. */
  async read<D>(key: Key<D>): Promise<D | undefined> {
    const [found] = await this.#readAll([key])
    // The key's type says what stands behind it; only this project writes here.
    return found?.doc as D | undefined
  }

  async #readAll(keys: readonly string[]): Promise<Stored[]> {
    const read = async (key: string): Promise<Stored> =>
      await readStored(this.#connection, this.#names, this.#bucket, key, { isBound: true })
    const found = await Promise.all(keys.map(read)).catch((error: unknown) => {
      throw isGone(error) ? new FlowStoneError('fenced', `${this.#bucket} was deleted`) : error
    })
    // After the reads: what they found is of the bucket that this engine took over.
    await this.#fence.look()
    return found
  }

  /**
   * What a checkpoint must write, as of now, and what else it has room for. Documents are encoded
   * here, so later folds do not show through.
   */
  takeTouched(): Entry[] {
    const entries: Entry[] = []
    for (const key of this.#touched) {
      const doc = this.#docs.get(key)
      if (doc === undefined) entries.push(this.#deleted(key))
      else entries.push(...this.#entriesOf(key, doc))
    }
    for (const key of this.#later) {
      if (entries.length >= TOUCHED_SOFT) break
      entries.push(this.#deleted(key))
      this.#later.delete(key)
    }
    // Nobody reads marks here, so they would only fill the room of what is read.
    for (const key of this.#touched) if (isMark(key)) this.#docs.delete(key)
    this.#dropClean()
    this.#touched.clear()
    return entries
  }

  #entriesOf(key: string, doc: unknown): Entry[] {
    const contentType = doc instanceof Uint8Array ? 'application/octet-stream' : 'application/json'
    const parts = partsOf(key, encodeDoc(doc), this.#connection.maxPayload)
    const entries: Entry[] = parts.map((part) => ({
      subject: this.#names.kvSubject(this.#bucket, part.key),
      payload: part.payload,
      contentType,
      ...(part.headers ? { headers: part.headers } : {}),
    }))
    // It was larger once.
    for (let n = parts.length; n < (this.#parts.get(key) ?? 1); n++) entries.push(this.#deleted(partKey(key, n)))
    if (parts.length > 1) this.#parts.set(key, parts.length)
    else this.#parts.delete(key)
    return entries
  }

  #deleted(key: string): Entry {
    return { subject: this.#names.kvSubject(this.#bucket, key), payload: new Uint8Array(), headers: DELETED }
  }

  #dropClean(): void {
    if (this.#docs.size <= CLEAN_MAX) return
    let excess = this.#docs.size - CLEAN_MAX / 2
    for (const key of this.#docs.keys()) {
      if (excess <= 0) break
      // What this checkpoint takes is not in the bucket yet; read again from there it would be
      // stale.
      if (this.#touched.has(key)) continue
      this.#docs.delete(key)
      this.#parts.delete(key)
      excess -= 1
    }
  }
}
