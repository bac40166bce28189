/** The documents of a run that has ended: what goes into packs, and what leaves the state. */
import { needsOfGate } from '../../../projections/gate/gate.ts'
import { scatterKeys } from '../../../projections/scatter/documents.ts'
import type { BarrierState } from '../../../projections/scatter/state.ts'
import { type GateRow, type GateState, type Key, type RunState, stateKey } from '../../../projections/state.ts'
import type { SealedFact } from '../../../streams/history.ts'
import type { Store } from '../shard/store.ts'

/** Where the documents are. */
type Documents = Pick<Store, 'has' | 'get' | 'load' | 'read'>

/** A run with more documents than this loses them by a purge, and they get packs of their own. */
const ONE_BY_ONE = 64
const READ_AHEAD = 32

export interface RunDocuments {
  /** To be packed with the facts of the run. */
  readonly docs: Readonly<Record<string, unknown>>
  /** To be packed besides. */
  readonly more: readonly string[]
  /** What leaves state and base with the run. Undefined: all that has the run in its key. */
  readonly keys: readonly string[] | undefined
}

/** `facts`: undefined when they are many. */
export async function documentsOf(
  store: Documents,
  run: Readonly<RunState>,
  facts: readonly SealedFact[] | undefined,
): Promise<RunDocuments> {
  const docs: Record<string, unknown> = { [stateKey.run(run.id)]: structuredClone(run) }
  const barriers = !facts || hasScatter(facts) ? await barriersOf(store, run) : []
  const [read, unread]: [string[], string[]] = [[], facts ? await gatesWithMarks(store, run, facts) : []]
  for (const barrier of barriers) {
    const key = stateKey.barrier(run.id, barrier.asset)
    docs[key] = structuredClone(barrier)
    unread.push(key)
    const keys = scatterKeys(barrier)
    read.push(...keys.read)
    unread.push(...keys.unread)
  }
  if (!facts || read.length + unread.length > ONE_BY_ONE) return { docs, more: read, keys: undefined }
  for await (const [key, doc] of readDocuments(store, read)) docs[key] = doc
  return { docs, more: [], keys: [...read, ...unread] }
}

/** Those that there are, a few in memory at a time. */
export async function* readDocuments(
  store: Documents,
  keys: readonly string[],
): AsyncGenerator<readonly [key: string, doc: unknown]> {
  for (let i = 0; i < keys.length; i += READ_AHEAD) {
    const some = keys.slice(i, i + READ_AHEAD)
    const found = await Promise.all(
      some.map(async (key: Key<unknown>) => (store.has(key) ? store.get(key) : await store.read(key))),
    )
    for (const [k, key] of some.entries()) if (found[k] !== undefined) yield [key, structuredClone(found[k])]
  }
}

async function barriersOf(store: Documents, run: Readonly<RunState>): Promise<BarrierState[]> {
  const keys = Object.keys(run.assets).map((asset) => stateKey.barrier(run.id, asset))
  await store.load(keys.filter((key) => !store.has(key)))
  return keys.flatMap((key) => store.get(key) ?? [])
}

/** A run may end before its gates do: then there are marks of them. */
async function gatesWithMarks(
  store: Documents,
  run: Readonly<RunState>,
  facts: readonly SealedFact[],
): Promise<string[]> {
  const keys = new Set<Key<unknown>>()
  for (const { path } of facts) {
    const [, asset, gate] = /^gate\.[^.]+\.([^.]+)\.([^.]+)\.(?:created|child_requested)$/.exec(path) ?? []
    if (asset !== undefined && gate !== undefined) for (const key of needsOfGate(run, asset, gate)) keys.add(key)
  }
  await store.load([...keys].filter((key) => !store.has(key)))
  const marks = [...keys].flatMap((key) => marksOf(store.get(key as Key<GateRow | GateState>)))
  return [...keys, ...new Set(marks)]
}

function marksOf(doc: Readonly<GateRow | GateState> | undefined): string[] {
  if (!doc) return []
  const [gates, markOf] = 'gates' in doc ? [Object.values(doc.gates), stateKey.waiting] : [[doc], stateKey.waitingAlone]
  return gates.flatMap((gate) => {
    const { run, asset, gate: name, child, status, resume, deadlineMs } = gate
    return [
      ...(status === 'waiting' ? [child ? stateKey.child(gate) : markOf(deadlineMs, gate)] : []),
      ...(resume ? [stateKey.resuming(run, asset, name)] : []),
    ]
  })
}

function hasScatter(facts: readonly SealedFact[]): boolean {
  return facts.some(({ path }) => path.startsWith('scatter.'))
}
