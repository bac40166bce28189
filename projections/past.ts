/**
 * The state at an earlier position, in memory: the documents of a snapshot, and the facts behind it
 * folded over them. A document of the snapshot is decoded when it is read first. Of a pipeline the
 * snapshot has the key only: its content never changes, so the state of today has it too.
 */
import type { Changes } from '../streams/changes.ts'
import { CONTENT_TYPE, decode, encodeJson } from '../streams/codec.ts'
import type { Fact } from '../streams/facts.ts'
import type { SnapshotDoc } from '../streams/snapshots.ts'
import { needs, step } from './handlers.ts'
import { editDoc, type Key, type RunState, runOfKey, STATE_KINDS, stateKey, type View } from './state.ts'

/** Lists have the past in them. Of pipelines the state has all. Nobody looks for the rest. */
const LEFT_OUT: ReadonlySet<string> = new Set(['runs', 'pipeline', 'subscription', 'event_group'])
/** What snapshots and changes have the content of. Of pipelines they have the keys. */
export const PAST_KINDS: ReadonlySet<string> = new Set(STATE_KINDS.filter((kind) => !LEFT_OUT.has(kind)))

export function kindOf(key: string): string {
  return key.slice(0, key.indexOf('.'))
}

export class PastView implements View {
  readonly #stored: Map<string, Uint8Array | undefined>
  readonly #docs = new Map<string, unknown>()
  /** Of `#stored`: keys of each run. Once changes were laid over. */
  #runs: Map<string, Set<string>> | undefined

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

  /**
   * Lays changes over it. They may begin before the position that it stands for: they hold all that
   * changed behind it.
   */
  apply({ docs, gone, ended }: Changes): void {
    const runs = this.#byRun()
    const endedNow = new Set(ended)
    if (endedNow.size > 0)
      for (const key of this.#docs.keys()) if (endedNow.has(runOfKey(key) ?? '')) this.#docs.delete(key)
    for (const run of ended) {
      for (const key of runs.get(run) ?? []) this.#stored.delete(key)
      runs.delete(run)
    }
    for (const key of gone) {
      this.#docs.delete(key)
      this.#stored.delete(key)
      runs.get(runOfKey(key) ?? '')?.delete(key)
    }
    for (const [key, bytes] of docs) {
      this.#docs.delete(key)
      this.#stored.set(key, bytes)
      note(runs, key)
    }
  }

  /** As a snapshot: without runs that have ended, and without what no snapshot has. */
  whole(): SnapshotDoc[] {
    const docs: SnapshotDoc[] = []
    for (const key of this.keys('')) {
      const kind = kindOf(key)
      const run = runOfKey(key)
      if (run !== undefined) {
        const doc = this.get<RunState>(stateKey.run(run))
        if (!doc || doc.finishedMs !== undefined) continue
      }
      if (kind === 'pipeline') docs.push([key, undefined])
      else if (PAST_KINDS.has(kind)) docs.push([key, this.#bytesOf(key)])
    }
    return docs
  }

  #bytesOf(key: string): Uint8Array {
    const stored = this.#stored.get(key)
    // What was read may have been changed since.
    if (stored && !this.#docs.has(key)) return stored
    const doc = this.get<unknown>(key)
    return doc instanceof Uint8Array ? doc : encodeJson(doc)
  }

  #byRun(): Map<string, Set<string>> {
    if (this.#runs) return this.#runs
    this.#runs = new Map()
    for (const key of this.#stored.keys()) note(this.#runs, key)
    return this.#runs
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

function note(runs: Map<string, Set<string>>, key: string): void {
  const run = runOfKey(key)
  if (run === undefined) return
  const keys = runs.get(run)
  if (keys) keys.add(key)
  else runs.set(run, new Set([key]))
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
