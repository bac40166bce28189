/**
 * Seals runs that ended a while ago: their facts go from the log into packs of the history, and
 * their documents leave the state. See docs/decisions/history.md.
 *
 *   fold     the base takes the facts that are old enough, as the state did before
 *   seal     packs, index, base and the wave (what is to be taken away) are stored
 *   forget   the state's documents of these runs are deleted
 *   purge    some minutes later their facts leave the log
 *
 * Each step may be done again. What dies between two of them is done by the next engine: it finds
 * the position of the base, and the waves that are left.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { step } from '../../../projections/handlers.ts'
import { type Key, type RunState, stateKey } from '../../../projections/state.ts'
import { blobsIn } from '../../../streams/blob-refs.ts'
import { FlowStoneError, messageOf } from '../../../streams/errors.ts'
import { type Fact, isTimer } from '../../../streams/facts.ts'
import type { SealedFact } from '../../../streams/history.ts'
import { isInRanges } from '../../../streams/retention.ts'
import { leaderGet, type StoredMessage } from '../../log/nats.ts'
import { storedFact } from '../../log/read-fact.ts'
import { Reader } from '../../log/reader.ts'
import { rawRunFacts } from '../../log/run-facts.ts'
import { Facts, PoisonError } from '../shard/facts.ts'
import type { Mark } from '../shard/position.ts'
import { Base } from './base.ts'
import { showInLists } from './listed.ts'
import type { SealerOptions } from './options.ts'
import { PACK_BYTES, Packing, packedTo } from './packing.ts'
import { Pruner } from './prune/pruner.ts'
import { Recent } from './recent.ts'
import { documentsOf, type RunDocuments, readDocuments } from './run-documents.ts'
import { insertEntries } from './segments.ts'
import { Snapshots } from './snapshots.ts'
import { Unsealed, type UnsealedMark, type UnsealedRun, withBlobs } from './unsealed.ts'
import { graceOf, type Wave, Waves } from './waves.ts'

const TAKE = 500
/** Facts folded before other work of the process gets its turn. */
const SLICE = 50
/** A wave is sealed after so many facts or bytes; or when nothing more is old enough. */
const WAVE_FACTS = 16_000
const WAVE_BYTES = 8 * 1024 * 1024
/** What is old enough is taken so often, or each `afterMs`, if that is less. */
const BURST_EVERY_MS = 5000
const LOOK_MAX_MS = 30_000
const AGAIN_MS = 5000
/** A checkpoint of the state is stored within this time. */
const SOON_MS = 500

export class Sealer {
  readonly #options: SealerOptions
  #stopped = false
  #reader: Reader | undefined
  #wake: (() => void) | undefined

  constructor(options: SealerOptions) {
    this.#options = options
  }

  start(): void {
    this.#options.changed.onReady = () => this.#wake?.()
    void this.#live()
  }

  /** What it is doing may go on for a moment. An engine that comes after it takes the base over. */
  stop(): void {
    this.#stopped = true
    this.#reader?.stop()
    this.#wake?.()
  }

