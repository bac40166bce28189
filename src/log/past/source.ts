/** Documents and facts of a time in the past, for all who only read: see doc-source.ts. */
import { foldPast, PastView } from '../../../projections/past.ts'
import type { BarrierState } from '../../../projections/scatter/state.ts'
import { type GateRow, type GateState, type RunState, runOfKey, stateKey } from '../../../projections/state.ts'
import { FlowStoneError } from '../../../streams/errors.ts'
import { type Fact, factPath, isRepeatable, isUnder } from '../../../streams/facts.ts'
import { parseRunId, type RunId } from '../../../streams/ids.ts'
import { type DocSource, liveSource, type Past } from '../doc-source.ts'
import type { HistorySource } from '../history.ts'
import { pipelineDoc } from './fold.ts'
import { isWithin, type Limit } from './limit.ts'
import { type PastShard, pastShard } from './shard.ts'

/** Runs that are folded alone, and kept. */
const ALONE_MAX = 64

export interface PastSource extends DocSource {
  readonly past: Past
  /** To be awaited before anything is read. Throws `no_snapshot`. */
  found(): Promise<void>
  shard(shard: number): Promise<PastShard>
}

/**
 * `limits`: sequences of shards. Other shards are shown at the time of the latest of them.
 */
export function pastSource(source: HistorySource, limits: ReadonlyMap<number, number> | Date): PastSource {
  return new ThePast(source, limits)
}

class ThePast implements PastSource {
  readonly #source: HistorySource
  readonly #live: DocSource
  readonly #limits: ReadonlyMap<number, number>
  readonly #shards = new Map<number, Promise<PastShard>>()
  readonly #alone = new Map<string, Promise<PastView>>()
  #ms: number | undefined
  readonly past: Past

