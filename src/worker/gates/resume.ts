/**
 * What runs after a gate: `onSignal` with the payload that came, `onTimeout`, and its reminders.
 */

import { FlowStoneError } from '../../../streams/errors.ts'
import { factPath } from '../../../streams/facts.ts'
import type { ChildEnd } from '../../../streams/gate-schemas.ts'
import { type AssetName, assetName, hash64, parseRunId, type RunId } from '../../../streams/ids.ts'
import type { StoredValue } from '../../../streams/schemas.ts'
import type { ReminderTask, ResumeTask } from '../../../streams/tasks.ts'
import { reasonOf } from '../../../streams/thrown.ts'
import { snapshot } from '../../../streams/value.ts'
import type { AnyAsset, InstanceContext } from '../../define/asset-type.ts'
import { Suspension } from '../../define/gates.ts'
import type { Io } from '../../io/manager.ts'
import { isGone } from '../../io/nats.ts'
import { loadValueAt } from '../../io/stored-values.ts'
import { directGet } from '../../log/nats.ts'
import { factOf } from '../../log/read-fact.ts'
import { isAway } from '../../log/unreachable.ts'
import { emit } from '../../telemetry.ts'
import { failureOf, runCode, type SignalSource } from '../attempt/run-code.ts'
import { contextOf, InstanceContextOf, InstanceGates, InstancesOf, type WorkerShared } from '../attempt/shared.ts'
import { beginSpan } from '../attempt/traced.ts'
import { inlineMax, Report } from '../lease/report.ts'
import { HandBack } from '../pull/disposition.ts'
import type { InFlightTask } from '../pull/in-flight-task.ts'

interface Gate {
  readonly run: RunId
  readonly asset: AssetName
  readonly gate: string
  /** The fact that ended it. */
  readonly seq: number
  readonly timeouts: number
}

/** What runs after a gate, with all that it needs. */
type Continuation = (ctx: InstanceContext<unknown>) => unknown

/** Calls what the asset has for the end of a gate. */
export async function resumeAfterGate(
  shared: WorkerShared,
  shard: number,
  how: 'signal' | 'timeout',
  gate: Gate,
  asset: AnyAsset,
  ctx: InstanceContext<unknown>,
  deps: Readonly<Record<string, unknown>>,
): Promise<unknown> {
  return await (await continuationOf(shared, shard, how, gate, asset, deps, ctx.signal))(ctx)
}

/** Reads how the gate ended. Runs no code of the user. */
async function continuationOf(
  shared: WorkerShared,
  shard: number,
  how: 'signal' | 'timeout',
  { run, asset: name, gate, seq, timeouts }: Gate,
  { definition }: AnyAsset,
  deps: Readonly<Record<string, unknown>>,
  signal: AbortSignal,
): Promise<Continuation> {
  const { connection, names, io, clock } = shared
  const opened = names.fact(shard, factPath('gate.created', { run, asset: name, gate }))
  const [message, first] = await Promise.all([
    connection.read((nc) => directGet(nc, names.log(shard), { seq })),
    connection.read((nc) => directGet(nc, names.log(shard), { last_by_subj: opened })),
  ])
  const fact = message && factOf(names, shard, message)
  const created = first && factOf(names, shard, first)
  if (fact?.name !== 'gate.resolved')
    throw new FlowStoneError(
      'unreadable',
      `message ${seq} of ${names.log(shard)} does not end gate ${run}.${name}.${gate}`,
    )
  if (fact.data.child)
    return await afterRun(shared, shard, { run, asset: name, gate }, fact.data.child, definition, deps, signal)
  const metadata = created?.name === 'gate.created' ? created.data.metadata : undefined
  const id = `${run}.${name}.${gate}`
  const { payload: stored, source, headers = {} } = fact.data
  const payload = how === 'timeout' || stored === undefined ? null : await payloadOf(io, stored, id, signal)
  return (ctx) => {
    const delayMs = Math.max(0, clock.now() - fact.timeMs)
    emit('flowstone:gate.resume', { gate: id, run, asset: name, how, delayMs })
    if (how === 'timeout') {
      // The engine knows of one: this worker's code is of another version.
      if (!definition.onTimeout) throw new FlowStoneError('other_version', `asset ${name} has no onTimeout here`)
      return definition.onTimeout(Object.assign(ctx, { gate: { id, metadata }, timeouts, retriesLeft: 0 }), deps)
    }
    const answered = { id, metadata, source, headers, answeredAt: new Date(fact.timeMs) }
    // Not a copy: a context makes its signal when it is asked for.
    return definition.onSignal ? definition.onSignal(Object.assign(ctx, { gate: answered }), payload, deps) : payload
  }
}

