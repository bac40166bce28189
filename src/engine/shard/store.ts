/**
 * The engine's cache of documents, in front of the state bucket. It is the `View` of the folds. It
 * keeps documents that changed since the last checkpoint. It may drop unchanged ones, and reads
 * them again when a fact needs them.
 */

import { editDoc, isMark, isOfPart, isPutOnce, type Key, mayOutlive, type View } from '../../../projections/state.ts'
import { squeeze } from '../../../streams/compress.ts'
import { FlowStoneError } from '../../../streams/errors.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { Connection } from '../../log/connection.ts'
import { partKey, partsOf } from '../../log/document-parts.ts'
import { BYTES, ENCODING_HEADER, encodeDoc, readStored, type Stored } from '../../log/documents.ts'
import { type Entry, isGone } from '../../log/nats.ts'
import type { Changed } from '../history/changed.ts'

/** A checkpoint is due after so many changed documents: one batch takes 1,000 messages. */
export const TOUCHED_SOFT = 800
const CLEAN_MAX = 20_000
/** As stored. In memory they take some four times as much. */
const CLEAN_MAX_BYTES = 8 * 1024 * 1024
const LATER_MAX = 20_000
/** The server removes the marker of a deleted key after a while, so that lists stay short. */
export const DELETED = { 'KV-Operation': 'DEL', 'Nats-TTL': '60s' }

/** Checks that a bucket is still the one that this engine took over. */
export interface Fence {
  /** Throws FlowStoneError `fenced`. */
  look(): Promise<void>
}

export interface StoreOptions {
  /** Default: that of the state. */
  readonly bucket?: string
  /** Whether large documents are stored compressed. Default: they are not. */
  readonly compress?: boolean
  /** Unchanged documents that are kept in memory. Default 20,000, but 8 MB of them at the most. */
  readonly keeps?: number
  /** Hears what changes, with the next checkpoint. */
  readonly changed?: Pick<Changed, 'put' | 'delete'>
}

export class Store implements View {
  readonly #docs = new Map<string, unknown>()
  readonly #touched = new Set<string>()
  /** Of those, what the bucket does not have yet, for certain. */
  readonly #fresh = new Set<string>()
  /** Keys to delete when a checkpoint has room for them. */
  readonly #later = new Set<string>()
  readonly #connection: Connection
  readonly #bucket: string
  readonly #names: Names
  /** Documents that do not fit one message, with the number of their parts. */
  readonly #parts = new Map<string, number>()
  /** Bytes of each document in memory, as it was stored last; and all together. */
  readonly #sizes = new Map<string, number>()
  #bytes = 0
  /** How often documents were dropped from memory. */
  #drops = 0
  readonly #fence: Fence
  readonly #compress: boolean
  readonly #keeps: number
  readonly #changed: StoreOptions['changed']

  constructor(
    connection: Connection,
    names: Names,
    shard: number,
    fence: Fence,
    { bucket = names.stateBucket(shard), compress = false, keeps = CLEAN_MAX, changed }: StoreOptions = {},
  ) {
    this.#changed = changed
    this.#compress = compress
    this.#keeps = keeps
    this.#fence = fence
    this.#connection = connection
    this.#names = names
    this.#bucket = bucket
  }

  has = (key: string): boolean => this.#docs.has(key)

  get<D>(key: Key<D>): D | undefined {
    // The key's type says what is stored under it. Only this project writes here.
    return this.#docs.get(key) as D | undefined
  }

  edit<D>(key: Key<D>, create?: () => NoInfer<D>): D {
    return editDoc(this, key, this.get(key), create)
  }

  put<D>(key: Key<D>, doc: D): void {
    this.#later.delete(key)
    if (!this.#docs.has(key) && isPutOnce(key)) this.#fresh.add(key)
    this.#docs.set(key, doc)
    this.#touched.add(key)
  }

  delete<D>(key: Key<D>): void {
    // Put and deleted between two checkpoints: the bucket never hears of it.
    if (this.#fresh.delete(key)) {
      this.#docs.set(key, undefined)
      this.#touched.delete(key)
      return
    }
    this.#changed?.delete(key)
    this.#delete(key)
  }

  #delete(key: string): void {
    // A thousand signals end a thousand gates. Their marks can wait; other documents are written
    // first.
    if (mayOutlive(key) && this.#later.size < LATER_MAX) {
      this.#drop(key)
      this.#touched.delete(key)
      this.#later.add(key)
      return
    }
    this.#docs.set(key, undefined)
    this.#touched.add(key)
  }

  /** Has a document stored again, as it is. Says whether there is one. */
  touch(key: string): boolean {
    const isThere = this.#docs.get(key) !== undefined
    if (isThere) this.#touched.add(key)
    return isThere
  }

