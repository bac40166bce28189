/**
 * What of the state changes, from one position to another: see docs/decisions/time-travel.md. Each
 * checkpoint hands over the documents that it writes. The newest bytes of each are kept until
 * changes are due. Of a run that has ended nothing is kept.
 */
import { kindOf, PAST_KINDS } from '../../../projections/past.ts'
import { type RunState, runOfKey, stateKey } from '../../../projections/state.ts'
import type { Changes } from '../../../streams/changes.ts'
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

/** `open`: the run that ended was pruned, and another run has its id. */
type Ended = 'ended' | 'open'

export class Changed {
  readonly #every: number
  #docs = new Map<string, Uint8Array | undefined>()
  #gone = new Set<string>()
  /** Runs by the keys of their documents, whose hashes are known. */
  #ended = new Map<string, Ended>()
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

  put(key: string, doc: unknown, bytes: Uint8Array): void {
    // Most documents are of runs. This is done for each document of each checkpoint.
    if (key.startsWith('run.')) {
      // The type of document follows from its key.
      if (this.#hasEnded(key, doc as RunState)) return
    } else {
      const kind = kindOf(key)
      if (kind === 'pipeline') this.#docs.set(key, undefined)
      if (!PAST_KINDS.has(kind)) return
    }
    this.#bytes += bytes.length - (this.#docs.get(key)?.length ?? 0)
    this.#docs.set(key, bytes)
    if (this.#gone.size > 0) this.#gone.delete(key)
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
    const [docs, gone, ended] = [this.#docs, this.#gone, this.#ended]
    const changes = (): Changes => changesOf(docs, gone, ended)
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

  #hasEnded(key: string, { finishedMs }: RunState): boolean {
    if (finishedMs !== undefined) {
      this.#forget(key)
      this.#ended.set(key, 'ended')
      return true
    }
    if (this.#ended.get(key) === 'ended') {
      // Nothing of the one before goes on.
      for (const one of this.#docs.keys()) if (runKeyOf(one) === key) this.#forget(one)
      this.#ended.set(key, 'open')
    }
    return false
  }

  #forget(key: string): void {
    this.#bytes -= this.#docs.get(key)?.length ?? 0
    this.#docs.delete(key)
  }
}

/** A state that they are laid over may have what began and ended within them. */
function changesOf(
  docs: ReadonlyMap<string, Uint8Array | undefined>,
  gone: ReadonlySet<string>,
  ended: ReadonlyMap<string, Ended>,
): Changes {
  const isLeft = (key: string): boolean => ended.get(runKeyOf(key)) !== 'ended'
  return {
    docs: [...docs].filter(([key]) => isLeft(key)),
    gone: [...gone].filter(isLeft),
    ended: [...ended.keys()].map((key) => key.slice('run.'.length)),
  }
}

function runKeyOf(key: string): string {
  return stateKey.run(runOfKey(key) ?? '')
}
