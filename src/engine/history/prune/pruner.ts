/**
 * Prunes runs that are older than they are kept, in small steps: each takes some ten milliseconds,
 * and the engine rests for many times as long before the next one. See docs/decisions/retention.md.
 *
 *   survey   the summaries of all packs say which packs are due, and what later runs refer to
 *   archive  where runs are archived first: those of a few packs are, and the archive is read back
 *   batch    it is read what runs refer to by now; then a few packs are read, and what stays of
 *            them is packed anew, and stored in one checkpoint
 *   sweep    some minutes later old packs, pages of lists and objects that nothing names are gone
 */
import type { Ground } from '../../../../projections/retention/judge.ts'
import { Policies, shortestMs } from '../../../../projections/retention/policy.ts'
import { summaryOf } from '../../../../projections/retention/summary.ts'
import { type CatalogEntry, type NewestState, stateKey } from '../../../../projections/state.ts'
import { FlowStoneError, messageOf } from '../../../../streams/errors.ts'
import { parsePath } from '../../../../streams/facts.ts'
import { decodePack, historyKey } from '../../../../streams/history.ts'
import { decodeToken, hasKey } from '../../../../streams/ids.ts'
import {
  type ArchiveReceipt,
  isInRanges,
  type PackSummary,
  type PruneCause,
  retentionKey,
} from '../../../../streams/retention.ts'
import type { PipelineSpec } from '../../../../streams/schemas.ts'
import { isInHistory } from '../../../log/history.ts'
import { leaderGet } from '../../../log/nats.ts'
import { packNumbers } from '../../../log/packs.ts'
import { sealedFactIfAny } from '../../../log/read-fact.ts'
import { parseArchiveTarget } from '../../archive/receipt.ts'
import { shrinkProof } from '../../proof/shrink.ts'
import type { ArchivePlace } from '../../retention.ts'
import type { Base } from '../base.ts'
import { untilForgotten } from '../forget.ts'
import type { SealerOptions } from '../options.ts'
import { blobEntriesFor } from '../packing.ts'
import { insertEntries } from '../segments.ts'
import type { Snapshots } from '../snapshots.ts'
import { archived } from './archiving.ts'
import { addTotals, Batch, type BatchContext, type BatchTotals, noTotals, type SealedRuns } from './batch.ts'
import { purgeLogs } from './logs.ts'
import { orderOf, type PruneOrderDoc, readAnswer, readOrder, writeAnswer, writeBacklog } from './orders.ts'
import { References } from './references.ts'
import { purgeRefused } from './refused.ts'
import { Rest } from './rest.ts'
import { Survey } from './survey.ts'
import { Sweep } from './sweep.ts'

const SUMMARIES = 100
const PACKS = 16
/** The same where runs are archived first, which takes longer. */
const PACKS_ARCHIVED = 4
const ARCHIVE_REST_MAX_MS = 30_000
const BATCH_MS = 60
/** How often it is looked for what is due. */
const LOOK_MS = 3_600_000
const LOOKS_PER_AGE = 20
/** An archive that could not be reached is tried again after this time. */
const AGAIN_MS = 300_000
/** Whether somebody has asked for something. */
const IDLE_MS = 3000
/** Whether there is a policy by now. */
const NO_POLICY_MS = 30_000
/** Who gets these has lost the shard, or stops. */
const LOST: ReadonlySet<string> = new Set(['fenced', 'closed', 'claim_lost'])
/** What is referred to may grow while a batch is made; then it is made again. */
const TRIES = 3
/** Looks for one order: each finds what the one before has made free. */
const PASSES = 10

export class Pruner {
  readonly #options: SealerOptions
  readonly #base: Base
  readonly #snapshots: Snapshots
  readonly #waves: SealedRuns
  readonly #sweep: Sweep
  readonly #rest: Rest
  #work: AsyncGenerator<number | undefined, void> | undefined
  #survey: Survey | undefined
  #specs = new Map<string, PipelineSpec>()
  #newest = new Map<string, number>()
  #lookAtMs = 0
  #said = ''
  /** The base in memory is changed, and not stored yet. */
  #isChanging = false
  /** What is on record about an archive that cannot be reached; null: not known yet. */
  #backlog: string | undefined | null = null

