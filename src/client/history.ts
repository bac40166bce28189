/** A run's facts, read back from the log in order, for audit and for explaining what happened. */
import { decodeList } from '../../streams/codec.ts'
import type { Fact } from '../../streams/facts.ts'
import { parseRunId } from '../../streams/ids.ts'
import { prunedProblem } from '../log/pruned.ts'
import type { RunDeps } from './run-view.ts'

/** A fact of a run, as `flow.history` yields it. */
export interface HistoryEntry {
  /** Sequence on the log of the run's partition. */
  readonly seq: number
  /** The server's clock when the fact was stored. */
  readonly at: Date
  /** What happened, such as `scatter.closed`. */
  readonly kind: Fact['name']
  readonly ids: Readonly<Record<string, string>>
  /** The fact's data, decoded and raised to today's version. */
  readonly data: Fact['data']
}

/** With the lists that the engine only carries (keys, values) decoded. */
function readable(fact: Fact): Fact['data'] {
  if (fact.name === 'scatter.items') {
    const { encoding, ...data } = fact.data
    return { ...data, keys: [...decodeList(data.keys, encoding)] }
  }
  if (fact.name === 'scatter.outcomes') {
    const { encoding, ...data } = fact.data
    return { ...data, values: [...decodeList(data.values, encoding)] }
  }
  return fact.data
}

export async function* history(
  deps: Pick<RunDeps, 'connection' | 'names' | 'found' | 'shards' | 'docs'>,
  run: string,
): AsyncGenerator<HistoryEntry> {
  await deps.found()
  const { id, shard } = parseRunId(run)
  if (shard >= deps.shards) return
  let isThere = false
  for await (const fact of deps.docs.factsOfRun(id)) {
    isThere = true
    yield { seq: fact.seq, at: new Date(fact.timeMs), kind: fact.name, ids: fact.ids, data: readable(fact) }
  }
  const problem = isThere ? undefined : await prunedProblem(deps, id)
  if (problem) throw problem
}
