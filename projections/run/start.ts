/** A run is requested, waits for its turn, and is planned. The states are listed in run.ts. */
import type { Fact, FactOf } from '../../streams/facts.ts'
import { hashOfValue } from '../../streams/fingerprint.ts'
import type { PipelineSpec } from '../../streams/schemas.ts'
import type { Effect } from '../effects.ts'
import { countOpenRun } from '../events/open-runs.ts'
import { expectLate } from '../hooks/hooks.ts'
import { type RunState, stateKey, type View } from '../state.ts'
import { enterGroup, leaveGroup } from './concurrency.ts'
import { finish, runTimerOf } from './end.ts'
import { addToLists, listsOf } from './lists.ts'
import { type Plan, type PlannedAsset, planIsPure, planRun } from './plan.ts'
import { assetInRun, startReady } from './start-assets.ts'

export function onRunRequested(view: View, fact: FactOf<'run.requested'>): Effect[] {
  const { data } = fact
  const id = fact.ids.run
  if (view.get(stateKey.run(id))) return []
  const run: RunState = {
    seq: fact.seq,
    id,
    pipeline: data.pipeline,
    version: data.version,
    target: data.target,
    upstream: data.upstream,
    ...(data.partition === undefined ? {} : { partition: data.partition }),
    ...(data.key === undefined ? {} : { key: data.key }),
    ...msgIdIn(data),
    ...(data.event === undefined ? {} : { subscription: data.event.subscription }),
    ...(data.redrive === undefined ? {} : { redrive: data.redrive }),
    ...retriedIn(data),
    ...(data.tags === undefined ? {} : { tags: data.tags }),
    ...(data.schedule === undefined ? {} : { schedule: data.schedule }),
    ...(data.sensor === undefined ? {} : { sensor: data.sensor }),
    ...(data.hook === undefined ? {} : { hook: data.hook }),
    ...(data.parent === undefined ? {} : { parent: data.parent, waiters: [data.parent] }),
    ...(data.trace === undefined ? {} : { trace: data.trace }),
    ...(data.earlierTrace === undefined ? {} : { earlierTrace: data.earlierTrace }),
    ...givenIn(fact),
    status: 'requested',
    requestedMs: fact.timeMs,
    assets: {},
  }
  view.put(stateKey.run(id), run)
  view.put(stateKey.open(id), { since: fact.timeMs })
  countOpenRun(view, run, fact.seq, 1)
  addToLists(view, listsOf(data), id, fact.timeMs)
  const pipeline = view.get(stateKey.pipeline(data.pipeline, data.version))
  if (data.concurrency) run.concurrency = { ...data.concurrency }
  const timer = limitRun(run, pipeline, data.timeoutMs ?? pipeline?.timeoutMs ?? 0)
  if (!pipeline) {
    const message = `pipeline ${data.pipeline} in version ${data.version} is not registered here; start a worker of it, or call flow.register`
    return finish(run, fact, { code: 'unknown_pipeline', message })
  }
  const { as, behind, effects } = enterGroup(view, run)
  if (as === 'started') return [...timer, ...beginRun(run, pipeline, fact)]
  if (as === 'waiting') return [...timer, ...effects]
  run.skippedFor = behind ?? 'unknown'
  return finish(run, fact)
}

/** Plans a run: at once where the plan follows from its request. */
function beginRun(run: RunState, pipeline: PipelineSpec, fact: Fact): Effect[] {
  const { target, upstream, redrive, retry } = run
  if (redrive || retry || !planIsPure(pipeline, target, upstream)) return [{ do: 'plan', run: run.id }]
  return applyPlan(
    run,
    pipeline,
    planRun(pipeline, target, upstream, () => undefined, run.inputs),
    fact,
  )
}

/** A run has ended, or waits no more: those whose turn it is now start. */
export function startNext(view: View, run: RunState, fact: Fact): Effect[] {
  return leaveGroup(view, run).flatMap((next) => {
    next.seq = fact.seq
    next.status = 'requested'
    next.startedMs = fact.timeMs
    const pipeline = view.get(stateKey.pipeline(next.pipeline, next.version))
    return pipeline ? beginRun(next, pipeline, fact) : []
  })
}

function msgIdIn({ trigger, event }: FactOf<'run.requested'>['data']): Pick<RunState, 'msgId'> {
  const msgId = trigger?.msgId ?? event?.msgId
  return msgId === undefined ? {} : { msgId }
}

/** The run before it, and how it is taken up. */
function retriedIn({ retryOf, retry }: FactOf<'run.requested'>['data']): Pick<RunState, 'retryOf' | 'retry'> {
  return {
    ...(retryOf === undefined ? {} : { retryOf }),
    ...(retry === undefined
      ? {}
      : { retry: { run: retry.run, ...(retry.from === undefined ? {} : { from: retry.from }) } }),
  }
}

/** What the run was given: hashes, and where the values stand. */
function givenIn({ data, shard, seq }: FactOf<'run.requested'>): Pick<RunState, 'inputs' | 'given'> {
  if (data.input === undefined) return {}
  const hashes = Object.entries(data.input).map(([name, stored]) => [name, hashOfValue(stored)])
  return { inputs: Object.fromEntries(hashes), given: { shard, seq } }
}

/**
 * The time limit of a run is a schedule on the log: it holds whether an engine is there or not. So
 * is the time from which it is late.
 */
function limitRun(run: RunState, pipeline: PipelineSpec | undefined, timeoutMs: number): Effect[] {
  if (timeoutMs !== 0) {
    run.timeoutMs = timeoutMs
    run.deadlineMs = run.requestedMs + timeoutMs
  }
  if (pipeline?.hooks) expectLate(pipeline, run)
  const timer = runTimerOf(run)
  return timer ? [{ do: 'timer', ...timer }] : []
}

export function onRunPlanned(view: View, run: RunState, fact: FactOf<'run.planned'>): Effect[] {
  const pipeline = view.get(stateKey.pipeline(run.pipeline, run.version))
  if (run.status !== 'requested' || !pipeline || run.finishing) return []
  const { assets, error } = fact.data
  return applyPlan(run, pipeline, error ? { assets: [], error } : { assets: assets as PlannedAsset[] }, fact)
}

function applyPlan(run: RunState, pipeline: PipelineSpec, plan: Plan, fact: Fact): Effect[] {
  if (plan.error) return finish(run, fact, plan.error)
  run.status = 'running'
  for (const planned of plan.assets) run.assets[planned.name] = assetInRun(run, pipeline, planned)
  return startReady(run, pipeline, fact.timeMs)
}
