/**
 * How long runs are kept, and what the history bucket holds about it: a summary of each pack, what
 * was pruned, and what is left of a pruned run. See docs/decisions/retention.md.
 */
import { z } from 'zod'

/**
 * How long runs are kept after their end; 0: for ever. `failedMs`: those that failed. `keepLast`: a
 * run that made one of so many newest values of an asset and partition is kept.
 */
export const retentionSpec = z.object({
  runsMs: z.number().min(0).optional(),
  failedMs: z.number().min(0).optional(),
  keepLast: z.int().min(1).optional(),
})
export type RetentionSpec = z.infer<typeof retentionSpec>

/** First and last of sequences without a gap. */
export type SeqRange = readonly [from: number, to: number]

/** A place on the log of a shard. */
export type SeqAt = readonly [shard: number, seq: number]

/** Runs of a pack that have these in common, and when the first and the last of them ended. */
export interface PackGroup {
  readonly pipeline: string
  readonly target: string
  readonly failed: boolean
  readonly runs: number
  readonly oldestMs: number
  readonly newestMs: number
}

/** What is known of a pack without reading it: the document `summary.<pack>`. */
export interface PackSummary {
  readonly v: 1
  readonly bytes: number
  readonly groups: readonly PackGroup[]
  /** The newest end of a run in it, and the sequences of the values that its runs made. */
  readonly newestMs: number
  readonly seqs?: SeqRange
  /** By asset (`<pipeline>.<asset>`): hashes of partitions, and how many values there are. */
  readonly values: Readonly<Record<string, readonly (readonly [partition: string, count: number])[]>>
  /** Runs whose document is in another pack. */
  readonly parts?: readonly string[]
  /** Values of other runs that its runs took. */
  readonly took?: readonly SeqAt[]
  /** Runs that its runs go on with, or follow: redrives, retries, later attempts of a key. */
  readonly redrives?: readonly string[]
  /** Facts of no run: how many, and when the first and the last of them were stored. */
  readonly loose?: { readonly facts: number; readonly oldestMs: number; readonly newestMs: number }
  /** Remains of pruned runs: their values that are kept, each under the key of its asset. */
  readonly kept?: readonly (readonly [key: string, seq: number])[]
  /** What values of pruned runs were made from: values of other runs. */
  readonly lineage?: readonly SeqAt[]
}

/** A value of a pruned run, or one that it took: what it was, and what it was made from. */
export interface PrunedValue {
  readonly asset: string
  /** Where it stood. */
  readonly shard: number
  readonly seq: number
  /** The run that made it. */
  readonly run: string
  readonly hash?: string
  readonly fingerprint?: string
  /** When it was stored, in milliseconds. Unknown for a value of another run. */
  readonly timeMs?: number
  /** The value is still there. */
  readonly isKept?: true
  /** Assets of the same run that it was made from. Unknown where the pipeline is not known. */
  readonly from?: readonly string[]
}

/** What is left of a pruned run that has a value which lives on, or from which one was made. */
export interface PrunedRun {
  readonly v: 1
  readonly run: string
  readonly pipeline: string
  readonly version: string
  readonly target: string
  readonly partition?: string
  readonly status: string
  readonly requestedMs: number
  readonly finishedMs: number
  readonly prunedMs: number
  readonly values: readonly PrunedValue[]
}

/** Why runs were pruned. */
export interface PruneCause {
  /** `policy`: they were older than their retention. `request`: somebody asked for it. */
  readonly why: 'policy' | 'request'
  readonly by?: string
  readonly request?: string
  /** The policy of the namespace, or what was asked for, in words. */
  readonly policy: string
}

/**
 * One step of pruning: the document `pruned.<n>`. All of them together say which facts have left
 * the history, and why.
 */
export interface PruneRecord extends PruneCause {
  readonly v: 1
  readonly n: number
  /** The server's time. */
  readonly atMs: number
  readonly runs: number
  readonly facts: number
  /** As stored, of all packs that went, less the new ones. */
  readonly bytes: number
  /** The first and last end of these runs. */
  readonly oldestMs: number
  readonly newestMs: number
  /** Packs that are gone, and those that have what is left of them. */
  readonly packs: readonly number[]
  readonly into: readonly number[]
  /** Sequences of the facts that left, in order. */
  readonly seqs: readonly SeqRange[]
  /** The archive that has these runs: it was read back before they went. */
  readonly archive?: ArchiveReceipt
}

/** What an archive was written with. Plain JSON. */
export interface ArchiveReceipt {
  /** The file or object itself. */
  readonly to: string
  readonly sha256: string
  readonly lines: number
  readonly runs: number
  readonly facts: number
}

export const retentionKey = {
  summary: (pack: number): string => `summary.${pack}`,
  record: (n: number): string => `pruned.${String(n).padStart(12, '0')}`,
  /** What a step of pruning has still to take away. */
  wave: (n: number): string => `prune.${String(n).padStart(12, '0')}`,
} as const

/** The key of what is left of a run, in the pack and in the index: no run has such an id. */
export function remainsOf(run: string): string {
  return `pruned ${run}`
}

/** The document of `PrunedRun` in its pack. */
export const REMAINS = 'pruned'

/** Adds a number to sorted ranges. */
export function addToRanges(ranges: readonly SeqRange[], added: readonly number[]): SeqRange[] {
  const all = [...ranges, ...added.map((n): SeqRange => [n, n])].sort((a, b) => a[0] - b[0])
  const merged: [number, number][] = []
  for (const [from, to] of all) {
    const last = merged.at(-1)
    if (last && from <= last[1] + 1) last[1] = Math.max(last[1], to)
    else merged.push([from, to])
  }
  return merged
}

/** Whether sorted ranges have a number. */
export function isInRanges(ranges: readonly SeqRange[], n: number): boolean {
  let [low, high] = [0, ranges.length - 1]
  while (low <= high) {
    const middle = (low + high) >> 1
    const [from, to] = ranges[middle] ?? [0, 0]
    if (n < from) high = middle - 1
    else if (n > to) low = middle + 1
    else return true
  }
  return false
}
