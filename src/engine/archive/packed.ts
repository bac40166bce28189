/** Runs as the packs of a history have them, for an archive of many. */
import { remainsIn } from '../../../projections/retention/summary.ts'
import { type RunState, stateKey } from '../../../projections/state.ts'
import type { SealedRun } from '../../../streams/history.ts'
import { isInRanges, type PackSummary, retentionKey } from '../../../streams/retention.ts'
import { readDocIfAny } from '../../log/documents.ts'
import { manifestOf, packNumbers, readPack } from '../../log/packs.ts'
import type { Piece, PieceSource, Wanted } from './piece.ts'

/**
 * A run comes whole: its document first, then what is of it in other packs. Pruning moves parts of
 * runs that stay to later packs, so the document may be behind the rest.
 */
export class PackedRuns {
  readonly #source: PieceSource
  readonly #shard: number
  readonly #wanted: Wanted
  readonly #seen: Set<string>
  /** By run: the packs that have more of it than its document. */
  readonly #tails = new Map<string, Set<number>>()
  /** Parts without a document that were yielded: their packs may be written anew meanwhile. */
  readonly #given = new Set<string>()
  readonly #logged = new Set<string>()
  #loggedTo = 0
  #from = 0

  /** `seen`: runs that were yielded. */
  constructor(source: PieceSource, shard: number, wanted: Wanted, seen: Set<string>) {
    this.#source = source
    this.#shard = shard
    this.#wanted = wanted
    this.#seen = seen
  }

  /** These runs were yielded from the log, up to a sequence. */
  leave(runs: Iterable<string>, to: number): void {
    for (const run of runs) this.#logged.add(run)
    this.#loggedTo = to
  }

  /** Those in packs that were written since the last time. Says whether there are any. */
  async *next(): AsyncGenerator<Piece, boolean> {
    const manifest = await manifestOf(this.#source, this.#shard)
    const { packs = 0, gone = [] } = manifest ?? {}
    if (packs === this.#from) return false
    const isGone = (n: number): boolean => isInRanges(gone, n)
    const numbers = [...packNumbers(manifest, this.#from)]
    for (const n of numbers) await this.#findTails(n)
    for (const n of numbers) {
      for (const part of await this.#read(n)) {
        if (part.run === '' || remainsIn(part)) continue
        const doc = part.docs[stateKey.run(part.run)] as RunState | undefined
        if (!doc) yield* this.#more(part)
        else if (!this.#seen.has(part.run) && fits(doc, this.#wanted)) yield* this.#whole(part, isGone)
      }
    }
    this.#from = packs
    return true
  }

  async *#whole(first: SealedRun, isGone: (pack: number) => boolean): AsyncGenerator<Piece> {
    const { run } = first
    this.#seen.add(run)
    yield { shard: this.#shard, ...first }
    for (const n of this.#tails.get(run) ?? []) {
      if (isGone(n)) continue
      const key = stateKey.run(run)
      for (const part of await this.#read(n)) if (part.run === run && !(key in part.docs)) yield* this.#more(part)
    }
    this.#tails.delete(run)
  }

  /** More of a run. What came late is wanted where its run was. */
  *#more({ run, docs, facts }: SealedRun): Generator<Piece> {
    if (!this.#seen.has(run)) return
    const place = `${run} ${facts[0]?.seq ?? Object.keys(docs).join()}`
    if (this.#given.has(place)) return
    this.#given.add(place)
    if (!this.#logged.has(run)) {
      yield { shard: this.#shard, run, docs, facts }
      return
    }
    const late = facts.filter(({ seq }) => seq > this.#loggedTo)
    if (late.length > 0) yield { shard: this.#shard, run, docs: {}, facts: late }
  }

  async #findTails(n: number): Promise<void> {
    const { connection, names } = this.#source
    const bucket = names.historyBucket(this.#shard)
    const found = await readDocIfAny(connection, names, bucket, retentionKey.summary(n))
    const summary = found as PackSummary | undefined
    // An older version wrote none.
    const runs = summary ? summary.parts : (await this.#read(n)).filter(isTail).map(({ run }) => run)
    for (const run of runs ?? []) this.#tails.set(run, (this.#tails.get(run) ?? new Set()).add(n))
  }

  /** Nothing where it is gone: what is left of it is in a later one. */
  async #read(n: number): Promise<readonly SealedRun[]> {
    return (await readPack(this.#source, this.#shard, n)) ?? []
  }
}

function isTail(part: SealedRun): boolean {
  return part.run !== '' && !remainsIn(part) && !(stateKey.run(part.run) in part.docs)
}

function fits({ requestedMs, pipeline }: Pick<RunState, 'requestedMs' | 'pipeline'>, wanted: Wanted): boolean {
  if (requestedMs < wanted.sinceMs || requestedMs >= wanted.untilMs) return false
  return wanted.pipelines?.has(pipeline) ?? true
}
