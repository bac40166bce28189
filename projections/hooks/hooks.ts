/**
 * Hooks: code of a pipeline that hears of its runs.
 *
 *   fact             → what follows, if the pipeline has the hook               fact is caused by
 *   run.requested    → a timer: the run may become late                          client, engine
 *   run.late         → the run is late: a call of `late`                          server, at its time
 *   gate.created     → a call of `gate_opened`                                    worker
 *   run.finished     → a call of `run_failed`, and one of `run_finished`            engine
 *
 * A call is a run of its own, of an internal asset of the pipeline. Its `run.requested` says that
 * it is due, and holds all that the code is given. Its `run.finished` says that it is done, or
 * given up. So a call outlives the run that it is about, and is retried, shown, sealed and pruned
 * as any run is. Runs of internal assets have no hooks: none calls another one.
 */
import type { FactOf } from '../../streams/facts.ts'
import type { HookEventData, HookName } from '../../streams/hook-schemas.ts'
import { runIdOfHook } from '../../streams/ids.ts'
import type { PipelineSpec } from '../../streams/schemas.ts'
import { viewOfError } from '../../streams/thrown.ts'
import type { Effect } from '../effects.ts'
import { isEnded, runTimerOf } from '../run/end.ts'
import { givenOf } from '../schedule/schedule.ts'
import { editRun, type RunState, specOf, type View } from '../state.ts'

/** A call that nobody could make is given up after this: no worker has its code. */
const CALL_TIMEOUT_MS = 7 * 86_400_000
const OPEN_MAX = 10

/** What the names of assets that call hooks begin with. */
export const HOOK_ASSETS = 'hook__'

/** The asset that calls a hook. */
export function hookAsset(on: HookName): string {
  return `${HOOK_ASSETS}${on}`
}

function has(pipeline: PipelineSpec, run: RunState, on: HookName): boolean {
  return pipeline.hooks?.on.includes(on) === true && specOf(pipeline, run.target)?.internal !== true
}

/**
 * When the run is late. Not for one that its time limit ends before: a run has one timer at a time,
 * which its end takes away.
 */
export function expectLate(pipeline: PipelineSpec, run: RunState): void {
  const afterMs = pipeline.hooks?.lateAfterMs
  if (afterMs === undefined || !has(pipeline, run, 'late')) return
  if (run.timeoutMs === undefined || afterMs < run.timeoutMs) run.late = { afterMs, dueMs: run.requestedMs + afterMs }
}

export function onRunLate(
  view: View,
  before: RunState,
  pipeline: PipelineSpec | undefined,
  fact: FactOf<'run.late'>,
): Effect[] {
  const { late } = before
  if (!late || late.passed || before.finishedMs !== undefined || before.finishing) return []
  const run = editRun(view, before, fact)
  run.late = { ...late, passed: true }
  const next = runTimerOf(run)
  const timer: Effect[] = next ? [{ do: 'timer', ...next }] : []
  if (!pipeline || !has(pipeline, run, 'late')) return timer
  const { status } = run
  if (status !== 'queued' && status !== 'requested' && status !== 'running') return timer
  const open = Object.entries(run.assets).flatMap(([name, asset]) => (isEnded(asset) ? [] : [name]))
  const event = { ...aboutOf(run), late: { status, afterMs: late.afterMs, open: open.slice(0, OPEN_MAX) } }
  return [...timer, call(run, 'late', event)]
}

export function hooksOfEnd(run: RunState, pipeline: PipelineSpec | undefined, fact: FactOf<'run.finished'>): Effect[] {
  if (!pipeline?.hooks) return []
  const { status, asset, error } = fact.data
  const finished = {
    status,
    finishedMs: fact.timeMs,
    ...(asset === undefined ? {} : { asset }),
    ...(error === undefined ? {} : { error: viewOfError(error) }),
  }
  const due: HookName[] = status === 'failed' ? ['run_failed', 'run_finished'] : ['run_finished']
  return due.filter((on) => has(pipeline, run, on)).map((on) => call(run, on, { ...aboutOf(run), finished }))
}

export function hooksOfGate(run: RunState, pipeline: PipelineSpec, fact: FactOf<'gate.created'>): Effect[] {
  if (!has(pipeline, run, 'gate_opened')) return []
  const { kind, index, deadlineMs, metadata, keyId } = fact.data
  const id = `${run.id}.${fact.ids.asset}.${fact.ids.gate}`
  const gate = {
    id,
    asset: fact.ids.asset,
    ...(index === undefined ? {} : { index }),
    kind,
    openedMs: fact.timeMs,
    ...(deadlineMs === undefined ? {} : { deadlineMs }),
    ...(metadata === undefined ? {} : { metadata }),
    keyId,
  }
  return [call(run, 'gate_opened', { ...aboutOf(run), gate }, id)]
}

function aboutOf(run: RunState): HookEventData {
  const { id, pipeline, target, partition, key, tags, requestedMs, retryOf, parent, schedule, sensor } = run
  return {
    run: id,
    pipeline,
    target,
    ...(partition === undefined ? {} : { partition }),
    ...(key === undefined ? {} : { key }),
    ...(tags === undefined ? {} : { tags }),
    requestedMs,
    ...(retryOf === undefined ? {} : { retryOf }),
    ...(parent === undefined ? {} : { parent: { run: parent.run, asset: parent.asset } }),
    ...(schedule === undefined ? {} : { schedule: schedule.name }),
    ...(sensor === undefined ? {} : { sensor: sensor.name }),
    ...(run.subscription === undefined ? {} : { subscription: run.subscription }),
  }
}

function call({ id, pipeline, version, trace }: RunState, on: HookName, event: HookEventData, gate?: string): Effect {
  const target = hookAsset(on)
  const data = {
    pipeline,
    version,
    target,
    upstream: 'all',
    input: { [givenOf(target)]: { json: event } },
    hook: { on, run: id, ...(gate === undefined ? {} : { gate }) },
    timeoutMs: CALL_TIMEOUT_MS,
    ...(trace === undefined ? {} : { trace }),
  } as const
  return { do: 'fact', fact: { name: 'run.requested', ids: { run: runIdOfHook(on, id, gate) }, data } }
}
