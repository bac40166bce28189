/**
 * Finds what is materialized, over all shards, for a plan. The state bucket of another shard lags
 * its log: by milliseconds while its engine runs, by any time while that is stopped. So for other
 * shards this reads the bucket, and then the rest of the log behind its position, from the leader.
 * Any client that knows that a run has ended can rely on this: the next plan sees its values.
 */
import { type Known, upstreamOf } from '../../../projections/run/plan.ts'
import { entryOf } from '../../../projections/run/run.ts'
import { type CatalogEntry, type RunState, stateKey } from '../../../projections/state.ts'
import { type Fact, factPath } from '../../../streams/facts.ts'
import { assetName, parseRunId } from '../../../streams/ids.ts'
import { placeOf } from '../../../streams/places.ts'
import type { PipelineSpec } from '../../../streams/schemas.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { Connection } from '../../log/connection.ts'
import { type DocSource, liveSource } from '../../log/doc-source.ts'
import { readDocIfAny } from '../../log/documents.ts'
import { directNext, leaderGet, type StoredMessage, streamBounds } from '../../log/nats.ts'
import { factIfAny } from '../../log/read-fact.ts'
import { foldedTo } from './checkpoint.ts'
import type { Store } from './store.ts'

export interface CatalogSource {
  readonly connection: Connection
  readonly names: Names
  /** The shard whose documents are in `store`. */
  readonly shard: number
  readonly shards: number
  readonly store: Store
}

type Found = CatalogEntry

/** Messages that a read of many may skip the leader for: it is asked for what follows them. */
const MANY = 200

/**
 * The newest value of each upstream asset in the run's data partition. Newest: in one shard by
 * sequence; between shards by the server's timestamp, then by shard. (Servers of a cluster need
 * clocks that agree.)
 */
export async function newestValues(
  source: CatalogSource,
  run: RunState,
  pipeline: PipelineSpec,
): Promise<ReadonlyMap<string, Known>> {
  const assets = upstreamOf(pipeline, run.target).filter((asset) => asset !== run.target)
  const shards = await Promise.all(
    Array.from({ length: source.shards }, (_, q) =>
      q === source.shard ? ownValues(source, run, assets) : valuesOf(source, q, run, assets),
    ),
  )
  return newestOf(shards)
}

/** The same for a client, which has no shard of its own: of these assets. */
export async function newestOnLogs(
  { connection, names, shards }: Pick<CatalogSource, 'connection' | 'names' | 'shards'>,
  of: Sought,
  assets: readonly string[],
): Promise<ReadonlyMap<string, Found>> {
  const found = Array.from({ length: shards }, (_, q) => valuesOf({ connection, names }, q, of, assets))
  return newestOf(await Promise.all(found))
}

function newestOf(shards: readonly ReadonlyMap<string, Found>[]): ReadonlyMap<string, Found> {
  const newest = new Map<string, Found>()
  for (const found of shards)
    for (const [asset, one] of found) {
      const other = newest.get(asset)
      // Shards come in order, so of two of the same millisecond the later shard's counts.
      if (!other || one.timeMs >= other.timeMs) newest.set(asset, one)
    }
  return newest
}

/** Of this engine's own shard: all up to the request is folded. */
async function ownValues(
  { store }: CatalogSource,
  run: RunState,
  assets: readonly string[],
): Promise<Map<string, Found>> {
  const found = new Map<string, Found>()
  const read = async (asset: string): Promise<void> => {
    const key = stateKey.asset(run.pipeline, asset, run.partition)
    const entry = store.has(key) ? store.get(key) : await store.read(key)
    if (entry) found.set(asset, entry)
  }
  await Promise.all(assets.map(read))
  return found
}

async function valuesOf(
  { connection, names }: Pick<CatalogSource, 'connection' | 'names'>,
  q: number,
  run: Sought,
  assets: readonly string[],
): Promise<Map<string, Found>> {
  // A bucket that is deleted or made anew meanwhile has less than its position said: it is read
  // again.
  for (;;) {
    const { found, folded } = await lookInto({ connection, names, q, run, assets })
    if ((await foldedTo(connection, names, q)) >= folded) return found
  }
}

