/** `flow.retention.prune`: asks the engines to prune, and waits for what comes of it. */
import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { ConflictError, FlowStoneError, InvalidError } from '../../streams/errors.ts'
import { checkName } from '../../streams/ids.ts'
import type { ArchiveReceipt } from '../../streams/retention.ts'
import { shown } from '../../streams/shown.ts'
import { parseArchiveTarget } from '../engine/archive/receipt.ts'
import { type PruneAnswer, readAnswer, readOrder, writeOrder } from '../engine/history/prune/orders.ts'
import { engineAtWork } from '../engine/shard/claim.ts'
import { pruneRecords } from '../log/pruned.ts'
import { type Duration, parseDuration } from '../options/duration.ts'
import { type OptionNames, refuseUnknown } from '../options/unknown.ts'
import type { RunDeps } from './run-view.ts'

/** What `flow.retention.prune` takes away. */
export interface PruneOptions {
  /**
   * Runs that ended so long ago, such as `'30d'`, whatever their retention says. Default: those
   * that are older than their retention.
   */
  readonly olderThan?: Duration
  /** Only runs of this pipeline. */
  readonly pipeline?: string
  /**
   * Where the engines archive what goes before it does: `s3://BUCKET/PREFIX`, or `file:FOLDER` of
   * their hosts. Default: the `retention.archive` of each engine.
   */
  readonly archive?: string
  /** True: nothing goes; the report says what would. */
  readonly dryRun?: boolean
  /** How long it waits for the engines. Default `'10m'`. They go on by themselves. */
  readonly timeout?: Duration
}

/** What was pruned, or would be. */
export interface PruneReport {
  readonly runs: number
  readonly facts: number
  /** What the history takes less, as stored. Objects of values come on top. */
  readonly bytes: number
  /** The first and the last end of these runs. */
  readonly oldest?: Date
  readonly newest?: Date
  /** Where all that went was archived to, or would be: of each engine that archives. */
  readonly archives: readonly string[]
  readonly dryRun: boolean
}

/** One step of pruning, as the history keeps it. */
export interface PruneEntry {
  readonly shard: number
  readonly at: Date
  /** `policy`: runs were older than their retention. `request`: somebody asked for it. */
  readonly why: 'policy' | 'request'
  readonly by?: string
  /** The policy of the namespace, or what was asked for. */
  readonly policy: string
  readonly runs: number
  readonly facts: number
  readonly bytes: number
  readonly oldest?: Date
  readonly newest?: Date
  /** Sequences of the facts that left the history: first and last of each range. */
  readonly sequences: readonly (readonly [from: number, to: number])[]
  /** The archive that has these runs. It was read back, and compared, before they went. */
  readonly archive?: ArchiveReceipt
}

const OPTIONS: OptionNames<PruneOptions> = {
  olderThan: true,
  pipeline: true,
  archive: true,
  dryRun: true,
  timeout: true,
}
const AGES = { maxMs: 100 * 365 * 86_400_000 }
const LOOK_MS = 100
/** An engine that takes over does so within this time. */
const NO_ENGINE_MS = 10_000

