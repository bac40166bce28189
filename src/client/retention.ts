/** `flow.retention`: has engines prune, and says what was pruned. */
import { parseRunId } from '../../streams/ids.ts'
import type { PrunedRun } from '../../streams/retention.ts'
import { prunedRun } from '../log/pruned.ts'
import { refuseUnknown } from '../options/unknown.ts'
import { type GcOptions, type GcReport, gc } from './gc.ts'
import { type PruneEntry, type PruneOptions, type PruneReport, prune, pruned } from './prune.ts'
import type { RunDeps } from './run-view.ts'

/** What can be done about old runs, as `flow.retention`. */
export class Retention {
  readonly #deps: RunDeps

  constructor(deps: RunDeps) {
    this.#deps = deps
  }

  /**
   * Has the engines prune: runs that are older than their retention, or than `olderThan`. Resolves
   * when they have, with what went. A run that something needs stays: see docs/retention.md. Throws
   * `no_engine`, `timeout` (they go on), and `refused` with the reason.
   */
  async prune(options: PruneOptions = {}): Promise<PruneReport> {
    return await prune(this.#deps, options)
  }

  /** What was pruned, and why: one entry for each step, the newest first. Default 100. */
  async records(options: { readonly limit?: number } = {}): Promise<PruneEntry[]> {
    refuseUnknown('records', options, ['limit'])
    return await pruned(this.#deps, options)
  }

  /**
   * What is left of a run that was pruned: which of its values live on, and what they were made
   * from. Undefined: nothing is left, or it was not pruned.
   */
  async remains(runId: string): Promise<PrunedRun | undefined> {
    const { id, shard } = parseRunId(runId)
    await this.#deps.found()
    return shard < this.#deps.shards ? await prunedRun(this.#deps, id) : undefined
  }

  /**
   * Takes objects of the object store away that nothing names, and that were stored longer ago than
   * `grace`. Throws `state_behind` while it cannot be known what is named.
   */
  async gc(options: GcOptions = {}): Promise<GcReport> {
    return await gc(this.#deps, options)
  }
}
