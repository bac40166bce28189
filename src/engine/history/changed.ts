/**
 * What of the state changes, from one position to another: see docs/decisions/time-travel.md. Each
 * checkpoint hands over the documents that it writes. The newest bytes of each are kept until
 * changes are due. Of a run that has ended nothing is kept.
 */
import { kindOf, PAST_KINDS } from '../../../projections/past.ts'
import { runOfKey } from '../../../projections/state.ts'
import type { Changes } from '../../../streams/changes.ts'
import type { SnapshotDoc } from '../../../streams/snapshots.ts'
import type { Mark } from '../shard/position.ts'

/** Changes are due after so many bytes of facts or of documents, if not for the number of facts. */
const EVERY_BYTES = 32 * 1024 * 1024
const DOCS_BYTES = 8 * 1024 * 1024
/** If more than this is not taken, what comes behind it is thrown away: the changes have a gap. */
const HELD_MAX_BYTES = 16 * 1024 * 1024
const HELD_MAX = 64

/** Changes that are to be stored. */
export interface Cut {
  readonly from: number
  readonly seq: number
  readonly mark: Mark
  readonly changes: () => Changes
  /** In memory. */
  readonly bytes: number
}

interface EndedRun {
  /** It had begun before these changes. */
  readonly wasThere: boolean
  /** Another run has its id, and is open. */
  isOpen: boolean
}

export class Changed {
  readonly #every: number
  #docs = new Map<string, Uint8Array | undefined>()
  #gone = new Set<string>()
  #began = new Set<string>()
  #ended = new Map<string, EndedRun>()
  #from = 0
  #facts = 0
  #factBytes = 0
  #bytes = 0
  #ready: Cut[] = []
  /** There is something to take. */
  onReady: (() => void) | undefined

  constructor(every: number) {
    this.#every = every
  }

  /** All that came before is forgotten. */
  begin(from: number): void {
    this.#docs = new Map()
    this.#gone = new Set()
    this.#began = new Set()
    this.#ended = new Map()
    this.#from = from
    this.#facts = 0
    this.#factBytes = 0
    this.#bytes = 0
  }

  fact(bytes: number): void {
    this.#facts += 1
    this.#factBytes += bytes
  }

  /** `isFresh`: the bucket has not had it before. */
  put(key: string, doc: unknown, bytes: Uint8Array, isFresh: boolean): void {
    const kind = kindOf(key)
    if (kind === 'pipeline') this.#docs.set(key, undefined)
    if (!PAST_KINDS.has(kind)) return
    if (kind === 'run' && this.#hasEnded(key, doc, isFresh)) return
    this.#bytes += bytes.length - (this.#docs.get(key)?.length ?? 0)
    this.#docs.set(key, bytes)
    this.#gone.delete(key)
  }

  delete(key: string): void {
    if (!PAST_KINDS.has(kindOf(key))) return
    this.#forget(key)
    this.#gone.add(key)
  }

  /** All up to `seq` was put, and nothing behind it. Something, if changes are due. */
  cut(seq: number, mark: Mark | undefined): Cut | undefined {
    const isDue = this.#facts >= this.#every || this.#factBytes >= EVERY_BYTES || this.#bytes >= DOCS_BYTES
    if (!isDue || !mark) return undefined
    const [docs, gone, began, ended] = [this.#docs, this.#gone, this.#began, this.#ended]
    const changes = (): Changes => changesOf(docs, gone, began, ended)
    const cut = { from: this.#from, seq, mark, changes, bytes: this.#bytes }
    const held = this.#ready.reduce((sum, { bytes }) => sum + bytes, cut.bytes)
    this.begin(seq)
    return held > HELD_MAX_BYTES || this.#ready.length >= HELD_MAX ? undefined : cut
  }

  /** Once the checkpoint of its position is stored. */
  offer(cut: Cut): void {
    this.#ready.push(cut)
    this.onReady?.()
  }

  get isReady(): boolean {
    return this.#ready.length > 0
  }

  take(): Cut | undefined {
    return this.#ready.shift()
  }

  #hasEnded(key: string, doc: unknown, isFresh: boolean): boolean {
    const run = key.slice('run.'.length)
    const ended = this.#ended.get(run)
    if (typeof doc === 'object' && doc !== null && Reflect.get(doc, 'finishedMs') !== undefined) {
      this.#forget(key)
      if (ended) ended.isOpen = false
      else this.#ended.set(run, { wasThere: !isFresh && !this.#began.has(run), isOpen: false })
      return true
    }
    if (isFresh) this.#began.add(run)
    if (ended && !ended.isOpen) {
      // The one before was pruned. Nothing of it goes on.
      for (const one of this.#docs.keys()) if (runOfKey(one) === run) this.#forget(one)
      ended.isOpen = true
    }
    return false
  }

  #forget(key: string): void {
    this.#bytes -= this.#docs.get(key)?.length ?? 0
    this.#docs.delete(key)
  }
}

function changesOf(
  docs: ReadonlyMap<string, Uint8Array | undefined>,
  gone: ReadonlySet<string>,
  began: ReadonlySet<string>,
  ended: ReadonlyMap<string, EndedRun>,
): Changes {
  const isLeft = (key: string): boolean => {
    const of = ended.get(runOfKey(key) ?? '')
    return !of || of.isOpen
  }
  const isOfBegun = (key: string): boolean => began.has(runOfKey(key) ?? '')
  return {
    docs: [...docs].filter((doc): doc is [string, Uint8Array | undefined] & SnapshotDoc => isLeft(doc[0])),
    gone: [...gone].filter((key) => isLeft(key) && !isOfBegun(key)),
    ended: [...ended].flatMap(([run, { wasThere }]) => (wasThere ? [run] : [])),
  }
}
