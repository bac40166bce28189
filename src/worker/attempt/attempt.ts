/**
 * One execution of an asset's own code: `execute` of a plain asset and what continues after its
 * gates, the scatter function, or the gather.
 */
import { CancelledError, FlowStoneError, InvalidError } from '../../../streams/errors.ts'
import type { FactDraft, FactIds } from '../../../streams/facts.ts'
import { hashOfValue } from '../../../streams/fingerprint.ts'
import { type AssetName, assetName, parseRunId, type RunId } from '../../../streams/ids.ts'
import type { StoredValue } from '../../../streams/schemas.ts'
import type { AttemptTask } from '../../../streams/tasks.ts'
import { snapshot } from '../../../streams/value.ts'
import type { AnyAsset, InstanceContext } from '../../define/asset.ts'
import { Suspension } from '../../define/gates.ts'
import type { AppendedOnce } from '../../log/appender.ts'
import { factEntry } from '../../log/entries.ts'
import { emit } from '../../telemetry.ts'
import { GateOpener } from '../gates/opener.ts'
import { resumeAfterGate } from '../gates/resume.ts'
import { type AnyResult, originOf, readMerged, remainingKeys } from '../gather/gather.ts'
import type { InFlightTask } from '../pull/in-flight-task.ts'
import { storeKeys } from '../scatter/scatter.ts'
import { type Failure, failureOf, isThenable, runCode } from './run-code.ts'
import { contextOf, type WorkerShared } from './shared.ts'

/**
 * An attempt that lasts longer than this is announced on the log, so that it can be seen who works
 * on it.
 */
const ANNOUNCE_MS = 25

/** Runs the task and puts its outcome on the log. Returns when that is stored. */
export async function runAttempt(
  shared: WorkerShared,
  held: InFlightTask,
  task: AttemptTask,
  asset: AnyAsset,
): Promise<void> {
  const run = parseRunId(task.run).id
  const name = assetName(asset.name)
  const { shard } = held
  const log = shared.logOf(shard)
  const append = (fact: FactDraft): Promise<AppendedOnce> => log.appendOnce(factEntry(shared.names, shard, fact))

  const event = {
    worker: shared.id,
    run: task.run,
    asset: asset.name,
    phase: task.kind,
    attempt: task.attempt,
    ...(task.partition === undefined ? {} : { partition: task.partition }),
  } as const
  const startedMs = performance.now()
  const ids = { pipeline: task.pipeline, asset: name, run, attempt: String(task.attempt) }
  const announce = setTimeout(() => {
    append({ name: 'asset.started', ids, data: { phase: task.kind, worker: shared.id, delivery: held.count } }).catch(
      () => undefined,
    )
  }, ANNOUNCE_MS)
  emit('flowstone:materialization.start', event)
  const generation = task.gates ?? task.attempt
  const { payloadSchema } = asset.definition
  const at = { shard, run: task.run, asset: asset.name, prefix: `a${generation}`, attempt: generation, payloadSchema }
  const opener = new GateOpener(shared, at)
  let outcome: { stored: StoredValue | undefined } | { suspended: string } | Failure
  try {
    const { value, stored } = await runPhase(shared, held, task, asset, run, name, opener)
    if (value instanceof Suspension) {
      if (task.kind === 'scatter' || task.kind === 'gather')
        throw new InvalidError(
          `${task.kind} of ${asset.name} returned a gate; only execute, onSignal and onTimeout can wait at one`,
        )
      // What is left is ended by the engine, if this counts: another worker may have taken this
      // execution over meanwhile, and wait at the same gates.
      const suspended = (gate: string): FactDraft => {
        const left = opener.left(gate)
        const data = { gate, worker: shared.id, ...(left.length === 0 ? {} : { left }) }
        return { name: 'asset.suspended', ids, data }
      }
      outcome = { suspended: await opener.suspend(value, (gate) => [factEntry(shared.names, shard, suspended(gate))]) }
    } else {
      outcome = { stored }
    }
  } catch (thrown) {
    outcome = failureOf(thrown)
  }
  clearTimeout(announce)
  const durationMs = performance.now() - startedMs
  if ('stored' in outcome && outcome.stored) {
    const { run: runText, pipeline, attempt, partition, key, msgId } = task
    const data = {
      run: runText,
      asset: name,
      pipeline,
      ...(partition === undefined ? {} : { partition }),
      ...(key === undefined ? {} : { key }),
      ...(msgId === undefined ? {} : { msgId }),
      attempt,
      worker: shared.id,
    }
    const fact: FactDraft = {
      name: 'asset.materialized',
      ids: { pipeline: task.pipeline, asset: name, run },
      data: {
        ...data,
        value: outcome.stored,
        hash: hashOfValue(outcome.stored),
        ...(task.fingerprint === undefined ? {} : { fingerprint: task.fingerprint }),
        ...(task.inputs === undefined ? {} : { inputs: task.inputs }),
        durationMs: Math.round(durationMs),
      },
    }
    try {
      // Ended already: by another attempt, or cancelled. What this one did does not count.
      if ((await append(fact)) === 'exists') return
    } catch (error) {
      // It can never be stored: too large for a message, or refused by the server. Anything else
      // is retried.
      if (!(error instanceof InvalidError)) throw error
      outcome = failureOf(error)
    }
  }
  if ('stored' in outcome || 'suspended' in outcome) {
    emit('flowstone:materialization.stop', { ...event, durationMs })
    return
  }
  emit('flowstone:materialization.exception', { ...event, durationMs, error: outcome.thrown, outcome: outcome.outcome })
  // Its asset has ended, which is why it was aborted: there is nobody to report to.
  if (held.abort.signal.aborted && outcome.thrown instanceof CancelledError) return
  await report(append, ids, task, shared.id, outcome, durationMs)
}

