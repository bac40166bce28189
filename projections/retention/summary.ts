/** What a pack holds, in short: packs with runs that may go are found without reading all. */
import type { SealedRun } from '../../streams/history.ts'
import { hash64 } from '../../streams/ids.ts'
import { type PackGroup, type PackSummary, type PrunedRun, REMAINS, type SeqAt } from '../../streams/retention.ts'
import { type RunState, stateKey } from '../state.ts'
import type { Policies } from './policy.ts'

/** A value that a run made itself. */
export interface OwnValue {
  readonly asset: string
  readonly seq: number
}

/** The document of a run in its pack. Undefined: it is in another pack, or there is none. */
export function runIn({ run, docs }: SealedRun): RunState | undefined {
  // What a pack has under a run's key is the document of that run.
  return docs[stateKey.run(run)] as RunState | undefined
}

/** What is left of a pruned run. */
export function remainsIn({ docs }: SealedRun): PrunedRun | undefined {
  return docs[REMAINS] as PrunedRun | undefined
}

export function ownValues(run: Readonly<RunState>): OwnValue[] {
  return Object.entries(run.assets).flatMap(([asset, { status, value }]) =>
    status === 'materialized' && value ? [{ asset, seq: value.seq }] : [],
  )
}

/** Values that other runs made, and what else of other runs a run refers to. */
export function takenBy(run: Readonly<RunState>): SeqAt[] {
  return Object.values(run.assets).flatMap(({ status, value, candidate }): SeqAt[] => {
    if (status === 'reused' && value) return [[value.shard, value.seq]]
    // Of a run that is open, one that it may still take.
    return status === 'materialized' || !candidate ? [] : [[candidate.value.shard, candidate.value.seq]]
  })
}

/**
 * Runs that a run goes on with, follows, or waits for. Of a key that was used again, each attempt
 * names the one before. Who looks for the last attempt steps from one to the next.
 */
export function namedBy(run: Readonly<RunState>): string[] {
  const { redrive, retry, retryOf } = run
  return [
    ...(redrive ? [redrive.run] : []),
    ...(retry ? [retry.run] : []),
    ...(retryOf === undefined ? [] : [retryOf]),
    ...Object.values(run.assets).flatMap(({ redrive, child }) => [
      ...(redrive ? [redrive.run] : []),
      ...(child === undefined ? [] : [child]),
    ]),
  ]
}

/** Values of an asset in a data partition. */
export function placeOf(pipeline: string, asset: string, partition: string | undefined): string {
  return stateKey.asset(pipeline, asset, partition)
}

export function partitionHash(partition: string | undefined): string {
  return partition === undefined ? '' : hash64(partition)
}

export function summaryOf(runs: readonly SealedRun[], bytes: number): PackSummary {
  const builder = new SummaryBuilder(bytes)
  for (const run of runs) builder.add(run)
  return builder.summary()
}

class SummaryBuilder {
  readonly #bytes: number
  readonly #groups = new Map<string, PackGroup>()
  readonly #values = new Map<string, Map<string, number>>()
  readonly #seqs: number[] = []
  readonly #parts = new Set<string>()
  readonly #took = new Map<string, SeqAt>()
  readonly #redrives = new Set<string>()
  readonly #kept: [key: string, seq: number][] = []
  readonly #lineage = new Map<string, SeqAt>()
  #loose: PackSummary['loose']
  #newestMs = 0

  constructor(bytes: number) {
    this.#bytes = bytes
  }

  add(sealed: SealedRun): void {
    const remains = remainsIn(sealed)
    const run = runIn(sealed)
    if (remains) this.#addRemains(remains)
    else if (run) this.#addRun(run)
    else if (sealed.run === '') this.#addLoose(sealed)
    else this.#parts.add(sealed.run)
  }

