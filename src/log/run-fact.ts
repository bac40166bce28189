/** One fact of a run: from the log, or from the history when the run has been sealed. */
import { type Fact, type FactName, type FactOf, factPath } from '../../streams/facts.ts'
import { parseRunId } from '../../streams/ids.ts'
import { type HistorySource, sealedFact } from './history.ts'
import { leaderGet } from './nats.ts'
import { factIfAny } from './read-fact.ts'

/**
 * The last fact of a run that has this name and these ids, of which one may be `*`. The log is
 * read from its leader.
 */
export async function runFact<N extends FactName>(
  source: HistorySource,
  run: string,
  name: N,
  ids: Readonly<Record<string, string>> = { run },
): Promise<FactOf<N> | undefined> {
  const fact = await lastOfRun(source, run, factPath(name, ids))
  // The name tells which fact it is; the compiler does not see that through the type parameter.
  return fact?.name === name ? (fact as FactOf<N>) : undefined
}

/** The last fact of a run under a path, in which tokens may be `*`. */
export async function lastOfRun(source: HistorySource, run: string, path: string): Promise<Fact | undefined> {
  const { connection, names } = source
  const { shard } = parseRunId(run)
  const last_by_subj = names.fact(shard, path)
  const message = await connection.read((nc) => leaderGet(nc, names.log(shard), { last_by_subj }))
  if (message) return factIfAny(names, shard, message)
  return await sealedFact(source, run, path)
}
