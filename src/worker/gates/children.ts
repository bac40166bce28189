/** What `ctx.run` asks for: checked here, before the run exists. */
import { groupOf } from '../../../projections/run/concurrency-key.ts'
import { type RunRequest, runIdFor } from '../../../projections/run/request.ts'
import { FlowStoneError, InvalidError } from '../../../streams/errors.ts'
import { parseRunId, type RunId } from '../../../streams/ids.ts'
import type { Waiter } from '../../../streams/run-schemas.ts'
import type { PipelineSpec } from '../../../streams/schemas.ts'
import type { Names } from '../../../streams/subjects.ts'
import { type AnyAsset, isAsset } from '../../define/asset-type.ts'
import type { ChildSpec } from '../../define/gates.ts'
import { inputsUpstream } from '../../define/input.ts'
import { type Pipeline, pipelinesOf } from '../../define/pipeline.ts'
import type { ChildOptions } from '../../define/run-options.ts'
import type { StandardSchema } from '../../define/standard-schema.ts'
import type { Io } from '../../io/manager.ts'
import type { Connection } from '../../log/connection.ts'
import { type OptionNames, refuseUnknown } from '../../options/unknown.ts'
import { ownerOf, targetOf } from '../../runs/owner.ts'
import { newestPipeline } from '../../runs/registered.ts'
import { factAt, newestUnderKey } from '../../runs/request.ts'
import { parseOnFailed, runRequestOf } from '../../runs/run-request.ts'

const AT = 'ctx.run'
const OPTIONS: OptionNames<ChildOptions> = {
  partition: true,
  input: true,
  tags: true,
  upstream: true,
  key: true,
  timeout: true,
  onFailed: true,
  concurrency: true,
  traceparent: true,
  tracestate: true,
  pipeline: true,
}

export interface ChildDeps {
  readonly connection: Connection
  readonly names: Names
  readonly shards: number
  readonly io: Io
  readonly register: (pipeline: Pipeline) => Promise<void>
}

export interface Child {
  readonly id: RunId
  readonly request: RunRequest
}

/** What can be checked at once. Throws InvalidError that names the option. */
export function checkChild({ target, options }: ChildSpec): void {
  if (!isAsset(target)) targetOf(AT, target)
  refuseUnknown(AT, options, OPTIONS)
  parseOnFailed(AT, options)
}

/** The run that an execution of `pipeline` waits for at its gate. */
export async function childOf(
  deps: ChildDeps,
  pipeline: string,
  waiter: Waiter,
  { target, options }: ChildSpec,
): Promise<Child> {
  const { spec, asset, schemas } = await found(deps, pipeline, waiter, { target, options })
  const at = { at: AT, pipeline: spec, target: asset, io: deps.io, ...(schemas ? { schemas } : {}) }
  const asked = await runRequestOf(at, options)
  const request = { ...(await withinGroup(deps, waiter.run, asked)), parent: waiter }
  const { key } = options
  if (key === undefined) {
    const text = `${waiter.run}.${waiter.asset}.${waiter.gate}`
    return { id: runIdFor(request, 'child', text, deps.shards), request }
  }
  const { id, retryOf } = await newestUnderKey(deps, key, request, parseOnFailed(AT, options))
  if (id === waiter.run)
    throw new InvalidError(`${AT}: key ${JSON.stringify(key)} is that of this run, which would wait for itself`)
  return { id, request: retryOf === undefined ? request : { ...request, retryOf } }
}

/**
 * A run that waits for another one keeps its place under its concurrency key. The other one, with
 * the same key, would wait for that place for ever, so it runs within it.
 */
async function withinGroup(deps: ChildDeps, parent: string, asked: RunRequest): Promise<RunRequest> {
  const { concurrency, ...rest } = asked
  if (!concurrency) return asked
  const group = groupOf(asked.pipeline, concurrency)
  for (let run: string | undefined = parent; run !== undefined; ) {
    const data: RunRequest | undefined = (await factAt(deps, parseRunId(run).id, 'run.requested'))?.data
    if (data?.concurrency && groupOf(data.pipeline, data.concurrency) === group) return rest
    run = data?.parent?.run
  }
  return asked
}

interface Target {
  readonly spec: PipelineSpec
  readonly asset: string
  readonly schemas?: ReadonlyMap<string, StandardSchema>
}

async function found(deps: ChildDeps, own: string, waiter: Waiter, { target, options }: ChildSpec): Promise<Target> {
  if (isAsset(target)) {
    const named = options.pipeline ?? (pipelinesOf(target).some(({ name }) => name === own) ? own : undefined)
    const owner = ownerOf(target, named, AT)
    await deps.register(owner)
    return { spec: owner.spec, asset: target.name, schemas: schemasOf(target) }
  }
  const { pipeline, asset } = targetOf(AT, target)
  const spec = await newestPipeline(deps, parseRunId(waiter.run).shard, pipeline)
  if (spec) return { spec, asset }
  throw new FlowStoneError('not_found', `${AT}: pipeline ${pipeline} is not registered; start a worker of it first`)
}

function schemasOf(target: AnyAsset): ReadonlyMap<string, StandardSchema> {
  return new Map(
    [...inputsUpstream(target)].flatMap(([name, { definition }]) =>
      definition.inputSchema ? [[name, definition.inputSchema] as const] : [],
    ),
  )
}
