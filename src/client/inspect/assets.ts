/** How assets are: their newest values, and what runs are doing to them. */
import { type CatalogEntry, stateKey } from '../../../projections/state.ts'
import { decodeToken } from '../../../streams/ids.ts'
import type { ErrorView } from '../../../streams/thrown.ts'
import { decodeDoc } from '../../log/documents.ts'
import { leaderGet } from '../../log/nats.ts'
import type { RunDeps, RunView } from '../run-view.ts'
import { listRuns } from '../runs.ts'
import { inTurns } from './in-turns.ts'
import { type AssetNode, type PipelineGraph, pipelineGraphs } from './pipelines.ts'

/** An asset, its newest value, and what runs are doing to it. */
export interface AssetState extends AssetNode {
  readonly pipeline: string
  /**
   * `running`: an open run makes it. `waiting`: an open run will. `gate`: it waits for a signal or
   * a run. `failed`: the last run that tried did not make it. `made`: there is a value. `none`.
   */
  readonly state: 'running' | 'waiting' | 'gate' | 'failed' | 'made' | 'none'
  /** Where its newest value is from, of all partitions. */
  readonly newest: ValuePlace | undefined
  /** How many data partitions have a value. */
  readonly partitions: number
  /** Dependencies with a newer value than this one; empty where there are partitions. */
  readonly behind: readonly string[]
  /** Open runs that have not done with it, at most five, the newest first. */
  readonly openRuns: readonly string[]
  /** Of `failed`. */
  readonly error: ErrorView | undefined
  readonly failedRun: string | undefined
}

/** Where a value is from. */
export interface ValuePlace {
  readonly run: string
  readonly partition: string
  readonly at: Date
}

const OPEN_MAX = 1000
const FAILED_MAX = 200
const OPEN_SHOWN = 5
const PAST_PARTITIONS = 200

/** Of all pipelines, or of one: by pipeline, then in the order of their declaration. */
export async function assetStates(deps: RunDeps, pipeline?: string): Promise<AssetState[]> {
  const graphs = (await pipelineGraphs(deps)).filter(({ name }) => pipeline === undefined || name === pipeline)
  const [open, failed, values] = await Promise.all([
    listRuns(deps, { open: true, limit: OPEN_MAX }),
    listRuns(deps, { status: 'failed', limit: FAILED_MAX }),
    inTurns(graphs, async (graph) => [graph.name, await valuesOf(deps, graph)] as const),
  ])
  const made = new Map(values)
  return graphs.flatMap((graph) => {
    const runs = open.filter((run) => run.pipeline === graph.name)
    const ends = failed.filter((run) => run.pipeline === graph.name)
    return graph.assets.map((node) => stateOf(graph, node, made.get(graph.name) ?? new Map(), runs, ends))
  })
}

interface Values {
  readonly newest: ValuePlace | undefined
  readonly partitions: number
}

/** The newest entry of each asset in any partition is the last message of all of them. */
async function valuesOf(deps: RunDeps, { name: pipeline, assets }: PipelineGraph): Promise<Map<string, Values>> {
  const { connection, names, shards, docs } = deps
  const perShard = Array.from({ length: shards }, (_, shard) => docs.keys(shard, `asset.${pipeline}.`))
  const partitions = new Map<string, Set<string>>()
  for (const key of (await Promise.all(perShard)).flat()) {
    const [, , asset = '', partition = ''] = key.split('.')
    partitions.set(asset, (partitions.get(asset) ?? new Set()).add(partition))
  }
  const newestIn = async (shard: number, asset: string): Promise<ValuePlace[]> => {
    if (docs.past) return await newestThen(deps, shard, pipeline, asset, [...(partitions.get(asset) ?? [])])
    const bucket = names.stateBucket(shard)
    const prefix = stateKey.asset(pipeline, asset, 'x').slice(0, -1)
    const query = { last_by_subj: names.kvSubject(bucket, `${prefix}*`) }
    const message = await connection.read((nc) => leaderGet(nc, names.kvStream(bucket), query))
    // The bucket's type of document follows from its key.
    const entry = message && (decodeDoc(prefix, message) as CatalogEntry | undefined)
    if (!entry) return []
    const partition = decodeToken(message.subject.slice(message.subject.lastIndexOf('.') + 1))
    return [{ run: entry.run, partition, at: new Date(entry.timeMs) }]
  }
  const found = await inTurns(assets, async ({ name }): Promise<[string, Values]> => {
    const count = partitions.get(name)?.size ?? 0
    if (count === 0) return [name, { newest: undefined, partitions: 0 }]
    const all = await Promise.all(Array.from({ length: shards }, (_, shard) => newestIn(shard, name)))
    const [newest] = all.flat().toSorted((a, b) => b.at.getTime() - a.at.getTime())
    return [name, { newest, partitions: count }]
  })
  return new Map(found)
}

/** In the past there is no last message: of many partitions some are looked at. */
async function newestThen(
  { docs }: RunDeps,
  shard: number,
  pipeline: string,
  asset: string,
  partitions: readonly string[],
): Promise<ValuePlace[]> {
  const found = await inTurns(partitions.slice(-PAST_PARTITIONS).map(decodeToken), async (partition) => {
    // The bucket's type of document follows from its key.
    const entry = (await docs.read(shard, stateKey.asset(pipeline, asset, partition))) as CatalogEntry | undefined
    return entry ? [{ run: entry.run, partition, at: new Date(entry.timeMs) }] : []
  })
  return found.flat()
}

function stateOf(
  { name: pipeline }: PipelineGraph,
  node: AssetNode,
  values: ReadonlyMap<string, Values>,
  open: readonly RunView[],
  failed: readonly RunView[],
): AssetState {
  const { newest, partitions } = values.get(node.name) ?? { newest: undefined, partitions: 0 }
  const openStates = open.flatMap((run) => {
    const status = run.assets[node.name]?.status
    return status && OPEN_STATES[status] ? [{ run: run.id, state: OPEN_STATES[status] }] : []
  })
  const last = failed.find((run) => run.assets[node.name]?.status === 'failed')
  const failedAt = last?.finishedAt?.getTime() ?? 0
  const isFailed = last !== undefined && failedAt > (newest?.at.getTime() ?? 0)
  const states = new Set(openStates.map(({ state }) => state))
  const now = (['running', 'gate', 'waiting'] as const).find((state) => states.has(state))
  return {
    pipeline,
    ...node,
    state: now ?? (isFailed ? 'failed' : newest ? 'made' : 'none'),
    newest,
    partitions,
    behind: newest && partitions === 1 ? node.dependsOn.filter((dep) => isNewer(values.get(dep), newest)) : [],
    openRuns: openStates.slice(0, OPEN_SHOWN).map(({ run }) => run),
    error: isFailed ? last.assets[node.name]?.error : undefined,
    failedRun: isFailed ? last.id : undefined,
  }
}

const OPEN_STATES: Readonly<Partial<Record<RunView['assets'][string]['status'], 'running' | 'gate' | 'waiting'>>> = {
  waiting: 'waiting',
  queued: 'waiting',
  running: 'running',
  scattering: 'running',
  suspended: 'gate',
}

function isNewer(values: Values | undefined, than: ValuePlace): boolean {
  return values?.partitions === 1 && values.newest !== undefined && values.newest.at > than.at
}