  #addRun(run: Readonly<RunState>): void {
    const { pipeline, target, partition, finishedMs = 0 } = run
    const failed = run.status === 'failed'
    const key = `${pipeline} ${target} ${failed}`
    const group = this.#groups.get(key)
    this.#groups.set(key, {
      pipeline,
      target,
      failed,
      runs: (group?.runs ?? 0) + 1,
      oldestMs: Math.min(group?.oldestMs ?? finishedMs, finishedMs),
      newestMs: Math.max(group?.newestMs ?? finishedMs, finishedMs),
    })
    this.#newestMs = Math.max(this.#newestMs, finishedMs)
    for (const { asset, seq } of ownValues(run)) this.#addValue(pipeline, asset, partition, seq)
    for (const at of takenBy(run)) this.#took.set(at.join(), at)
    for (const name of namedBy(run)) this.#redrives.add(name)
  }

  #addRemains({ run, pipeline, partition, finishedMs, values }: PrunedRun): void {
    this.#newestMs = Math.max(this.#newestMs, finishedMs)
    for (const { asset, shard, seq, isKept, run: madeBy } of values) {
      if (isKept) {
        this.#kept.push([placeOf(pipeline, asset, partition), seq])
        this.#addValue(pipeline, asset, partition, seq)
      }
      if (madeBy !== run) this.#lineage.set(`${shard},${seq}`, [shard, seq])
    }
  }

  #addValue(pipeline: string, asset: string, partition: string | undefined, seq: number): void {
    const name = `${pipeline}.${asset}`
    const counts = this.#values.get(name) ?? new Map<string, number>()
    this.#values.set(name, counts)
    const hash = partitionHash(partition)
    counts.set(hash, (counts.get(hash) ?? 0) + 1)
    this.#seqs.push(seq)
  }

  #addLoose({ facts }: SealedRun): void {
    for (const { timeMs } of facts) {
      const { facts: count, oldestMs, newestMs } = this.#loose ?? { facts: 0, oldestMs: timeMs, newestMs: timeMs }
      this.#loose = {
        facts: count + 1,
        oldestMs: Math.min(oldestMs, timeMs),
        newestMs: Math.max(newestMs, timeMs),
      }
      this.#newestMs = Math.max(this.#newestMs, timeMs)
    }
  }

  summary(): PackSummary {
    const values = [...this.#values].map(([asset, counts]) => [asset, [...counts]] as const)
    const some = <T>(name: string, all: Iterable<T>): object => {
      const list = [...all]
      return list.length > 0 ? { [name]: list } : {}
    }
    let [first, last] = [Number.POSITIVE_INFINITY, 0]
    for (const seq of this.#seqs) [first, last] = [Math.min(first, seq), Math.max(last, seq)]
    return {
      v: 1,
      bytes: this.#bytes,
      groups: [...this.#groups.values()],
      newestMs: this.#newestMs,
      ...(last > 0 ? { seqs: [first, last] } : {}),
      values: Object.fromEntries(values),
      ...some('parts', this.#parts),
      ...some('took', this.#took.values()),
      ...some('redrives', this.#redrives),
      ...(this.#loose ? { loose: this.#loose } : {}),
      ...some('kept', this.#kept),
      ...some('lineage', this.#lineage.values()),
    }
  }
}

/** How a pack stands to the policies. */
export interface DueCount {
  /** Runs that are older than they are kept, at the most, and all runs. */
  readonly due: number
  readonly runs: number
  /** By how much the oldest of them is late, as a part of its age. */
  readonly over: number
}

/** `remains` and facts of no run do not count. */
export function dueOf(summary: PackSummary, policies: Policies, nowMs: number): DueCount {
  let [due, runs, over] = [0, 0, 0]
  for (const group of summary.groups) {
    runs += group.runs
    const fromMs = policies.keptFromMs(group.pipeline, group.target, group.failed, nowMs)
    // Not for its age; but the newest values of its assets may be all that is wanted.
    if (fromMs === undefined) {
      const isCounted = policies.ageMs(group.pipeline, group.target, group.failed) === undefined
      if (isCounted && policies.keepLast(group.pipeline, group.target) !== undefined && !group.failed) due += group.runs
      continue
    }
    if (group.oldestMs >= fromMs) continue
    const part = (fromMs - group.oldestMs) / Math.max(1, group.newestMs - group.oldestMs)
    due += group.newestMs < fromMs ? group.runs : Math.max(1, Math.floor(group.runs * Math.min(1, part)))
    const age = nowMs - fromMs
    over = Math.max(over, age > 0 ? (fromMs - group.oldestMs) / age : 1)
  }
  return { due, runs, over }
}