export async function prune(deps: RunDeps, options: PruneOptions): Promise<PruneReport> {
  refuseUnknown('prune', options, OPTIONS)
  const { olderThan, pipeline, archive, dryRun = false, timeout = '10m' } = options
  const ageMs = olderThan === undefined ? undefined : parseDuration('prune: olderThan', olderThan, AGES)
  if (pipeline !== undefined) checkName('prune: pipeline', pipeline)
  if (archive !== undefined) parseArchiveTarget('prune: archive', archive)
  if (typeof dryRun !== 'boolean') throw new InvalidError(`prune: dryRun must be true or false, got ${typeof dryRun}`)
  const timeoutMs = parseDuration('prune: timeout', timeout, { minMs: 1 })
  await deps.found()
  const id = randomBytes(9).toString('base64url')
  const order = {
    v: 1,
    id,
    ...(deps.by === undefined ? {} : { by: deps.by }),
    ...(ageMs === undefined ? {} : { beforeMs: deps.clock.now() - ageMs }),
    ...(pipeline === undefined ? {} : { pipeline }),
    ...(archive === undefined ? {} : { archive }),
    ...(dryRun ? { dryRun } : {}),
  } as const
  const shards = Array.from({ length: deps.shards }, (_, shard) => shard)
  for (const shard of shards) await writeOrder(deps, shard, order)
  const answers = await Promise.all(shards.map((shard) => answerOf(deps, shard, id, timeoutMs)))
  const failed = answers.find(({ error }) => error !== undefined)
  if (failed) throw new FlowStoneError('refused', `not all was pruned: ${failed.error}`)
  const sum = (of: (answer: PruneAnswer) => number): number => answers.reduce((all, answer) => all + of(answer), 0)
  const oldest = answers.flatMap(({ oldestMs }) => oldestMs ?? [])
  const newest = answers.flatMap(({ newestMs }) => newestMs ?? [])
  return {
    runs: sum(({ runs }) => runs),
    facts: sum(({ facts }) => facts),
    bytes: sum(({ bytes }) => bytes),
    ...(oldest.length > 0 ? { oldest: new Date(Math.min(...oldest)) } : {}),
    ...(newest.length > 0 ? { newest: new Date(Math.max(...newest)) } : {}),
    archives: [...new Set(answers.flatMap(({ archive: to }) => to ?? []))],
    dryRun,
  }
}

async function answerOf(deps: RunDeps, shard: number, id: string, timeoutMs: number): Promise<PruneAnswer> {
  const { connection, names } = deps
  const startedMs = performance.now()
  let seenMs = startedMs
  for (;;) {
    const answer = await readAnswer(deps, shard)
    if (answer?.id === id) return answer
    const order = await readOrder(deps, shard)
    if (order && order.id !== id && order.id === answer?.id)
      throw new ConflictError(
        `somebody else asked the engine of shard ${shard} to prune at the same time, and the last request counts; ask again`,
      )
    const nowMs = performance.now()
    if ((await engineAtWork(connection, names, shard)) !== undefined) seenMs = nowMs
    if (nowMs - seenMs > NO_ENGINE_MS)
      throw new FlowStoneError('no_engine', `no engine is active on shard ${shard}; it prunes when one is`)
    if (nowMs - startedMs > timeoutMs)
      throw new FlowStoneError(
        'timeout',
        `the engine of shard ${shard} has not finished within ${timeoutMs} ms; it goes on, if runs are sealed (sealAfter)`,
      )
    await sleep(LOOK_MS)
  }
}

/** Steps of pruning, the newest first, of all shards. */
export async function pruned(deps: RunDeps, { limit = 100 }: { readonly limit?: number }): Promise<PruneEntry[]> {
  if (!(Number.isInteger(limit) && limit >= 1 && limit <= 10_000))
    throw new InvalidError(`records: limit must be a whole number from 1 to 10000, got ${shown(limit)}`)
  await deps.found()
  const found: PruneEntry[] = []
  for (let shard = 0; shard < deps.shards; shard++) {
    let left = limit
    for await (const record of pruneRecords(deps, shard)) {
      const { atMs, why, by, policy, runs, facts, bytes, oldestMs, newestMs, seqs, archive } = record
      found.push({
        shard,
        at: new Date(atMs),
        why,
        ...(by === undefined ? {} : { by }),
        policy,
        runs,
        facts,
        bytes,
        ...(runs > 0 ? { oldest: new Date(oldestMs), newest: new Date(newestMs) } : {}),
        sequences: seqs,
        ...(archive === undefined ? {} : { archive }),
      })
      left -= 1
      if (left === 0) break
    }
  }
  return found.sort((a, b) => b.at.getTime() - a.at.getTime()).slice(0, limit)
}
