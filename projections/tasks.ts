/**
 * Tasks, as they follow from documents. All are made here: when something is due, and by the
 * reconciler when WORK has lost one.
 */
import { fingerprintOf } from '../streams/fingerprint.ts'
import type { AssetSpec, PipelineSpec } from '../streams/schemas.ts'
import type { AttemptTask, ChainStep, LeaseTask, ReminderTask, ResumeTask, Task } from '../streams/tasks.ts'
import { type Behind, instanceRetry, runsAlone } from './attempts.ts'
import type { Effect } from './effects.ts'
import { hasEnded, resumeOf } from './gate/gate.ts'
import { parseLeaseId } from './scatter/lease-id.ts'
import type { BarrierState } from './scatter/state.ts'
import { type AssetInRun, type GateState, type RunState, specOf } from './state.ts'

/** An asset of a run. */
interface InRun {
  readonly run: RunState
  readonly spec: AssetSpec
}

/** Where tasks of an asset's instances go. */
export function instanceQueue(spec: AssetSpec): { queue: string; priority: number } {
  return { queue: spec.scatter?.queue ?? spec.queue, priority: spec.scatter?.priority ?? spec.priority }
}

/** What a requester knows a run by. */
export function requesterOf({ partition, key, msgId }: RunState): { partition?: string; key?: string; msgId?: string } {
  return {
    ...(partition === undefined ? {} : { partition }),
    ...(key === undefined ? {} : { key }),
    ...(msgId === undefined ? {} : { msgId }),
  }
}

/** Hash of what an asset is made of in this run. Undefined when a dependency has no hash. */
export function fingerprintIn(run: RunState, spec: AssetSpec): string | undefined {
  return fingerprintOf(spec, Object.fromEntries(spec.dependsOn.map((name) => [name, run.assets[name]?.hash])))
}

/** The task of an asset's current attempt, with what is chained to it. */
export function attemptEffect(run: RunState, pipeline: PipelineSpec, spec: AssetSpec, asset: AssetInRun): Effect {
  const fingerprint = fingerprintIn(run, spec)
  const chain = chainSteps(run, pipeline, spec.name, asset)
  const task: AttemptTask = {
    kind: asset.phase,
    ...common({ run, spec }, String(asset.attempt)),
    ...requesterOf(run),
    // Instances have a limit of their own. This one is for each of the asset's other functions.
    ...timeLimit(spec.timeoutMs),
    attempt: asset.attempt,
    attemptsLeft: Math.max(0, spec.retry.maxAttempts - asset.failures - 1),
    ...retried(asset, runsAlone(asset, spec.retry)),
    ...(fingerprint === undefined ? {} : { fingerprint }),
    ...(asset.inputs === undefined ? {} : { inputs: asset.inputs }),
    ...(asset.resume && (asset.phase === 'signal' || asset.phase === 'timeout') ? { from: asset.resume } : {}),
    ...(chain.length === 0 ? {} : { chain }),
  }
  return enqueue(task, spec, asset.dueMs)
}

function chainSteps(run: RunState, pipeline: PipelineSpec, head: string, { chain = [] }: AssetInRun): ChainStep[] {
  return chain.flatMap((name) => {
    const [spec, asset] = [specOf(pipeline, name), run.assets[name]]
    if (!spec || asset?.chained !== head) return []
    return [
      {
        asset: name,
        shape: spec.shape,
        dependsOn: spec.dependsOn,
        deps: depsOf(run, spec),
        hashes: hashesOf(run, spec),
        ...timeLimit(spec.timeoutMs),
        attempt: asset.status === 'waiting' ? asset.attempt + 1 : asset.attempt,
        attemptsLeft: Math.max(0, spec.retry.maxAttempts - asset.failures - 1),
        ...(asset.inputs === undefined ? {} : { inputs: asset.inputs }),
      },
    ]
  })
}

function hashesOf(run: RunState, spec: AssetSpec): Record<string, string> {
  return Object.fromEntries(
    spec.dependsOn.flatMap((name) => {
      const hash = run.assets[name]?.hash
      return hash === undefined ? [] : [[name, hash]]
    }),
  )
}

