/**
 * The runs that the base has met and that are not sealed yet, with their facts as far as they are
 * in memory. Facts of runs that stay open for long are dropped, and read again when the run ends.
 */
import type { SealedFact } from '../../../streams/history.ts'

/** Facts that are held for runs that have not ended. */
const HELD_MAX_BYTES = 32 * 1024 * 1024

export interface UnsealedRun {
  readonly run: string
  /** Of its first fact. */
  readonly firstSeq: number
  /** Undefined when another engine has met the run. */
  readonly pipeline?: string
  /** All facts so far; undefined when some are not in memory. */
  facts?: SealedFact[]
  bytes: number
  /** The revision that its document has in the state, as far as that was looked at. */
  revision?: number
  /** The base has a mark for it: it was there at the last checkpoint. */
  marked?: true
  /** Objects of the object store that its facts name, as far as the mark does not say so yet. */
  blobs?: Set<string>
}

export class Unsealed {
  /** In the order of their first facts. */
  readonly #runs = new Map<string, UnsealedRun>()
  #bytes = 0

  get(run: string): UnsealedRun | undefined {
    return this.#runs.get(run)
  }

  get size(): number {
    return this.#runs.size
  }

  values(): Iterable<UnsealedRun> {
    return this.#runs.values()
  }

  /** Nothing of any of them stands before this one on the log. */
  get firstSeq(): number {
    // A map has its members in the order in which they were added.
    for (const { firstSeq } of this.#runs.values()) return firstSeq
    return Number.POSITIVE_INFINITY
  }

  add(unsealed: UnsealedRun): void {
    this.#runs.set(unsealed.run, unsealed)
  }

  addFact(unsealed: UnsealedRun, fact: SealedFact): void {
    if (!unsealed.facts) return
    unsealed.facts.push(fact)
    unsealed.bytes += fact.payload.length
    this.#bytes += fact.payload.length
  }

  remove({ run, bytes }: UnsealedRun): void {
    if (this.#runs.delete(run)) this.#bytes -= bytes
  }

  /** Drops facts until what is held is small enough, those of the oldest runs first. */
  trim(): void {
    for (const unsealed of this.#runs.values()) {
      if (this.#bytes <= HELD_MAX_BYTES) return
      if (unsealed.facts && unsealed.bytes > 0) {
        this.#bytes -= unsealed.bytes
        unsealed.bytes = 0
        delete unsealed.facts
      }
    }
  }
}

/** What the base keeps of a run that it has met and that is open. */
export interface UnsealedMark {
  readonly since: number
  /**
   * Objects of the object store that its facts name. Null: they are many. Undefined: an older
   * version wrote the mark.
   */
  readonly blobs?: readonly string[] | null
}

/** Names of more objects than this are not kept. */
const BLOBS_MAX = 2000

export function withBlobs(mark: UnsealedMark, blobs: Iterable<string>): UnsealedMark {
  if (!mark.blobs) return mark
  const all = [...new Set([...mark.blobs, ...blobs])]
  return { ...mark, blobs: all.length > BLOBS_MAX ? null : all }
}