async function payloadOf(io: Io, stored: StoredValue, gate: string, signal: AbortSignal): Promise<unknown> {
  try {
    return await io.load(stored, signal)
  } catch (cause) {
    if (!(cause instanceof FlowStoneError) || !isGone(cause)) throw cause
    const message = `the payload of the signal at gate ${gate} cannot be read: ${cause.message}`
    throw new FlowStoneError(cause.code, message, { cause })
  }
}

/** The run that it waited for has succeeded. */
async function afterRun(
  { connection, names, io }: WorkerShared,
  shard: number,
  { run, asset: name, gate }: Pick<Gate, 'run' | 'asset' | 'gate'>,
  { value: at }: ChildEnd,
  { onRun }: AnyAsset['definition'],
  deps: Readonly<Record<string, unknown>>,
  signal: AbortSignal,
): Promise<Continuation> {
  const value = at === undefined ? undefined : await loadValueAt(connection, names, io, at, signal)
  if (!onRun) return () => value
  const asked = names.fact(shard, factPath('child.requested', { run, asset: name, gate }))
  const message = await connection.read((nc) => directGet(nc, names.log(shard), { last_by_subj: asked }))
  const fact = message && factOf(names, shard, message)
  const child = fact?.name === 'child.requested' ? fact.data.child : ''
  return (ctx) => onRun(ctx, { run: child, value }, deps)
}

/** Continues an instance after its gate. Returns when its outcome is stored. */
export async function runResume(
  shared: WorkerShared,
  held: InFlightTask,
  task: ResumeTask,
  asset: AnyAsset,
): Promise<void> {
  const run = parseRunId(task.run).id
  const name = assetName(asset.name)
  const { signal } = held.abort
  const generation = task.gates ?? task.ordinal
  const at = {
    shard: held.shard,
    run: task.run,
    pipeline: task.pipeline,
    asset: asset.name,
    prefix: `${chained(task.from.gate)}r${generation}`,
    attempt: generation,
    index: task.index,
    keyChunk: task.keyChunk,
    payloadSchema: asset.definition.payloadSchema,
    trace: task.trace,
  }
  const gates = new InstanceGates(shared, () => at)
  const instances = new InstancesOf(shared, task, asset.name, gates, shared.logs.of(task, task.how))
  const report = resumeReport(shared, held, task)
  const begunMs = performance.now()
  const span = beginSpan(shared, task)
  try {
    // The time limit is for what is loaded, too.
    const code = async (inner: SignalSource): Promise<unknown> => {
      const [keyChunk, deps] = await Promise.all([
        shared.values.keyChunk(held.shard, run, name, task.keyChunk),
        shared.values.deps(task.deps, asset, inner),
      ])
      const key = keyChunk.key(task.index)
      const gate = { ...task.from, run, asset: name }
      const own = await deps.get(inner)
      const goOn = await continuationOf(shared, held.shard, task.how, gate, asset, own, inner.signal)
      inner.signal.throwIfAborted()
      return await goOn(new InstanceContextOf(instances, inner, key, task.index))
    }
    const value = await span.run(() => runCode(signal, task.timeoutMs, code))
    const ms = performance.now() - begunMs
    if (value instanceof Suspension) {
      const opener = gates.of(task.index)
      const gate = await span.run(() => opener.suspend(value, () => []))
      await opener.takeKept(signal)
      report.leaves(opener.left(gate))
      report.suspended(task.index, ms, gate)
    } else {
      gates.checkValue(task.index)
      const bytes = report.write(value)
      if (bytes <= inlineMax(shared.connection)) {
        report.leaves(gates.take(task.index)?.left() ?? [])
        report.value(task.index, ms, bytes)
      } else {
        report.undo()
        const { run, pipeline, partition } = task
        const context = { run, pipeline, asset: asset.name, partition }
        const ref = await shared.io.store('nats', snapshot(value), context)
        report.leaves(gates.take(task.index)?.left() ?? [])
        report.ref(task.index, ms, ref, bytes)
      }
    }
    span.end({ 'flowstone.outcome': value instanceof Suspension ? 'suspended' : 'value' })
  } catch (thrown) {
    span.end({ 'flowstone.outcome': 'error' }, signal.aborted ? signal.reason : thrown)
    // What was cancelled has ended, and there is nobody to tell.
    if (signal.aborted && !(signal.reason instanceof HandBack)) return
    // No attempt is charged, and the task is delivered again.
    if (!signal.aborted && isAway(thrown)) throw thrown
    const failure = failureOf(signal.aborted ? signal.reason : thrown)
    if (failure.outcome !== 'returned') report.leaves(gates.take(task.index)?.left() ?? [])
    report.failure(task.index, performance.now() - begunMs, failure)
  }
  const durationMs = performance.now() - begunMs
  held.stores()
  await report.end(durationMs)
}

