/** What a check of the proof can find. */

/** What can be wrong with facts, blocks and signatures. docs/proof.md says what each one means. */
export type ProofProblem =
  /** Facts. */
  | 'fact_changed'
  | 'fact_replaced'
  | 'fact_removed'
  | 'fact_inserted'
  | 'facts_differ'
  /** Archives. */
  | 'fact_unproven'
  | 'archive_damaged'
  /** Blocks. */
  | 'no_proof'
  | 'block_unreadable'
  | 'block_missing'
  | 'block_changed'
  | 'chain_broken'
  | 'detail_changed'
  | 'root_differs'
  | 'log_replaced'
  | 'log_set_back'
  /** Signatures, and what the operator keeps. */
  | 'bad_signature'
  | 'unknown_key'
  | 'not_signed'
  | 'checkpoint_missing'
  | 'checkpoint_differs'

/** Something that is not as it was proven. */
export interface ProofFinding {
  readonly problem: ProofProblem
  readonly shard: number
  /** The block that it is in. */
  readonly block?: number
  /** The fact at fault. */
  readonly seq?: number
  /** Its subject behind `<ns>.log.<shard>.`. */
  readonly path?: string
  /** In plain words. */
  readonly message: string
}

/** A stretch of the log that no block covers. */
export interface ProofGap {
  readonly from: number
  readonly to: number
}

/** What a check of one shard's proof found. */
export interface ProofReport {
  readonly shard: number
  readonly blocks: number
  /** Blocks up to this one are signed by a key that counts: trusted, or, if none is named, any. */
  readonly signedTo: number | undefined
  /** Public keys that have signed blocks. */
  readonly keys: readonly string[]
  /** The stretch of the log that is covered; undefined without a block. */
  readonly covers: ProofGap | undefined
  readonly gaps: readonly ProofGap[]
  /** Facts that blocks have. */
  readonly facts: number
  /** Of these: found as they were. */
  readonly intact: number
  /** Of these: left by rule. */
  readonly left: number
  /** Facts that were read and that no block covers: before the first one, or in gaps. */
  readonly uncovered: number
  /** Behind the last block: the next one will have them. */
  readonly newer: number
  /** The first thousand. `problems` counts all. */
  readonly findings: readonly ProofFinding[]
  readonly problems: number
}

/** What the operator keeps elsewhere: that a block was there, with this hash. */
export interface ProofCheckpoint {
  readonly ns: string
  readonly shard: number
  readonly n: number
  readonly hash: string
}
