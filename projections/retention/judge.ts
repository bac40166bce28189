/**
 * Which runs of a pack go, and what is left of them. Pure: who calls it has read the packs, the
 * newest values and what open runs refer to.
 *
 * A run goes whole when it is older than it is kept and made none of the newest values that are
 * kept by number. No open run may refer to it, and no later scatter continue its own. Of its values
 * those live on that are the newest of their asset and partition, or that a kept run took. With
 * them stays what they were made from: ids, hashes and times.
 */
import type { SealedFact, SealedRun } from '../../streams/history.ts'
import { type PrunedRun, type PrunedValue, REMAINS, remainsOf } from '../../streams/retention.ts'
import type { PipelineSpec } from '../../streams/schemas.ts'
import type { RunState } from '../state.ts'
import type { Policies } from './policy.ts'
import { ownValues, partitionHash, placeOf, remainsIn, runIn } from './summary.ts'

/** What is known besides the packs. */
export interface Ground {
  readonly shard: number
  readonly nowMs: number
  readonly policies: Policies
  /** Where the newest value of an asset and partition stands; undefined: nobody knows. */
  newest(place: string): number | undefined
  /** How many values of it are newer than all of the pack. */
  newer(pipeline: string, asset: string, partition: string): number
  /** A kept run, or one that is open, took this value. */
  isTaken(seq: number): boolean
  /** A value that lives on was made from this one. */
  isLineage(seq: number): boolean
  /** An open run refers to this one, or a later scatter goes on with its. */
  isHeld(run: string): boolean
}

/** Of values in one pack, which is the how manieth, the newest first. */
export class Ranks {
  readonly #seqs = new Map<string, number[]>()

  constructor(runs: readonly SealedRun[]) {
    for (const sealed of runs) {
      const run = runIn(sealed)
      if (run) for (const { asset, seq } of ownValues(run)) this.#add(run.pipeline, asset, run.partition, seq)
      const remains = remainsIn(sealed)
      for (const { asset, seq, isKept } of remains?.values ?? [])
        if (isKept && remains) this.#add(remains.pipeline, asset, remains.partition, seq)
    }
    for (const seqs of this.#seqs.values()) seqs.sort((a, b) => b - a)
  }

  /** How many of the pack are newer. */
  newer(place: string, seq: number): number {
    const found = this.#seqs.get(place)?.indexOf(seq) ?? -1
    return found < 0 ? 0 : found
  }

  #add(pipeline: string, asset: string, partition: string | undefined, seq: number): void {
    const place = placeOf(pipeline, asset, partition)
    const seqs = this.#seqs.get(place) ?? []
    seqs.push(seq)
    this.#seqs.set(place, seqs)
  }
}

/** Whether a run that has ended goes. */
export function isExpired(run: Readonly<RunState>, ground: Ground, ranks: Ranks): boolean {
  const { pipeline, target, partition, finishedMs, status } = run
  if (finishedMs === undefined || ground.isHeld(run.id)) return false
  const { policies, nowMs } = ground
  const failed = status === 'failed'
  const fromMs = policies.keptFromMs(pipeline, target, failed, nowMs)
  const own = ownValues(run)
  const isBeyond = own.every(({ asset, seq }) => {
    const last = policies.keepLast(pipeline, asset)
    if (last === undefined) return true
    const before = ground.newer(pipeline, asset, partitionHash(partition))
    return before + ranks.newer(placeOf(pipeline, asset, partition), seq) >= last
  })
  if (!isBeyond) return false
  if (fromMs !== undefined) return finishedMs < fromMs
  if (policies.isByAge || policies.ageMs(pipeline, target, failed) !== undefined) return false
  // Nobody said how long: it goes when newer values have taken the place of all that it made.
  return status === 'succeeded' && own.length > 0 && own.every(({ asset }) => policies.keepLast(pipeline, asset))
}

/** Values of an expired run that live on, by sequence. */
export function keptSeqs(run: Readonly<RunState>, ground: Ground): Set<number> {
  const { pipeline, partition } = run
  const kept = ownValues(run).filter(({ asset, seq }) => {
    const newest = ground.newest(placeOf(pipeline, asset, partition))
    return newest === undefined || seq >= newest || ground.isTaken(seq)
  })
  return new Set(kept.map(({ seq }) => seq))
}

