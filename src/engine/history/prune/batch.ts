/**
 * One step: packs are read, those of their runs that may go are left out, and what stays is packed
 * anew. Nothing counts before `commit`, which stores all that follows in one checkpoint.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { type Ground, isExpired, Ranks, remainsFor, stillLeft } from '../../../../projections/retention/judge.ts'
import { ownValues, placeOf, remainsIn, runIn } from '../../../../projections/retention/summary.ts'
import { type RunState, stateKey } from '../../../../projections/state.ts'
import { blobsIn } from '../../../../streams/blob-refs.ts'
import type { Fact } from '../../../../streams/facts.ts'
import { decodePack, historyKey, type SealedFact, type SealedRun } from '../../../../streams/history.ts'
import { hasKey } from '../../../../streams/ids.ts'
import type { LeftRecord } from '../../../../streams/proof.ts'
import {
  type ArchiveReceipt,
  addToRanges,
  isInRanges,
  type PackSummary,
  type PruneCause,
  type PruneRecord,
  retentionKey,
} from '../../../../streams/retention.ts'
import type { PipelineSpec } from '../../../../streams/schemas.ts'
import type { Base } from '../base.ts'
import { Packing, packedTo } from '../packing.ts'
import { insertEntries } from '../segments.ts'
import type { Snapshots } from '../snapshots.ts'
import { dropFromLists } from './lists.ts'
import type { Survey } from './survey.ts'
import type { Sweep } from './sweep.ts'

/** A part of the runs has to be due before a pack is written anew, or one has to be late. */
const WORTH_PART = 1 / 4
const LATE_PART = 1 / 10
const LESS_PART = 1 / 10

export interface BatchContext {
  readonly base: Base
  readonly snapshots: Snapshots
  readonly shard: number
  readonly sweep: Sweep
  readonly waves: SealedRuns
  readonly survey: Survey
  readonly ground: Ground
  readonly cause: PruneCause
  /** All that is due goes, however little of a pack it is. */
  readonly isEager: boolean
  /** Whether facts of no run that were stored before this time go. */
  readonly looseFromMs: number | undefined
  /** Before it leaves: the proof of the log says that it does. */
  readonly leaving: (records: readonly LeftRecord[]) => Promise<void>
  readonly decode: (fact: SealedFact) => Fact | undefined
  /** Whether a run is there: in the history, or open. */
  isThere(run: string): Promise<boolean>
}

/** Runs that are sealed, as those know them who take their facts off the log. */
export interface SealedRuns {
  /** Those of which the log may still have facts. */
  onLog(): Iterable<string>
  /** Runs with a key are pruned: others may have their ids. Part of the next checkpoint. */
  leave(runs: ReadonlySet<string>): void
}

/** What a batch takes away. */
export interface BatchTotals {
  runs: number
  facts: number
  bytes: number
  oldestMs: number
  newestMs: number
}

export function noTotals(): BatchTotals {
  return { runs: 0, facts: 0, bytes: 0, oldestMs: Number.POSITIVE_INFINITY, newestMs: 0 }
}

export function addTotals(
  totals: BatchTotals,
  { runs, facts, bytes, oldestMs, newestMs }: Readonly<BatchTotals>,
): void {
  totals.runs += runs
  totals.facts += facts
  totals.bytes += bytes
  totals.oldestMs = Math.min(totals.oldestMs, oldestMs)
  totals.newestMs = Math.max(totals.newestMs, newestMs)
}

export class Batch {
  readonly #context: BatchContext
  readonly #packing: Packing
  readonly #packs: number[] = []
  readonly #pruned: RunState[] = []
  readonly #seqs: number[] = []
  readonly #blobs = new Set<string>()
  readonly #factsOf = new Map<string, number>()
  readonly #values = new Map<string, Map<number, SealedFact>>()
  /**
   * What is kept of runs whose document is in another pack. That one may be read later, and its run
   * go with all that there is of it.
   */
  readonly #tails = new Map<string, SealedRun[]>()
  readonly #places = new Map<string, PartPlace[]>()
  readonly #archived: ReadonlyMap<string, number> | undefined
  readonly totals = noTotals()

