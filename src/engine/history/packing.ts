/** Puts runs into packs of a good size, and says how they are found there. */
import { remainsIn, summaryOf } from '../../../projections/retention/summary.ts'
import { blobsIn } from '../../../streams/blob-refs.ts'
import {
  encodePack,
  type HistoryManifest,
  historyKey,
  type IndexEntry,
  indexHash,
  type SealedFact,
  type SealedRun,
} from '../../../streams/history.ts'
import { type PackSummary, retentionKey } from '../../../streams/retention.ts'
import { encodeDoc } from '../../log/documents.ts'
import type { Base } from './base.ts'
import type { Snapshots } from './snapshots.ts'

/** Of what is compressed together. */
export const PACK_BYTES = 1024 * 1024

export class Packing {
  readonly entries: IndexEntry[] = []
  /** Of the packs that are written. */
  readonly summaries = new Map<number, PackSummary>()
  /** The number of the next pack. */
  next: number
  readonly #base: Base
  readonly #snapshots: Pick<Snapshots, 'place'> | undefined
  #runs: SealedRun[] = []
  #bytes = 0

  /** `snapshots`: hears which facts are in which pack. */
  constructor(base: Base, snapshots?: Pick<Snapshots, 'place'>) {
    this.#base = base
    this.#snapshots = snapshots
    this.next = base.manifest.packs
  }

  async add(run: string, docs: SealedRun['docs'], facts: readonly SealedFact[]): Promise<void> {
    this.#runs.push({ run, docs, facts })
    for (const { payload } of facts) this.#bytes += payload.length
    if (this.#bytes >= PACK_BYTES) await this.end()
  }

  /** A run whose facts come one by one: into as many packs as it takes. */
  async addRead(run: string, docs: SealedRun['docs'], read: AsyncIterable<SealedFact>): Promise<void> {
    let facts: SealedFact[] = []
    let bytes = 0
    let rest = docs
    for await (const fact of read) {
      facts.push(fact)
      bytes += fact.payload.length
      if (bytes < PACK_BYTES) continue
      await this.add(run, rest, facts)
      facts = []
      bytes = 0
      rest = {}
    }
    if (facts.length > 0 || rest === docs) await this.add(run, rest, facts)
  }

  /** Documents of a run that is there already. */
  async addDocs(run: string, read: AsyncIterable<readonly [key: string, doc: unknown]>): Promise<void> {
    let docs: Record<string, unknown> = {}
    let bytes = 0
    const add = async (): Promise<void> => {
      this.#bytes += bytes
      await this.add(run, docs, [])
      docs = {}
      bytes = 0
    }
    for await (const [key, doc] of read) {
      docs[key] = doc
      bytes += encodeDoc(doc).length
      if (bytes >= PACK_BYTES) await add()
    }
    if (bytes > 0) await add()
  }

  /** Stores what is left. */
  async end(): Promise<void> {
    if (this.#runs.length === 0) return
    const runs = this.#runs
    this.#runs = []
    this.#bytes = 0
    const bytes = await encodePack(runs)
    await this.#base.write([{ key: historyKey.pack(this.next), bytes }])
    const summary = summaryOf(runs, bytes.length)
    this.summaries.set(this.next, summary)
    this.#base.store.put<PackSummary>(retentionKey.summary(this.next), summary)
    for (const sealed of runs) {
      this.entries.push(...entriesFor(sealed.run, sealed.facts, this.next))
      this.entries.push(...blobEntriesFor(sealed.facts, this.next), ...lineageEntriesFor(sealed, this.next))
      this.entries.push(...docEntriesFor(sealed, this.next))
      this.#snapshots?.place(this.next, sealed.facts)
    }
    this.next += 1
  }
}

/** What the manifest says once packs up to `next` are there, each with its summary. */
export function packedTo(
  { packs, summarizedTo = 0 }: Pick<HistoryManifest, 'packs' | 'summarizedTo'>,
  next: number,
): Pick<HistoryManifest, 'packs' | 'summarizedTo'> {
  return { packs: next, ...(summarizedTo === packs ? { summarizedTo: next } : {}) }
}

/** How the facts of a run are found once they are in a pack. */
export function entriesFor(run: string, facts: readonly SealedFact[], pack: number): IndexEntry[] {
  const entries: IndexEntry[] = run === '' ? [] : [{ hash: indexHash.run(run), pack }]
  for (const { path, seq } of facts) {
    if (REFERRED.test(path)) entries.push({ hash: indexHash.seq(seq), pack })
    if (NAMED.test(path)) entries.push({ hash: indexHash.path(path), pack })
  }
  return entries
}

/** Documents that stand apart from the facts of their run are found by their names. */
export function docEntriesFor(sealed: SealedRun, pack: number): IndexEntry[] {
  if (sealed.facts.length > 0 || remainsIn(sealed)) return []
  return Object.keys(sealed.docs).map((key) => ({ hash: indexHash.doc(key), pack }))
}

/** Objects of the object store that facts name: so it is known who names one. */
export function blobEntriesFor(facts: readonly SealedFact[], pack: number): IndexEntry[] {
  const names = new Set(facts.flatMap(({ payload, contentType }) => blobsIn(payload, contentType)))
  return Array.from(names, (name) => ({ hash: indexHash.blob(name), pack }))
}

/** Values of pruned runs of which nothing is left but what they were. */
function lineageEntriesFor(sealed: SealedRun, pack: number): IndexEntry[] {
  const remains = remainsIn(sealed)
  const own = (remains?.values ?? []).filter(({ run, isKept }) => run === remains?.run && !isKept)
  return own.map(({ seq }) => ({ hash: indexHash.seq(seq), pack }))
}

/** Facts that others refer to by their sequence. */
const REFERRED =
  /^(subscription\.[^.]+\.[^.]+\.taken\.[^.]+\.[^.]+|asset\.[^.]+\.[^.]+\.[^.]+\.end\.materialized|run\.[^.]+\.requested|scatter\.[^.]+\.[^.]+\.outcomes|gate\.[^.]+\.[^.]+\.[^.]+\.resolved)$/
/** Facts that are looked for by their path, without their run or among very many of it. */
const NAMED =
  /^(schedule\.[^.]+\.[^.]+\.(triggered|backfill_requested|at)\..+|correlation\.[^.]+\.correlated|scatter\.[^.]+\.[^.]+\.items\.[^.]+)$/
