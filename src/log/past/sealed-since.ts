/**
 * Facts behind a snapshot that are in packs, in order. They are held as their packs have them:
 * there is a snapshot after some 32 MB of them. While the log is read, others may be sealed and
 * leave it. Packs of these are there long before, so it is enough to look again in time.
 */
import { FlowStoneError } from '../../../streams/errors.ts'
import type { SealedFact } from '../../../streams/history.ts'
import { type HistorySource, historyOf } from '../history.ts'
import { manifestOf } from '../packs.ts'
import { isWithin, type Limit } from './limit.ts'
import { stretchAt } from './stretches.ts'

/** Packs that are read side by side. */
const PACKS_AT_ONCE = 4
/** Where nothing was sealed yet, nobody knows for how long facts will stay on the log. */
const LOOK_MS = 250

export class SealedSince {
  readonly #source: HistorySource
  readonly #shard: number
  readonly #limit: Limit
  /** The first stretch that has any. */
  readonly #n: number
  /** Packs that are read, each with the stretch that names it. */
  readonly #read = new Set<string>()
  /** The first one comes last. */
  #facts: SealedFact[] = []
  #lookMs = LOOK_MS
  #lookedMs = 0

  private constructor(source: HistorySource, shard: number, limit: Limit, n: number) {
    this.#source = source
    this.#shard = shard
    this.#limit = limit
    this.#n = n
  }

  /**
   * Those behind `seq`, of stretch `n`. `isAhead`: none of them is sealed yet. Throws `no_snapshot`
   * where packs lack facts.
   */
  static async open(
    source: HistorySource,
    shard: number,
    limit: Limit,
    { n, seq, isAhead }: { readonly n: number; readonly seq: number; readonly isAhead: boolean },
  ): Promise<SealedSince> {
    const lookedMs = performance.now()
    const since = new SealedSince(source, shard, limit, n)
    const manifest = await manifestOf(source, shard)
    if (manifest) since.#lookMs = manifest.graceMs / 2
    if (isAhead) since.#lookedMs = lookedMs
    else await since.#look(seq)
    return since
  }

  /** Before facts can have left the log that were not sealed when it looked last. */
  async lookAgain(after: number): Promise<void> {
    if (performance.now() - this.#lookedMs >= this.#lookMs) await this.#look(after)
  }

  /** Takes those before a sequence. One with this sequence is dropped. */
  *before(seq: number): Generator<SealedFact> {
    for (;;) {
      const next = this.#facts.at(-1)
      if (!next || next.seq > seq) return
      this.#facts.pop()
      if (next.seq < seq) yield next
    }
  }

  async #look(after: number): Promise<void> {
    this.#lookedMs = performance.now()
    const found = new Map(this.#facts.map((fact) => [fact.seq, fact]))
    for (let n = this.#n; ; n++) {
      const [stretch, next] = await Promise.all([this.#stretch(n), this.#stretch(n + 1)])
      const [from, to] = [stretch?.seq ?? 0, next?.seq ?? Number.POSITIVE_INFINITY]
      const packs = (stretch?.packs ?? []).filter(([pack]) => !this.#read.has(`${n} ${pack}`))
      for (let i = 0; i < packs.length; i += PACKS_AT_ONCE) {
        const read = packs.slice(i, i + PACKS_AT_ONCE).map(async ([pack, count]) => {
          const facts = (await historyOf(this.#source, this.#shard).pack(pack)).flatMap((run) => run.facts)
          const within = facts.filter(({ seq }) => seq > from && seq <= to)
          if (within.length < count) throw this.#pruned()
          for (const fact of within) if (fact.seq > after) found.set(fact.seq, fact)
          this.#read.add(`${n} ${pack}`)
        })
        await Promise.all(read)
      }
      // The stretch was the last one, and has ended since.
      if (!next || !isWithin(this.#limit, { seq: next.seq, timeMs: next.ms })) break
    }
    this.#facts = [...found.values()].sort((a, b) => b.seq - a.seq)
  }

  #stretch(n: number): ReturnType<typeof stretchAt> {
    return stretchAt(this.#source, this.#shard, n)
  }

  #pruned(): FlowStoneError {
    const log = this.#source.names.log(this.#shard)
    return new FlowStoneError(
      'no_snapshot',
      `runs of that time were pruned from the history of ${log}, so nobody knows what there was; ask for a later time`,
    )
  }
}