/**
 * What is left of an expired run: undefined where nothing is. `facts`: those of its values, as far
 * as they were found. `spec`: of its version of the pipeline.
 */
export function remainsFor(
  run: Readonly<RunState>,
  ground: Ground,
  facts: ReadonlyMap<number, SealedFact>,
  spec: PipelineSpec | undefined,
  fingerprintOf: (fact: SealedFact) => string | undefined,
): SealedRun | undefined {
  const kept = keptSeqs(run, ground)
  const wanted = ownValues(run).filter(({ seq }) => kept.has(seq) || ground.isLineage(seq))
  if (wanted.length === 0) return undefined
  const assets = upstreamIn(
    run,
    spec,
    wanted.map(({ asset }) => asset),
  )
  const values = assets.flatMap((asset): PrunedValue[] => {
    const { value, hash, from: taken } = run.assets[asset] ?? {}
    if (!value || value.input !== undefined) return []
    const isOwn = run.assets[asset]?.status === 'materialized'
    const fact = isOwn ? facts.get(value.seq) : undefined
    const fingerprint = fact && fingerprintOf(fact)
    const from = spec?.assets.find(({ name }) => name === asset)?.dependsOn
    return [
      {
        asset,
        shard: value.shard,
        seq: value.seq,
        run: isOwn ? run.id : (taken?.run ?? ''),
        ...(hash === undefined ? {} : { hash }),
        ...(fingerprint === undefined ? {} : { fingerprint }),
        ...(fact ? { timeMs: fact.timeMs } : {}),
        ...(isOwn && kept.has(value.seq) ? { isKept: true } : {}),
        ...(from && isOwn ? { from } : {}),
      },
    ]
  })
  const doc: PrunedRun = {
    v: 1,
    run: run.id,
    pipeline: run.pipeline,
    version: run.version,
    target: run.target,
    ...(run.partition === undefined ? {} : { partition: run.partition }),
    status: run.status,
    requestedMs: run.requestedMs,
    finishedMs: run.finishedMs ?? run.requestedMs,
    prunedMs: ground.nowMs,
    values,
  }
  const left = [...facts.values()].filter(({ seq }) => kept.has(seq)).sort((a, b) => a.seq - b.seq)
  return { run: remainsOf(run.id), docs: { [REMAINS]: doc }, facts: left }
}

/** These assets of a run, and all that they were made from. */
function upstreamIn(run: Readonly<RunState>, spec: PipelineSpec | undefined, assets: readonly string[]): string[] {
  if (!spec) return Object.keys(run.assets)
  const found = new Set(assets)
  // A set goes on to what is added while it is read.
  for (const asset of found)
    if (run.assets[asset]?.status === 'materialized')
      for (const name of spec.assets.find((one) => one.name === asset)?.dependsOn ?? []) found.add(name)
  return [...found]
}

/**
 * What is left of remains once values have lost their place: the same, or less, or undefined for
 * nothing.
 */
export function stillLeft(sealed: SealedRun, remains: PrunedRun, ground: Ground): SealedRun | undefined {
  const { pipeline, partition, run } = remains
  const isLiving = ({ asset, seq, isKept }: PrunedValue): boolean => {
    const newest = ground.newest(placeOf(pipeline, asset, partition))
    return isKept === true && (newest === undefined || seq >= newest || ground.isTaken(seq))
  }
  const own = remains.values.filter((value) => value.run === run)
  const living = new Set(own.filter(isLiving).map(({ seq }) => seq))
  const roots = own.filter(({ seq }) => living.has(seq) || ground.isLineage(seq))
  if (roots.length === 0) return undefined
  if (living.size === own.filter(({ isKept }) => isKept).length) return sealed
  const names = new Set(roots.map(({ asset }) => asset))
  const byName = new Map(remains.values.map((value) => [value.asset, value]))
  for (const name of names) for (const from of byName.get(name)?.from ?? []) names.add(from)
  const values = remains.values
    .filter(({ asset, from }) => names.has(asset) || from === undefined)
    .map(({ isKept: _, ...value }): PrunedValue => (living.has(value.seq) ? { ...value, isKept: true } : value))
  const facts = sealed.facts.filter(({ seq }) => living.has(seq))
  return { run: sealed.run, docs: { [REMAINS]: { ...remains, values } }, facts }
}
