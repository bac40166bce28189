/** Facts that are to become a block, in order. Their content is hashed, and not held. */

import type { SealedFact } from '../../../streams/history.ts'
import { type BlockDetail, LEAF_BYTES, leafOf, rootOf } from '../../../streams/proof.ts'

/** A block ends with so many facts, or so many bytes of paths. */
const BLOCK_FACTS = 2048
const BLOCK_BYTES = 512 * 1024
/** What else of a fact stands in the detail, at the most. */
const BESIDES_BYTES = LEAF_BYTES + 9

export class Stretch {
  readonly #seqs: number[] = []
  readonly #paths: string[] = []
  readonly #leaves: Buffer[] = []
  readonly #maxBytes: number
  #bytes = 0

  constructor(maxPayload: number) {
    this.#maxBytes = Math.min(BLOCK_BYTES, maxPayload / 2)
  }

  add(fact: SealedFact): void {
    this.#seqs.push(fact.seq)
    this.#paths.push(fact.path)
    this.#leaves.push(leafOf(fact))
    this.#bytes += fact.path.length + BESIDES_BYTES
  }

  get count(): number {
    return this.#seqs.length
  }

  get isFull(): boolean {
    return this.#seqs.length >= BLOCK_FACTS || this.#bytes >= this.#maxBytes
  }

  /** The last sequence of it. */
  get to(): number {
    return this.#seqs.at(-1) ?? 0
  }

  get root(): string {
    return rootOf(this.#leaves).toString('hex')
  }

  get detail(): BlockDetail {
    const leaves = Buffer.concat(this.#leaves.map((leaf) => leaf.subarray(0, LEAF_BYTES)))
    return { seqs: this.#seqs, paths: this.#paths, leaves }
  }
}
