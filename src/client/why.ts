/** `flow.why`: why a run, an asset of a run, or the newest value of an asset is as it is. */
import type { Why, WhyLink, WhyState } from '../../projections/why/types.ts'
import { assetsOf, whyAsset, whyRun } from '../../projections/why/why.ts'
import { nearest } from '../../streams/did-you-mean.ts'
import { FlowStoneError, InvalidError } from '../../streams/errors.ts'
import { assetName, parseRunId, type RunId } from '../../streams/ids.ts'
import { type AnyAsset, isAsset } from '../define/asset-type.ts'
import { missingRun } from '../log/pruned.ts'
import { refuseUnknown } from '../options/unknown.ts'
import { placeOf } from '../runs/owner.ts'
import { newestPipeline, pipelineNames } from '../runs/registered.ts'
import { checkField } from '../runs/run-request.ts'
import { Run } from './run.ts'
import { readBarrier, readRun } from './run-doc.ts'
import type { RunStatus } from './run-status.ts'
import type { RunDeps, RunView } from './run-view.ts'
import { runsIfAny } from './runs.ts'
import { newestValue, notMade } from './values.ts'
import { whyInputOf } from './why-facts.ts'

/**
 * What is to be explained. As text: the id of a run, `RUN.asset`, or an asset: `sales/report`,
 * `sales/report@2026-11-23`, and `report` where only one pipeline has it.
 */
export type WhyTarget =
  | string
  | { readonly run: string; readonly asset?: string }
  | { readonly asset: AnyAsset | string; readonly partition?: string }

const RUN_ID = /^(\d{1,4}-[A-Za-z0-9-]{1,80})(?:\.([A-Za-z0-9_-]+))?$/
const NAME = /^[A-Za-z0-9_-]+$/
/** Of runs in several partitions, so many are looked at for one without any. */
const RUNS_SEEN = 50

type Parsed =
  | { readonly run: RunId; readonly asset: string | undefined }
  | { readonly asset: AnyAsset | string; readonly partition: string | undefined }

function parse(target: WhyTarget): Parsed {
  if (typeof target === 'string') {
    const [, run, asset] = RUN_ID.exec(target) ?? []
    if (run !== undefined) return { run: parseRunId(run).id, asset }
    const at = target.indexOf('@')
    return at < 0
      ? { asset: target, partition: undefined }
      : { asset: target.slice(0, at), partition: target.slice(at + 1) }
  }
  if (typeof target !== 'object' || target === null)
    throw new InvalidError(
      `why: name a run or an asset, such as '0-mgx3k2c1-9f2e' or 'sales/report', got ${typeof target}`,
    )
  if ('run' in target) {
    refuseUnknown('why', target, ['run', 'asset'])
    return { run: parseRunId(target.run).id, asset: target.asset }
  }
  refuseUnknown('why', target, ['asset', 'partition'])
  if (typeof target.asset !== 'string' && !isAsset(target.asset))
    throw new InvalidError("why: asset must be an asset, or a text such as 'sales/report'")
  return { asset: target.asset, partition: target.partition }
}

/** Throws InvalidError for what is no name, `not_found`, and `pruned`. */
export async function why(deps: RunDeps, target: WhyTarget): Promise<Why> {
  const parsed = parse(target)
  if ('partition' in parsed) checkField('why: partition', parsed.partition)
  else if (parsed.asset !== undefined) assetName(parsed.asset)
  await deps.found()
  return 'run' in parsed ? await whyOfRun(deps, parsed.run, parsed.asset) : await whyOfValue(deps, parsed)
}

async function whyOfRun(deps: RunDeps, run: RunId, asset: string | undefined): Promise<Why> {
  const input = await whyInputOf(deps, run)
  if (!input) throw await missingRun(deps, run)
  const found = asset === undefined ? whyRun(input) : whyAsset(input, asset)
  if (found) return { ...found, state: await stateOf(deps, found) }
  const names = assetsOf(input)
  const hint = names.length === 0 ? ': it is not planned' : nearest(asset ?? '', names)
  throw new FlowStoneError('not_found', `run ${run} has no asset ${asset}${hint}`)
}

/** What workers, limits and queues say at this moment, where something is open. */
async function stateOf(deps: RunDeps, { of, chain }: Why): Promise<WhyState[]> {
  const status = await new Run(deps, of.run).status()
  if (!status || status.finishedAt) return []
  const ofRun = status.waitingFor.map((text) => ({ text: `The run waits for ${text}.`, about: { run: of.run } }))
  const named = new Set([of.asset, ...chain.map(({ about }) => about.asset)])
  const counts = await Promise.all(
    Object.entries(status.assets).flatMap(([asset, { status: now }]) =>
      (now === 'scattering' || now === 'running') && named.has(asset) ? [countsOf(deps, of.run, asset)] : [],
    ),
  )
  return [...ofRun, ...counts.flat(), ...assetStates(status, of.asset === undefined ? undefined : named)]
}

