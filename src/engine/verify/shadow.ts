/**
 * A state that is folded beside the real one: the base, and the facts behind it. Documents that
 * were not used for a while go to a scratch file, so memory has a bound: some 200 bytes for each
 * document, and those that are in use.
 */
import { hash } from 'node:crypto'
import { editDoc, type Key, type View } from '../../../projections/state.ts'
import { decode } from '../../../streams/codec.ts'
import { encodeDoc } from '../../log/documents.ts'
import type { Scratch, ScratchFile } from './scratch.ts'

/** Documents in memory. Above it, half of them go. */
const HELD_MAX = 4000
const HELD_MAX_BYTES = 16 * 1024 * 1024

interface Place {
  readonly at: number
  readonly length: number
  readonly isBytes: boolean
  readonly hash: string
}

/** Enough of a hash to tell two documents of one key apart. */
export function hashOfDoc(bytes: Uint8Array): string {
  return hash('sha1', bytes, 'base64url').slice(0, 12)
}

export class Shadow implements View {
  readonly #file: ScratchFile
  readonly #places = new Map<string, Place>()
  /** In the order of their last change or look. */
  readonly #held = new Map<string, unknown>()
  readonly #changed = new Set<string>()
  #heldBytes = 0

  constructor(scratch: Scratch) {
    this.#file = scratch.file(1024 * 1024)
  }

  get<D>(key: Key<D>): D | undefined {
    if (this.#held.has(key)) return this.#held.get(key) as D | undefined
    const place = this.#places.get(key)
    if (!place) return undefined
    const doc = docIn(this.#file.read(place.at, place.length), place.isBytes)
    this.#held.set(key, doc)
    this.#heldBytes += place.length
    return doc as D
  }

  edit<D>(key: Key<D>, create?: () => NoInfer<D>): D {
    return editDoc(this, key, this.get(key), create)
  }

  put<D>(key: Key<D>, doc: D): void {
    // Behind all others: it is in use.
    this.#held.delete(key)
    this.#held.set(key, doc)
    this.#changed.add(key)
  }

  delete<D>(key: Key<D>): void {
    this.#held.delete(key)
    this.#changed.delete(key)
    this.#places.delete(key)
  }

  /** A document as it was stored. */
  putStored(key: string, bytes: Uint8Array, isBytes: boolean): void {
    this.#places.set(key, { at: this.#file.append(bytes), length: bytes.length, isBytes, hash: hashOfDoc(bytes) })
  }

  /** Between two facts: drops documents from memory when there are many. */
  settle(): void {
    if (this.#held.size <= HELD_MAX && this.#heldBytes <= HELD_MAX_BYTES) return
    let left = Math.ceil(this.#held.size / 2)
    for (const key of this.#held.keys()) {
      if (left-- <= 0) break
      if (this.#changed.has(key)) this.#store(key)
      this.#held.delete(key)
    }
    this.#heldBytes = 0
  }

  /** The hash of a document; undefined when there is none. */
  hashOf(key: string): string | undefined {
    if (this.#changed.has(key)) this.#store(key)
    return this.#places.get(key)?.hash
  }

  /** Documents that there are. */
  *keys(): Generator<string> {
    for (const key of this.#changed) this.#store(key)
    yield* this.#places.keys()
  }

  get size(): number {
    return this.#places.size + this.#changed.size
  }

  #store(key: string): void {
    const doc = this.#held.get(key)
    this.#changed.delete(key)
    const bytes = encodeDoc(doc)
    // As it will be read again: what is undefined is not there then.
    this.putStored(key, bytes, doc instanceof Uint8Array)
    this.#heldBytes += bytes.length
  }
}

function docIn(bytes: Uint8Array<ArrayBuffer>, isBytes: boolean): unknown {
  return isBytes ? new Uint8Array(bytes) : decode(bytes, 'application/json')
}