  constructor(options: SealerOptions, base: Base, snapshots: Snapshots, waves: SealedRuns) {
    this.#options = options
    this.#base = base
    this.#snapshots = snapshots
    this.#waves = waves
    this.#sweep = new Sweep(options, base)
    this.#rest = new Rest(() => options.stored.seq)
  }

  async begin(): Promise<void> {
    await this.#sweep.begin()
  }

  /** A pack was sealed: a look that is under way knows what its runs refer to. */
  saw(n: number, summary: PackSummary): void {
    this.#rest.sealed()
    this.#survey?.addRefs(summary)
    for (const run of summary.parts ?? []) {
      const parts = this.#survey?.parts
      parts?.set(run, [...(parts.get(run) ?? []), n])
    }
  }

  /** A step. Returns after how many milliseconds the next one may follow. */
  async step(): Promise<number> {
    const startedMs = performance.now()
    const hasSwept = await this.#sweep.step()
    this.#work ??= this.#live()
    const waitMs = hasSwept ? undefined : (await this.#work.next()).value
    const tookMs = performance.now() - startedMs
    return typeof waitMs === 'number' ? waitMs : this.#rest.after(tookMs)
  }

  /** Yields after each step: for how long nothing is to be done, or undefined for a rest. */
  async *#live(): AsyncGenerator<number | undefined, void> {
    for (;;) {
      const order = await this.#order()
      if (order) yield* this.#obey(order)
      else if (performance.now() >= this.#lookAtMs) yield* this.#look()
      yield this.#idleMs
    }
  }

  get #idleMs(): number {
    return Math.min(IDLE_MS, this.#options.afterMs)
  }

  /** What somebody asked for and got no answer to. */
  async #order(): Promise<PruneOrderDoc | undefined> {
    const { shard } = this.#options
    const order = await readOrder(this.#options, shard)
    if (!order) return undefined
    return (await readAnswer(this.#options, shard))?.id === order.id ? undefined : order
  }

  async *#obey(order: PruneOrderDoc): AsyncGenerator<number | undefined, void> {
    const { id, by, beforeMs, pipeline, dryRun = false } = order
    const archive = this.#placeOf(order)
    const words = [
      beforeMs === undefined ? 'by retention' : `ended before ${new Date(beforeMs).toISOString()}`,
      ...(pipeline === undefined ? [] : [`of pipeline ${pipeline}`]),
    ]
    const cause: PruneCause = {
      why: 'request',
      request: id,
      policy: words.join(', '),
      ...(by === undefined ? {} : { by }),
    }
    await this.#readSpecs()
    const policies = new Policies(this.#options.retention, (name) => this.#specs.get(name), orderOf(order))
    const totals = noTotals()
    let error: string | undefined
    try {
      if (archive) parseArchiveTarget('prune: archive', archive.to)
      const mode = { isDry: dryRun, isEager: true, archive }
      // A run that another one followed may go once that one is gone.
      for (let [pass, before] = [0, -1]; pass < PASSES && totals.runs > before; pass++) {
        before = totals.runs
        yield* this.#prune(policies, cause, mode, totals)
        if (dryRun) break
      }
    } catch (problem) {
      // Another engine does it, or this one when it has begun anew.
      if (!this.#mayGoOn(problem)) throw problem
      error = messageOf(problem)
    }
    const { runs, facts, bytes, oldestMs, newestMs } = totals
    const ends = runs === 0 ? {} : { oldestMs, newestMs }
    const answer = {
      v: 1,
      id,
      runs,
      facts,
      bytes,
      ...ends,
      ...(archive ? { archive: archive.to } : {}),
      ...(error === undefined ? {} : { error }),
    } as const
    await writeAnswer(this.#options, this.#options.shard, answer)
    if (runs > 0 && !dryRun) yield* shrinkProof(this.#options)
  }

  /** Whether something failed that leaves the base as it was. Else the sealer begins anew. */
  #mayGoOn(problem: unknown): boolean {
    const { connection, isStopped } = this.#options
    if (this.#isChanging || isStopped() || connection.isClosed) return false
    return !(problem instanceof FlowStoneError && LOST.has(problem.code))
  }

  /** Changes the base in memory, and stores it. */
  async #change<T>(change: () => Promise<T>): Promise<T> {
    this.#isChanging = true
    const changed = await change()
    this.#isChanging = false
    return changed
  }

  /** Where what goes by an order is archived to. */
  #placeOf({ archive: to }: PruneOrderDoc): ArchivePlace | undefined {
    const { archive } = this.#options
    return to === undefined ? archive : { ...archive, to }
  }

  async *#look(): AsyncGenerator<number | undefined, void> {
    const { retention, archive, afterMs, logger, shard } = this.#options
    await this.#readSpecs()
    const specs = [
      retention,
      ...[...this.#specs.values()].flatMap((one) => [one.retention, ...one.assets.map((a) => a.retention)]),
    ]
    const hasAny = specs.some((spec) => spec && Object.values(spec).some((value = 0) => value > 0))
    this.#lookAtMs = performance.now() + Math.min(NO_POLICY_MS, afterMs)
    if (!hasAny) return
    const policies = new Policies(retention, (name) => this.#specs.get(name))
    const totals = noTotals()
    let longestMs = LOOK_MS
    try {
      yield* this.#prune(policies, { why: 'policy', policy: JSON.stringify(retention) }, { archive }, totals)
      this.#said = ''
      await this.#note(undefined)
    } catch (error) {
      if (!this.#mayGoOn(error)) throw error
      const text = messageOf(error)
      const isArchive = error instanceof FlowStoneError && error.code === 'archive_failed'
      // Its text names a file that has another name each time.
      const what = isArchive ? error.code : text
      if (what !== this.#said) logger.warn(`runs of shard ${shard} are not pruned: ${text}`)
      this.#said = what
      if (isArchive) {
        longestMs = AGAIN_MS
        await this.#note(text)
      }
    }
    if (totals.runs > 0) {
      logger.info(`${totals.runs} runs of shard ${shard} were pruned by their retention`)
      yield* shrinkProof(this.#options)
    }
    const shortest = shortestMs(specs) ?? LOOK_MS
    this.#lookAtMs = performance.now() + Math.min(longestMs, Math.max(afterMs, shortest / LOOKS_PER_AGE))
  }

  /** For the doctor: why runs wait to be archived, and since when. */
  async #note(says: string | undefined): Promise<void> {
    // Only whether there is something counts: the text is never the same.
    if (this.#backlog !== null && (this.#backlog === undefined) === (says === undefined)) return
    await writeBacklog(this.#options, this.#options.shard, this.#options.clock.now(), says)
    this.#backlog = says
  }

  async *#prune(
    policies: Policies,
    cause: PruneCause,
    mode: PruneMode,
    totals: BatchTotals,
  ): AsyncGenerator<number | undefined, void> {
    const { clock, shard } = this.#options
    const nowMs = clock.now()
    const survey = new Survey(shard, policies, nowMs)
    this.#survey = survey
    this.#newest = new Map()
    const ground: Ground = {
      shard,
      nowMs,
      policies,
      newest: (place) => this.#newest.get(place),
      newer: (pipeline, asset, partition) => survey.newer(pipeline, asset, partition),
      isTaken: (seq) => survey.isTaken(seq),
      isLineage: (seq) => survey.isLineage(seq),
      isHeld: (run) => survey.isHeld(run),
    }
    const context: BatchContext = {
      base: this.#base,
      snapshots: this.#snapshots,
      leaving: this.#options.leaving,
      sweep: this.#sweep,
      waves: this.#waves,
      shard,
      survey,
      ground,
      cause,
      isEager: mode.isEager ?? false,
      looseFromMs: policies.looseKeptFromMs(nowMs),
      decode: (fact) => sealedFactIfAny(this.#options, shard, fact),
      isThere: (run) => this.#isThere(run),
    }
    try {
      yield* this.#pruneAll({ context, references: new References(this.#options, survey), totals }, mode)
    } finally {
      this.#survey = undefined
    }
  }

  async *#pruneAll(look: Look, { isDry = false, archive }: PruneMode): AsyncGenerator<number | undefined, void> {
    const { context, references, totals } = look
    const { survey } = context
    // First: a run that is sealed meanwhile is found in its pack.
    yield* references.read()
    yield* this.#surveyAll(survey)
    for (const run of await this.#onLog()) survey.hold(run)
    const left = [...survey.candidates]
    this.#rest.begin()
    // The same packs make the same archive, however long it takes to read them.
    const [packs, batchMs] = archive ? [PACKS_ARCHIVED, Number.POSITIVE_INFINITY] : [PACKS, BATCH_MS]
    const isCounted = isDry || archive !== undefined
    while (left.length > 0) {
      if (!isCounted) yield* references.read()
      const startedMs = performance.now()
      const batch = new Batch(context)
      const taken: number[] = []
      for (let i = 0; i < packs && left.length > 0 && performance.now() - startedMs < batchMs; i++) {
        const { n, seqs } = left.shift() ?? { n: 0, seqs: undefined }
        if (seqs) survey.countBehind(seqs[1])
        taken.push(n)
        await batch.take(n, isCounted, (places) => this.#readNewest(places))
      }
      let restMs: number | undefined
      if (isDry) addTotals(totals, batch.totals)
      else if (archive) restMs = yield* this.#archiveAndCommit(look, batch, taken, archive)
      else await this.#commit(look, batch, taken)
      this.#rest.done(taken.length)
      yield left.length > 0 ? restMs : undefined
    }
  }

  /**
   * `counted`: what would go of the packs. Only what is archived goes. Returns how long to rest.
   */
  async *#archiveAndCommit(
    look: Look,
    counted: Batch,
    packs: readonly number[],
    archive: ArchivePlace,
  ): AsyncGenerator<number | undefined, number | undefined> {
    if (counted.packs.length === 0) return undefined
    const startedMs = performance.now()
    const runs = counted.pruned.map(({ id }) => id)
    const { shard } = look.context
    const { places, factsOf, totals } = counted
    const what = { shard, runs, places, factsOf, endedMs: totals.newestMs }
    const receipt = runs.length === 0 ? undefined : yield* archived(this.#options, archive, what)
    const restMs = this.#rest.after(performance.now() - startedMs, ARCHIVE_REST_MAX_MS)
    yield* look.references.read()
    // Meanwhile other runs may have been sealed: what stays is packed behind them.
    await this.#commit(look, await this.#take(look.context, packs, factsOf), packs, { receipt, factsOf })
    return restMs
  }

  async #take(context: BatchContext, packs: readonly number[], archived?: ReadonlyMap<string, number>): Promise<Batch> {
    const batch = new Batch(context, archived)
    for (const n of packs) await batch.take(n, false, (places) => this.#readNewest(places))
    return batch
  }

  /** In one step: nothing else that the engine does comes between the last look and the commit. */
  async #commit(
    { context, references, totals }: Look,
    first: Batch,
    packs: readonly number[],
    archive?: { readonly receipt: ArchiveReceipt | undefined; readonly factsOf: ReadonlyMap<string, number> },
  ): Promise<void> {
    // A new run with the id of one that the state knows would be taken for a repeat, and not begin.
    const reusable = first.pruned.flatMap(({ id }) => (hasKey(id) ? [stateKey.run(id)] : []))
    if (!(await untilForgotten(this.#options, reusable))) return
    let batch = first
    await references.readNow()
    for (let i = 1; !batch.isFree; i++) {
      // What is left is for the next look.
      if (i === TRIES) return
      batch = await this.#take(context, packs, archive?.factsOf)
      await references.readNow()
    }
    // One to which something came late is archived again with the next look.
    if (archive && !batch.isArchived) return
    await this.#change(async () => await batch.commit(this.#options.clock.now(), archive?.receipt))
    await purgeLogs(
      this.#options,
      batch.pruned.map(({ id, finishedMs = 0 }) => ({ id, endedMs: finishedMs })),
    )
    await purgeRefused(this.#options, new Set(batch.pruned.map(({ id }) => id)))
    addTotals(totals, batch.totals)
  }

  /**
   * Runs with a key of which the log has something. Who used the key again would get the facts of
   * the run that was pruned. The last fact stays on the log until another one comes.
   */
  async #onLog(): Promise<string[]> {
    const { connection, names, shard, stored } = this.#options
    const { mark } = stored
    const message = mark && (await connection.read((nc) => leaderGet(nc, names.log(shard), { seq: mark.seq })))
    const run = message && parsePath(names.factPath(message.subject) ?? '')?.ids.run
    return [...this.#waves.onLog(), ...(run === undefined ? [] : [run])].filter(hasKey)
  }

  async *#surveyAll(survey: Survey): AsyncGenerator<undefined, void> {
    const all = [...packNumbers(this.#base.manifest)]
    for (let i = 0; i < all.length; i += SUMMARIES) {
      const some = all.slice(i, i + SUMMARIES)
      const found = await this.#base.docs(some.map((n) => retentionKey.summary(n)))
      for (const n of some) {
        const summary = found.get(retentionKey.summary(n)) as PackSummary | undefined
        if (summary) survey.add(n, summary)
        else {
          survey.add(n, await this.#change(async () => await this.#summarize(n)))
          yield undefined
        }
      }
      yield undefined
    }
    const { manifest } = this.#base
    const summarized = { ...manifest, summarizedTo: manifest.packs }
    if (manifest.summarizedTo !== manifest.packs)
      await this.#change(async () => await this.#base.checkpoint(this.#base.seq, undefined, summarized))
    survey.close()
  }

  /** Of a pack that an older version wrote. Which objects it names goes into the index. */
  async #summarize(n: number): Promise<PackSummary> {
    const key = retentionKey.summary(n)
    const known = await this.#base.store.read<PackSummary>(key)
    if (known) return known
    const bytes = await this.#base.store.read<unknown>(historyKey.pack(n))
    if (!(bytes instanceof Uint8Array)) return { v: 1, bytes: 0, groups: [], newestMs: 0, values: {} }
    const runs = await decodePack(bytes)
    const summary = summaryOf(runs, bytes.length)
    const entries = blobEntriesFor(
      runs.flatMap(({ facts }) => facts),
      n,
    )
    const before = this.#base.manifest
    const gone = before.gone ?? []
    const { levels, nextSegment, obsolete } = await insertEntries(this.#base, before, entries, (pack) =>
      isInRanges(gone, pack),
    )
    this.#base.store.put<PackSummary>(key, summary)
    await this.#base.checkpoint(this.#base.seq, undefined, { ...before, levels, nextSegment })
    await this.#base.drop(obsolete)
    return summary
  }

  async #readNewest(places: readonly string[]): Promise<void> {
    const missing = places.filter((place) => !this.#newest.has(place))
    const found = await this.#base.docs(missing)
    for (const [place, doc] of found) this.#newest.set(place, (doc as CatalogEntry).seq)
  }

  async #isThere(run: string): Promise<boolean> {
    if (await this.#base.store.read(stateKey.run(run))) return true
    return await isInHistory(this.#options, run)
  }

  /** The versions of pipelines that were registered last. */
  async #readSpecs(): Promise<void> {
    const keys = await this.#base.keys('newest.')
    const newest = await this.#base.docs(keys)
    const specs = new Map<string, PipelineSpec>()
    const keyOf = new Map<string, string>()
    for (const [key, doc] of newest) {
      const name = decodeToken(key.slice('newest.'.length))
      keyOf.set(stateKey.pipeline(name, (doc as NewestState).version), name)
    }
    for (const [key, doc] of await this.#base.docs([...keyOf.keys()]))
      specs.set(keyOf.get(key) ?? '', doc as PipelineSpec)
    this.#specs = specs
  }
}

/** One look at what is due. */
interface Look {
  readonly context: BatchContext
  readonly references: References
  readonly totals: BatchTotals
}

interface PruneMode {
  readonly isDry?: boolean
  readonly isEager?: boolean
  /** Where runs are archived to first. */
  readonly archive?: ArchivePlace | undefined
}
