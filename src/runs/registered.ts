/** Which pipelines are registered. */
import { type NewestState, stateKey } from '../../projections/state.ts'
import { nearest } from '../../streams/did-you-mean.ts'
import { FlowStoneError } from '../../streams/errors.ts'
import { type FactOf, factPath } from '../../streams/facts.ts'
import { decodeToken, isInternalAsset } from '../../streams/ids.ts'
import type { PipelineSpec } from '../../streams/schemas.ts'
import type { Names } from '../../streams/subjects.ts'
import type { Connection } from '../log/connection.ts'
import type { DocSource } from '../log/doc-source.ts'
import { leaderGet } from '../log/nats.ts'
import { factOf } from '../log/read-fact.ts'
import type { AssetPlace } from './owner.ts'

interface Deps {
  readonly connection: Connection
  readonly names: Names
}

/** Filter for all versions of a pipeline on a log. */
export function registeredUnder(names: Names, shard: number, pipeline: string): string {
  return names.fact(shard, factPath('pipeline.registered', { pipeline, version: '*' }))
}

/** The current version: registered last, or registered again. */
export async function lastRegistered(
  { connection, names }: Deps,
  shard: number,
  pipeline: string,
): Promise<FactOf<'pipeline.registered'> | undefined> {
  const last_by_subj = registeredUnder(names, shard, pipeline)
  const message = await connection.read((nc) => leaderGet(nc, names.log(shard), { last_by_subj }))
  const fact = message && factOf(names, shard, message)
  return fact?.name === 'pipeline.registered' ? fact : undefined
}

/** As the log has it: the state bucket may not know yet of a worker that has just started. */
export async function newestPipeline(deps: Deps, shard: number, pipeline: string): Promise<PipelineSpec | undefined> {
  const fact = await lastRegistered(deps, shard, pipeline)
  if (!fact) return undefined
  const { by: _, ...spec } = fact.data
  return spec
}

/** The same of one that must be there: `at` says for what. */
export async function registeredPipeline(
  at: string,
  deps: Deps & { readonly docs: DocSource },
  pipeline: string,
): Promise<PipelineSpec> {
  const spec = await newestPipeline(deps, 0, pipeline)
  if (spec) return spec
  // Who may only ask for runs may not list them.
  const hint = nearest(pipeline, await pipelineNames(deps.docs).catch(() => []))
  throw new FlowStoneError(
    'not_found',
    `${at}: pipeline ${pipeline} is not registered; start a worker of it first${hint}`,
  )
}

/**
 * Called where nothing is found of an asset. Throws `not_found` where it was named by a text, and
 * the pipeline that is registered has none of that name. A pipeline that is not registered may come
 * with its first worker.
 */
export async function mustBeRegistered(
  deps: Deps & { readonly docs: DocSource },
  { pipeline, asset, isNamed }: AssetPlace,
): Promise<void> {
  // What schedules, sensors and hooks are made of.
  if (!isNamed || isInternalAsset(asset)) return
  const spec = deps.docs.past ? await pipelineThen(deps.docs, pipeline) : await newestPipeline(deps, 0, pipeline)
  const names = spec?.assets.flatMap(({ name, internal }) => (internal ? [] : [name]))
  if (!names || names.includes(asset)) return
  throw new FlowStoneError('not_found', `pipeline ${pipeline} has no asset ${asset}${nearest(asset, names)}`)
}

async function pipelineThen(docs: DocSource, name: string): Promise<PipelineSpec | undefined> {
  // The bucket's type of document follows from its key.
  const newest = (await docs.read(0, stateKey.newest(name))) as NewestState | undefined
  return newest && ((await docs.read(0, stateKey.pipeline(name, newest.version))) as PipelineSpec | undefined)
}

/** Of all pipelines, as the state knows them. */
export async function pipelineNames(docs: DocSource): Promise<string[]> {
  const prefix = stateKey.newest('x').slice(0, -1)
  return (await docs.keys(0, prefix)).map((key) => decodeToken(key.slice(prefix.length)))
}