/** Gates after gates have names that grow; a name has room for 128 characters. */
function chained(gate: string): string {
  return gate.length <= NAME_MAX ? gate : `${/^i\d+/.exec(gate)?.[0] ?? ''}h${hash64(gate)}`
}

/** The worker before died with it. */
export async function reportLostResume(shared: WorkerShared, held: InFlightTask, task: ResumeTask): Promise<void> {
  const report = resumeReport(shared, held, task)
  const message = `the worker died while it ran instance ${task.index}, after its gate`
  report.failure(task.index, 0, { outcome: 'lost', error: { code: 'worker_lost', message }, thrown: undefined })
  await report.end(undefined)
}

function resumeReport(shared: WorkerShared, held: InFlightTask, task: ResumeTask): Report {
  const at = { shard: held.shard, run: parseRunId(task.run).id, asset: assetName(task.asset) }
  return new Report(shared, at, { lease: `gate-${task.from.gate}`, ordinal: task.ordinal, resumes: task.from.gate })
}

const REMINDERS_MAX = 3
const NAME_MAX = 60

/**
 * Tells `onTimeout` of a timeout after which the gate waits on. It has no say: nothing waits for
 * it, and what it throws is logged.
 */
export async function runReminder(
  shared: WorkerShared,
  held: InFlightTask,
  task: ReminderTask,
  asset: AnyAsset,
): Promise<void> {
  const run = parseRunId(task.run).id
  const name = assetName(asset.name)
  if (!asset.definition.onTimeout || held.count > REMINDERS_MAX) return
  const { index, keyChunk: offset, from } = task
  const at = {
    shard: held.shard,
    run: task.run,
    pipeline: task.pipeline,
    asset: asset.name,
    prefix: 'reminder',
    attempt: 1,
    trace: task.trace,
  }
  const gates = new InstanceGates(shared, () => at)
  const span = beginSpan(shared, task)
  const logs = shared.logs.of(task, 'timeout')
  const instances = new InstancesOf(shared, task, asset.name, gates, logs)
  try {
    const deps = await (await shared.values.deps(task.deps, asset, held.abort)).get(held.abort)
    const code = async (source: SignalSource): Promise<void> => {
      const keyChunk =
        index === undefined ? undefined : await shared.values.keyChunk(held.shard, run, name, offset ?? 0)
      const ctx: InstanceContext<unknown> =
        keyChunk && index !== undefined
          ? new InstanceContextOf(instances, source, keyChunk.key(index), index)
          : {
              ...contextOf(shared, task, asset, source, `${run}.${name}`, gates.of(0), logs),
              scatterKey: undefined,
              index: 0,
            }
      const opened = shared.names.fact(held.shard, factPath('gate.created', { run, asset: name, gate: from.gate }))
      const message = await shared.connection.read((nc) =>
        directGet(nc, shared.names.log(held.shard), { last_by_subj: opened }),
      )
      const created = message && factOf(shared.names, held.shard, message)
      const metadata = created?.name === 'gate.created' ? created.data.metadata : undefined
      const details = {
        gate: { id: `${run}.${name}.${from.gate}`, metadata },
        timeouts: from.timeouts,
        retriesLeft: task.retriesLeft,
      }
      await asset.definition.onTimeout?.(Object.assign(ctx, details), deps)
    }
    await span.run(() => runCode(held.abort.signal, task.timeoutMs, code))
    span.end()
  } catch (error) {
    span.end({}, error)
    const { aborted: isAborted, reason } = held.abort.signal
    // It is delivered again: its worker stops, or what it needs is away.
    const isForLater = isAborted ? reason instanceof HandBack : isAway(error)
    if (isForLater && held.count < REMINDERS_MAX) throw error
    if (!isAborted)
      shared.logger.warn(`onTimeout of ${asset.name} failed while its gate waits on: ${reasonOf(error)}`, {
        gate: `${run}.${name}.${from.gate}`,
        timeouts: from.timeouts,
      })
  }
}
