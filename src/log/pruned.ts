/** What is known of runs that were pruned: records of pruning, and what is left of a run. */
import { FlowStoneError } from '../../streams/errors.ts'
import { indexHash } from '../../streams/history.ts'
import { parseRunId } from '../../streams/ids.ts'
import { type PrunedRun, type PruneRecord, REMAINS, remainsOf, retentionKey } from '../../streams/retention.ts'
import { readDocIfAny } from './documents.ts'
import { type HistorySource, historyOf, isInHistory } from './history.ts'
import { leaderGet } from './nats.ts'

/** What is left of a pruned run: its values that live on, and what they were made from. */
export async function prunedRun(source: HistorySource, run: string): Promise<PrunedRun | undefined> {
  const key = remainsOf(run)
  const parts = await historyOf(source, parseRunId(run).shard).packsWith(indexHash.run(key))
  const all = parts.flatMap((part) => (part.run === key ? ((part.docs[REMAINS] as PrunedRun | undefined) ?? []) : []))
  // Of a key that was used again after it was pruned, the last one counts.
  return all.toSorted((a, b) => a.prunedMs - b.prunedMs).at(-1)
}

/**
 * All steps of pruning of a shard, the newest first. Together they say which facts have left its
 * history, and why: the one place for whoever has to know.
 */
export async function* pruneRecords(source: HistorySource, shard: number): AsyncGenerator<PruneRecord> {
  const { connection, names } = source
  const { records = 0 } = (await historyOf(source, shard).manifest()) ?? {}
  for (let n = records - 1; n >= 0; n--) {
    const record = await readDocIfAny(connection, names, names.historyBucket(shard), retentionKey.record(n))
    // Only engines write here.
    if (record) yield record as PruneRecord
  }
}

/**
 * Why a run is not there: an error with code `pruned` when that is certain, else `not_found`.
 * `what`: how to name it.
 */
export async function missingRun(
  source: HistorySource & { readonly shards: number },
  run: string,
  what = '',
): Promise<FlowStoneError> {
  const { shard } = parseRunId(run)
  // The history of a shard that is not there would be waited for.
  if (shard >= source.shards) return new FlowStoneError('not_found', `${what}there is no run ${run}`)
  const remains = await prunedRun(source, run)
  if (remains) {
    const [ended, pruned] = [remains.finishedMs, remains.prunedMs].map((ms) => new Date(ms).toISOString())
    return new FlowStoneError('pruned', `${what}run ${run} was pruned at ${pruned}: it ended at ${ended}`)
  }
  const { pruned } = (await historyOf(source, shard).manifest()) ?? {}
  if (!pruned) return new FlowStoneError('not_found', `${what}there is no run ${run}`)
  const upTo = new Date(pruned.toMs).toISOString()
  const requestedMs = timeOfRun(run)
  if (requestedMs !== undefined && requestedMs <= pruned.toMs)
    return new FlowStoneError(
      'pruned',
      `${what}run ${run} is not there: ${pruned.runs} runs that ended up to ${upTo} were pruned`,
    )
  return new FlowStoneError(
    'not_found',
    `${what}there is no run ${run}, or it was pruned: ${pruned.runs} runs that ended up to ${upTo} were`,
  )
}

/**
 * The same for who waits for a run, or looks for a part of it. Undefined: it may be there, or come.
 */
export async function prunedProblem(
  source: HistorySource & { readonly shards: number },
  run: string,
  what = '',
): Promise<FlowStoneError | undefined> {
  const { connection, names } = source
  const { shard } = parseRunId(run)
  if (shard >= source.shards) return undefined
  if (!(await historyOf(source, shard).manifest())?.pruned) return undefined
  const last_by_subj = names.fact(shard, `run.${run}.requested`)
  const requested = await connection.read((nc) => leaderGet(nc, names.log(shard), { last_by_subj }))
  if (requested || (await isInHistory(source, run))) return undefined
  return await missingRun(source, run, what)
}

/** When a run was asked for, where its id says it. */
function timeOfRun(run: string): number | undefined {
  const time = /^\d+-([0-9a-z]{8})-/.exec(run)?.[1]
  return time === undefined ? undefined : Number.parseInt(time, 36)
}
