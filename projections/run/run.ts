/**
 * A run and the assets in it.
 *
 *   run        fact                    → run                                                     caused by
 *   (none)     run.requested           → requested; running at once if the plan needs no look-up   client, or engine for a trigger
 *   requested  run.planned             → running, or finished with the plan's error                engine
 *   open       run.timer_fired         → as cancelled, and the run has failed with `timeout`         server, at its time limit
 *   open       run.late                → late (hooks.ts)                                           server, at its time
 *   running    run.cancel_requested    → every asset not ended is cancelled, its scatter closed    client
 *   running    (last asset ends)       → run.finished is decided                                   engine
 *   any        run.finished            → succeeded | failed | cancelled                            engine, once
 *   (none)     run.requested           → queued, or cancelled at once: others of its key are active   concurrency.ts
 *   queued     (its turn comes)        → requested; running at once if the plan needs no look-up   engine
 *   queued     cancel, time limit      → run.finished is decided
 *
 *   asset      fact                    → asset
 *   waiting    (dependencies there)    → queued: a task `execute`, or `scatter`
 *   queued     asset.started           → running (written when an attempt lasts)
 *   queued,
 *   running    attempt.ended           → queued again after the backoff, or asset.failed is decided
 *   queued,
 *   running    asset.suspended         → suspended at a gate (gate.ts); queued again, or ended, when that ends
 *   queued,
 *   running    scatter.started         → scattering
 *   scattering scatter.closed          → completed: queued, a task `gather`; failed: asset.failed is decided
 *   open       asset.materialized      → materialized; what waited for it starts
 *   open       asset.failed            → failed; what depends on it is skipped
 *   open       asset.skipped|cancelled → skipped | cancelled
 *
 * `attempt.ended` of another attempt than the current one is ignored: that attempt was given up. An
 * end of any kind is final, and the server lets only one in (facts.ts).
 */
import type { Fact, FactOf } from '../../streams/facts.ts'
import { forOutsiders } from '../../streams/outside.ts'
import type { AssetSpec, AttemptOutcome, ErrorInfo, PipelineSpec, ValueAt } from '../../streams/schemas.ts'
import { failuresAfterLoss } from '../attempts.ts'
import { backoffMs } from '../backoff.ts'
import type { Effect } from '../effects.ts'
import { countOpenRun } from '../events/open-runs.ts'
import { endEffect } from '../scatter/end.ts'
import { type AssetInRun, type CatalogEntry, editRun, type RunState, specOf, stateKey, type View } from '../state.ts'
import { unchain } from './chain.ts'
import { endIn, failEffect, finishIfDone, idsIn, isEnded, timeoutMessage } from './end.ts'
import { addToLists, endList } from './lists.ts'
import { startNext } from './start.ts'
import { nextAttempt, startReady } from './start-assets.ts'

/** What is said of an asset's attempts and of its end. */
export type AssetFact = FactOf<
  'asset.started' | 'attempt.ended' | 'asset.materialized' | 'asset.failed' | 'asset.skipped' | 'asset.cancelled'
>

/** Facts about one asset of a run. `barrier` is the asset's own, where it has one. */
export function stepAsset(view: View, before: RunState, pipeline: PipelineSpec, fact: AssetFact): Effect[] {
  const asset = before.assets[fact.ids.asset]
  const spec = specOf(pipeline, fact.ids.asset)
  if (!asset || !spec || isEnded(asset)) return []
  const run = editRun(view, before, fact)
  switch (fact.name) {
    case 'asset.started':
      if (Number(fact.ids.attempt) === asset.attempt) {
        asset.worker = fact.data.worker
        if (asset.status === 'queued') asset.status = 'running'
      }
      return []
    case 'attempt.ended':
      return Number(fact.ids.attempt) === asset.attempt ? onAttemptEnded(run, pipeline, spec, asset, fact) : []
    case 'asset.materialized': {
      const value: ValueAt = { shard: fact.shard, seq: fact.seq }
      asset.status = 'materialized'
      asset.value = value
      if (fact.data.hash !== undefined) asset.hash = fact.data.hash
      delete asset.error
      // Its worker was given up, and goes on all the same. Whoever has the current attempt ends it.
      if (fact.data.attempt !== asset.attempt) unchain(run, spec.name, true)
      view.put(stateKey.asset(run.pipeline, spec.name, run.partition), entryOf(fact))
      return [...cancelLeft(run, asset, spec), ...startReady(run, pipeline, fact.timeMs), ...finishIfDone(run, fact)]
    }
    case 'asset.failed': {
      asset.status = 'failed'
      // The attempt reported more: where it was thrown. Ends go to outsiders.
      if (!asset.error || forOutsiders(asset.error).message !== fact.data.error.message) asset.error = fact.data.error
      return [
        ...cancelLeft(run, asset, spec),
        ...dropSchedule(run, asset, spec),
        ...closeIfOpen(view, fact.ids, 'failed', fact.data.error),
        ...skipDependents(run, pipeline, spec.name),
        ...finishIfDone(run, fact),
      ]
    }
    case 'asset.skipped':
      asset.status = 'skipped'
      return finishIfDone(run, fact)
    case 'asset.cancelled':
      asset.status = 'cancelled'
      return [
        ...cancelLeft(run, asset, spec),
        ...dropSchedule(run, asset, spec),
        // By itself, at a gate: nothing that needs it can come any more. A run that is cancelled
        // ends all of its assets.
        ...(run.cancelRequested || run.timedOut ? [] : skipDependents(run, pipeline, spec.name)),
        ...finishIfDone(run, fact),
      ]
    default:
      return fact satisfies never
  }
}

