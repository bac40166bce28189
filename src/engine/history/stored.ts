/**
 * How far the state is stored, and where in its bucket: a document that has not changed since a
 * position of the log stands before the checkpoint of that position.
 */
import type { Checkpointer } from '../shard/checkpoint.ts'
import type { Mark } from '../shard/position.ts'

/** Checkpoints that are remembered are at least this far apart. */
const EVERY_MS = 1000
const REMEMBERED = 8000

interface Known {
  readonly seq: number
  readonly revision: number
}

export class Stored {
  readonly #checkpointer: Checkpointer
  #known: Known[] = []
  #newest: Known = { seq: Number.POSITIVE_INFINITY, revision: 0 }
  #atMs = Number.NEGATIVE_INFINITY

  constructor(checkpointer: Checkpointer) {
    this.#checkpointer = checkpointer
  }

  get seq(): number {
    return this.#checkpointer.seq
  }

  get mark(): Mark | undefined {
    return this.#checkpointer.mark
  }

  /** After each checkpoint. */
  remember(): void {
    const nowMs = performance.now()
    this.#newest = { seq: this.seq, revision: this.#checkpointer.revision }
    if (nowMs - this.#atMs < EVERY_MS) return
    this.#atMs = nowMs
    this.#known.push(this.#newest)
    // Every other one of the older half: what is known reaches back further, and is coarser.
    if (this.#known.length > REMEMBERED) this.#known = this.#known.filter((_, i) => i % 2 === 0 || i > REMEMBERED / 2)
  }

  /** Documents up to this revision have not changed since a position before `seq`. */
  revisionAt(seq: number): number | undefined {
    if (this.#newest.seq <= seq) return this.#newest.revision
    return this.#known.findLast((known) => known.seq <= seq)?.revision
  }
}
