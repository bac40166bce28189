/** Assets of a run start when their dependencies have their values. */
import type { AssetSpec, PipelineSpec } from '../../streams/schemas.ts'
import type { Effect } from '../effects.ts'
import { type AssetInRun, type RunState, specOf } from '../state.ts'
import { attemptEffect, fingerprintIn } from '../tasks.ts'
import { chain, unchain } from './chain.ts'
import { inputsOf, type PlannedAsset } from './plan.ts'

/** An asset of a run, as its plan has it. */
export function assetInRun(run: RunState, pipeline: PipelineSpec, planned: PlannedAsset): AssetInRun {
  const { name, reuse, from, candidate, redrive } = planned
  const spec = specOf(pipeline, name)
  const asset: AssetInRun = { status: 'waiting', phase: spec?.scatter ? 'scatter' : 'execute', attempt: 0, failures: 0 }
  if (spec?.input) {
    const hash = run.inputs?.[name]
    return {
      ...asset,
      status: 'given',
      ...(run.given ? { value: { ...run.given, input: name } } : {}),
      ...(hash ? { hash } : {}),
    }
  }
  if (reuse) {
    asset.status = 'reused'
    asset.value = reuse
    if (from?.hash !== undefined) asset.hash = from.hash
    if (from) asset.from = { ...(from.run === undefined ? {} : { run: from.run }), why: from.why }
    return asset
  }
  if (candidate) asset.candidate = candidate
  if (redrive) asset.redrive = { ...redrive }
  const inputs = run.inputs && inputsOf(pipeline, name, run.inputs)
  return inputs === undefined ? asset : { ...asset, inputs }
}

/**
 * Starts every waiting asset whose dependencies have their values. One whose candidate was made of
 * the same is there at once, and then what waits for it is looked at.
 */
export function startReady(run: RunState, pipeline: PipelineSpec, nowMs: number): Effect[] {
  const effects: Effect[] = []
  for (let again = true; again; ) {
    again = false
    for (const [name, asset] of Object.entries(run.assets)) {
      if (asset.status !== 'waiting' || asset.ending) continue
      const spec = specOf(pipeline, name)
      if (!spec || !hasAll(run, spec)) continue
      if (takeCandidate(run, spec, asset)) again = true
      else if (asset.chained === undefined) effects.push(nextAttempt(run, pipeline, spec, asset, nowMs))
      else queue(asset, nowMs)
    }
  }
  return effects
}

function takeCandidate(run: RunState, spec: AssetSpec, asset: AssetInRun): boolean {
  const { candidate } = asset
  delete asset.candidate
  if (candidate?.fingerprint === undefined || candidate.fingerprint !== fingerprintIn(run, spec)) return false
  asset.status = 'reused'
  asset.value = candidate.value
  if (candidate.hash !== undefined) asset.hash = candidate.hash
  asset.from = { ...(candidate.run === undefined ? {} : { run: candidate.run }), why: 'current' }
  return true
}

/**
 * Whether all that it depends on is there. From the end: what was planned last comes last, and of a
 * thousand dependencies hardly one is looked at in vain.
 */
function hasAll(run: RunState, { dependsOn }: AssetSpec): boolean {
  for (let i = dependsOn.length - 1; i >= 0; i--) {
    const dependency = dependsOn[i]
    if (dependency === undefined || !run.assets[dependency]?.value) return false
  }
  return true
}

export function nextAttempt(
  run: RunState,
  pipeline: PipelineSpec,
  spec: AssetSpec,
  asset: AssetInRun,
  nowMs: number,
  dueMs?: number,
): Effect {
  unchain(run, spec.name)
  delete asset.chained
  queue(asset, nowMs)
  if (dueMs === undefined) delete asset.dueMs
  else asset.dueMs = dueMs
  chain(run, pipeline, spec, asset)
  return attemptEffect(run, pipeline, spec, asset)
}

function queue(asset: AssetInRun, nowMs: number): void {
  asset.status = 'queued'
  asset.queuedMs = nowMs
  asset.attempt += 1
  delete asset.worker
}