/**
 * A delivery after which nothing was heard: the worker before is lost, and its attempt with it. The
 * engine decides what follows.
 */
export async function reportLost(shared: WorkerShared, held: InFlightTask, task: AttemptTask): Promise<void> {
  const run = parseRunId(task.run).id
  const ids = { pipeline: task.pipeline, asset: assetName(task.asset), run, attempt: String(task.attempt) }
  const message = `the worker that ran attempt ${task.attempt} of ${task.asset} died or was cut off`
  const append = (fact: FactDraft): Promise<AppendedOnce> =>
    shared.logOf(held.shard).appendOnce(factEntry(shared.names, held.shard, fact))
  await report(
    append,
    ids,
    task,
    shared.id,
    { outcome: 'lost', error: { code: 'worker_lost', message }, thrown: undefined },
    0,
  )
}

async function report(
  append: (fact: FactDraft) => Promise<AppendedOnce>,
  ids: FactIds<'attempt.ended'>,
  task: AttemptTask,
  worker: string,
  failure: Failure,
  durationMs: number,
): Promise<void> {
  const data = {
    phase: task.kind,
    worker,
    outcome: failure.outcome,
    error: failure.error,
    ...(failure.retryAfterMs === undefined ? {} : { retryAfterMs: failure.retryAfterMs }),
    durationMs: Math.round(durationMs),
  }
  // It exists if it was reported before: by this worker, or by the one that took over.
  await append({ name: 'attempt.ended', ids, data })
}

/** The helper thread knows whose code holds up the event loop. */
function calling<T>({ helper }: WorkerShared, held: InFlightTask, code: () => T): T {
  helper?.calls(held.slot)
  try {
    return code()
  } finally {
    helper?.calls(-1)
  }
}

/**
 * The time limit is for all of it: what it loads, the code, and storing the value. Code that hangs
 * in an I/O manager hangs no worker.
 */
async function runPhase(
  shared: WorkerShared,
  held: InFlightTask,
  task: AttemptTask,
  asset: AnyAsset,
  run: RunId,
  name: AssetName,
  opener: GateOpener,
): Promise<{ value: unknown; stored?: StoredValue | undefined }> {
  const { definition } = asset
  const taken = (result: unknown): unknown => (isThenable(result) ? Promise.resolve(result).then(take) : take(result))
  /**
   * What it is now, and not what the code makes of it afterwards. A manager of the user's own gets
   * the value itself.
   */
  const take = (value: unknown): unknown => {
    if (value instanceof Suspension || definition.io !== 'nats') return value
    opener.checkValue()
    return snapshot(value)
  }
  const call = async (signal: () => AbortSignal): Promise<unknown> => {
    const deps = await (await shared.values.deps(task.deps, asset)).get()
    const ctx = contextOf(shared, task, asset, signal, `${task.run}.${asset.name}`, opener)
    switch (task.kind) {
      case 'execute': {
        // Plain code never looks at the two; its type does not know them.
        const plain: InstanceContext<unknown> = { ...ctx, scatterKey: undefined, index: 0 }
        return await taken(calling(shared, held, () => definition.execute(plain, deps)))
      }
      case 'signal':
      case 'timeout': {
        if (!task.from) throw new FlowStoneError('bad_task', `task ${task.id} names no gate`)
        const plain = { ...ctx, scatterKey: undefined, index: 0 }
        return await taken(
          resumeAfterGate(shared, held.shard, task.kind, { ...task.from, run, asset: name }, asset, plain, deps),
        )
      }
      case 'scatter': {
        const { connection, names, id: worker } = shared
        const target = {
          connection,
          names,
          log: shared.logOf(held.shard),
          shard: held.shard,
          run,
          asset: name,
          attempt: task.attempt,
          worker,
          signal: signal(),
          duplicates: definition.spec.scatter?.duplicates ?? 'allow',
          values: shared.values,
        }
        const origin = await originOf({
          connection,
          names,
          io: shared.io,
          values: shared.values,
          shard: held.shard,
          run,
          asset: name,
        })
        if (origin) return await storeKeys({ ...target, duplicates: 'allow' }, remainingKeys(origin))
        return await storeKeys(target, await definition.scatter?.(deps, ctx))
      }
      case 'gather': {
        const { connection, names, io, values } = shared
        const results = await readMerged({ connection, names, io, values, shard: held.shard, run, asset: name })
        if (definition.gather) return await taken(definition.gather(results, ctx, deps))
        return await listOf(results)
      }
      default:
        return task.kind satisfies never
    }
  }
  return await runCode(held.abort.signal, task.timeoutMs, async (signal) => {
    const value = await call(signal)
    if (value instanceof Suspension || task.kind === 'scatter') return { value }
    opener.checkValue()
    const { partition, pipeline } = task
    return { value, stored: await shared.io.store(definition.io, value, { run, pipeline, asset: name, partition }) }
  })
}

/** The default gather: what succeeded. */
async function listOf(results: AsyncIterable<AnyResult>): Promise<{ key: unknown; value: unknown }[]> {
  const list: { key: unknown; value: unknown }[] = []
  for await (const { key, value, status } of results) if (status === 'ok') list.push({ key, value })
  return list
}
