/** Values of assets: the newest of a partition, and that of a run. */
import { type CatalogEntry, stateKey } from '../../projections/state.ts'
import { FlowStoneError } from '../../streams/errors.ts'
import { decodeToken, parseRunId } from '../../streams/ids.ts'
import { newestOnLogs, valuesOfRun } from '../engine/shard/catalog.ts'
import { untilFolded } from '../engine/shard/until-folded.ts'
import { loadValueAt } from '../io/stored-values.ts'
import { factIn } from '../log/doc-source.ts'
import type { AssetPlace } from '../runs/owner.ts'
import { mustBeRegistered } from '../runs/registered.ts'
import { checkField } from '../runs/run-request.ts'
import type { RunDeps } from './run-view.ts'

/** Which value of an asset is asked for. */
export interface ValueOptions {
  /** Default: the value of runs without a partition. */
  readonly partition?: string
  /** The value that this run made or took. Default: the newest one. */
  readonly run?: string
}

/** A value of an asset, and where it comes from. */
export interface AssetValue<V = unknown> {
  readonly value: V
  /** The run that made it, and when. */
  readonly run: string | undefined
  readonly at: Date | undefined
}

/** Undefined when there is none. Throws `not_found` as `mustBeRegistered` does. */
export async function assetValue<V>(
  deps: RunDeps,
  place: AssetPlace,
  { partition, run }: ValueOptions,
): Promise<AssetValue<V> | undefined> {
  const { pipeline, asset } = place
  checkField('value: partition', partition)
  if (run !== undefined) parseRunId(run)
  await deps.found()
  const { connection, names, io, docs } = deps
  const of = { pipeline, ...(partition === undefined ? {} : { partition }) }
  const found =
    run === undefined
      ? await newestValue(deps, of, asset)
      : (await isOfPipeline(deps, run, pipeline))
        ? (await valuesOfRun({ connection, names }, run, of, [asset], docs)).get(asset)
        : undefined
  if (!found) {
    await mustBeRegistered(deps, place)
    return undefined
  }
  const timeMs = 'timeMs' in found && typeof found.timeMs === 'number' ? found.timeMs : undefined
  return {
    // What the asset's function returned, by its declared type.
    value: (await loadValueAt(connection, names, io, found.value)) as V,
    run: found.run,
    at: timeMs === undefined ? undefined : new Date(timeMs),
  }
}

/** A plan does not say of which pipeline it is, and another one may have such an asset. */
async function isOfPipeline({ docs, shards }: RunDeps, run: string, pipeline: string): Promise<boolean> {
  const { id, shard } = parseRunId(run)
  // There is no log to look at.
  if (shard >= shards) return false
  const requested = await factIn(docs, id, 'run.requested')
  return !requested || requested.data.pipeline === pipeline
}

/** Where it is, and who made it. */
export async function newestValue(
  deps: RunDeps,
  of: { readonly pipeline: string; readonly partition?: string },
  asset: string,
): Promise<CatalogEntry | undefined> {
  if (deps.docs.past) return await newestThen(deps, stateKey.asset(of.pipeline, asset, of.partition))
  return (await newestOnLogs(deps, of, [asset])).get(asset)
}

async function newestThen({ docs, shards }: RunDeps, key: string): Promise<CatalogEntry | undefined> {
  let newest: CatalogEntry | undefined
  for (let shard = 0; shard < shards; shard++) {
    // The bucket's type of document follows from its key.
    const entry = (await docs.read(shard, key)) as CatalogEntry | undefined
    if (entry && (!newest || entry.timeMs >= newest.timeMs)) newest = entry
  }
  return newest
}

/**
 * The partitions that have a value of the asset, sorted. No partition is ''. Throws `not_found` as
 * `mustBeRegistered` does.
 */
export async function partitionsOf(deps: RunDeps, place: AssetPlace): Promise<string[]> {
  const { pipeline, asset } = place
  await deps.found()
  const { shards, docs } = deps
  const partitions = new Set<string>()
  for (let shard = 0; shard < shards; shard++) {
    await untilFoldedNow(deps, shard)
    const prefix = stateKey.asset(pipeline, asset, 'x').slice(0, -1)
    for (const key of await docs.keys(shard, prefix)) partitions.add(decodeToken(key.slice(prefix.length)))
  }
  if (partitions.size === 0) await mustBeRegistered(deps, place)
  return [...partitions].toSorted()
}

/** What is on the log now is in the state, if an engine folds it within `mostMs` (default 10 s). */
export async function untilFoldedNow(
  deps: Pick<RunDeps, 'connection' | 'names' | 'docs'>,
  shard: number,
  mostMs?: number,
): Promise<boolean> {
  return deps.docs.past !== undefined || (await untilFolded(deps, shard, mostMs)).isFolded
}

export function notMade(asset: string, { partition, run }: ValueOptions): FlowStoneError {
  const where = run === undefined ? (partition === undefined ? '' : ` in partition ${partition}`) : ` in run ${run}`
  return new FlowStoneError('not_found', `asset ${asset} has no value${where}`)
}
