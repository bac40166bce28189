/** Looks for facts: on the log, and in the history. */
import { proofsOf } from '../../../projections/verify/proofs.ts'
import { messageOf } from '../../../streams/errors.ts'
import { parsePath } from '../../../streams/facts.ts'
import { indexHash } from '../../../streams/history.ts'
import { historyOf, sealedAt, sealedParts } from '../../log/history.ts'
import { leaderGet } from '../../log/nats.ts'
import type { ShardContext } from './check.ts'

/** What to do about one that is nowhere. */
export const RESTORE = 'restore the log from a backup; without one, what the fact said is lost'

/** A fact by its path, or by the field that names its sequence. */
export interface LostFact {
  readonly fact?: string | undefined
  readonly seq?: number | undefined
  readonly field?: string | undefined
}

type MissingContext = Pick<ShardContext, 'connection' | 'names' | 'shard' | 'findings'>

export class Missing {
  readonly #at: MissingContext

  constructor(at: MissingContext) {
    this.#at = at
  }

  /** Whether a fact is nowhere, by its path. False also where nobody can see it, which is said. */
  async isPathMissing(path: string): Promise<boolean> {
    return await this.#seen(`fact ${path}`, () => this.#isPathNowhere(path))
  }

  async #isPathNowhere(path: string): Promise<boolean> {
    const { connection, names, shard } = this.#at
    const query = { last_by_subj: names.fact(shard, path) }
    if (await connection.read((nc) => leaderGet(nc, names.log(shard), query))) return false
    const run = parsePath(path)?.ids.run
    if (run !== undefined) {
      for await (const { facts } of sealedParts(this.#at, run))
        if (facts.some((fact) => fact.path === path)) return false
      return true
    }
    const packs = await historyOf(this.#at, shard).packsWith(indexHash.path(path))
    return !packs.some(({ facts }) => facts.some((fact) => fact.path === path))
  }

  /** The same of a sequence, on the log or among what others refer to. */
  async isSeqMissing(seq: number): Promise<boolean> {
    return await this.#seen(`message ${seq} of the log`, () => this.#isSeqNowhere(seq))
  }

  async #isSeqNowhere(seq: number): Promise<boolean> {
    const { connection, names, shard } = this.#at
    if (await connection.read((nc) => leaderGet(nc, names.log(shard), { seq }))) return false
    return (await sealedAt(this.#at, shard, seq)) === undefined
  }

  /** Facts that a document names and that are nowhere. */
  async named(key: string, doc: unknown): Promise<LostFact[]> {
    const { paths, seqs } = proofsOf(key, doc, this.#at.shard)
    const lost: LostFact[] = []
    for (const fact of paths) if (await this.isPathMissing(fact)) lost.push({ fact })
    for (const { field, seq } of seqs) if (await this.isSeqMissing(seq)) lost.push({ seq, field })
    return lost
  }

  /** The history may be damaged, or away. */
  async #seen(what: string, look: () => Promise<boolean>): Promise<boolean> {
    const { connection, findings, shard } = this.#at
    try {
      return await look()
    } catch (error) {
      if (connection.isClosed) throw error
      findings.unseen(`${what} in shard ${shard}`, messageOf(error))
      return false
    }
  }
}
