/**
 * Checks facts against the blocks of a proof: pure, so that a log, a history and an archive are
 * checked alike, and offline. First all blocks, in order; then facts, in any order; then the end.
 */
import { messageOf } from '../../streams/errors.ts'
import { isTimer } from '../../streams/facts.ts'
import type { SealedFact } from '../../streams/history.ts'
import {
  type BlockDetail,
  type BlockHead,
  decodeBlock,
  decodeDetail,
  HASH_BYTES,
  isSigned,
  LEAF_BYTES,
  type LeftRecord,
  leafOf,
  type ReadBlock,
  rootOf,
  sha256,
} from '../../streams/proof.ts'
import type { ProofCheckpoint, ProofFinding, ProofGap, ProofProblem, ProofReport } from './findings.ts'
import { LeftByRule } from './left.ts'

const FINDINGS_MAX = 1000
/** Whole hashes that are held until a block is complete. Beyond that, the first halves must do. */
const HELD_MAX_BYTES = 256 * 1024 * 1024

export interface CheckOptions {
  readonly ns: string
  readonly shard: number
  /** Public keys that count. Empty: any key does, and its owner is not known. */
  readonly keys?: readonly string[]
  readonly checkpoints?: readonly ProofCheckpoint[]
  /** When the log that is checked was made, as the server says it. Undefined: an archive. */
  readonly log?: string
  /** All facts are to be in blocks: these were read later. */
  readonly isArchive?: boolean
}

interface Block {
  readonly head: BlockHead
  /** Undefined: it has none any more. */
  readonly packed: Uint8Array | undefined
  /** Sequences, from that of the block on. */
  readonly steps: Uint32Array
  readonly leaves: Uint8Array
  readonly seen: Uint8Array
  /** Whole hashes, until all are there. */
  whole: Uint8Array | undefined
  found: number
}

export class ProofCheck {
  readonly #options: CheckOptions
  readonly #left = new LeftByRule()
  readonly #findings: ProofFinding[] = []
  readonly #blocks: Block[] = []
  readonly #gaps: ProofGap[] = []
  readonly #keys = new Set<string>()
  readonly #hashes = new Map<number, string>()
  /** Of blocks without a detail: whole hashes of the facts in their stretch, by sequence. */
  readonly #undetailed = new Map<Block, Map<number, Buffer>>()
  #last: ReadBlock | undefined
  /** Where the proof begins. */
  #first: number | undefined
  #signedTo: number | undefined
  #problems = 0
  #heldBytes = 0
  #uncovered = 0
  #newer = 0
  #recent: { readonly block: Block; readonly detail: BlockDetail } | undefined

  constructor(options: CheckOptions) {
    this.#options = options
  }

  /** Where the proof begins; undefined without a block. */
  get first(): number | undefined {
    return this.#first
  }

  /** The next block. `detail`: what stands before it on the stream, if it has one. */
  block(payload: Uint8Array, detail: Uint8Array | undefined): void {
    let read: ReadBlock
    try {
      read = decodeBlock(payload)
    } catch (error) {
      this.#find('block_unreadable', { block: (this.#last?.head.n ?? -1) + 1 }, messageOf(error))
      return
    }
    this.#link(read)
    this.#sign(read)
    for (const record of read.left ?? []) this.#left.add(record)
    if (!read.left)
      this.#find('block_changed', { block: read.head.n }, 'what it says of facts that left the log was changed')
    this.#hashes.set(read.head.n, read.hash)
    this.#last = read
    if (read.head.count > 0) this.#cover(read.head, detail)
  }

  /** Records of blocks that came since: what left while facts were read. */
  leftSince(records: readonly LeftRecord[]): void {
    for (const record of records) this.#left.add(record)
  }

