/** The list of gates that wait, from the marks and the rows of the state buckets. */
import {
  type GateRow,
  type GateState,
  type Key,
  parseWaiting,
  stateKey,
  waitingUnder,
} from '../../projections/state.ts'
import type { GateDeps } from './deps.ts'

const READ_AHEAD = 64

interface Mark {
  readonly key: string
  readonly shard: number
  readonly doc: Key<GateRow | GateState>
  /** Gates of marks with the same text are sorted together. */
  readonly together: string
}

export interface Place {
  readonly run: string
  readonly asset: string
  readonly gate: string
  readonly deadlineMs?: number | undefined
}

/** A gate, and the text by which it is sorted. */
interface Placed {
  readonly at: string
  readonly gate: GateState
}

/**
 * The soonest deadline first, at most `limit`, from behind `after` on.
 */
export async function waitingGates(deps: GateDeps, limit: number, after: Place | undefined): Promise<GateState[]> {
  const from = after && placeOf(after)
  const marks = (await marksOf(deps)).filter(({ together }) => from === undefined || `${together}~` > from)
  const found: GateState[] = []
  for (let i = 0; i < marks.length && found.length < limit; ) {
    let end = Math.min(i + READ_AHEAD, marks.length)
    while (end < marks.length && marks[end]?.together === marks[end - 1]?.together) end += 1
    const placed: Placed[] = []
    for (; i < end; i += READ_AHEAD) {
      const some = await Promise.all(marks.slice(i, Math.min(i + READ_AHEAD, end)).map((mark) => waitingAt(deps, mark)))
      placed.push(...some.flat())
    }
    i = end
    placed.sort((a, b) => (a.at < b.at ? -1 : 1))
    found.push(...placed.flatMap(({ at, gate }) => (from === undefined || at > from ? [gate] : [])))
  }
  return found.slice(0, limit)
}

/** Those without a deadline are sorted by row: there may be very many, and a page reads a few. */
function placeOf(gate: Place): string {
  if (gate.deadlineMs === undefined) return `${stateKey.waiting(undefined, gate)}.${gate.gate}`
  return stateKey.waitingAlone(gate.deadlineMs, gate)
}

async function marksOf({ docs, shards }: GateDeps): Promise<Mark[]> {
  const marks: Mark[] = []
  for (let shard = 0; shard < shards; shard++) {
    for (const key of await docs.keys(shard, 'waiting.')) {
      const mark = parseWaiting(key)
      if (mark) marks.push({ key, shard, doc: mark.doc, together: mark.together })
    }
  }
  return marks.sort((a, b) => (a.together < b.together ? -1 : a.together > b.together ? 1 : 0))
}

/** Marks of gates that have ended are listed for a while. */
async function waitingAt({ docs }: GateDeps, { key, shard, doc }: Mark): Promise<Placed[]> {
  // The bucket's type of document follows from its key.
  const found = (await docs.read(shard, doc)) as GateRow | GateState | undefined
  return waitingUnder(key, found).map((gate) => ({ at: placeOf(gate), gate }))
}
