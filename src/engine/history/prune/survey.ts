/**
 * What the summaries of all packs say: which packs have runs that may go, and what later runs refer
 * to. It is made anew for each look, a few summaries at a time.
 */
import type { Policies } from '../../../../projections/retention/policy.ts'
import { type DueCount, dueOf } from '../../../../projections/retention/summary.ts'
import type { PackSummary, SeqRange } from '../../../../streams/retention.ts'

/** A pack that may have to be read. */
export interface Candidate {
  readonly n: number
  readonly due: DueCount
  readonly seqs: SeqRange | undefined
  readonly kept: PackSummary['kept']
  readonly isLooseDue: boolean
}

interface Counted {
  readonly seqs: SeqRange
  readonly values: PackSummary['values']
}

export class Survey {
  readonly candidates: Candidate[] = []
  /** Packs that have more of a run whose document is in another one. */
  readonly parts = new Map<string, number[]>()
  readonly #shard: number
  readonly #policies: Policies
  readonly #nowMs: number
  readonly #taken = new Set<string>()
  readonly #lineage = new Set<string>()
  readonly #held = new Set<string>()
  /** Packs with values that are kept by number. */
  readonly #counted: Counted[] = []
  readonly #counts = new Map<string, number>()

  constructor(shard: number, policies: Policies, nowMs: number) {
    this.#shard = shard
    this.#policies = policies
    this.#nowMs = nowMs
  }

  /** A pack of this shard. */
  add(n: number, summary: PackSummary): void {
    this.addRefs(summary)
    for (const run of summary.parts ?? []) this.parts.set(run, [...(this.parts.get(run) ?? []), n])
    const { seqs, kept, loose } = summary
    const values = Object.entries(summary.values).filter(([name]) => {
      const [pipeline = '', asset = ''] = name.split('.')
      return this.#policies.keepLast(pipeline, asset) !== undefined
    })
    if (seqs && values.length > 0) this.#counted.push({ seqs, values: Object.fromEntries(values) })
    const due = dueOf(summary, this.#policies, this.#nowMs)
    const looseFromMs = this.#policies.looseKeptFromMs(this.#nowMs)
    const isLooseDue = loose !== undefined && looseFromMs !== undefined && loose.newestMs < looseFromMs
    if (due.due > 0 || kept || summary.lineage || isLooseDue) this.candidates.push({ n, due, seqs, kept, isLooseDue })
  }

  /** Of any shard: what its runs refer to. */
  addRefs({ took = [], lineage = [], redrives = [] }: Pick<PackSummary, 'took' | 'lineage' | 'redrives'>): void {
    for (const at of took) this.#taken.add(at.join())
    for (const at of lineage) this.#lineage.add(at.join())
    for (const run of redrives) this.#held.add(run)
  }

  hold(run: string): void {
    this.#held.add(run)
  }

  /** `at`: `<shard>,<seq>`. */
  take(at: string): void {
    this.#taken.add(at)
  }

  isTaken(seq: number): boolean {
    return this.#taken.has(`${this.#shard},${seq}`)
  }

  isLineage(seq: number): boolean {
    return this.#lineage.has(`${this.#shard},${seq}`) || this.isTaken(seq)
  }

  isHeld(run: string): boolean {
    return this.#held.has(run)
  }

  /** Sorts what was seen: packs with the newest values first. */
  close(): void {
    this.candidates.sort((a, b) => (b.seqs?.[1] ?? 0) - (a.seqs?.[1] ?? 0))
    this.#counted.sort((a, b) => a.seqs[0] - b.seqs[0])
  }

  /** From now on `newer` counts values behind this sequence, which may only get smaller. */
  countBehind(seq: number): void {
    for (let last = this.#counted.at(-1); last && last.seqs[0] > seq; last = this.#counted.at(-1)) {
      for (const [asset, counts] of Object.entries(last.values))
        for (const [partition, count] of counts) {
          const key = `${asset} ${partition}`
          this.#counts.set(key, (this.#counts.get(key) ?? 0) + count)
        }
      this.#counted.pop()
    }
  }

  newer(pipeline: string, asset: string, partition: string): number {
    return this.#counts.get(`${pipeline}.${asset} ${partition}`) ?? 0
  }
}