async function lookInto({
  connection,
  names,
  q,
  run,
  assets,
}: Pick<Tail, 'connection' | 'names' | 'q' | 'run'> & { readonly assets: readonly string[] }): Promise<{
  found: Map<string, Found>
  folded: number
}> {
  const found = new Map<string, Found>()
  // The position before the documents: they are of that position, or of a later one.
  const [{ last }, folded] = await Promise.all([
    connection.read((nc) => streamBounds(nc, names.log(q))),
    foldedTo(connection, names, q),
  ])
  const read = async (asset: string): Promise<void> => {
    const [entry, later] = await Promise.all([
      readEntry(connection, names, q, stateKey.asset(run.pipeline, asset, run.partition)),
      last > folded ? newestBehind({ connection, names, q, run, asset, from: folded + 1, last }) : undefined,
    ])
    const newest = later && (!entry || later.value.seq > entry.value.seq) ? later : entry
    if (newest) found.set(asset, newest)
  }
  await Promise.all(assets.map(read))
  return { found, folded }
}

/** Whose values: of one pipeline, in one data partition. */
type Sought = Pick<RunState, 'pipeline' | 'partition'>

interface Tail {
  readonly connection: Connection
  readonly names: Names
  readonly q: number
  readonly run: Sought
  readonly asset: string
  readonly from: number
  readonly last: number
}

/** The newest value among the log's messages [from, last]. */
async function newestBehind({ connection, names, q, run, asset, from, last }: Tail): Promise<Found | undefined> {
  const stream = names.log(q)
  const { pipeline, partition } = run
  const path = factPath('asset.materialized', { pipeline, asset, run: '*' })
  const filter = names.fact(q, path)
  let newest: Found | undefined
  let next = from
  const take = (message: StoredMessage): void => {
    next = message.seq + 1
    const fact = factIfAny(names, q, message)
    if (fact?.name === 'asset.materialized' && fact.data.partition === partition) newest = entryOf(fact)
  }
  while (next <= last) {
    const from = next
    const message = await connection.read((nc) => leaderGet(nc, stream, { seq: from, next_by_subj: filter }))
    if (!message) break
    take(message)
    // An engine was away for long: many at a time, of any replica, before the leader is asked
    // again.
    if (last - next < MANY) continue
    const after = next
    for (const one of await connection.read((nc) => directNext(nc, stream, after, filter, MANY))) take(one)
  }
  return newest
}

/**
 * The values that an earlier run has, made or reused. They are read from the log, where each has
 * its own subject.
 */
export async function valuesOfRun(
  source: Pick<CatalogSource, 'connection' | 'names'>,
  runId: string,
  { pipeline }: Pick<RunState, 'pipeline'>,
  assets: readonly string[],
  docs: Pick<DocSource, 'lastOfRun'> = liveSource(source),
): Promise<ReadonlyMap<string, Known>> {
  const { id: run } = parseRunId(runId)
  const last = (path: string): Promise<Fact | undefined> => docs.lastOfRun(run, path)
  const plan = await last(factPath('run.planned', { run }))
  const found = new Map<string, Known>()
  const candidates = new Map<string, Known>()
  if (plan?.name === 'run.planned')
    for (const { name, reuse, from, candidate } of plan.data.assets) {
      if (reuse) found.set(name, { ...from, value: reuse })
      else if (candidate) candidates.set(name, candidate)
    }
  // In a run that has ended, what was a candidate and has no end was taken.
  const ended = candidates.size > 0 && (await last(factPath('run.finished', { run }))) !== undefined
  const read = async (name: string): Promise<void> => {
    const fact = await last(placeOf({ name: 'asset.materialized', ids: { pipeline, asset: assetName(name), run } }))
    if (fact?.name === 'asset.materialized') found.set(name, entryOf(fact))
    const candidate = candidates.get(name)
    if (!fact && ended && candidate) found.set(name, candidate)
  }
  await Promise.all(assets.filter((name) => !found.has(name)).map(read))
  return found
}

async function readEntry(
  connection: Connection,
  names: Names,
  q: number,
  key: string,
): Promise<CatalogEntry | undefined> {
  // The bucket's type of document follows from its key.
  return (await readDocIfAny(connection, names, names.stateBucket(q), key)) as CatalogEntry | undefined
}