  async #live(): Promise<void> {
    const { connection, logger, shard } = this.#options
    let said = ''
    while (!this.#stopped && !connection.isClosed) {
      try {
        await this.#work()
      } catch (error) {
        const text = messageOf(error)
        if (!this.#stopped && !connection.isClosed && text !== said)
          logger.warn(`ended runs of shard ${shard} are not sealed: ${text}`)
        said = text
      }
      if (!this.#stopped && !connection.isClosed) await this.#pause(AGAIN_MS)
    }
  }

  async #work(): Promise<void> {
    const base = await Base.takeOver(this.#options)
    const sealing = new Sealing(this.#options, base)
    await sealing.begin()
    const { afterMs } = this.#options
    while (!this.#stopped) {
      const waitMs = await this.#untilDue(sealing.folded)
      if (waitMs === 0) await this.#burst(sealing)
      const isDone = await sealing.purge()
      await this.#prune(sealing, isDone ? Math.min(LOOK_MAX_MS, afterMs, Math.max(waitMs, BURST_EVERY_MS)) : SOON_MS)
    }
  }

  /** Prunes step by step, and stores what changes, for so long. */
  async #prune(sealing: Sealing, forMs: number): Promise<void> {
    const untilMs = performance.now() + forMs
    for (let leftMs = forMs; leftMs > 0 && !this.#stopped; leftMs = untilMs - performance.now()) {
      await sealing.storeChanges()
      const waitMs = Math.min(await sealing.prune(), Math.max(0, untilMs - performance.now()))
      if (!this.#options.changed.isReady) await this.#pause(waitMs)
    }
  }

  /** In how many milliseconds something behind a sequence is old enough; 0 if something is. */
  async #untilDue(seq: number): Promise<number> {
    const { connection, names, shard, afterMs, clock } = this.#options
    const query = { seq: seq + 1, next_by_subj: '>' }
    const next = await connection.read((nc) => leaderGet(nc, names.log(shard), query))
    if (!next || next.seq > this.#readyTo) return LOOK_MAX_MS
    return Math.max(0, next.timeMs + afterMs - clock.now())
  }

  /** All that is old enough. In between nothing is read, and the log serves its other readers. */
  async #burst(sealing: Sealing): Promise<void> {
    const { connection, names, shard } = this.#options
    const reader = new Reader(connection, names.log(shard), sealing.folded + 1)
    this.#reader = reader
    try {
      while (!this.#stopped) {
        const messages = await reader.take(TAKE, this.#readyTo)
        const due = this.#dueOf(messages)
        await sealing.fold(messages.slice(0, due))
        await sealing.storeChanges()
        await sealing.sealIfFull()
        if (due < messages.length || due === 0) break
      }
      if (!this.#stopped) await sealing.seal()
    } finally {
      reader.stop()
    }
  }

  /** Up to here the state is stored, the feed shows all, and the proof has all. */
  get #readyTo(): number {
    const { stored, shownTo, provenTo } = this.#options
    return Math.min(stored.seq, shownTo(), provenTo())
  }

  /** How many of the messages are old enough, and ready. */
  #dueOf(messages: readonly StoredMessage[]): number {
    const { afterMs, clock } = this.#options
    const seq = this.#readyTo
    const beforeMs = clock.now() - afterMs
    const young = messages.findIndex((message) => message.timeMs > beforeMs || message.seq > seq)
    return young < 0 ? messages.length : young
  }

  async #pause(ms: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ms)
      timer.unref()
      this.#wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }
}

const unsealedMark = (seq: number, run: string): string => `unsealed.${String(seq).padStart(15, '0')}.${run}`

/** The base of one term, and what is to be sealed of it. */
class Sealing {
  readonly #options: SealerOptions
  readonly #base: Base
  readonly #facts: Facts
  readonly #unsealed = new Unsealed()
  readonly #ended = new Map<string, UnsealedRun>()
  /** Facts of runs that are sealed, or were never requested. */
  readonly #strays = new Map<string, SealedFact[]>()
  /** Messages that are no facts. They leave the log with the facts around them, for good. */
  #unreadable: number[] = []
  readonly #waves: Waves
  readonly #snapshots: Snapshots
  readonly #recent: Recent
  readonly #pruner: Pruner
  /** The last fact that is folded. */
  folded: number
  #mark: Mark | undefined
  #count = 0
  #bytes = 0

  constructor(options: SealerOptions, base: Base) {
    this.#options = options
    this.#base = base
    this.#facts = new Facts(base.store, options.names, options.shard)
    this.#waves = new Waves(options, base)
    this.#snapshots = new Snapshots(options, base)
    this.#recent = new Recent(options, base)
    this.#pruner = new Pruner(options, base, this.#snapshots, this.#waves)
    this.folded = base.seq
  }

