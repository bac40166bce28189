/** What an import stores of one shard: as an engine would have sealed it. */

import { runIn } from '../../../projections/retention/summary.ts'
import { addToLists, listKey, listsOfRun, shownOf } from '../../../projections/run/lists.ts'
import { entryOf } from '../../../projections/run/run.ts'
import { type CatalogEntry, type RunState, stateKey } from '../../../projections/state.ts'
import { decodeFact, type FactOf } from '../../../streams/facts.ts'
import { indexHash, type SealedFact } from '../../../streams/history.ts'
import { jetstreamManager } from '../../../streams/jetstream.ts'
import { readPack } from '../../log/packs.ts'
import { Base } from '../history/base.ts'
import { beginHistory } from '../history/lost.ts'
import { PACK_BYTES, Packing, packedTo } from '../history/packing.ts'
import { restoreFromBase } from '../history/restore.ts'
import { insertEntries } from '../history/segments.ts'
import { Checkpointer } from '../shard/checkpoint.ts'
import type { FillDeps } from './import-deps.ts'
import type { Positions } from './positions.ts'

/** What is stored at a time. */
const WAVE_FACTS = 16_000
const WAVE_BYTES = 8 * 1024 * 1024
const LISTED_AT_ONCE = 250
const PACKS_HELD = 8
/** As an engine sets it: what is sealed later stays on the log for so long. */
const GRACE_MS = 3 * 60_000

/** A run that was taken, some hundred bytes of it. */
interface Taken {
  pack: number
  requestedSeq: number
  finishedSeq: number
}

/** The run whose lines come. */
interface Current {
  readonly run: string
  doc: RunState | undefined
  docs: Record<string, unknown>
  facts: SealedFact[]
  bytes: number
}

export class ShardFill {
  readonly #deps: FillDeps
  readonly #shard: number
  /** The last sequence of all archives. */
  readonly #last: number
  readonly #engine: string
  readonly #base: Base
  readonly #runs = new Map<string, Taken>()
  readonly #pipelines = new Map<string, SealedFact & { readonly shard: number }>()
  readonly #entries = new Map<string, CatalogEntry>()
  readonly #packs = new Map<number, Map<string, RunState>>()
  #packing: Packing
  #current: Current | undefined
  #facts = 0
  #bytes = 0

  private constructor(deps: FillDeps, shard: number, last: number, base: Base, engine: string) {
    this.#deps = deps
    this.#shard = shard
    this.#last = last
    this.#base = base
    this.#engine = engine
    this.#packing = new Packing(base)
  }

  /** Empties what an import before has left, and lets the log begin behind `last`. */
  static async begin(deps: FillDeps, shard: number, last: number): Promise<ShardFill> {
    const { connection, topology } = deps
    const { names } = topology
    const jsm = await jetstreamManager(connection.nc)
    const history = names.historyBucket(shard)
    const buckets = [history, names.stateBucket(shard)]
    for (const bucket of buckets) await jsm.streams.purge(names.kvStream(bucket))
    // A log without messages begins at any place.
    await jsm.streams.purge(names.log(shard), { filter: names.fact(shard, '>') })
    if (last > 0) await jsm.streams.purge(names.log(shard), { seq: last + 1 })
    await beginHistory({ connection, names, shard })
    const engine = `import-${shard}`
    const base = await Base.takeOver({ connection, names, shard, engine })
    return new ShardFill(deps, shard, last, base, engine)
  }

  has(run: string): boolean {
    return this.#runs.has(run)
  }

  async addDocument(run: string, key: string, doc: unknown): Promise<void> {
    const current = await this.#at(run)
    if (key === stateKey.run(run)) {
      current.doc = doc as RunState
      this.#runs.set(run, { pack: 0, requestedSeq: 0, finishedSeq: 0 })
    }
    current.docs[key] = doc
    current.bytes += doc instanceof Uint8Array ? doc.length : JSON.stringify(doc).length
    if (current.bytes >= PACK_BYTES) await this.#flush(current)
  }

  /** `value`: what the fact says, if it brings a value. */
  async addFact(
    run: string,
    fact: SealedFact & { readonly shard: number },
    value: FactOf<'asset.materialized'> | undefined,
  ): Promise<void> {
    const current = await this.#at(run)
    const taken = this.#runs.get(run)
    if (taken && fact.path === `run.${run}.requested`) taken.requestedSeq = fact.seq
    if (taken && fact.path === `run.${run}.finished`) taken.finishedSeq = fact.seq
    // As the fold does: a value that came when the asset had ended is none.
    if (value && current.doc?.assets[value.ids.asset]?.value?.seq === value.seq)
      this.addEntry(stateKey.asset(value.data.pipeline, value.ids.asset, value.data.partition), entryOf(value))
    current.facts.push(fact)
    current.bytes += fact.payload.length
    if (current.bytes >= PACK_BYTES) await this.#flush(current)
  }

  /** A fact of no run, or of one that is not there. */
  async addLoose(fact: SealedFact): Promise<void> {
    await this.#packing.add('', {}, [fact])
    await this.#count(1, fact.payload.length)
  }

  addPipeline(fact: SealedFact & { readonly shard: number }): void {
    const known = this.#pipelines.get(fact.path)
    if (!known || known.seq < fact.seq) this.#pipelines.set(fact.path, fact)
  }

  /** What the catalog says of an asset in a partition, if it says nothing newer. */
  addEntry(key: string, entry: unknown): void {
    const given = entry as CatalogEntry
    const known = this.#entries.get(key)
    if (!known || known.seq < given.seq) this.#entries.set(key, given)
  }

  async #at(run: string): Promise<Current> {
    if (this.#current?.run === run) return this.#current
    await this.endRun()
    this.#current = { run, doc: undefined, docs: {}, facts: [], bytes: 0 }
    return this.#current
  }

