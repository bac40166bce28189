/** Routes of pipelines, assets and values. */
import { z } from 'zod'
import { nearest } from '../../../../streams/did-you-mean.ts'
import { jsonOf } from '../../../../streams/plain-json.ts'
import { HttpProblem } from '../../shared/problem.ts'
import { noneYet, seesRun } from '../covered.ts'
import { type Call, type Route, route } from '../route.ts'
import * as s from '../schemas.ts'

const PREVIEW_BYTES = 65_536
const PREVIEW_MAX = 1_048_576
const RUNS_SHOWN = 10

export const pipelines = s.named('Pipelines', z.object({ pipelines: z.array(s.pipeline) }))
export const assets = s.named('Assets', z.object({ assets: z.array(s.asset) }))
export const assetPage = s.named(
  'AssetPage',
  z.object({
    asset: s.asset,
    dependents: z.array(s.text).describe('Assets of the pipeline that need it.'),
    runs: z.array(s.run).describe('The last runs that were asked for it.'),
  }),
)
export const partitions = s.named('Partitions', z.object({ partitions: z.array(s.text), total: s.count, next: s.next }))

export const ASSETS: readonly Route[] = [
  route({
    method: 'GET',
    path: '/pipelines',
    tag: 'assets',
    scope: 'read',
    summary: 'Pipelines as graphs, the versions registered last',
    answer: pipelines,
    handle: async ({ flow, caller }) => ({
      pipelines: (await flow.inspect.pipelines()).filter(({ name, assets: all }) =>
        all.some((asset) => caller.covers(name, asset.name)),
      ),
    }),
  }),
  route({
    method: 'GET',
    path: '/pipelines/:pipeline',
    tag: 'assets',
    scope: 'read',
    summary: 'One pipeline as a graph',
    answer: s.pipeline,
    handle: async ({ flow, caller, params }) => {
      const found = await flow.inspect.pipeline(params.pipeline)
      if (!found?.assets.some(({ name }) => caller.covers(found.name, name)))
        throw new HttpProblem('unknown_id', `There is no pipeline ${params.pipeline}.`)
      return found
    },
  }),
  route({
    method: 'GET',
    path: '/assets',
    tag: 'assets',
    scope: 'read',
    summary: 'Assets: their state, newest value, and what runs do to them',
    query: {
      pipeline: s.name.optional(),
      q: s.name.optional().describe('Only those whose name holds this text.'),
      state: z.enum(['running', 'waiting', 'gate', 'failed', 'made', 'none']).optional(),
    },
    answer: assets,
    handle: async ({ flow, caller, query }) => ({
      assets: (await flow.inspect.assets(query.pipeline)).filter(
        ({ pipeline, name, state }) =>
          caller.covers(pipeline, name) &&
          (query.state === undefined || state === query.state) &&
          `${pipeline}/${name}`.includes(query.q ?? ''),
      ),
    }),
  }),
  route({
    method: 'GET',
    path: '/assets/:pipeline/:asset',
    tag: 'assets',
    scope: 'read',
    summary: 'One asset, what needs it, and its last runs',
    answer: assetPage,
    handle: async (call) => {
      const { flow, caller, params } = call
      const all = await flow.inspect.assets(params.pipeline)
      const asset = mayBe(
        call,
        all.find(({ name }) => name === params.asset),
      )
      const runs = await flow.runs({ target: `${params.pipeline}/${params.asset}`, limit: RUNS_SHOWN })
      const dependents = all.flatMap(({ name, dependsOn }) => (dependsOn.includes(asset.name) ? [name] : []))
      return { asset, dependents, runs: runs.filter((run) => seesRun(caller, run)) }
    },
  }),
  route({
    method: 'GET',
    path: '/assets/:pipeline/:asset/partitions',
    tag: 'assets',
    scope: 'read',
    summary: 'Data partitions that have a value, sorted; an empty text stands for none',
    query: s.page(1000, 100),
    answer: partitions,
    handle: async (call) => {
      const { flow, params, query } = call
      mayBe(call, params)
      const all = await flow.partitions(`${params.pipeline}/${params.asset}`).catch(noneYet)
      if (all.length === 0) await mustBe(call)
      const { cursor } = query
      const behind = cursor === undefined ? all : all.filter((one) => one > cursor)
      const shown = behind.slice(0, query.limit)
      return { partitions: shown, total: all.length, next: behind.length > shown.length ? shown.at(-1) : undefined }
    },
  }),
  route({
    method: 'GET',
    path: '/assets/:pipeline/:asset/value',
    tag: 'assets',
    scope: 'read',
    summary: 'The newest value, or the one of a run; a long one as a preview',
    query: {
      partition: z.string().max(512).optional(),
      run: s.name.optional().describe('The value that this run made or took.'),
      maxBytes: z.coerce.number().int().min(1).max(PREVIEW_MAX).default(PREVIEW_BYTES),
    },
    answer: s.value,
    handle: async (call) => {
      const { flow, params, query } = call
      mayBe(call, params)
      const { partition, run, maxBytes } = query
      const asset = `${params.pipeline}/${params.asset}`
      const options = { ...(partition === undefined ? {} : { partition }), ...(run === undefined ? {} : { run }) }
      const found = await flow.value(asset, options).catch((error: unknown) => noneYet(error)[0])
      if (!found) {
        await mustBe(call)
        throw new HttpProblem('unknown_id', `Asset ${asset} has no such value.`)
      }
      const text = jsonOf(found.value)
      const bytes = Buffer.byteLength(text)
      const shown = bytes <= maxBytes ? { value: found.value } : { preview: text.slice(0, maxBytes).toWellFormed() }
      return { asset, run: found.run, at: found.at, bytes, ...shown }
    },
  }),
]

/** Where nothing was found of an asset: whether there is no such asset. */
async function mustBe({ flow, caller, params }: Call<{ readonly pipeline: string; readonly asset: string }>) {
  const names = (await flow.inspect.pipeline(params.pipeline))?.assets.map(({ name }) => name) ?? []
  if (names.includes(params.asset)) return
  const seen = names.filter((name) => caller.covers(params.pipeline, name))
  const hint = nearest(params.asset, seen)
  throw new HttpProblem('unknown_asset', `There is no asset ${params.pipeline}/${params.asset}${hint || '.'}`)
}

/** By the scope alone, whether there is such an asset or not. */
function mayBe<T>(
  { caller, params }: Pick<Call, 'caller'> & { params: { pipeline: string; asset: string } },
  found: T | undefined,
): T {
  if (found !== undefined && caller.covers(params.pipeline, params.asset)) return found
  throw new HttpProblem('unknown_asset')
}
