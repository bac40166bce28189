/** The facts of one run, in order: from the history, then from the log. */
import { FACTS, type Fact, type FactName, factFilter, factNames, isUnder } from '../../streams/facts.ts'
import type { SealedFact } from '../../streams/history.ts'
import { parseRunId, type RunId } from '../../streams/ids.ts'
import { type HistorySource, historyOf, sealedParts } from './history.ts'
import { messagesUnder } from './messages-under.ts'
import { leaderGet, type StoredMessage } from './nats.ts'
import { factIfAny, sealedFactIfAny, storedFact } from './read-fact.ts'

/**
 * Where the facts of a run stand, of those names that are wanted. Timers are left out: a schedule
 * that fired or was removed is gone, and a reader would wait in vain for one that was the last.
 */
export function pathsOfRun(run: string, isWanted: (name: FactName) => boolean = () => true): string[] {
  const wanted = factNames().filter((name) => FACTS[name].path.includes(':run') && isWanted(name))
  // Assets have no timers.
  return [...new Set(wanted.map((name) => factFilter(name, { run }).replace(/^(asset\.\*\.\*\.[^.]+)\..*/, '$1.>')))]
}

export interface RunFactsOptions {
  /** Only facts under these, in which a token may be `*`, and the last one `>`. */
  readonly paths?: readonly string[]
  /** Only those behind this sequence. */
  readonly after?: number
  /** Those in the history come pack by pack, and no pack is read twice. */
  readonly isInAnyOrder?: boolean
}

/** Up to the last one that is there when it begins. First those that were sealed. */
export async function* runFacts(
  source: HistorySource,
  run: RunId,
  { paths, after = 0, isInAnyOrder = false }: RunFactsOptions = {},
): AsyncGenerator<Fact> {
  const { shard } = parseRunId(run)
  const isWanted = (path: string): boolean => paths?.some((filter) => isUnder(path, filter)) ?? true
  let sealedTo = after
  const sealed = isInAnyOrder ? factsOfParts(source, run) : historyOf(source, shard).facts(run, after)
  for await (const one of sealed) {
    sealedTo = Math.max(sealedTo, one.seq)
    const fact = one.seq > after && isWanted(one.path) ? sealedFactIfAny(source, shard, one) : undefined
    if (fact) yield fact
  }
  // What came after the run was sealed is there.
  for await (const message of messagesOf(source, shard, run, paths ?? pathsOfRun(run), sealedTo)) {
    const fact = factIfAny(source.names, shard, message)
    if (fact) yield fact
  }
}

async function* factsOfParts(source: HistorySource, run: RunId): AsyncGenerator<SealedFact> {
  for await (const { facts } of sealedParts(source, run)) yield* facts
}

/** As they stand on the log, up to a sequence. */
export async function* rawRunFacts(
  source: HistorySource,
  shard: number,
  run: string,
  upToSeq = Number.POSITIVE_INFINITY,
): AsyncGenerator<SealedFact> {
  for await (const message of messagesOf(source, shard, run, pathsOfRun(run), 0)) {
    if (message.seq > upToSeq) return
    const path = source.names.factPath(message.subject)
    if (path !== undefined) yield storedFact(path, message)
  }
}

async function* messagesOf(
  { connection, names }: HistorySource,
  shard: number,
  run: string,
  paths: readonly string[],
  after: number,
): AsyncGenerator<StoredMessage> {
  if (paths.length === 0) return
  const stream = names.log(shard)
  const filters = paths.map((path) => names.fact(shard, path))
  const requested = names.fact(shard, factFilter('run.requested', { run }))
  const first = await connection.read((nc) => leaderGet(nc, stream, { last_by_subj: requested }))
  yield* messagesUnder(connection, stream, filters, Math.max(first?.seq ?? 1, after + 1))
}
