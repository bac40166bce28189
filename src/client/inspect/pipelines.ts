/** Pipelines that are registered, as graphs. */
import { type NewestState, stateKey } from '../../../projections/state.ts'
import { decodeToken } from '../../../streams/ids.ts'
import type { AssetSpec, PipelineSpec } from '../../../streams/schemas.ts'
import type { RunDeps } from '../run-view.ts'
import { inTurns } from './in-turns.ts'

/** A pipeline: the version that was registered last. */
export interface PipelineGraph {
  readonly name: string
  readonly version: string
  /** What its runs do with upstream assets, where they say nothing. */
  readonly upstream: 'all' | 'stale' | 'missing' | 'none'
  /** Time limit of each of its runs that names none. */
  readonly timeoutMs: number | undefined
  /** How many of its runs of a key are active at a time. */
  readonly concurrencyLimit: number | undefined
  /** In the order of their declaration, dependencies first. */
  readonly assets: readonly AssetNode[]
  readonly schedules: readonly string[]
  readonly sensors: readonly string[]
  readonly subscriptions: readonly string[]
}

/** An asset in the graph of its pipeline. */
export interface AssetNode {
  readonly name: string
  /** `input`: its value is given to a run. `scatter`: its code runs once for each key. */
  readonly kind: 'asset' | 'scatter' | 'input'
  readonly dependsOn: readonly string[]
  readonly queue: string
  readonly priority: number
  readonly maxAttempts: number
  readonly timeoutMs: number | undefined
  /** Names of the rate limits and slots that it shares with others. */
  readonly limits: readonly string[]
  /** Hash of what a worker's code must be to run it. */
  readonly shape: string
}

const NAME_MAX = 128

/** By name. */
export async function pipelineGraphs(deps: RunDeps): Promise<PipelineGraph[]> {
  await deps.found()
  const { docs } = deps
  const names = (await docs.keys(0, 'newest.')).map((key) => decodeToken(key.slice('newest.'.length)))
  const specs = await inTurns(names, (name) => newestSpec(docs, name))
  return specs
    .flatMap((spec) => spec ?? [])
    .map(graphOf)
    .toSorted((a, b) => (a.name < b.name ? -1 : 1))
}

/** Undefined where no such pipeline is registered. */
export async function pipelineGraph(deps: RunDeps, name: string): Promise<PipelineGraph | undefined> {
  // No name, so no pipeline has it.
  if (typeof name !== 'string' || name.length > NAME_MAX) return undefined
  await deps.found()
  const spec = await newestSpec(deps.docs, name)
  return spec && graphOf(spec)
}

async function newestSpec(docs: RunDeps['docs'], name: string): Promise<PipelineSpec | undefined> {
  // The bucket's type of document follows from its key.
  const newest = (await docs.read(0, stateKey.newest(name))) as NewestState | undefined
  return newest && ((await docs.read(0, stateKey.pipeline(name, newest.version))) as PipelineSpec | undefined)
}

function graphOf(spec: PipelineSpec): PipelineGraph {
  const { name, version, upstream = 'all', timeoutMs, concurrency } = spec
  return {
    name,
    version,
    upstream,
    timeoutMs,
    concurrencyLimit: concurrency?.limit,
    assets: spec.assets.filter(({ internal }) => !internal).map(nodeOf),
    schedules: (spec.schedules ?? []).map((one) => one.name),
    sensors: (spec.sensors ?? []).map((one) => one.name),
    subscriptions: (spec.subscriptions ?? []).map((one) => one.name),
  }
}

function nodeOf({
  name,
  dependsOn,
  input,
  scatter,
  queue,
  priority,
  retry,
  timeoutMs,
  slots,
  shape,
}: AssetSpec): AssetNode {
  const buckets = [slots?.bucket, scatter?.slots?.bucket, scatter?.rateLimit?.bucket]
  return {
    name,
    kind: input ? 'input' : scatter ? 'scatter' : 'asset',
    dependsOn,
    queue: scatter?.queue ?? queue,
    priority: scatter?.priority ?? priority,
    maxAttempts: scatter?.retry?.maxAttempts ?? retry.maxAttempts,
    timeoutMs: scatter?.timeoutMs ?? timeoutMs,
    limits: [...new Set(buckets.flatMap((bucket) => bucket ?? []))],
    shape,
  }
}