  /**
   * Deletes documents that are in the bucket, and drops others from memory. `stored`: in how many
   * parts they are there.
   */
  forget(keys: readonly string[], stored: ReadonlyMap<string, number>): void {
    this.#drops += 1
    for (const key of keys) {
      const parts = stored.get(key)
      if (parts !== undefined) {
        if (parts > 1) this.#parts.set(key, parts)
        // Of runs that ended a while ago. To those who look at the past it is no change.
        this.#delete(key)
      } else if (!this.#touched.has(key)) this.#drop(key)
    }
  }

  /** Drops what `isOfPart` says from memory: the bucket loses it by a purge. */
  drop(run: string): void {
    this.#drops += 1
    for (const key of this.#docs.keys()) {
      if (!isOfPart(key, run)) continue
      this.#drop(key)
      this.#touched.delete(key)
      this.#fresh.delete(key)
      this.#parts.delete(key)
    }
  }

  /** How many documents the next checkpoint must write. */
  get touched(): number {
    return this.#touched.size
  }

  /** Whether deletions are left that may be written later. */
  get hasMore(): boolean {
    return this.#later.size > 0
  }

  /**
   * Reads keys from the leader of the bucket: a take-over must not start from an old copy. Throws
   * FlowStoneError `fenced` when the bucket was deleted, emptied, made again or taken over. A key
   * that is missing then says nothing.
   */
  async load(keys: readonly string[]): Promise<void> {
    let left = keys
    do {
      const drops = this.#drops
      const found = await this.#readAll(left)
      // One that was changed, stored and dropped meanwhile may have been read as it was before.
      const isSure = drops === this.#drops
      const again: string[] = []
      for (const [i, key] of left.entries()) {
        const { doc, parts, bytes } = found[i] ?? { doc: undefined, parts: 1, bytes: 0 }
        if (this.#docs.has(key)) continue
        if (!isSure) {
          again.push(key)
          continue
        }
        this.#docs.set(key, doc)
        this.#sized(key, bytes)
        if (parts > 1) this.#parts.set(key, parts)
      }
      left = again
    } while (left.length > 0)
  }

  /** A document as the bucket has it. The cache does not keep it. Throws as `load` does. */
  async read<D>(key: Key<D>): Promise<D | undefined> {
    const [found] = await this.#readAll([key])
    // The key's type says what is stored under it. Only this project writes here.
    return found?.doc as D | undefined
  }

  async #readAll(keys: readonly string[]): Promise<Stored[]> {
    const read = async (key: string): Promise<Stored> =>
      await readStored(this.#connection, this.#names, this.#bucket, key, { isBound: true })
    const found = await Promise.all(keys.map(read)).catch((error: unknown) => {
      throw isGone(error) ? new FlowStoneError('fenced', `${this.#bucket} was deleted`) : error
    })
    // It looks after the reads: then they were of the bucket that this engine took over.
    await this.#fence.look()
    return found
  }

  /**
   * The entries of a checkpoint: all that it must write, and deletions as far as it has room.
   * Documents are encoded here, so later folds do not change them.
   */
  takeTouched(): Entry[] {
    const entries: Entry[] = []
    for (const key of this.#touched) {
      const doc = this.#docs.get(key)
      if (doc === undefined) entries.push(...this.#deletedWhole(key))
      else entries.push(...this.#entriesOf(key, doc))
    }
    for (const key of this.#later) {
      if (entries.length >= TOUCHED_SOFT) break
      entries.push(this.#deleted(key))
      this.#later.delete(key)
    }
    // Nobody reads marks from this cache, so they would only take room.
    for (const key of this.#touched) if (isMark(key)) this.#drop(key)
    this.#dropClean()
    this.#touched.clear()
    this.#fresh.clear()
    return entries
  }

  #entriesOf(key: string, doc: unknown): Entry[] {
    const contentType = doc instanceof Uint8Array ? BYTES : 'application/json'
    const plain = encodeDoc(doc)
    this.#changed?.put(key, doc, plain)
    this.#sized(key, plain.length)
    const { bytes, encoding } = this.#compress ? squeeze(plain) : { bytes: plain }
    const parts = partsOf(key, bytes, this.#connection.maxPayload)
    const entries: Entry[] = parts.map((part) => ({
      subject: this.#names.kvSubject(this.#bucket, part.key),
      payload: part.payload,
      contentType,
      headers: { ...part.headers, ...(encoding ? { [ENCODING_HEADER]: encoding } : {}) },
    }))
    // The document had more parts before.
    for (let n = parts.length; n < (this.#parts.get(key) ?? 1); n++) entries.push(this.#deleted(partKey(key, n)))
    if (parts.length > 1) this.#parts.set(key, parts.length)
    else this.#parts.delete(key)
    return entries
  }

  #deletedWhole(key: string): Entry[] {
    const parts = this.#parts.get(key) ?? 1
    this.#parts.delete(key)
    this.#sized(key, 0)
    return Array.from({ length: parts }, (_, n) => this.#deleted(n === 0 ? key : partKey(key, n)))
  }

  #deleted(key: string): Entry {
    return { subject: this.#names.kvSubject(this.#bucket, key), payload: new Uint8Array(), headers: DELETED }
  }

  #dropClean(): void {
    if (this.#docs.size <= this.#keeps && this.#bytes <= CLEAN_MAX_BYTES) return
    for (const key of this.#docs.keys()) {
      if (this.#docs.size <= this.#keeps / 2 && this.#bytes <= CLEAN_MAX_BYTES / 2) break
      // The bucket does not have what this checkpoint takes yet. A read would find an old version.
      if (this.#touched.has(key)) continue
      this.#drops += 1
      this.#drop(key)
      this.#parts.delete(key)
    }
  }

  /** From memory. */
  #drop(key: string): void {
    this.#docs.delete(key)
    this.#sized(key, 0)
  }

  #sized(key: string, bytes: number): void {
    this.#bytes += bytes - (this.#sizes.get(key) ?? 0)
    if (bytes > 0) this.#sizes.set(key, bytes)
    else this.#sizes.delete(key)
  }
}
