/**
 * A wave is what was sealed at a time, and is still to be taken away: documents of the state, and
 * facts of the log. It is a document of the base until that is done.
 *
 * Facts go in one stroke, up to the first fact of a run that is not sealed. A run that stays open
 * for long holds up the stroke. Then facts behind it are taken away run by run, a few at a time,
 * because that costs the server a hundred times as much.
 */
import { runOfKey, stateKey } from '../../../projections/state.ts'
import { jetstreamManager } from '../../../streams/jetstream.ts'
import { directGetMany } from '../../log/nats.ts'
import type { Base } from './base.ts'
import { forgetKeys } from './forget.ts'
import { OfNoRun } from './of-no-run.ts'
import type { SealerOptions } from './options.ts'
import type { Unsealed } from './unsealed.ts'

const GRACE_MS = 3 * 60_000
/** So much has to be there for a stroke, or so much time has to pass. */
const STROKE_RUNS = 5000
const STROKE_MS = 30_000
/** By so much the grace may be shorter. */
const LATE_MS = 2000
const LOOK_KEYS = 1000
/** Runs whose facts are taken away one by one: so many at once, and for so long in one look. */
const SINGLE_RUNS = 16
const SINGLE_MS = 250
const SINGLE_SHARES = 6
/** What a stroke takes. Other facts, such as those of pipelines and schedules, stay. */
const OF_RUNS = ['run.>', 'asset.>', 'scatter.>', 'gate.>', 'correlation.>'] as const

/** Facts leave the log this long after they were sealed. */
export function graceOf(afterMs: number): number {
  return Math.min(GRACE_MS, afterMs)
}

/** Whether it took so long to store what was to be stored at a time that its grace begins anew. */
export function isLate(atMs: number, nowMs: number): boolean {
  return nowMs - atMs > LATE_MS
}

export interface Wave {
  /** Nothing of its runs stands before this one on the log. */
  readonly from: number
  /** All facts of its runs up to here are sealed. */
  readonly upTo: number
  readonly runs: readonly string[]
  /** The pipelines of its runs. Undefined: not all of them are known. */
  readonly pipelines?: readonly string[]
  /** Documents of the state that are deleted one by one. */
  readonly keys: readonly string[]
  /** Runs of which all documents besides their own go, of state and base, by a purge. */
  readonly large?: readonly string[]
  /**
   * Documents of runs up to this revision go in one stroke. Undefined: those of this wave are among
   * `keys`, because the engine has not been active for long enough.
   */
  readonly revision?: number
  /** The server's time. */
  readonly atMs: number
}

function oneByOne({ revision: _, ...wave }: Wave): Wave {
  return { ...wave, keys: [...wave.runs.map((run) => stateKey.run(run)), ...wave.keys] }
}

export class Waves {
  readonly #options: SealerOptions
  readonly #base: Base
  readonly #ofNoRun: OfNoRun
  /** By key, the oldest first. */
  readonly #waves = new Map<string, Wave>()
  /** Waves of which the state has no documents any more. */
  readonly #forgotten = new Set<string>()
  /** Waves behind the first fact of a run that is open. */
  readonly #blocked = new Set<string>()
  /** Waves of which the log has nothing but the last fact. */
  readonly #almost = new Set<string>()
  /** Of the blocked ones, waves whose facts of assets are gone. */
  readonly #noAssets = new Set<string>()
  #next = 0
  #sweptTo = 0
  #strokeAtMs = Number.NEGATIVE_INFINITY

  constructor(options: SealerOptions, base: Base) {
    this.#options = options
    this.#base = base
    this.#ofNoRun = new OfNoRun(options)
  }

