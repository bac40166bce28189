/**
 * The state at an earlier position, in memory: the documents of a snapshot, and the facts behind it
 * folded over them. A document of the snapshot is decoded when it is read first. Of a pipeline the
 * snapshot has the key only: its content never changes, so the state of today has it too.
 */
import { CONTENT_TYPE, decode } from '../streams/codec.ts'
import type { Fact } from '../streams/facts.ts'
import type { SnapshotDoc } from '../streams/snapshots.ts'
import { needs, step } from './handlers.ts'
import { editDoc, type Key, type View } from './state.ts'

export class PastView implements View {
  readonly #stored: Map<string, Uint8Array | undefined>
  readonly #docs = new Map<string, unknown>()

  constructor(snapshot: readonly SnapshotDoc[] = []) {
    this.#stored = new Map(snapshot)
  }

  /** False only for what has to be given before. */
  readonly has = (key: string): boolean =>
    this.#docs.has(key) || !this.#stored.has(key) || this.#stored.get(key) !== undefined

  get<D>(key: Key<D>): D | undefined {
    // The key's type says what is stored under it. Only this project writes snapshots.
    if (this.#docs.has(key)) return this.#docs.get(key) as D | undefined
    const bytes = this.#stored.get(key)
    if (!bytes) return undefined
    const doc = key.startsWith('segment.') ? new Uint8Array(bytes) : decode(bytes, CONTENT_TYPE.json)
    this.#docs.set(key, doc)
    return doc as D
  }

  edit<D>(key: Key<D>, create?: () => NoInfer<D>): D {
    return editDoc(this, key, this.get(key), create)
  }

  put<D>(key: Key<D>, doc: D): void {
    this.#docs.set(key, doc)
  }

  delete<D>(key: Key<D>): void {
    this.#docs.set(key, undefined)
  }

  /** Those of the snapshot are not decoded for it. */
  keys(prefix: string): string[] {
    const found = new Set<string>()
    for (const key of this.#stored.keys()) if (key.startsWith(prefix)) found.add(key)
    for (const [key, doc] of this.#docs) {
      if (!key.startsWith(prefix)) continue
      if (doc === undefined) found.delete(key)
      else found.add(key)
    }
    return [...found]
  }
}

/**
 * Folds one fact. Returns the keys of documents that the view has not: put them, and call again.
 * None: it is folded, or stepped over because it cannot be folded, as the engine does.
 */
export function foldPast(view: PastView, fact: Fact): readonly string[] {
  try {
    const missing = needs(view, view.has, fact)
    if (missing.length === 0) step(view, fact)
    return missing
  } catch {
    return []
  }
}