/** What is known of a value from here on, by whoever plans a run. */
export function entryOf({ shard, seq, timeMs, ids, data }: FactOf<'asset.materialized'>): CatalogEntry {
  const { hash, fingerprint, inputs } = data
  return {
    seq,
    run: ids.run,
    value: { shard, seq },
    timeMs,
    ...(hash === undefined ? {} : { hash }),
    ...(fingerprint === undefined ? {} : { fingerprint }),
    ...(inputs === undefined ? {} : { inputs }),
  }
}

function onAttemptEnded(
  run: RunState,
  pipeline: PipelineSpec,
  spec: AssetSpec,
  asset: AssetInRun,
  fact: FactOf<'attempt.ended'>,
): Effect[] {
  // A late word of a worker that did its part: the instances, or an end already decided, have the
  // say now.
  if (asset.ending || asset.status === 'scattering' || asset.status === 'suspended') return []
  const { outcome, error, retryAfterMs } = fact.data
  if (outcome === 'lost') {
    asset.failures = failuresAfterLoss(asset, spec.retry)
    asset.lost = true
  } else if (outcome !== 'returned') asset.failures += 1
  asset.error = error
  const left = endGates(run, spec.name, asset, outcome)
  if (outcome === 'terminal' || asset.failures >= spec.retry.maxAttempts) {
    asset.ending = true
    return [...left, failEffect(run, spec.name, error, asset.attempt)]
  }
  if (outcome === 'returned') return [nextAttempt(run, pipeline, spec, asset, fact.timeMs)]
  const waitMs = retryAfterMs ?? backoffMs(spec.retry, asset.failures, `${run.id}.${spec.name}`)
  return [...left, nextAttempt(run, pipeline, spec, asset, fact.timeMs, fact.timeMs + waitMs)]
}

/**
 * Gates belong to an execution: one that failed takes its gates with it. One that was lost leaves
 * them to the next, whose outside job runs already.
 */
function endGates(run: RunState, name: string, asset: AssetInRun, outcome: AttemptOutcome): Effect[] {
  const opened = asset.gates ?? asset.attempt
  if (outcome === 'lost' || outcome === 'returned') {
    asset.gates = opened
    return []
  }
  delete asset.gates
  return asset.gated ? [{ do: 'cancel_gates', run: run.id, asset: name, attempt: opened }] : []
}

/**
 * The scatter function handed in all keys, or their stream began: from here the barrier has the
 * say.
 */
export function onScatterStarted(view: View, run: RunState, fact: FactOf<'scatter.started'>): void {
  const asset = run.assets[fact.ids.asset]
  if (!asset || isEnded(asset) || asset.phase !== 'scatter') return
  editRun(view, run, fact)
  if (asset.status === 'queued') asset.status = 'running'
}

/** The total is fixed: the scatter function's part has ended. */
export function onScatterSized(view: View, run: RunState, fact: FactOf<'scatter.sized'>): void {
  const asset = run.assets[fact.ids.asset]
  if (!asset || isEnded(asset) || asset.phase !== 'scatter') return
  editRun(view, run, fact)
  asset.status = 'scattering'
}

export function onScatterClosed(
  view: View,
  before: RunState,
  pipeline: PipelineSpec,
  fact: FactOf<'scatter.closed'>,
): Effect[] {
  const asset = before.assets[fact.ids.asset]
  const spec = specOf(pipeline, fact.ids.asset)
  if (!asset || !spec || isEnded(asset) || asset.ending) return []
  const run = editRun(view, before, fact)
  switch (fact.data.status) {
    case 'completed':
    case 'partial_failure':
      asset.phase = 'gather'
      asset.failures = 0
      delete asset.lost
      delete asset.error
      return [nextAttempt(run, pipeline, spec, asset, fact.timeMs)]
    case 'failed': {
      asset.ending = true
      const error = fact.data.error ?? { code: 'scatter_failed', message: 'the scatter failed' }
      return [{ do: 'abort', run: run.id, asset: spec.name }, failEffect(run, spec.name, error, asset.attempt)]
    }
    case 'cancelled': {
      asset.ending = true
      const error = { code: 'cancelled', message: `scatter ${spec.name} was cancelled` }
      return [{ do: 'abort', run: run.id, asset: spec.name }, failEffect(run, spec.name, error, asset.attempt)]
    }
    default:
      return fact.data.status satisfies never
  }
}

export function onRunCancelRequested(view: View, run: RunState, fact: FactOf<'run.cancel_requested'>): Effect[] {
  return cancelRun(view, run, fact, fact.data.reason)
}