/** How far the scatter of an asset is. Empty for an asset that is plain. */
async function countsOf(deps: RunDeps, run: string, asset: string): Promise<WhyState[]> {
  const doc = await readRun(deps, run)
  const barrier = doc && (await readBarrier(deps, doc, asset))
  if (barrier?.status !== 'open') return []
  const { succeeded, failed, stored, total, retries } = barrier
  const again = Object.keys(retries).length
  const more = again > 0 ? `, ${again} are tried again` : ''
  const text = `${succeeded} of ${total ?? `${stored} or more`} instances of ${asset} have succeeded, ${failed} have failed${more}.`
  return [{ text, about: { run, asset } }]
}

/** What waits for another asset of the run is left out: the chain says so. */
function assetStates({ id, assets }: RunStatus, named: ReadonlySet<string | undefined> | undefined): WhyState[] {
  return Object.entries(assets).flatMap(([name, { status, waitingFor }]) =>
    status === 'waiting' || named?.has(name) === false
      ? []
      : waitingFor.map((text) => ({ text: `${name} waits for ${text}.`, about: { run: id, asset: name } })),
  )
}

interface Place {
  readonly pipeline: string
  readonly asset: string
}

/**
 * The run that made the newest value; or a newer one that was asked for the asset, and has not
 * replaced it.
 */
async function whyOfValue(
  deps: RunDeps,
  { asset, partition }: { readonly asset: AnyAsset | string; readonly partition: string | undefined },
): Promise<Why> {
  const place = await placeIn(deps, asset)
  const of = { pipeline: place.pipeline, ...(partition === undefined ? {} : { partition }) }
  const [newest, run] = await Promise.all([newestValue(deps, of, place.asset), newestRun(deps, place, partition)])
  const name = `${place.pipeline}/${place.asset}${partition === undefined ? '' : `@${partition}`}`
  if (!newest) {
    if (!run) throw (await missingAsset(deps, place)) ?? notMade(name, {})
    const found = await whyOfRun(deps, parseRunId(run.id).id, undefined)
    return { ...found, verdict: { ...found.verdict, text: `${name} has no value. ${found.verdict.text}` } }
  }
  const made: WhyLink = {
    text: `Run ${newest.run} made the newest value of ${name}.`,
    fact: {
      shard: newest.value.shard,
      seq: newest.value.seq,
      kind: 'asset.materialized',
      at: new Date(newest.timeMs),
      ids: { pipeline: place.pipeline, asset: place.asset, run: newest.run },
    },
    about: { run: newest.run, asset: place.asset },
  }
  if (run && run.id !== newest.run && run.status !== 'succeeded' && run.requestedAt.getTime() > newest.timeMs) {
    const found = await whyOfRun(deps, parseRunId(run.id).id, undefined)
    const text = `${name} still has the value of run ${newest.run}. ${found.verdict.text}`
    const runs = [...new Set([newest.run, ...found.runs])]
    return { ...found, verdict: { ...found.verdict, text }, chain: [made, ...found.chain], runs }
  }
  const input = await whyInputOf(deps, parseRunId(newest.run).id)
  const found = input && whyAsset(input, place.asset)
  if (found) return { ...found, verdict: made }
  // Its run is not kept any more: the value is all there is.
  const about = { run: newest.run, asset: place.asset, ...of, target: place.asset }
  return { of: about, status: 'materialized', verdict: made, chain: [made], state: [], runs: [] }
}

/** Undefined if the pipeline has the asset. */
async function missingAsset(deps: RunDeps, { pipeline, asset }: Place): Promise<FlowStoneError | undefined> {
  const spec = await newestPipeline(deps, 0, pipeline)
  if (!spec)
    return new FlowStoneError(
      'not_found',
      `there is no pipeline ${pipeline}${nearest(pipeline, await pipelineNames(deps.docs))}`,
    )
  const names = spec.assets.map(({ name }) => name)
  if (names.includes(asset)) return undefined
  return new FlowStoneError('not_found', `pipeline ${pipeline} has no asset ${asset}${nearest(asset, names)}`)
}

async function newestRun(
  deps: RunDeps,
  { pipeline, asset }: Place,
  partition: string | undefined,
): Promise<RunView | undefined> {
  const target = `${pipeline}/${asset}`
  const runs = await runsIfAny(
    deps,
    partition === undefined ? { target, limit: RUNS_SEEN } : { target, partition, limit: 1 },
  )
  return runs.find((run) => run.partition === partition)
}

/** A name alone is enough where one pipeline has the asset. */
async function placeIn(deps: RunDeps, asset: AnyAsset | string): Promise<Place> {
  if (typeof asset !== 'string' || !NAME.test(asset)) return placeOf('why', asset)
  const pipelines = await pipelineNames(deps.docs)
  const specs = await Promise.all(pipelines.map((pipeline) => newestPipeline(deps, 0, pipeline)))
  const having = specs.flatMap((spec) => (spec?.assets.some(({ name }) => name === asset) ? [spec.name] : []))
  const [only, more] = having
  if (only !== undefined && more === undefined) return { pipeline: only, asset }
  if (only !== undefined)
    throw new InvalidError(
      `why: several pipelines have an asset ${asset}: ${having.join(', ')}; name one: ${only}/${asset}`,
    )
  const names = specs.flatMap((spec) => spec?.assets.map(({ name }) => name) ?? [])
  throw new FlowStoneError('not_found', `no pipeline has an asset ${asset}${nearest(asset, names)}`)
}