  #link({ head }: ReadBlock): void {
    const { ns, shard } = this.#options
    const at = { block: head.n }
    if (head.ns !== ns || head.shard !== shard)
      this.#find('block_changed', at, `it is of shard ${head.shard} of namespace ${head.ns}`)
    const last = this.#last
    this.#first ??= head.from
    if (!last) {
      if (head.n !== 0) this.#find('block_missing', { block: 0 }, `the blocks before block ${head.n} are gone`)
      return
    }
    const { n, to, log } = last.head
    if (head.n === 0)
      this.#find('chain_broken', at, `behind block ${n} it begins anew: the blocks before were lost or replaced`)
    else if (head.n !== n + 1) this.#find('block_missing', { block: n + 1 }, `block ${head.n} follows on block ${n}`)
    else if (head.prev !== last.hash)
      this.#find('chain_broken', at, `block ${n} is not the one that it was made behind: one of the two was changed`)
    if (head.log !== log)
      this.#find(
        'log_replaced',
        at,
        `from here on it is of another log: that of before is ${log}, this one ${head.log}`,
      )
    else if (head.from <= to)
      this.#find('log_set_back', at, `the log went back from ${to} to ${head.from - 1}: facts behind that were lost`)
    // What was proven of what is gone is of no fact that can be there now.
    while (head.from <= (this.#blocks.at(-1)?.head.from ?? 0)) this.#blocks.pop()
    if (head.from > to + 1) this.#gaps.push({ from: to + 1, to: head.from - 1 })
  }

  #sign(read: ReadBlock): void {
    const { key, n } = read.head
    const { keys = [] } = this.#options
    if (key === '' && read.signature === undefined) return
    if (!isSigned(read)) {
      this.#find('bad_signature', { block: n }, `the signature of key ${key} does not hold: the block was changed`)
      return
    }
    this.#keys.add(key)
    if (keys.length === 0 || keys.includes(key)) this.#signedTo = n
    else this.#find('unknown_key', { block: n }, `it is signed by key ${key}, which is none of yours`)
  }

  #cover(head: BlockHead, packed: Uint8Array | undefined): void {
    const none = { packed: undefined, steps: new Uint32Array(), leaves: new Uint8Array(), seen: new Uint8Array() }
    const add = (block: Block): void => void this.#blocks.push(block)
    const broken = (why: string): void => this.#find('detail_changed', { block: head.n }, why)
    if (packed && sha256(packed) !== head.detail) broken('the list of its facts was changed')
    else if (packed) {
      try {
        const { seqs, leaves } = decodeDetail(packed)
        if (seqs.length !== head.count) broken(`it has ${seqs.length} facts, and says ${head.count}`)
        const steps = Uint32Array.from(seqs, (seq) => seq - head.from)
        add({ head, packed, steps, leaves, seen: new Uint8Array(seqs.length), whole: undefined, found: 0 })
        return
      } catch (error) {
        broken(messageOf(error))
      }
    }
    const block: Block = { head, ...none, whole: undefined, found: 0 }
    add(block)
    this.#undetailed.set(block, new Map())
  }

  /** A fact, from wherever it is: of one that is in two places, both are checked. */
  fact(fact: SealedFact): void {
    const { seq, path } = fact
    if (isTimer(path)) return
    const block = this.#blockOf(seq)
    if (!block) {
      const last = this.#last?.head.to ?? 0
      if (seq > last) this.#unproven(fact)
      else if (this.#isCovered(seq)) this.#insert(fact, undefined)
      else this.#uncovered += 1
      return
    }
    const without = this.#undetailed.get(block)
    if (without) {
      without.set(seq, leafOf(fact))
      return
    }
    const i = indexOf(block.steps, seq - block.head.from)
    if (i < 0) this.#insert(fact, block)
    else this.#compare(block, i, fact)
  }

  #unproven({ seq, path }: SealedFact): void {
    this.#newer += 1
    if (this.#options.isArchive)
      this.#find(
        'fact_unproven',
        { seq, path },
        `${path} at ${seq} is behind the last block; export the proof after the archive`,
      )
  }

  archiveDamaged(why: string): void {
    this.#find('archive_damaged', {}, why)
  }

  #insert({ seq, path }: SealedFact, block: Block | undefined): void {
    this.#find(
      'fact_inserted',
      { ...(block ? { block: block.head.n } : {}), seq, path },
      `${path} at ${seq} was not there when its stretch of the log was proven`,
    )
  }

  #compare(block: Block, i: number, fact: SealedFact): void {
    const leaf = leafOf(fact)
    const { seq, path } = fact
    const isFirst = block.seen[i] === 0
    block.seen[i] = 1
    if (!leaf.subarray(0, LEAF_BYTES).equals(block.leaves.subarray(i * LEAF_BYTES, (i + 1) * LEAF_BYTES))) {
      block.seen[i] = 2
      const was = this.#detailOf(block).paths[i]
      const at = { block: block.head.n, seq, path: was ?? path }
      if (was === path)
        this.#find('fact_changed', at, `${path} at ${seq} is not what it was: content, type or time were changed`)
      else this.#find('fact_replaced', at, `at ${seq} stands ${path}, and ${was} stood there`)
      return
    }
    if (!isFirst) return
    block.found += 1
    this.#hold(block, i, leaf)
  }

  #hold(block: Block, i: number, leaf: Buffer): void {
    const { steps, head } = block
    if (!block.whole) {
      // Some are missing already: its root cannot be made.
      if (block.found > 1 || this.#heldBytes > HELD_MAX_BYTES) return
      block.whole = new Uint8Array(steps.length * HASH_BYTES)
      this.#heldBytes += block.whole.length
    }
    block.whole.set(leaf, i * HASH_BYTES)
    if (block.found < steps.length) return
    const { whole } = block
    const leaves = Array.from(steps, (_, k) => whole.subarray(k * HASH_BYTES, (k + 1) * HASH_BYTES))
    if (rootOf(leaves).toString('hex') !== head.root)
      this.#find('root_differs', { block: head.n }, 'its facts do not give its root: the block was made of other facts')
    this.#heldBytes -= whole.length
    block.whole = undefined
  }

  /** `expected`: facts that must be there, by path; of an archive not all of a log are. */
  end(expected: (path: string, seq: number) => boolean = () => true): ProofReport {
    const { shard, ns, log, keys = [] } = this.#options
    let [facts, intact, left] = [0, 0, 0]
    for (const block of this.#blocks) {
      facts += block.head.count
      intact += block.found
      left += this.#missing(block, expected)
    }
    for (const [block, found] of this.#undetailed) {
      if (found.size === 0 && this.#left.hasBlock(block.head.n)) left += block.head.count
      else intact += this.#undetailedEnd(block, found)
    }
    this.#checkpoints()
    const last = this.#last
    if (!last) this.#find('no_proof', {}, `shard ${shard} of ${ns} has no block: no engine has run with proof here`)
    else if (log !== undefined && last.head.log !== log)
      this.#find(
        'log_replaced',
        { block: last.head.n },
        `the log is another one: the proven one is ${last.head.log}, this one ${log}`,
      )
    const signedTo = this.#signedTo ?? -1
    if (last && signedTo < last.head.n && (keys.length > 0 || signedTo >= 0))
      this.#find(
        'not_signed',
        { block: signedTo + 1 },
        `blocks ${signedTo + 1} to ${last.head.n} are not signed by a key of yours`,
      )
    const from = this.#first ?? 1
    return {
      shard,
      blocks: this.#hashes.size,
      signedTo: this.#signedTo,
      keys: [...this.#keys],
      covers: last && last.head.to >= from ? { from, to: last.head.to } : undefined,
      gaps: this.#gaps,
      facts,
      intact,
      left,
      uncovered: this.#uncovered,
      newer: this.#newer,
      findings: this.#findings,
      problems: this.#problems,
    }
  }

  /** Facts of a block that nobody has seen. Returns how many left by rule. */
  #missing(block: Block, expected: (path: string, seq: number) => boolean): number {
    if (this.#undetailed.has(block) || block.found === block.steps.length) return 0
    const { paths } = this.#detailOf(block)
    let left = 0
    for (const [i, step] of block.steps.entries()) {
      const path = paths[i] ?? ''
      const seq = block.head.from + step
      if (block.seen[i] !== 0 || !expected(path, seq) || this.#blockOf(seq) !== block) continue
      if (this.#left.has(seq, path)) left += 1
      else
        this.#find(
          'fact_removed',
          { block: block.head.n, seq, path },
          `${path} at ${seq} is gone, and no rule took it away`,
        )
    }
    return left
  }

  /** The root alone says whether all facts are there as they were. */
  #undetailedEnd({ head }: Block, found: ReadonlyMap<number, Buffer>): number {
    const leaves = [...found].toSorted(([a], [b]) => a - b).map(([, leaf]) => leaf)
    if (leaves.length === head.count && rootOf(leaves).toString('hex') === head.root) return head.count
    // An archive may have some of them, which says nothing of those.
    if (!this.#options.isArchive)
      this.#find(
        'facts_differ',
        { block: head.n },
        `${leaves.length} of ${head.count} facts from ${head.from} to ${head.to} do not give its root, and the list of them is gone`,
      )
    return 0
  }

  #checkpoints(): void {
    for (const { n, hash, ns, shard } of this.#options.checkpoints ?? []) {
      if (ns !== this.#options.ns || shard !== this.#options.shard) continue
      const found = this.#hashes.get(n)
      if (found === undefined)
        this.#find(
          'checkpoint_missing',
          { block: n },
          `your checkpoint names block ${n}, and the chain ends at ${this.#last?.head.n ?? 'none'}: its end was cut off`,
        )
      else if (found !== hash)
        this.#find(
          'checkpoint_differs',
          { block: n },
          `block ${n} is not the one of your checkpoint: the chain was made anew`,
        )
    }
  }

  /** Of two blocks that have a sequence, the newer one is of what stands there. */
  #blockOf(seq: number): Block | undefined {
    let [low, high] = [0, this.#blocks.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if ((this.#blocks[middle]?.head.from ?? 0) <= seq) low = middle + 1
      else high = middle
    }
    const found = this.#blocks[low - 1]
    return found && seq <= found.head.to ? found : undefined
  }

  /** Blocks without facts cover their stretch, too. */
  #isCovered(seq: number): boolean {
    const from = this.#first
    return from !== undefined && seq >= from && !this.#gaps.some((gap) => seq >= gap.from && seq <= gap.to)
  }

  #detailOf(block: Block): BlockDetail {
    if (this.#recent?.block !== block && block.packed) this.#recent = { block, detail: decodeDetail(block.packed) }
    return this.#recent?.detail ?? { seqs: [], paths: [], leaves: new Uint8Array() }
  }

  #find(problem: ProofProblem, at: Pick<ProofFinding, 'block' | 'seq' | 'path'>, message: string): void {
    this.#problems += 1
    if (this.#findings.length < FINDINGS_MAX)
      this.#findings.push({ problem, shard: this.#options.shard, ...at, message })
  }
}

function indexOf(steps: Uint32Array, step: number): number {
  let [low, high] = [0, steps.length]
  while (low < high) {
    const middle = (low + high) >> 1
    if ((steps[middle] ?? 0) < step) low = middle + 1
    else high = middle
  }
  return steps[low] === step ? low : -1
}