export function cancelRun(view: View, before: RunState, fact: Fact, reason: string | undefined): Effect[] {
  if (before.finishedMs !== undefined || before.cancelRequested) return []
  const run = editRun(view, before, fact)
  run.cancelRequested = true
  const next = run.queue ? startNext(view, run, fact) : []
  return [...endAssets(view, run, fact, reason), ...next]
}

/** What is open of a run that took too long is cancelled, and the run has failed. */
export function onRunTimerFired(view: View, before: RunState, fact: FactOf<'run.timer_fired'>): Effect[] {
  if (before.finishedMs !== undefined || before.cancelRequested || before.timedOut) return []
  const run = editRun(view, before, fact)
  run.timedOut = true
  const next = run.queue ? startNext(view, run, fact) : []
  return [...endAssets(view, run, fact, timeoutMessage(run)), ...next]
}

/** Ends everything of a run that is open. */
function endAssets(view: View, run: RunState, fact: Fact, reason: string | undefined): Effect[] {
  const effects: Effect[] = [{ do: 'abort', run: run.id }]
  for (const [name, asset] of Object.entries(run.assets)) {
    if (isEnded(asset)) continue
    effects.push(...closeIfOpen(view, { run: run.id, asset: name }, 'cancelled', undefined))
    asset.ending = true
    const data = {
      ...endIn(run, name),
      ...(reason === undefined ? {} : { reason }),
    }
    effects.push({
      do: 'fact',
      fact: { name: 'asset.cancelled', ids: idsIn(run, name), data },
    })
  }
  return [...effects, ...finishIfDone(run, fact)]
}

/**
 * A scatter is cancelled by itself: its asset fails with `cancelled`. What never ran is not counted
 * as failed.
 */
export function onScatterCancelRequested(view: View, fact: FactOf<'scatter.cancel_requested'>): Effect[] {
  return closeIfOpen(view, fact.ids, 'cancelled', undefined, fact)
}

/**
 * The time limit of the whole scatter has passed: it fails, with what runs, waits, or is still to
 * be scattered.
 */
export function onScatterTimerFired(view: View, fact: FactOf<'scatter.timer_fired'>): Effect[] {
  const barrier = view.get(stateKey.barrier(fact.ids.run, fact.ids.asset))
  if (barrier?.status !== 'open') return []
  const done = `${barrier.succeeded + barrier.failed} of ${barrier.total ?? `${barrier.stored} or more`} instances were done`
  const message = `the scatter ran longer than its totalTimeout of ${fact.data.timeoutMs} ms; ${done}`
  return closeIfOpen(view, fact.ids, 'failed', { code: 'timeout', message }, fact)
}

export function onRunFinished(view: View, before: RunState, fact: FactOf<'run.finished'>): Effect[] {
  if (before.finishedMs !== undefined) return []
  const run = editRun(view, before, fact)
  run.status = fact.data.status
  run.finishedMs = fact.timeMs
  if (fact.data.error) run.error = fact.data.error
  view.delete(stateKey.open(run.id))
  countOpenRun(view, run, fact.seq, -1)
  const list = endList(fact.data.status)
  if (list !== undefined) addToLists(view, [list], run.id, fact.timeMs)
  return startNext(view, run, fact)
}

function skipDependents(run: RunState, pipeline: PipelineSpec, failed: string): Effect[] {
  const lost = new Set([failed])
  const effects: Effect[] = []
  // A set goes on to what is added while it is read. (The order of `run.assets` is no help: names
  // that are numbers come first there.)
  for (const because of lost) {
    for (const [name, asset] of Object.entries(run.assets)) {
      if (asset.status !== 'waiting' || lost.has(name) || !specOf(pipeline, name)?.dependsOn.includes(because)) continue
      lost.add(name)
      if (asset.ending) continue
      asset.ending = true
      const data = { ...endIn(run, name), because }
      effects.push({
        do: 'fact',
        fact: { name: 'asset.skipped', ids: idsIn(run, name), data },
      })
    }
  }
  return effects
}

/** Gates that are left when an asset has ended: nobody waits there any more. */
function cancelLeft(run: RunState, asset: AssetInRun, spec: AssetSpec): Effect[] {
  return asset.gated ? [{ do: 'cancel_gates', run: run.id, asset: spec.name }] : []
}

/**
 * An attempt that was to begin later. (One that was handed back by a worker is not known here: the
 * reconciler drops it.)
 */
function dropSchedule(run: RunState, asset: AssetInRun, spec: AssetSpec): Effect[] {
  return asset.dueMs === undefined ? [] : [{ do: 'drop_schedules', run: run.id, asset: spec.name }]
}

/** `fact`: what was said of the scatter itself. */
function closeIfOpen(
  view: View,
  { run, asset }: { readonly run: string; readonly asset: string },
  status: 'failed' | 'cancelled',
  error: ErrorInfo | undefined,
  fact?: Fact,
): Effect[] {
  const key = stateKey.barrier(run, asset)
  const before = view.get(key)
  if (before?.status !== 'open' || before.closing) return []
  const barrier = view.edit(key)
  barrier.closing = true
  if (fact) barrier.seq = fact.seq
  return [endEffect(barrier, { status, ...(error ? { error } : {}) })]
}