  constructor(source: HistorySource, limits: ReadonlyMap<number, number> | Date) {
    this.#source = source
    this.#live = liveSource(source)
    this.#limits = limits instanceof Date ? new Map() : limits
    this.#ms = limits instanceof Date ? limits.getTime() : undefined
    const timeMs = (): number => this.#ms ?? 0
    this.past = {
      get timeMs() {
        return timeMs()
      },
      seqOf: async (shard) => (await this.shard(shard)).seq,
      has: (fact) => isWithin(this.#limit(fact.shard), fact),
    }
  }

  async found(): Promise<void> {
    if (this.#ms !== undefined) return
    const named = await Promise.all([...this.#limits.keys()].map((shard) => this.shard(shard)))
    this.#ms = Math.max(...named.map(({ timeMs }) => timeMs))
  }

  shard(shard: number): Promise<PastShard> {
    const found = this.#shards.get(shard) ?? pastShard(this.#source, shard, this.#limit(shard))
    this.#shards.set(shard, found)
    found.catch(() => this.#shards.delete(shard))
    return found
  }

  async read(shard: number, key: string, signal?: AbortSignal): Promise<unknown> {
    // A list only grows: who reads it stops in time.
    if (key.startsWith('runs.')) return await this.#live.read(shard, key, signal)
    const { view } = await this.shard(shard)
    return view.has(key) ? view.get(key) : await pipelineDoc(this.#source, shard, key)
  }

  async ofRun(run: string, key: string): Promise<unknown> {
    const { id, shard } = parseRunId(run)
    const at = await this.shard(shard).catch((error: unknown) => {
      if (error instanceof FlowStoneError && error.code === 'no_snapshot') return undefined
      throw error
    })
    if (!at) return (await this.#foldedAlone(id)).get(key)
    if (at.view.get(stateKey.run(run))) return at.view.get(key)
    // It had ended before what is stored, or was not there yet.
    const ended = (await this.#live.ofRun(run, stateKey.run(run))) as RunState | undefined
    if (!ended || !(await this.#hadEnded(id, ended, at))) return undefined
    const doc = key === stateKey.run(run) ? ended : await this.#live.ofRun(run, key)
    const isOld = ended.seq <= at.seq && (await this.#isAsThen(run, key, doc, at.seq))
    // Alone it would not have waited for others of its concurrency key.
    return isOld || ended.concurrency ? doc : (await this.#foldedAlone(id)).get(key)
  }

  async many(shard: number, keys: readonly string[]): Promise<ReadonlyMap<string, unknown>> {
    const { view, seq, timeMs } = await this.shard(shard)
    const found = new Map<string, unknown>(
      keys.flatMap((key) => (view.has(key) && view.get(key) ? [[key, view.get(key)]] : [])),
    )
    // Those that ended before, as far as it is plain that they did.
    const runs = keys.filter((key) => key.startsWith('run.') && !found.has(key))
    for (const [key, doc] of await this.#live.many(shard, runs)) {
      // The type of document follows from its key.
      const run = doc as RunState | undefined
      if (run?.finishedMs !== undefined && run.finishedMs < timeMs && run.seq <= seq) found.set(key, run)
    }
    return found
  }

  async keys(shard: number, prefix: string): Promise<string[]> {
    const { view } = await this.shard(shard)
    const run = runOfKey(prefix)
    // Of a run that had ended: `ofRun` says what of it was there.
    if (run && !view.get(stateKey.run(run))) return await this.#live.keys(shard, prefix)
    return view.keys(prefix)
  }

  ofBase(shard: number, key: string): Promise<unknown> {
    return this.#live.ofBase(shard, key)
  }

  async lastOfRun(run: string, path: string): Promise<Fact | undefined> {
    const { id, shard } = parseRunId(run)
    const last = await this.#live.lastOfRun(run, path)
    if (!last || isWithin(this.#limit(shard), last)) return last
    if (!path.includes('*') && !isRepeatable(last.name)) return undefined
    // One before it may stand under the same path.
    let before: Fact | undefined
    for await (const fact of this.factsOfRun(id)) if (isUnder(factPath(fact.name, fact.ids), path)) before = fact
    return before
  }

  async *factsOfRun(run: RunId): AsyncGenerator<Fact> {
    const limit = this.#limit(parseRunId(run).shard)
    for await (const fact of this.#live.factsOfRun(run)) if (isWithin(limit, fact)) yield fact
  }

  /**
   * Of its own facts only, where no snapshot is as old. What other runs of its concurrency key did
   * to it is missing then.
   */
  #foldedAlone(run: RunId): Promise<PastView> {
    const fold = async (): Promise<PastView> => {
      const view = new PastView()
      const { shard } = parseRunId(run)
      for await (const fact of this.factsOfRun(run)) {
        const version =
          fact.name === 'run.requested' || fact.name === 'run.adopt_requested' ? fact.data.version : undefined
        const of = fact.name === 'run.requested' ? fact.data : view.get(stateKey.run(run))
        const key = of && version !== undefined ? stateKey.pipeline(of.pipeline, version) : undefined
        if (key !== undefined) view.put(key, await pipelineDoc(this.#source, shard, key))
        foldPast(view, fact)
      }
      return view
    }
    const found = this.#alone.get(run) ?? fold()
    if (this.#alone.size >= ALONE_MAX) this.#alone.clear()
    this.#alone.set(run, found)
    found.catch(() => this.#alone.delete(run))
    return found
  }

  /** Whether a document of a run that had ended has not changed since. Only some say it. */
  async #isAsThen(run: string, key: string, doc: unknown, seq: number): Promise<boolean> {
    const [kind, , asset = ''] = key.split('.')
    // The type of document follows from its key.
    if (kind === 'gates')
      return Object.values((doc as GateRow | undefined)?.gates ?? {}).every((gate) => gate.seq <= seq)
    if (kind === 'gate') return ((doc as GateState | undefined)?.seq ?? 0) <= seq
    if (kind !== 'barrier' && kind !== 'segment' && kind !== 'failures') return true
    const barrier = (kind === 'barrier' ? doc : await this.#live.ofRun(run, stateKey.barrier(run, asset))) as
      | BarrierState
      | undefined
    return (barrier?.seq ?? 0) <= seq
  }

  async #hadEnded(run: RunId, { finishedMs }: RunState, at: PastShard): Promise<boolean> {
    if (finishedMs === undefined || finishedMs > at.timeMs) return false
    if (finishedMs < at.timeMs) return true
    // In the same millisecond: the sequence tells.
    const end = await this.#live.lastOfRun(run, factPath('run.finished', { run }))
    return end !== undefined && end.seq <= at.seq
  }

  #limit(shard: number): Limit {
    const seq = this.#limits.get(shard)
    return seq === undefined ? { ms: this.#ms ?? 0 } : { seq }
  }
}
