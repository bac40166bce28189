/** Facts that are to become a block, in order. Their content is hashed, and not held. */

import type { SealedFact } from '../../../streams/history.ts'
import { type BlockDetail, HASH_BYTES, LEAF_BYTES, rootOf, writeLeaf } from '../../../streams/proof.ts'

/** A block ends with so many facts, or so many bytes of paths. */
const BLOCK_FACTS = 2048
const BLOCK_BYTES = 512 * 1024
const FIRST_FACTS = 32
/** What else of a fact stands in the detail, at the most. */
const BESIDES_BYTES = LEAF_BYTES + 9

export class Stretch {
  readonly #seqs: number[] = []
  readonly #paths: string[] = []
  /** Of all facts, one after the other. */
  #hashes = Buffer.allocUnsafeSlow(FIRST_FACTS * HASH_BYTES)
  readonly #maxBytes: number
  #bytes = 0

  constructor(maxPayload: number) {
    this.#maxBytes = Math.min(BLOCK_BYTES, maxPayload / 2)
  }

  add(fact: SealedFact): void {
    const at = this.count * HASH_BYTES
    if (at === this.#hashes.length) {
      const wider = Buffer.allocUnsafeSlow(2 * at)
      wider.set(this.#hashes)
      this.#hashes = wider
    }
    writeLeaf(fact, this.#hashes, at)
    this.#seqs.push(fact.seq)
    this.#paths.push(fact.path)
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
    return rootOf(this.#firstOf(HASH_BYTES)).toString('hex')
  }

  get detail(): BlockDetail {
    return { seqs: this.#seqs, paths: this.#paths, leaves: Buffer.concat(this.#firstOf(LEAF_BYTES)) }
  }

  /** The first bytes of each hash. */
  #firstOf(bytes: number): Buffer[] {
    return this.#seqs.map((_, i) => this.#hashes.subarray(i * HASH_BYTES, i * HASH_BYTES + bytes))
  }
}
