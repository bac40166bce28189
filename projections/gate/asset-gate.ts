/**
 * Assets that wait at gates. No worker holds an asset while it waits. What follows the gate is
 * another attempt, in the phase `signal` or `timeout`. The tables are in gate.ts; instances of a
 * scatter are in instance-gate.ts.
 */
import type { FactOf } from '../../streams/facts.ts'
import type { AssetSpec, PipelineSpec } from '../../streams/schemas.ts'
import type { Effect } from '../effects.ts'
import { unchain } from '../run/chain.ts'
import { cancelEffect, failEffect, isEnded } from '../run/end.ts'
import { nextAttempt } from '../run/start-assets.ts'
import { type AssetInRun, editRun, type RunState, specOf, type View } from '../state.ts'
import { afterGate, awaitGate, type EndedGate, endLeft, gateOf, resumeOf } from './gate.ts'

/** Whether a gate of a plain asset comes too late: its attempt was given up. */
export function isObsolete(run: RunState, asset: AssetInRun | undefined, attempt: number): boolean {
  return (
    !asset ||
    isEnded(asset) ||
    asset.ending === true ||
    run.finishedMs !== undefined ||
    (asset.gates ?? asset.attempt) !== attempt
  )
}

/** The attempt of a plain asset waits. */
export function onAssetSuspended(
  view: View,
  before: RunState,
  pipeline: PipelineSpec,
  fact: FactOf<'asset.suspended'>,
): Effect[] {
  const spec = specOf(pipeline, fact.ids.asset)
  const asset = before.assets[fact.ids.asset]
  const gate = gateOf(view, { ...fact.ids, gate: fact.data.gate })
  if (!spec || !asset || !gate) return []
  if (Number(fact.ids.attempt) !== asset.attempt || isObsolete(before, asset, gate.attempt)) return []
  if (asset.status !== 'queued' && asset.status !== 'running') return []
  const run = editRun(view, before, fact)
  asset.status = 'suspended'
  unchain(run, spec.name)
  asset.gate = gate.gate
  delete asset.worker
  if (gate.deadlineMs !== undefined) asset.waitsUntilMs = gate.deadlineMs
  if (gate.child) asset.child = gate.child.run
  const ended = awaitGate(view, gate)
  return [
    ...endLeft(fact.ids, fact.data.left ?? []),
    ...(ended ? resumeAfterGate(run, pipeline, spec, asset, ended, fact.timeMs) : []),
  ]
}

/** The gate that an asset waits at has ended. */
export function resumeAsset(
  view: View,
  before: RunState,
  pipeline: PipelineSpec,
  gate: EndedGate,
  fact: FactOf<'gate.resolved'>,
): Effect[] {
  const spec = specOf(pipeline, gate.asset)
  const asset = before.assets[gate.asset]
  if (!spec || asset?.status !== 'suspended' || asset.gate !== gate.gate || asset.ending) return []
  const run = editRun(view, before, fact)
  return resumeAfterGate(run, pipeline, spec, asset, gate, fact.timeMs)
}

function resumeAfterGate(
  run: RunState,
  pipeline: PipelineSpec,
  spec: AssetSpec,
  asset: AssetInRun,
  gate: EndedGate,
  nowMs: number,
): Effect[] {
  const next = afterGate(spec, gate)
  delete asset.waitsUntilMs
  delete asset.child
  if ('phase' in next) {
    asset.phase = next.phase
    asset.failures = 0
    delete asset.lost
    delete asset.gates
    delete asset.error
    delete asset.gate
    asset.resume = resumeOf(gate)
    return [nextAttempt(run, pipeline, spec, asset, nowMs)]
  }
  asset.ending = true
  if (next.end === 'failed') return [failEffect(run, spec.name, next.error, asset.attempt)]
  return [cancelEffect(run, spec.name, next.error.message)]
}