  async endRun(): Promise<void> {
    if (this.#current) await this.#flush(this.#current)
    this.#current = undefined
  }

  async #flush(current: Current): Promise<void> {
    const { run, docs, facts, bytes } = current
    current.docs = {}
    current.facts = []
    current.bytes = 0
    if (facts.length === 0 && Object.keys(docs).length === 0) return
    const pack = this.#packing.next
    const taken = this.#runs.get(run)
    for (const key of Object.keys(docs)) {
      if (key !== stateKey.run(run)) this.#packing.entries.push({ hash: indexHash.doc(key), pack })
      else if (taken) taken.pack = pack
    }
    await this.#packing.add(run, docs, facts)
    await this.#count(facts.length, bytes)
  }

  async #count(facts: number, bytes: number): Promise<void> {
    this.#facts += facts
    this.#bytes += bytes
    if (this.#facts >= WAVE_FACTS || this.#bytes >= WAVE_BYTES) await this.#store()
  }

  async #store(): Promise<void> {
    await this.#packing.end()
    await this.#storeEntries()
    const before = this.#base.manifest
    const { levels, nextSegment, obsolete } = await insertEntries(this.#base, before, this.#packing.entries)
    await this.#base.checkpoint(0, undefined, {
      ...before,
      ...packedTo(before, this.#packing.next),
      levels,
      nextSegment,
    })
    await this.#base.drop(obsolete)
    this.#packing = new Packing(this.#base)
    this.#facts = 0
    this.#bytes = 0
  }

  async #storeEntries(): Promise<void> {
    const { store } = this.#base
    await store.load([...this.#entries.keys()].filter((key) => !store.has(key)))
    for (const [key, entry] of this.#entries) {
      const known = store.get<CatalogEntry>(key)
      if (!known || known.seq < entry.seq) store.put<CatalogEntry>(key, entry)
    }
    this.#entries.clear()
  }

  /** `positions`: of the first shard. */
  async end(positions: Positions | undefined): Promise<void> {
    await this.endRun()
    await this.#store()
    await this.#fillLists()
    this.#putPipelines()
    positions?.put((key, doc) => this.#base.store.put(key, doc))
    const { connection, topology } = this.#deps
    const { names } = topology
    await this.#base.checkpoint(this.#last, undefined, { ...this.#base.manifest, graceMs: GRACE_MS })
    const state = new Checkpointer(connection, names, this.#shard, this.#engine)
    await state.takeOver({ recoverTo: 0 })
    await restoreFromBase({ connection, names, shard: this.#shard, engine: this.#engine }, state)
    await this.#register()
    await positions?.append(names, this.#deps.logOf(this.#shard))
  }

  /** Who asks for a scatter that has ended needs its pipeline. The rest is folded from the log. */
  #putPipelines(): void {
    for (const fact of this.#pipelines.values()) {
      const decoded = decodeFact(fact)
      if (decoded.name !== 'pipeline.registered') continue
      this.#base.store.put(stateKey.pipeline(decoded.ids.pipeline, decoded.ids.version), decoded.data)
    }
  }

  /** In the order of the log, as an engine has them. */
  async #fillLists(): Promise<void> {
    const runs = [...this.#runs]
    await this.#fillSome(
      runs.toSorted(([, a], [, b]) => a.requestedSeq - b.requestedSeq),
      ({ list }) => !list.startsWith('ended '),
    )
    await this.#fillSome(
      runs.toSorted(([, a], [, b]) => a.finishedSeq - b.finishedSeq),
      ({ list }) => list.startsWith('ended '),
    )
  }

  async #fillSome(
    runs: readonly (readonly [string, Taken])[],
    isWanted: (of: { readonly list: string }) => boolean,
  ): Promise<void> {
    const { store } = this.#base
    for (let i = 0; i < runs.length; i += LISTED_AT_ONCE) {
      const lists: { readonly list: string; readonly timeMs: number; readonly doc: RunState }[] = []
      for (const [run, { pack }] of runs.slice(i, i + LISTED_AT_ONCE)) {
        const doc = (await this.#docsOf(pack)).get(run)
        if (doc) for (const one of listsOfRun(doc)) if (isWanted(one)) lists.push({ ...one, doc })
      }
      const keys = new Set(lists.map(({ list }) => listKey.list(list)))
      await store.load([...keys].filter((key) => !store.has(key)))
      for (const { list, timeMs, doc } of lists) addToLists(store, [list], doc.id, timeMs, shownOf(doc))
      if (lists.length > 0) await this.#base.checkpoint(0, undefined, this.#base.manifest)
    }
  }

  /** Documents of the runs of a pack. */
  async #docsOf(pack: number): Promise<ReadonlyMap<string, RunState>> {
    const held = this.#packs.get(pack)
    if (held) return held
    const { connection, topology } = this.#deps
    const docs = new Map<string, RunState>()
    for (const part of (await readPack({ connection, names: topology.names }, this.#shard, pack)) ?? []) {
      const doc = runIn(part)
      if (doc) docs.set(part.run, doc)
    }
    this.#packs.set(pack, docs)
    for (const oldest of this.#packs.keys()) {
      if (this.#packs.size <= PACKS_HELD) break
      this.#packs.delete(oldest)
    }
    return docs
  }

  /** Pipelines stand on the log. They are registered in the order in which they were. */
  async #register(): Promise<void> {
    const { topology, logOf } = this.#deps
    const facts = [...this.#pipelines.values()].toSorted((a, b) => a.seq - b.seq)
    for (const { path, payload, contentType } of facts) {
      const subject = topology.names.fact(this.#shard, path)
      await logOf(this.#shard).append({ subject, payload, ...(contentType === undefined ? {} : { contentType }) })
    }
  }
}
