/**
 * What there is of an earlier run, for the plan of one that takes it up. Read from the log of its
 * shard, which says all of a run that has ended.
 */
import type { Known } from '../../../projections/run/plan.ts'
import type { Earlier } from '../../../projections/run/retry.ts'
import { specOf } from '../../../projections/state.ts'
import type { FactOf } from '../../../streams/facts.ts'
import { hashOfValue } from '../../../streams/fingerprint.ts'
import { assetName, parseRunId, type RunId } from '../../../streams/ids.ts'
import type { PipelineSpec } from '../../../streams/schemas.ts'
import type { Names } from '../../../streams/subjects.ts'
import type { Connection } from '../../log/connection.ts'
import { runFact } from '../../log/run-fact.ts'
import { valuesOfRun } from './catalog.ts'

export interface LogSource {
  readonly connection: Connection
  readonly names: Names
}

/** `assets`: those that are of interest. Undefined when there is no such run. */
export async function earlierRun(
  source: LogSource,
  runId: string,
  assets: readonly string[],
): Promise<Earlier | undefined> {
  const { id } = parseRunId(runId)
  const [request, adopted] = await Promise.all([
    runFact(source, id, 'run.requested', { run: id }),
    runFact(source, id, 'run.adopted', { run: id, request: '*' }),
  ])
  if (!request) return undefined
  const { pipeline: name, version, input = {} } = request.data
  const [registered, values] = await Promise.all([
    runFact(source, id, 'pipeline.registered', { pipeline: name, version: adopted?.data.version ?? version }),
    valuesOfRun(source, id, { pipeline: name }, assets),
  ])
  const inputs = Object.fromEntries(Object.entries(input).map(([input, stored]) => [input, hashOfValue(stored)]))
  const pipeline = registered?.data
  return { values, inputs, pipeline, scatters: await scattersOf(source, request, pipeline, assets, values) }
}

async function scattersOf(
  source: LogSource,
  request: FactOf<'run.requested'>,
  pipeline: PipelineSpec | undefined,
  assets: readonly string[],
  values: ReadonlyMap<string, Known>,
): Promise<Earlier['scatters']> {
  const run = request.ids.run
  const without = assets.filter((name) => !values.has(name) && pipeline && specOf(pipeline, name)?.scatter)
  const found = await Promise.all(
    without.map(async (asset) => {
      const [origin, total] = await Promise.all([redriveOf(source, request, asset), totalOf(source, run, asset)])
      // It runs less than the whole scatter if it redrives one itself. One that never got to its
      // keys leaves that one to go on with.
      if (total !== undefined) return [asset, { run, total: origin?.total ?? total }] as const
      return origin && ([asset, origin] as const)
    }),
  )
  return new Map(found.flatMap((one) => (one ? [one] : [])))
}

/** The scatter that one of this run goes on with. */
export async function redriveOf(
  source: LogSource,
  { ids, data }: FactOf<'run.requested'>,
  asset: string,
): Promise<{ readonly run: string; readonly total: number } | undefined> {
  if (data.redrive?.asset === asset) return data.redrive
  if (!data.retry) return undefined
  const planned = await runFact(source, ids.run, 'run.planned', { run: ids.run })
  return planned?.data.assets.find(({ name }) => name === asset)?.redrive
}

/** How many instances a closed scatter has, if all of its keys are known. */
async function totalOf(source: LogSource, run: RunId, name: string): Promise<number | undefined> {
  const asset = assetName(name)
  const [closed, chunk] = await Promise.all([
    runFact(source, run, 'scatter.closed', { run, asset }),
    runFact(source, run, 'scatter.items', { run, asset, offset: '*' }),
  ])
  const total = closed?.data.total
  // A scatter function that ended after fewer keys than it had given before has no one list.
  const stored = chunk ? Number(chunk.ids.offset) + chunk.data.count : 0
  return total === stored ? total : undefined
}