  /** Reads what the engine before has left. */
  async begin(): Promise<void> {
    for (const key of (await this.#base.keys('unsealed.')).toSorted()) {
      const [, seq, run] = key.split('.')
      if (run !== undefined) this.#unsealed.add({ run, firstSeq: Number(seq), bytes: 0, marked: true })
    }
    await this.#waves.begin()
    await this.#snapshots.begin()
    await this.#recent.begin()
    await this.#pruner.begin()
  }

  async storeChanges(): Promise<void> {
    await this.#recent.store()
  }

  /** A step of pruning. Returns after how many milliseconds the next one may follow. */
  async prune(): Promise<number> {
    return await this.#pruner.step()
  }

  async fold(messages: readonly StoredMessage[]): Promise<void> {
    for (const [i, message] of messages.entries()) {
      if (i % SLICE === SLICE - 1) await nextTurn()
      this.folded = message.seq
      this.#count += 1
      this.#bytes += message.payload.length
      const path = this.#options.names.factPath(message.subject)
      if (path === undefined || isTimer(path)) continue
      this.#mark = { seq: message.seq, ms: message.timeMs }
      const fact = await this.#foldOne(messages, i)
      if (fact) this.#collect(fact, storedFact(path, message))
      else this.#unreadable.push(message.seq)
    }
  }

  /** Undefined for what the state has stepped over, too: no fact of ours, or one that is poison. */
  async #foldOne(messages: readonly StoredMessage[], i: number): Promise<Fact | undefined> {
    const message = messages[i]
    if (!message) return undefined
    let fact: Fact
    try {
      fact = this.#facts.decode(message)
    } catch (error) {
      if (error instanceof FlowStoneError && error.code !== 'newer_version') return undefined
      throw error
    }
    try {
      await this.#facts.load(fact, messages, i + 1)
    } catch (error) {
      if (error instanceof PoisonError) return fact
      throw error
    }
    try {
      // What follows from it was decided when the state was folded.
      step(this.#base.store, fact)
    } catch (error) {
      this.#options.logger.debug(`message ${message.seq} is not folded into the base: ${messageOf(error)}`)
    }
    return fact
  }

  #collect(fact: Fact, sealed: SealedFact): void {
    const run = runOf(fact)
    if (run === undefined) {
      this.#snapshots.keep(fact, sealed)
      return
    }
    let unsealed = this.#unsealed.get(run)
    if (!unsealed && fact.name === 'run.requested') {
      unsealed = { run, firstSeq: fact.seq, pipeline: fact.data.pipeline, bytes: 0, facts: [] }
      this.#unsealed.add(unsealed)
    }
    if (!unsealed) {
      const strays = this.#strays.get(run) ?? []
      strays.push(sealed)
      this.#strays.set(run, strays)
      return
    }
    this.#unsealed.addFact(unsealed, sealed)
    const blobs = blobsIn(sealed.payload, sealed.contentType)
    if (blobs.length > 0) unsealed.blobs = new Set([...(unsealed.blobs ?? []), ...blobs])
    if (fact.name === 'run.finished') this.#ended.set(run, unsealed)
  }

