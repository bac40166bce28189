/** `run.hooks`: calls of hooks that are about a run. Their ids follow from what they are about. */
import { type RunState, stateKey } from '../../projections/state.ts'
import { HOOKS, type HookName } from '../../streams/hook-schemas.ts'
import { parseRunId, runIdOfHook } from '../../streams/ids.ts'
import type { PipelineSpec } from '../../streams/schemas.ts'
import { type ErrorView, viewOfError } from '../../streams/thrown.ts'
import { readRun, readRuns } from './run-doc.ts'
import type { RunDeps, RunView } from './run-view.ts'

/** A call of a hook: a run of its own. */
export interface HookCall {
  readonly on: HookName
  /** The id of the call: `flow.why`, `flow.retry` and others take it. */
  readonly call: string
  /** The gate that it is about, by its id. */
  readonly gate?: string
  /** `queued`: it waits for a worker, or for its next attempt. `flow.why` says for which. */
  readonly status: RunView['status']
  /** How often it was begun so far. */
  readonly attempts: number
  /** Of one that is queued: when its next attempt is due, after one that failed. */
  readonly nextAttempt?: Date
  /** Of its last attempt that failed. */
  readonly error?: ErrorView
  readonly requestedAt: Date
  readonly finishedAt: Date | undefined
}

export async function hookCalls(deps: RunDeps, run: string): Promise<HookCall[]> {
  const doc = await readRun(deps, run)
  if (!doc) return []
  const { shard } = parseRunId(run)
  // The bucket's type of document follows from its key.
  const pipeline = (await deps.docs.read(shard, stateKey.pipeline(doc.pipeline, doc.version))) as
    | PipelineSpec
    | undefined
  const on = HOOKS.filter((name) => pipeline?.hooks?.on.includes(name))
  const wanted = on.flatMap((name): { on: HookName; call: string; gate?: string }[] =>
    name === 'gate_opened'
      ? gatesOf(doc).map((gate) => ({ on: name, gate, call: runIdOfHook(name, doc.id, gate) }))
      : [{ on: name, call: runIdOfHook(name, doc.id) }],
  )
  const docs = await readRuns(
    deps,
    shard,
    wanted.map(({ call }) => call),
  )
  return wanted.flatMap((one) => {
    const of = docs.get(one.call)
    return of ? [{ ...one, ...viewOf(of) }] : []
  })
}

/** Gates at which its assets wait, or from which they went on last. */
function gatesOf({ id, assets }: RunState): string[] {
  return Object.entries(assets).flatMap(([name, { gate, resume }]) => {
    const last = gate ?? resume?.gate
    return last === undefined ? [] : [`${id}.${name}.${last}`]
  })
}

function viewOf(call: RunState): Omit<HookCall, 'on' | 'call' | 'gate'> {
  const { status, attempt = 0, dueMs, error } = call.assets[call.target] ?? {}
  const failure = error ?? call.error
  // Of a run that goes on. One that begins just now is announced a moment later.
  const isQueued = call.status === 'running' && status === 'queued'
  return {
    status: isQueued ? 'queued' : call.status,
    attempts: isQueued ? attempt - 1 : attempt,
    ...(isQueued && dueMs !== undefined ? { nextAttempt: new Date(dueMs) } : {}),
    ...(failure ? { error: viewOfError(failure) } : {}),
    requestedAt: new Date(call.requestedMs),
    finishedAt: call.finishedMs === undefined ? undefined : new Date(call.finishedMs),
  }
}
