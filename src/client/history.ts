/** A run's facts, read back from the log in order, for audit and for explaining what happened. */
import { decodeList } from '../../streams/codec.ts'
import type { Fact } from '../../streams/facts.ts'
import { parseRunId } from '../../streams/ids.ts'
import type { Topology } from '../../streams/topology.ts'
import type { Connection } from '../log/connection.ts'
import { runFacts } from '../log/run-facts.ts'

/** A fact of a run, as `flow.history` yields it. */
export interface HistoryEntry {
  /** Sequence on the log of the run's partition. */
  readonly seq: number
  /** The server's clock when the fact was stored. */
  readonly time: Date
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
  connection: Connection,
  namespace: { readonly found: () => Promise<Topology> },
  run: string,
): AsyncGenerator<HistoryEntry> {
  const { names, shards } = await namespace.found()
  const { id, shard } = parseRunId(run)
  if (shard >= shards) return
  for await (const fact of runFacts(connection, names, shard, id))
    yield { seq: fact.seq, time: new Date(fact.timeMs), kind: fact.name, ids: fact.ids, data: readable(fact) }
}
