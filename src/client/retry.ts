/** `flow.retry`: a new run that takes what an earlier one made or took, and makes the rest. */
import { upstreamOf } from '../../projections/run/plan.ts'
import { differences, type RunRequest, runIdFor } from '../../projections/run/request.ts'
import { specOf } from '../../projections/state.ts'
import { nearest } from '../../streams/did-you-mean.ts'
import { ConflictError, FlowStoneError, InvalidError } from '../../streams/errors.ts'
import type { FactOf } from '../../streams/facts.ts'
import { parseRunId, type RunId } from '../../streams/ids.ts'
import type { PipelineSpec } from '../../streams/schemas.ts'
import { type AnyAsset, isAsset } from '../define/asset-type.ts'
import { missingRun } from '../log/pruned.ts'
import type { Duration } from '../options/duration.ts'
import { newestPipeline } from '../runs/registered.ts'
import { append, earlierTrace, factAt, inTrace, newestAttempt, type Requested } from '../runs/request.ts'
import { checkByJson, inputsNeeded, runRequestOf } from '../runs/run-request.ts'
import type { RunDeps } from './run-view.ts'

/** What a run can be tried again with. */
export interface RunRetryOptions {
  /**
   * `'failed'` (default): take all that the earlier run made or took, and make the rest. An asset,
   * or its name: make it again, and all downstream of it. (An asset that is named `failed` must be
   * given as declared.)
   */
  readonly from?: 'failed' | (string & {}) | AnyAsset
  /**
   * Values for inputs, by name, in place of those that the earlier run was given. What goes back
   * to an input that is another now is made again.
   */
  readonly input?: Readonly<Record<string, unknown>>
  /** Longest time for the whole new run. Default: what the earlier run was asked for with. */
  readonly timeout?: Duration
}

interface Ended {
  readonly request: FactOf<'run.requested'>
  readonly status: FactOf<'run.finished'>['data']['status']
}

/** Throws `not_found`, `not_retryable`, InvalidError, and ConflictError. */
export async function retryRun(deps: RunDeps, runId: string, options: RunRetryOptions): Promise<Requested> {
  const { id, shard } = parseRunId(runId)
  await deps.found()
  const from = fromOf(options.from)
  const ended = shard < deps.shards ? await endedRun(deps, id) : undefined
  if (!ended) throw await missingRun(deps, id)
  if (ended.status === 'succeeded' && from === undefined)
    throw notRetryable(id, 'has succeeded; to make some of it again, name the asset from which: { from }')
  const data = await requestAgain(deps, ended.request, from, options)
  for (;;) {
    const first = runIdFor(data, 'retry', id, deps.shards)
    if (await append(deps, first, data)) return { id: first, isNew: true }
    const newest = await newestAttempt(deps, data, 'retry', id)
    const other = await factAt(deps, newest.id, 'run.requested')
    const end = await factAt(deps, newest.id, 'run.finished')
    const differs = other ? differences(other.data, data) : []
    if (!end && differs.length > 0)
      throw new ConflictError(
        `run ${id} is tried again by run ${newest.id}, which was asked for otherwise: ${differs.join('; ')}. Wait for that run, or cancel it`,
      )
    if (!end || (end.data.status === 'succeeded' && from === undefined && differs.length === 0))
      return { id: newest.id, isNew: false }
    // That one has failed as well: what it brought is taken, too.
    if (end.data.status !== 'succeeded' && from === undefined) return await retryRun(deps, newest.id, options)
    const next = runIdFor(data, 'retry', id, deps.shards, newest.attempt + 1)
    if (await append(deps, next, data)) return { id: next, isNew: true }
  }
}

function notRetryable(id: string, why: string): FlowStoneError {
  return new FlowStoneError('not_retryable', `run ${id} ${why}`)
}

function fromOf(from: RunRetryOptions['from']): string | undefined {
  if (from === undefined || from === 'failed') return undefined
  if (typeof from === 'string') return from
  if (isAsset(from)) return from.name
  throw new InvalidError(`retry: from must be 'failed', an asset, or the name of one, got ${typeof from}`)
}

async function endedRun(deps: RunDeps, id: RunId): Promise<Ended | undefined> {
  const [request, end] = await Promise.all([factAt(deps, id, 'run.requested'), factAt(deps, id, 'run.finished')])
  if (!request) return undefined
  if (!end) throw notRetryable(id, 'is still open; wait for it, or cancel it first')
  return { request, status: end.data.status }
}

/** The request of the new run, by the newest version of its pipeline that is registered. */
async function requestAgain(
  deps: RunDeps,
  { ids, data: earlier, shard }: FactOf<'run.requested'>,
  from: string | undefined,
  { input, timeout }: RunRetryOptions,
): Promise<RunRequest> {
  const { target, partition, tags, upstream, key, trigger, event, hook, timeoutMs, concurrency } = earlier
  const pipeline = await newestPipeline(deps, shard, earlier.pipeline)
  if (!pipeline) throw notRetryable(ids.run, `is of pipeline ${earlier.pipeline}, which is not registered`)
  if (!specOf(pipeline, target))
    throw notRetryable(ids.run, `made ${target}, and version ${pipeline.version} of its pipeline has no such asset`)
  checkFrom(pipeline, target, from)
  const { concurrency: _pipelines, ...data } = await runRequestOf(
    { at: 'retry', pipeline, target, io: deps.io, kept: earlier.input ?? {} },
    {
      upstream,
      ...(partition === undefined ? {} : { partition }),
      ...(tags === undefined ? {} : { tags }),
      ...(input === undefined ? {} : { input }),
      ...(timeout === undefined ? {} : { timeout }),
    },
  )
  // Code may have been corrected, and a schema with it.
  if (pipeline.version !== earlier.version) await checkKept(deps, earlier, pipeline, data, ids.run)
  return {
    ...inTrace(data),
    ...earlierTrace(earlier),
    ...(timeoutMs === undefined || timeout !== undefined ? {} : { timeoutMs }),
    ...(key === undefined ? {} : { key }),
    ...(trigger === undefined ? {} : { trigger }),
    ...(event === undefined ? {} : { event }),
    ...(hook === undefined ? {} : { hook }),
    // It stays in its group, so that its id follows from the earlier run alone.
    ...(concurrency === undefined ? {} : { concurrency }),
    retryOf: ids.run,
    retry: { run: ids.run, ...(from === undefined ? {} : { from }) },
  }
}

function checkFrom(pipeline: PipelineSpec, target: string, from: string | undefined): void {
  if (from === undefined) return
  const names = upstreamOf(pipeline, target)
  if (!names.includes(from))
    throw new InvalidError(`retry: from: ${target} does not depend on an asset ${from}${nearest(from, names)}`)
  if (specOf(pipeline, from)?.input)
    throw new InvalidError(`retry: from: ${from} is an input; give it another value: { input: { ${from}: … } }`)
}

/** What is given again must fit the schemas of the version that it is given to. */
async function checkKept(
  { io }: RunDeps,
  earlier: RunRequest,
  pipeline: PipelineSpec,
  { target, input = {} }: RunRequest,
  run: RunId,
): Promise<void> {
  for (const { name, input: spec } of inputsNeeded(pipeline, target)) {
    const stored = earlier.input?.[name]
    if (!stored || input[name] !== stored) continue
    checkByJson(`retry: input.${name} of run ${run}`, spec?.schema ?? {}, await io.load(stored))
  }
}
