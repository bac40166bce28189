/**
 * Calls the code of an asset that a task is about: `execute`, the scatter function, the gather, or
 * what continues after a gate.
 */
import { FlowStoneError } from '../../../streams/errors.ts'
import type { AssetName, RunId } from '../../../streams/ids.ts'
import type { StoredValue } from '../../../streams/schemas.ts'
import type { AttemptTask } from '../../../streams/tasks.ts'
import { snapshot } from '../../../streams/value.ts'
import type { AnyAsset, AssetContext, InstanceContext } from '../../define/asset-type.ts'
import { Suspension } from '../../define/gates.ts'
import { addressOfGate } from '../../gates/settings.ts'
import type { GateOpener } from '../gates/opener.ts'
import { resumeAfterGate } from '../gates/resume.ts'
import { type AnyResult, originOf, readMerged, remainingKeys } from '../gather/gather.ts'
import type { InFlightTask } from '../pull/in-flight-task.ts'
import { storeKeys } from '../scatter/scatter.ts'
import { isThenable, runCode } from './run-code.ts'
import { codeBegins, codeEnds, contextOf, type WorkerShared } from './shared.ts'

/** One execution of an asset's own code, and what belongs to it. */
export interface AttemptParts {
  readonly shared: WorkerShared
  readonly held: InFlightTask
  readonly task: AttemptTask
  readonly asset: AnyAsset
  readonly run: RunId
  readonly name: AssetName
  readonly opener: GateOpener
}

type OwnDeps = Readonly<Record<string, unknown>>

/**
 * The time limit is for all of it: what it loads, the code, and storing the value. Code that hangs
 * in an I/O manager hangs no worker.
 */
export async function runPhase(
  parts: AttemptParts,
): Promise<{ readonly value: unknown; readonly stored?: StoredValue | undefined }> {
  const { shared, held, task, asset, run, name, opener } = parts
  return await runCode(held.abort.signal, task.timeoutMs, async (source) => {
    const deps = await (await shared.values.deps(task.deps, asset, source)).get(source)
    const ctx = contextOf(
      shared,
      task,
      asset,
      source,
      `${task.run}.${asset.name}`,
      opener,
      shared.logs.of(task, task.kind),
    )
    const value = await call(parts, ctx, deps)
    // Code that comes back late stores nothing: another attempt may have.
    source.signal.throwIfAborted()
    if (value instanceof Suspension || task.kind === 'scatter') return { value }
    opener.checkValue()
    const { partition, pipeline } = task
    const stored = await shared.io.store(asset.definition.io, value, { run, pipeline, asset: name, partition })
    return { value, stored }
  })
}

async function call(parts: AttemptParts, ctx: InstanceContext<unknown>, deps: OwnDeps): Promise<unknown> {
  const { shared, held, task, asset } = parts
  const { kind } = task
  switch (kind) {
    case 'execute': {
      return await taken(
        parts,
        calling(shared, held, () => {
          const { definition } = asset
          if (!definition.hook) return definition.execute(ctx, deps)
          return definition.hook(ctx, deps, (gate, keyId) => addressOfGate(shared.gates, gate, keyId))
        }),
      )
    }
    case 'signal':
    case 'timeout':
      return await resume(parts, kind, ctx, deps)
    case 'scatter':
      return await scatter(parts, ctx, deps)
    case 'gather':
      return await gather(parts, ctx, deps)
    default:
      return kind satisfies never
  }
}

/**
 * What it is now, and not what the code makes of it afterwards. A manager of the user's own gets
 * the value itself.
 */
function taken({ asset, opener }: AttemptParts, result: unknown): unknown {
  const take = (value: unknown): unknown => {
    if (value instanceof Suspension || asset.definition.io !== 'nats') return value
    opener.checkValue()
    return snapshot(value)
  }
  return isThenable(result) ? Promise.resolve(result).then(take) : take(result)
}

function calling<T>(shared: WorkerShared, held: InFlightTask, code: () => T): T {
  codeBegins(shared, held.slot)
  try {
    return code()
  } finally {
    codeEnds(shared)
  }
}

async function resume(
  parts: AttemptParts,
  how: 'signal' | 'timeout',
  ctx: InstanceContext<unknown>,
  deps: OwnDeps,
): Promise<unknown> {
  const { shared, held, task, asset, run, name } = parts
  if (!task.from) throw new FlowStoneError('bad_task', `task ${task.id} names no gate`)
  const gate = { ...task.from, run, asset: name }
  return await taken(parts, resumeAfterGate(shared, held.shard, how, gate, asset, ctx, deps))
}

async function scatter(
  { shared, held, task, asset, run, name }: AttemptParts,
  ctx: AssetContext,
  deps: OwnDeps,
): Promise<number> {
  const { connection, names, io, values, id: worker } = shared
  const { shard } = held
  const { definition } = asset
  const target = {
    connection,
    names,
    log: shared.logOf(shard),
    shard,
    run,
    asset: name,
    attempt: task.attempt,
    worker,
    signal: ctx.signal,
    duplicates: definition.spec.scatter?.duplicates ?? 'allow',
    values,
  }
  const origin = await originOf({ connection, names, io, values, shard, run, asset: name })
  if (origin) return await storeKeys({ ...target, duplicates: 'allow' }, remainingKeys(origin))
  return await storeKeys(target, await definition.scatter?.(deps, ctx))
}

async function gather(parts: AttemptParts, ctx: AssetContext, deps: OwnDeps): Promise<unknown> {
  const { shared, held, asset, run, name } = parts
  const { connection, names, io, values } = shared
  const { signal } = ctx
  const results = await readMerged({ connection, names, io, values, shard: held.shard, run, asset: name, signal })
  const { definition } = asset
  if (definition.gather) return await taken(parts, definition.gather(results, ctx, deps))
  return await listOf(results)
}

/** The default gather: what succeeded. */
async function listOf(results: AsyncIterable<AnyResult>): Promise<{ key: unknown; value: unknown }[]> {
  const list: { key: unknown; value: unknown }[] = []
  for await (const { key, value, status } of results) if (status === 'ok') list.push({ key, value })
  return list
}