  /** `archived`: no other runs may go. How many facts of each are in the archive. */
  constructor(context: BatchContext, archived?: ReadonlyMap<string, number>) {
    this.#context = context
    this.#archived = archived
    this.#packing = new Packing(context.base)
  }

  get packs(): readonly number[] {
    return this.#packs
  }

  /** Runs that go with this batch. */
  get pruned(): readonly Readonly<RunState>[] {
    return this.#pruned
  }

  /** How many facts each of them has. */
  get factsOf(): ReadonlyMap<string, number> {
    return this.#factsOf
  }

  /** The packs that have them, in the order of their facts; the one with the document first. */
  get places(): ReadonlyMap<string, readonly number[]> {
    return new Map(
      this.#pruned.map(({ id }) => {
        const places = (this.#places.get(id) ?? []).toSorted((a, b) => a.from - b.from)
        return [id, [...new Set(places.map(({ n }) => n))]]
      }),
    )
  }

  /** Whether all of it may still go, though more refers to runs and values by now. */
  get isFree(): boolean {
    const { ground } = this.#context
    return !this.#pruned.some(({ id }) => ground.isHeld(id)) && !this.#seqs.some((seq) => ground.isTaken(seq))
  }

  /** Whether the archive has all of them, and not less of one to which something came late. */
  get isArchived(): boolean {
    return [...this.#factsOf].every(([run, facts]) => this.#archived?.get(run) === facts)
  }

  /** Takes out of a pack what may go. `isDry`: only counts it. */
  async take(n: number, isDry: boolean, readNewest: (places: readonly string[]) => Promise<void>): Promise<void> {
    const { ground, survey, isEager } = this.#context
    if (this.#packs.includes(n) || this.#isGone(n)) return
    const { runs, bytes } = await this.#read(n)
    await readNewest(placesIn(runs))
    const ranks = new Ranks(runs)
    const expired = new Map<string, RunState>()
    let lateMs = 0
    for (const sealed of runs) {
      const run = runIn(sealed)
      if (!run || !isExpired(run, ground, ranks) || this.#archived?.has(run.id) === false) continue
      expired.set(sealed.run, run)
      lateMs = Math.max(lateMs, this.#late(run))
    }
    const left = await this.#remainder(runs, expired)
    const isWorth = isEager || lateMs > LATE_PART || expired.size >= runs.length * WORTH_PART
    const less = left.filter((sealed, i) => sealed !== runs[i]).length
    const isLess = less > 0 && (isEager || less >= runs.length * LESS_PART)
    if (expired.size > 0 ? !isWorth : !isLess) return
    const others = new Set([...expired.keys()].flatMap((run) => survey.parts.get(run) ?? []))
    others.delete(n)
    this.totals.bytes += bytes
    await this.#strip(n, runs, left, expired, isDry)
    for (const other of others) {
      if (this.#packs.includes(other) || this.#isGone(other)) continue
      const content = await this.#read(other)
      this.totals.bytes += content.bytes
      await this.#strip(other, content.runs, content.runs, expired, isDry)
    }
    for (const run of expired.values()) {
      for (const tail of this.#tails.get(run.id) ?? []) this.#take(run, tail)
      this.#tails.delete(run.id)
      await this.#leave(run, isDry)
    }
  }

  /** By how much a run is late, as a part of the time for which it is kept. */
  #late({ pipeline, target, status, finishedMs = 0 }: Readonly<RunState>): number {
    const { policies, nowMs } = this.#context.ground
    const fromMs = policies.keptFromMs(pipeline, target, status === 'failed', nowMs)
    return fromMs === undefined || fromMs >= nowMs ? 1 : (fromMs - finishedMs) / (nowMs - fromMs)
  }

  /** The runs of a pack, with less of those of which less is to be kept. */
  async #remainder(
    runs: readonly SealedRun[],
    expired: ReadonlyMap<string, RunState>,
  ): Promise<(SealedRun | undefined)[]> {
    const left: (SealedRun | undefined)[] = []
    for (const sealed of runs) {
      const remains = remainsIn(sealed)
      if (remains) left.push(stillLeft(sealed, remains, this.#context.ground))
      else if (sealed.run === '') left.push(await this.#looseLeft(sealed, expired))
      else left.push(sealed)
    }
    return left
  }

  /** Facts of no run: those that are old, and whose gate is of a run that is gone. */
  async #looseLeft(sealed: SealedRun, expired: ReadonlyMap<string, RunState>): Promise<SealedRun | undefined> {
    const { looseFromMs, isThere } = this.#context
    const facts: SealedFact[] = []
    for (const fact of sealed.facts) {
      const run = this.#gateRunOf(fact)
      const isOld = looseFromMs !== undefined && fact.timeMs < looseFromMs
      const goes = run === undefined ? isOld : expired.has(run) || (isOld && !(await isThere(run)))
      if (!goes) facts.push(fact)
    }
    if (facts.length === sealed.facts.length) return sealed
    return facts.length === 0 ? undefined : { ...sealed, facts }
  }

  /** `left`: what stays of each run that is not expired. */
  async #strip(
    n: number,
    runs: readonly SealedRun[],
    left: readonly (SealedRun | undefined)[],
    expired: ReadonlyMap<string, RunState>,
    isDry: boolean,
  ): Promise<void> {
    this.#packs.push(n)
    for (const [i, sealed] of runs.entries()) {
      const run = expired.get(sealed.run)
      const stays = left[i]
      this.#place(n, sealed)
      if (run) this.#take(run, sealed)
      else if (stays && isTail(stays)) this.#tails.set(stays.run, [...(this.#tails.get(stays.run) ?? []), stays])
      else {
        if (stays !== sealed) this.#lose(sealed.facts, new Set(stays?.facts.map(({ seq }) => seq)))
        if (stays && !isDry) await this.#packing.add(stays.run, stays.docs, stays.facts)
      }
    }
    await nextTurn()
  }

  #place(n: number, sealed: SealedRun): void {
    const from = runIn(sealed) ? 0 : (sealed.facts[0]?.seq ?? Number.POSITIVE_INFINITY)
    if (sealed.run !== '') this.#places.set(sealed.run, [...(this.#places.get(sealed.run) ?? []), { n, from }])
  }

  /** What a pack has of a run that goes. */
  #take(run: Readonly<RunState>, { facts }: SealedRun): void {
    const own = new Set(ownValues(run).map(({ seq }) => seq))
    const found = this.#values.get(run.id) ?? new Map<number, SealedFact>()
    this.#values.set(run.id, found)
    this.#factsOf.set(run.id, (this.#factsOf.get(run.id) ?? 0) + facts.length)
    for (const fact of facts) if (own.has(fact.seq)) found.set(fact.seq, fact)
    this.#lose(facts, own)
  }

  /** Facts that go, but for some of which it is not decided yet. */
  #lose(facts: readonly SealedFact[], but: ReadonlySet<number>): void {
    for (const { seq, payload, contentType } of facts) {
      if (but.has(seq)) continue
      this.#seqs.push(seq)
      this.totals.facts += 1
      for (const name of blobsIn(payload, contentType)) this.#blobs.add(name)
    }
  }

  async #leave(run: RunState, isDry: boolean): Promise<void> {
    const { ground, decode } = this.#context
    const facts = this.#values.get(run.id) ?? new Map<number, SealedFact>()
    const spec = await this.#specOf(run)
    const fingerprint = (fact: SealedFact): string | undefined => {
      const decoded = decode(fact)
      return decoded?.name === 'asset.materialized' ? decoded.data.fingerprint : undefined
    }
    const remains = remainsFor(run, ground, facts, spec, fingerprint)
    this.#lose([...facts.values()], new Set(remains?.facts.map(({ seq }) => seq)))
    if (remains && !isDry) await this.#packing.add(remains.run, remains.docs, remains.facts)
    this.#pruned.push(run)
    const { totals } = this
    const { finishedMs = run.requestedMs } = run
    totals.runs += 1
    totals.oldestMs = Math.min(totals.oldestMs, finishedMs)
    totals.newestMs = Math.max(totals.newestMs, finishedMs)
  }

  async #specOf({ pipeline, version }: RunState): Promise<PipelineSpec | undefined> {
    const { store } = this.#context.base
    const key = stateKey.pipeline(pipeline, version)
    if (!store.has(key)) await store.load([key])
    return store.get(key)
  }

  /** The run whose gate a correlation key is for. */
  #gateRunOf(fact: SealedFact): string | undefined {
    const decoded = fact.path.startsWith('correlation.') ? this.#context.decode(fact) : undefined
    return decoded?.name === 'gate.correlated' ? decoded.data.run : undefined
  }

  #isGone(n: number): boolean {
    return isInRanges(this.#context.base.manifest.gone ?? [], n)
  }

  async #read(n: number): Promise<{ readonly runs: readonly SealedRun[]; readonly bytes: number }> {
    const bytes = await this.#context.base.store.read<unknown>(historyKey.pack(n))
    if (!(bytes instanceof Uint8Array))
      throw new Error(`pack ${n} of the history of shard ${this.#context.shard} is gone`)
    return { runs: await decodePack(bytes), bytes: bytes.length }
  }

  /** Stores it. When it fails, what the base has in memory is not what is stored. */
  async commit(nowMs: number, archive: ArchiveReceipt | undefined): Promise<void> {
    const { base, snapshots, cause, survey, sweep, waves: sealed, leaving } = this.#context
    if (this.#packs.length === 0) return
    const packing = this.#packing
    for (const tails of this.#tails.values())
      for (const { run, docs, facts } of tails) await packing.add(run, docs, facts)
    await packing.end()
    const before = base.manifest
    const gone = addToRanges(before.gone ?? [], this.#packs)
    const inserted = await insertEntries(base, before, packing.entries, (n) => isInRanges(gone, n))
    const { records = 0 } = before
    const into = [...packing.summaries.keys()]
    const added = [...packing.summaries.values()].reduce((sum, { bytes }) => sum + bytes, 0)
    const record: PruneRecord = {
      v: 1,
      n: records,
      ...cause,
      atMs: nowMs,
      ...this.totals,
      ...(this.totals.runs === 0 ? { oldestMs: 0 } : {}),
      bytes: Math.max(0, this.totals.bytes - added),
      packs: this.#packs,
      into,
      seqs: addToRanges([], this.#seqs),
      ...(archive === undefined ? {} : { archive }),
    }
    await leaving([{ why: 'pruned', seqs: record.seqs }])
    const pages = await dropFromLists(base.store, this.#pruned)
    sealed.leave(new Set(this.#pruned.map(({ id }) => id).filter(hasKey)))
    const docs = await snapshots.dropOldest((n) => isInRanges(gone, n))
    base.store.put<PruneRecord>(retentionKey.record(records), record)
    for (const n of this.#packs) base.store.delete<PackSummary>(retentionKey.summary(n))
    const waves = sweep.put(nowMs, { packs: this.#packs, pages, docs, blobs: [...this.#blobs] })
    const { levels, nextSegment } = inserted
    const { runs = 0, toMs = 0 } = before.pruned ?? {}
    const pruned = { runs: runs + this.totals.runs, toMs: Math.max(toMs, this.totals.newestMs) }
    const packed = packedTo(before, packing.next)
    const manifest = { ...before, ...packed, levels, nextSegment, gone, records: records + 1, pruned }
    await base.checkpoint(base.seq, undefined, manifest)
    await sweep.keep(waves)
    await base.drop(inserted.obsolete)
    for (const [n, summary] of packing.summaries) for (const run of summary.parts ?? []) addPart(survey, run, n)
  }
}

/** A pack that has something of a run, and its first fact there. */
interface PartPlace {
  readonly n: number
  readonly from: number
}

/** More of a run whose document is in another pack. */
function isTail(sealed: SealedRun): boolean {
  return sealed.run !== '' && !runIn(sealed) && !remainsIn(sealed)
}

/** Where the newest values stand of all that runs of a pack made. */
function placesIn(runs: readonly SealedRun[]): string[] {
  const places = new Set<string>()
  for (const sealed of runs) {
    const run = runIn(sealed)
    if (run) for (const { asset } of ownValues(run)) places.add(placeOf(run.pipeline, asset, run.partition))
    const remains = remainsIn(sealed)
    for (const { asset, run: madeBy } of remains?.values ?? [])
      if (remains && madeBy === remains.run) places.add(placeOf(remains.pipeline, asset, remains.partition))
  }
  return [...places]
}

function addPart(survey: Survey, run: string, n: number): void {
  survey.parts.set(run, [...(survey.parts.get(run) ?? []), n])
}