  async sealIfFull(): Promise<void> {
    if (this.#count >= WAVE_FACTS || this.#bytes >= WAVE_BYTES) await this.seal()
  }

  async purge(): Promise<boolean> {
    return await this.#waves.purge(this.#unsealed)
  }

  async seal(): Promise<void> {
    if (this.#count === 0) return
    const { clock } = this.#options
    const ended = [...this.#ended.values()]
    const strays = [...this.#strays.values()].flat()
    const packing = new Packing(this.#base, this.#snapshots)
    const [runKeys, keys, large]: [string[], string[], string[]] = [[], [], []]
    for (const unsealed of ended) {
      const { run } = unsealed
      runKeys.push(stateKey.run(run))
      const left = await this.#pack(packing, unsealed)
      if (left) keys.push(...left)
      else large.push(run)
      for (const key of [stateKey.run(run), ...(left ?? [])]) this.#base.store.delete(key)
      if (!left) this.#base.store.drop(run)
      if (unsealed.marked) this.#base.store.delete(unsealedMark(unsealed.firstSeq, unsealed.run))
      this.#unsealed.remove(unsealed)
    }
    this.#ended.clear()
    const from = Math.min(...ended.map(({ firstSeq }) => firstSeq), ...strays.map(({ seq }) => seq))
    const pipelines = pipelinesOf(ended, this.#strays.size > 0)
    for (const [run, facts] of this.#strays) await packing.add(run, {}, facts)
    const kept = this.#snapshots.takeKept()
    if (kept.length > 0) await packing.add(NO_RUN, {}, kept)
    await packing.end()
    await this.#snapshots.putPlaced(this.#count, this.#bytes)
    const runs = [...ended.map(({ run }) => run), ...this.#strays.keys()].filter((run) => run !== NO_RUN)
    this.#strays.clear()
    const before = this.#base.manifest
    const gone = before.gone ?? []
    const inserted = await insertEntries(this.#base, before, packing.entries, (n) => isInRanges(gone, n))
    const revision = this.#options.stored.revisionAt(this.folded)
    const docs = revision === undefined ? { keys: [...runKeys, ...keys] } : { keys, revision }
    const wave: Wave = {
      from,
      upTo: this.folded,
      runs,
      ...(pipelines ? { pipelines: [...pipelines] } : {}),
      ...docs,
      ...(large.length > 0 ? { large } : {}),
      atMs: clock.now(),
    }
    if (runs.length > 0) this.#waves.add(wave)
    await this.#markOpen()
    const { levels, nextSegment } = inserted
    const graceMs = graceOf(this.#options.afterMs)
    const manifest = { ...before, ...packedTo(before, packing.next), graceMs, levels, nextSegment }
    const seqs = this.#unreadable.map((seq) => [seq, seq] as const)
    if (seqs.length > 0) await this.#options.leaving([{ why: 'unreadable', seqs }])
    this.#unreadable = []
    await this.#base.checkpoint(this.folded, this.#mark, manifest)
    if (runs.length > 0) await this.#waves.stored()
    await this.#base.drop(inserted.obsolete)
    await this.#snapshots.takeIfDue(this.folded, this.#mark, manifest)
    await this.#recent.drop(this.#snapshots.previousStart)
    for (const [n, summary] of packing.summaries) this.#pruner.saw(n, summary)
    this.#unsealed.trim()
    this.#count = 0
    this.#bytes = 0
  }

  /** Those that stay are found again by the next engine. */
  async #markOpen(): Promise<void> {
    for (const unsealed of this.#unsealed.values()) {
      const { run, firstSeq, blobs } = unsealed
      if (unsealed.marked && !blobs) continue
      const key: Key<UnsealedMark> = unsealedMark(firstSeq, run)
      const before = unsealed.marked ? await this.#base.store.read(key) : { since: firstSeq, blobs: [] }
      this.#base.store.put(key, withBlobs(before ?? { since: firstSeq }, blobs ?? []))
      unsealed.marked = true
      delete unsealed.blobs
    }
  }

  /**
   * Facts and documents of a run. Returns the documents that leave state and base with it;
   * undefined when they are many.
   */
  async #pack(packing: Packing, { run, facts: held }: UnsealedRun): Promise<readonly string[] | undefined> {
    const read = (): AsyncGenerator<SealedFact> => rawRunFacts(this.#options, this.#options.shard, run, this.folded)
    const facts = held ?? (await upTo(PACK_BYTES, read()))
    const { docs, more, keys } = await this.#documentsOf(run, facts)
    if (facts) await packing.add(run, docs, facts)
    else await packing.addRead(run, docs, read())
    await packing.addDocs(run, readDocuments(this.#base.store, more))
    return keys
  }

  async #documentsOf(run: string, facts: readonly SealedFact[] | undefined): Promise<RunDocuments> {
    const { store } = this.#base
    const key = stateKey.run(run)
    if (!store.has(key)) await store.load([key])
    const doc = store.get<RunState>(key)
    if (!doc) return { docs: {}, more: [], keys: [] }
    await showInLists(store, doc)
    return await documentsOf(store, doc, facts)
  }
}

/** Of runs that were sealed together; undefined when that is not known of all. */
function pipelinesOf(ended: readonly UnsealedRun[], hasStrays: boolean): ReadonlySet<string> | undefined {
  const known = ended.flatMap(({ pipeline }) => pipeline ?? [])
  return hasStrays || known.length < ended.length ? undefined : new Set(known)
}

/** What is found by its own name or place goes into a pack at once. */
const NO_RUN = ''
/** How the request of who names a key begins, and an occurrence that was asked for so. */
const KEYED = /^(trigger-)?k[0-9a-f]{32}$/

/** The run that a fact is of. Undefined for what needs no pack. */
function runOf(fact: Fact): string | undefined {
  if ('run' in fact.ids) return fact.ids.run
  switch (fact.name) {
    case 'gate.correlated':
      return NO_RUN
    case 'subscription.taken':
      return fact.data.events.some(({ message }) => message !== undefined) ? NO_RUN : undefined
    // For the audit: who did it.
    case 'schedule.triggered':
    case 'schedule.backfill_requested':
    case 'schedule.paused':
    case 'schedule.resumed':
    case 'sensor.paused':
    case 'sensor.resumed':
    case 'sensor.triggered':
    case 'event.retried':
      return NO_RUN
    case 'schedule.fired':
    case 'schedule.skipped':
      return KEYED.test(fact.ids.occurrence) ? NO_RUN : undefined
    default:
      return undefined
  }
}

/** All of them; undefined when they take more bytes. */
async function upTo(maxBytes: number, facts: AsyncIterable<SealedFact>): Promise<SealedFact[] | undefined> {
  const found: SealedFact[] = []
  let bytes = 0
  for await (const fact of facts) {
    found.push(fact)
    bytes += fact.payload.length
    if (bytes > maxBytes) return undefined
  }
  return found
}