/** The task of a lease that is out. */
export function leaseEffect(at: InRun, barrier: BarrierState, id: string): Effect {
  const lease = barrier.leases[id]
  const range = parseLeaseId(id)
  if (!lease || !range) throw new Error(`no lease ${id}`)
  const task: LeaseTask = {
    kind: 'lease',
    ...common(at, id),
    ...ofInstances(at.spec, lease, range.ordinal),
    from: range.from,
    to: lease.to ?? range.to,
    keyChunk: lease.keyChunk,
    lease: id,
    ...(at.spec.scatter?.maxConcurrent === undefined ? {} : { serial: true }),
  }
  return enqueueInstances(task, at.spec, lease.dueMs)
}

/** The task of an instance that continues after its gate. */
export function resumeEffect(at: InRun, gate: GateState): Effect {
  const { resume, index, keyChunk } = gate
  if (!resume || index === undefined || !hasEnded(gate)) throw new Error(`nothing continues after gate ${gate.gate}`)
  const task: ResumeTask = {
    kind: 'resume',
    ...common(at, `${gate.gate}.${resume.attempt}`),
    ...ofInstances(at.spec, resume, resume.attempt),
    how: gate.status === 'timed_out' ? 'timeout' : 'signal',
    from: resumeOf(gate),
    index,
    keyChunk: keyChunk ?? 0,
  }
  return enqueueInstances(task, at.spec, resume.dueMs)
}

/**
 * The task of a gate that has timed out and still waits: `onTimeout` is called. Its message is only
 * a reminder, so nothing waits for it.
 */
export function reminderEffect(at: InRun, gate: GateState): Effect {
  const { index, keyChunk } = gate
  const { spec } = at
  const task: ReminderTask = {
    kind: 'reminder',
    ...common(at, `${gate.gate}.reminder${gate.timeouts}`),
    from: { gate: gate.gate, seq: 0, timeouts: gate.timeouts },
    // With the one that begins now: 0 is said only when the gate has ended.
    retriesLeft: gate.retriesMs.length - gate.timeouts + 1,
    attempt: 1,
    ...(index === undefined ? {} : { index }),
    ...(keyChunk === undefined ? {} : { keyChunk }),
    ...timeLimit(index === undefined ? spec.timeoutMs : spec.scatter?.timeoutMs),
  }
  return enqueue(task, index === undefined ? spec : instanceQueue(spec))
}

/** What every task says. `what`: of what of the asset it is, as its id ends. */
function common({ run, spec }: InRun, what: string) {
  return {
    id: `${run.id}.${spec.name}.${what}`,
    run: run.id,
    asset: spec.name,
    pipeline: run.pipeline,
    version: run.version,
    shape: spec.shape,
    ...(run.partition === undefined ? {} : { partition: run.partition }),
    ...(run.trace === undefined ? {} : { trace: run.trace }),
    deps: depsOf(run, spec),
  }
}

/** What every task says that runs the code of instances and reports an outcome of it. */
function ofInstances(spec: AssetSpec, behind: Behind & { readonly gates?: number }, ordinal: number) {
  const retry = instanceRetry(spec)
  return {
    ...timeLimit(spec.scatter?.timeoutMs),
    ordinal,
    attempt: behind.failures + 1,
    maxAttempts: retry.maxAttempts,
    ...retried(behind, runsAlone(behind, retry)),
  }
}

function retried({ gates }: { readonly gates?: number }, alone: boolean): { alone?: true; gates?: number } {
  return { ...(alone ? { alone } : {}), ...(gates === undefined ? {} : { gates }) }
}

function timeLimit(timeoutMs: number | undefined): { timeoutMs?: number } {
  return timeoutMs === undefined ? {} : { timeoutMs }
}

function depsOf(run: RunState, spec: AssetSpec): Task['deps'] {
  const deps: Task['deps'] = {}
  for (const name of spec.dependsOn) {
    const value = run.assets[name]?.value
    if (value) deps[name] = value
  }
  return deps
}

function enqueueInstances(task: LeaseTask | ResumeTask, spec: AssetSpec, dueMs: number | undefined): Effect {
  const effect = enqueue(task, instanceQueue(spec), dueMs)
  return spec.scatter?.maxConcurrent === undefined ? effect : { ...effect, limitedQueue: true }
}

function enqueue(
  task: Task,
  { queue, priority }: { readonly queue: string; readonly priority: number },
  dueMs?: number,
): Extract<Effect, { do: 'task' }> {
  return { do: 'task', task, queue, priority, ...(dueMs === undefined ? {} : { dueMs }) }
}
