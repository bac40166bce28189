/** `flow.proof`: whether the log is as it was proven, and what one keeps to prove it later. */
import type { ProofCheckpoint, ProofReport } from '../../projections/proof/findings.ts'
import { InvalidError } from '../../streams/errors.ts'
import { parsePublicKey } from '../../streams/proof-keys.ts'
import { placeOf } from '../engine/archive/sink.ts'
import { checkProofName, exportProof, verifyArchives } from '../engine/proof/archive.ts'
import { type Checkpoint, checkpointOf, verifyProof } from '../engine/proof/verify.ts'
import type { S3ClientLike } from '../items/s3.ts'
import { refuseUnknown } from '../options/unknown.ts'
import type { RunDeps } from './run-view.ts'

/** Options of `flow.proof.verify`. */
export interface ProofVerifyOptions {
  /**
   * Public keys that may have signed the blocks, in base64 or PEM: that of the engines, and earlier
   * ones. Without any, a signature says no more than that its block was not changed since.
   */
  readonly keys?: readonly string[]
  /** What `checkpoint` gave earlier: these blocks must still be there. */
  readonly since?: readonly ProofCheckpoint[]
  /** Ends it. */
  readonly signal?: AbortSignal
}

/** Options of `verifyArchive`. */
export interface ArchiveVerifyOptions extends Omit<ProofVerifyOptions, 'signal'> {
  /** What `flow.proof.export` wrote, later than the archives. */
  readonly blocks: string
  /** A client of @aws-sdk/client-s3. Default: one that is set up from the environment. */
  readonly client?: S3ClientLike
}

/**
 * Checks archives of `flow.export` against the blocks of their namespace, without a server. Gives a
 * report for each shard. Places are paths, `file:` URLs, or `s3://BUCKET/KEY`. Throws InvalidError
 * for what is no archive of this namespace, or no file of blocks.
 */
export async function verifyArchive(
  archives: string | readonly string[],
  options: ArchiveVerifyOptions,
): Promise<ProofReport[]> {
  refuseUnknown('verifyArchive', options, ['blocks', 'keys', 'since', 'client'])
  const { blocks, client } = options
  const all = typeof archives === 'string' ? [archives] : archives
  if (all.length === 0) throw new InvalidError('verifyArchive: say which archive')
  return await verifyArchives({
    archives: all.map((one) => placeOf('verifyArchive', one, client).source()),
    blocks: placeOf('verifyArchive: blocks', blocks, client).source(),
    ...trusted('verifyArchive', options),
  })
}

/** Tamper evidence: see docs/proof.md. */
export class Proof {
  readonly #deps: RunDeps

  constructor(deps: RunDeps) {
    this.#deps = deps
  }

  /**
   * Reads blocks, logs and history of all shards, and says which fact was changed, removed, moved
   * or inserted. Writes nothing. Costs 17 bytes of memory a fact, and 32 more where a block is not
   * complete yet. Throws InvalidError for a key that is none.
   */
  async verify(options: ProofVerifyOptions = {}): Promise<ProofReport[]> {
    refuseUnknown('proof.verify', options, ['keys', 'since', 'signal'])
    const { keys, checkpoints } = trusted('proof.verify', options)
    const { connection, names, shards } = await this.#found()
    const reports: ProofReport[] = []
    for (let shard = 0; shard < shards; shard++) {
      const { signal } = options
      reports.push(await verifyProof({ connection, names, shard, keys, checkpoints, signal }))
    }
    return reports
  }

  /**
   * The newest block of each shard, to be kept where nobody who can write to the server can write.
   * With it `verify` finds also that the end of the chain was cut off, or that all was made anew.
   */
  async checkpoint(): Promise<Checkpoint[]> {
    const { connection, names, shards } = await this.#found()
    const found = await Promise.all(
      Array.from({ length: shards }, (_, shard) => checkpointOf({ connection, names, shard })),
    )
    return found.filter((one) => one !== undefined)
  }

  /**
   * Writes all blocks to a path, a `file:` URL, or `s3://BUCKET/KEY`, for `verifyArchive`. The name
   * ends in `.proof` or `.jsonl`, or behind that in `.gz` or `.zst`. Do it after the archive was
   * written. Resolves to how many there are.
   */
  async export(to: string, options: { readonly client?: S3ClientLike } = {}): Promise<number> {
    refuseUnknown('proof.export', options, ['client'])
    const place = placeOf('proof.export', to, options.client)
    checkProofName('proof.export', place.name)
    return await exportProof(await this.#found(), place.name, await place.sink())
  }

  async #found(): Promise<Pick<RunDeps, 'connection' | 'names'> & { readonly shards: number }> {
    await this.#deps.found()
    const { connection, names } = this.#deps
    return { connection, names, shards: this.#deps.shards }
  }
}

function trusted(
  at: string,
  { keys = [], since = [] }: Pick<ProofVerifyOptions, 'keys' | 'since'>,
): { readonly keys: readonly string[]; readonly checkpoints: readonly ProofCheckpoint[] } {
  for (const { ns, shard, n, hash } of since)
    if (typeof ns !== 'string' || !Number.isInteger(shard) || !Number.isInteger(n) || !/^[0-9a-f]{64}$/.test(hash))
      throw new InvalidError(`${at}: since must be what proof.checkpoint gave: ns, shard, n and hash`)
  return { keys: keys.map((key) => parsePublicKey(`${at}: a key`, key)), checkpoints: since }
}