  async begin(): Promise<void> {
    const { store } = this.#base
    const keys = (await this.#base.keys('wave.')).toSorted()
    for (const key of keys) {
      const wave = await store.read<Wave>(key)
      // The bucket may be another one by now, which counts anew.
      if (wave) this.#waves.set(key, wave.revision === undefined ? wave : oneByOne(wave))
      this.#next = Number(key.slice('wave.'.length)) + 1
    }
  }

  /** Part of the next checkpoint of the base. */
  add(wave: Wave): void {
    this.#put(`wave.${String(this.#next++).padStart(12, '0')}`, wave)
  }

  /** That checkpoint is stored: from now on others find in the history what was sealed. */
  async stored(): Promise<void> {
    const [key, wave] = [...this.#waves].at(-1) ?? []
    const nowMs = this.#options.clock.now()
    if (key === undefined || !wave || !isLate(wave.atMs, nowMs)) return
    this.#put(key, { ...wave, atMs: nowMs })
    await this.#base.checkpoint(this.#base.seq, undefined, this.#base.manifest)
  }

  #put(key: string, wave: Wave): void {
    this.#base.store.put(key, wave)
    this.#waves.set(key, wave)
  }

  /** Runs that are sealed, and of which the log may still have facts. */
  *onLog(): Generator<string> {
    for (const [key, { runs }] of this.#waves) if (!this.#almost.has(key)) yield* runs
  }

  /**
   * Runs with a key are pruned: others may have their ids when the next engine reads what is to be
   * deleted. Part of the next checkpoint of the base.
   */
  leave(runs: ReadonlySet<string>): void {
    const stays = (run: string | undefined): boolean => run === undefined || !runs.has(run)
    for (const [key, wave] of this.#waves) {
      if (wave.runs.every(stays)) continue
      const { large = [] } = wave
      const rest = {
        ...wave,
        runs: wave.runs.filter(stays),
        keys: wave.keys.filter((one) => stays(runOfKey(one))),
        ...(large.length > 0 ? { large: large.filter(stays) } : {}),
      }
      this.#put(key, rest)
    }
  }

  /** Takes away what may go. False: the state has to be stored first, which takes a moment. */
  async purge(unsealed: Unsealed): Promise<boolean> {
    const { afterMs, clock, stored } = this.#options
    // What is sealed has to be in the history still: on the log it is in no other place.
    if (this.#waves.size > 0) await this.#base.look()
    await this.#unblock()
    const graceMs = graceOf(afterMs)
    const ready: [string, Wave][] = []
    let runs = 0
    for (const [key, wave] of this.#waves) {
      if (wave.atMs + graceMs > clock.now()) break
      ready.push([key, wave])
      runs += wave.runs.length
    }
    const isTime = performance.now() - this.#strokeAtMs >= Math.min(STROKE_MS, afterMs)
    if (ready.length === 0 || (runs < STROKE_RUNS && !isTime)) return true
    // To store again what is open would cost more than to delete what has ended.
    if (unsealed.size > runs) for (const one of ready) one[1] = this.#eachAlone(...one)
    for (const [key, wave] of ready) if (!(await this.#forget(key, wave))) return false
    const waves = ready.map(([, wave]) => wave)
    if (!(await this.#sweep(waves, unsealed))) return false
    this.#strokeAtMs = performance.now()
    // The last fact that the state stands for stays: by it the log is known again.
    const last = (stored.mark?.seq ?? 0) - 1
    const newest = ready.at(-1)?.[1]
    if (!newest) return true
    // Runs that were sealed a moment ago may reach back behind older waves.
    const young = [...this.#waves.values()].slice(ready.length)
    const free = Math.min(last, newest.upTo, ...young.map(({ from }) => from - 1))
    const upTo = Math.min(unsealed.firstSeq - 1, free)
    await this.#stroke(upTo)
    await this.#ofNoRun.purge(Math.min(last, newest.upTo), newest.atMs)
    for (const [key, wave] of ready) {
      if (wave.upTo <= upTo) this.#done(key)
      else if (unsealed.firstSeq <= wave.upTo) this.#blocked.add(key)
      else if (upTo >= Math.min(last, wave.upTo)) this.#almost.add(key)
    }
    if (this.#blocked.size > 0) await this.#strokeAssets(free, unsealed)
    return true
  }

  #eachAlone(key: string, wave: Wave): Wave {
    if (wave.revision === undefined) return wave
    const alone = oneByOne(wave)
    this.#waves.set(key, alone)
    this.#forgotten.delete(key)
    return alone
  }

  /** Facts of assets go in one stroke where nothing of their pipeline is open. */
  async #strokeAssets(upTo: number, unsealed: Unsealed): Promise<void> {
    const { connection, names, shard } = this.#options
    const open = new Set<string>()
    for (const { run, firstSeq, pipeline } of unsealed.values()) {
      if (firstSeq > upTo) break
      const doc = pipeline === undefined ? await this.#base.store.read(stateKey.run(run)) : { pipeline }
      if (doc) open.add(doc.pipeline)
    }
    const jsm = await jetstreamManager(connection.nc)
    const gone = new Set<string>()
    for (const key of this.#blocked) {
      const { pipelines = [], ...wave } = this.#waves.get(key) ?? { upTo: 0 }
      if (pipelines.length === 0 || wave.upTo > upTo || pipelines.some((pipeline) => open.has(pipeline))) continue
      for (const pipeline of pipelines) {
        if (gone.has(pipeline)) continue
        gone.add(pipeline)
        const filter = names.fact(shard, `asset.${pipeline}.>`)
        await jsm.streams.purge(names.log(shard), { filter, seq: upTo + 1 })
      }
      this.#noAssets.add(key)
    }
  }

  /** Goes on with what no stroke can take away, run by run, for a while. */
  async #unblock(): Promise<void> {
    // More of the server's time when it cannot keep up.
    const untilMs = performance.now() + SINGLE_MS * Math.min(SINGLE_SHARES, this.#blocked.size)
    const last = (this.#options.stored.mark?.seq ?? 0) - 1
    for (const key of this.#blocked) {
      const wave = this.#waves.get(key)
      // Of the wave with the last fact that fact stays, until others have come.
      const isLast = wave !== undefined && wave.upTo > last
      if (!wave || (isLast && this.#almost.has(key))) continue
      let left = wave.runs
      while (left.length > 0 && performance.now() < untilMs) {
        const some = left.slice(0, SINGLE_RUNS)
        await Promise.all(some.map((run) => this.#single(run, Math.min(wave.upTo, last), this.#noAssets.has(key))))
        left = left.slice(SINGLE_RUNS)
      }
      if (isLast) {
        if (left.length === 0) this.#almost.add(key)
        continue
      }
      if (left.length > 0) {
        this.#put(key, { ...wave, runs: left })
        return
      }
      this.#done(key)
    }
  }

  /** Whether the state has none of its documents any more. */
  async #forget(key: string, { keys, large = [] }: Wave): Promise<boolean> {
    if (this.#forgotten.has(key)) return true
    const { names, shard, state } = this.#options
    const bucket = names.stateBucket(shard)
    let isGone = await forgetKeys(this.#options, keys)
    for (const run of large) {
      state.drop(run)
      for (const one of [bucket, names.historyBucket(shard)]) if (await this.#purgeDocuments(one, run)) isGone = false
    }
    if (isGone) this.#forgotten.add(key)
    return isGone
  }

  /** Whether there was anything. What the engine has written meanwhile is seen at the next look. */
  async #purgeDocuments(bucket: string, run: string): Promise<boolean> {
    const { connection, names } = this.#options
    const jsm = await jetstreamManager(connection.nc)
    let purged = 0
    for (const key of [`*.${run}.>`, `part.*.*.${run}.>`, `waiting.*.*.${run}.>`])
      purged += (await jsm.streams.purge(names.kvStream(bucket), { filter: names.kvSubject(bucket, key) })).purged
    return purged > 0
  }

  /**
   * Takes away all documents of runs up to a revision. Those of runs that are not sealed and have
   * not changed since then are stored again before. Says whether it is done.
   */
  async #sweep(waves: readonly Wave[], unsealed: Unsealed): Promise<boolean> {
    const fresh = waves.filter(({ revision = 0 }) => revision > this.#sweptTo)
    if (fresh.length === 0) return true
    const revision = Math.max(...fresh.map((wave) => wave.revision ?? 0))
    const { connection, names, shard, state, touched } = this.#options
    const bucket = names.stateBucket(shard)
    const stream = names.kvStream(bucket)
    const old = [...unsealed.values()].filter((run) => (run.revision ?? 0) <= revision)
    let isReady = true
    for (let i = 0; i < old.length; i += LOOK_KEYS) {
      const some = old.slice(i, i + LOOK_KEYS)
      const subjects = some.map(({ run }) => names.kvSubject(bucket, stateKey.run(run)))
      const found = await connection.read((nc) => directGetMany(nc, stream, subjects))
      const again: string[] = []
      for (const [k, run] of some.entries()) {
        const { seq = 0 } = found.get(subjects[k] ?? '') ?? {}
        run.revision = seq
        if (seq <= revision) again.push(stateKey.run(run.run))
      }
      if (await this.#storeAgain(again)) isReady = false
    }
    if (!isReady) {
      touched()
      return false
    }
    const jsm = await jetstreamManager(connection.nc)
    // The bucket is still the one that the revision is of. One that is made again a moment later
    // has none of these sequences.
    await state.load([])
    for (const key of ['run.*', 'part.*.run.*'])
      await jsm.streams.purge(stream, { filter: names.kvSubject(bucket, key), seq: revision + 1 })
    // From memory, too: once one of them is pruned, another run may have its id.
    const gone = fresh.flatMap(({ runs }) => runs.map((run) => stateKey.run(run)))
    state.forget(gone, new Map())
    this.#sweptTo = revision
    return true
  }

  /** Says whether there is anything to store. */
  async #storeAgain(keys: readonly string[]): Promise<boolean> {
    const { state } = this.#options
    let isAny = false
    for (let left = keys; left.length > 0; ) {
      for (const key of left) if (state.touch(key)) isAny = true
      // While some are read, a checkpoint may drop others from memory.
      left = left.filter((key) => !state.has(key))
      if (left.length > 0) await state.load(left)
    }
    return isAny
  }

  async #stroke(upTo: number): Promise<void> {
    const { connection, names, shard } = this.#options
    if (upTo < 1) return
    const jsm = await jetstreamManager(connection.nc)
    for (const path of OF_RUNS)
      await jsm.streams.purge(names.log(shard), { filter: names.fact(shard, path), seq: upTo + 1 })
  }

  async #single(run: string, upTo: number, hasNoAssets: boolean): Promise<void> {
    const { connection, names, shard } = this.#options
    const jsm = await jetstreamManager(connection.nc)
    for (const path of [`*.${run}.>`, ...(hasNoAssets ? [] : [`asset.*.*.${run}.>`])])
      await jsm.streams.purge(names.log(shard), { filter: names.fact(shard, path), seq: upTo + 1 })
  }

  #done(key: string): void {
    this.#waves.delete(key)
    this.#forgotten.delete(key)
    this.#blocked.delete(key)
    this.#almost.delete(key)
    this.#noAssets.delete(key)
    this.#base.store.delete(key)
  }
}
