/** Some facts of one run, by their paths: all of a large scatter would be too many to hold. */
import { decodeFact, type Fact } from '../../streams/facts.ts'
import type { RunId } from '../../streams/ids.ts'
import type { Names } from '../../streams/subjects.ts'
import type { Connection } from './connection.ts'
import { sealedParts } from './history.ts'
import { messagesUnder } from './messages-under.ts'
import { leaderGet } from './nats.ts'
import { factIfAny } from './read-fact.ts'

/**
 * Facts of a run under these paths, in which a token may be `*` and the last one `>`, in order.
 * From the history first, then from the log. No two paths may have a subject in common, and none a
 * timer.
 */
export async function factsUnder(
  { connection, names }: { readonly connection: Connection; readonly names: Names },
  shard: number,
  run: RunId,
  paths: readonly string[],
): Promise<Fact[]> {
  if (paths.length === 0) return []
  const found = new Map<number, Fact>()
  let sealedTo = 0
  const isWanted = matcher(paths)
  for await (const { facts } of sealedParts({ connection, names }, run))
    for (const fact of facts) {
      sealedTo = Math.max(sealedTo, fact.seq)
      if (isWanted(fact.path)) found.set(fact.seq, decodeFact({ ...fact, shard }))
    }
  const stream = names.log(shard)
  const requested = names.fact(shard, `run.${run}.requested`)
  const first = await connection.read((nc) => leaderGet(nc, stream, { last_by_subj: requested }))
  const filters = paths.map((path) => names.fact(shard, path))
  for await (const message of messagesUnder(connection, stream, filters, first?.seq)) {
    const fact = message.seq > sealedTo ? factIfAny(names, shard, message) : undefined
    if (fact) found.set(fact.seq, fact)
  }
  return [...found.values()].toSorted((a, b) => a.seq - b.seq)
}

function matcher(paths: readonly string[]): (path: string) => boolean {
  const filters = paths.map((path) => path.split('.'))
  return (path) => {
    const tokens = path.split('.')
    return filters.some((filter) => {
      const isOpen = filter.at(-1) === '>'
      if (isOpen ? tokens.length < filter.length : tokens.length !== filter.length) return false
      return filter.every((token, i) => token === '*' || token === '>' || token === tokens[i])
    })
  }
}
