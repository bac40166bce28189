/**
 * Chains: where assets of a run follow one another, one task brings all of them. Its worker runs
 * the first, puts its outcome on the log, goes on with the next, and so on. An outcome is a fact of
 * its own, as ever, and it is stored before the next code begins. Only the tasks between them, and
 * the way to the engine and back, are saved.
 *
 *   asset      fact                    → its chain
 *   waiting    (an attempt of the asset before it is due)   → it is chained to that attempt
 *   chained    (its dependencies have values)               → queued; it has no task of its own
 *   chained    attempt.ended, asset.suspended before it     → let go: it gets a task of its own in time
 *   chained    the value before it came from an attempt that was given up   → let go
 *
 * An asset is chained only where it alone becomes ready, so nothing runs one after the other that
 * could run side by side.
 */
import type { AssetSpec, PipelineSpec } from '../../streams/schemas.ts'
import { runsAlone } from '../attempts.ts'
import type { AssetInRun, RunState } from '../state.ts'

/** Most assets that follow the first. */
export const CHAIN_MAX = 16

/** Chains to the current attempt of an asset what follows it. */
export function chain(run: RunState, pipeline: PipelineSpec, spec: AssetSpec, head: AssetInRun): void {
  delete head.chain
  if (head.phase === 'scatter' || spec.limited || runsAlone(head, spec.retry)) return
  const made = new Set([spec.name])
  const names: string[] = []
  for (let last = spec.name; names.length < CHAIN_MAX; ) {
    const next = onlyNext(run, pipeline, last, made)
    const asset = next && run.assets[next.name]
    if (!asset || !fits(next, asset, spec)) break
    asset.chained = spec.name
    made.add(next.name)
    names.push(next.name)
    last = next.name
  }
  if (names.length > 0) head.chain = names
}

/** The task that brings the current attempt of an asset. */
export function carrierOf(run: RunState, name: string): string {
  const asset = run.assets[name]
  const head = asset?.chained
  const attempt = (head === undefined ? asset : run.assets[head])?.attempt ?? 0
  return `${run.id}.${head ?? name}.${attempt}`
}

/**
 * What is chained behind an asset gets tasks of its own. `given`: its first attempt may run all the
 * same, with a worker that nobody waits for any more.
 */
export function unchain(run: RunState, name: string, given = false): void {
  const head = run.assets[name]?.chained ?? name
  for (const member of run.assets[head]?.chain ?? []) {
    const asset = run.assets[member]
    if (asset?.status !== 'waiting' || asset.chained !== head) continue
    delete asset.chained
    if (given) asset.attempt += 1
  }
}

/** The one asset that waits for nothing more once these have their values; of several, none. */
function onlyNext(
  run: RunState,
  pipeline: PipelineSpec,
  last: string,
  made: ReadonlySet<string>,
): AssetSpec | undefined {
  let only: AssetSpec | undefined
  for (const spec of dependentsOf(pipeline, last)) {
    const asset = run.assets[spec.name]
    if (asset?.status !== 'waiting' || asset.ending) continue
    if (!spec.dependsOn.every((name) => made.has(name) || run.assets[name]?.value)) continue
    if (only) return undefined
    only = spec
  }
  return only
}

function fits(spec: AssetSpec, asset: AssetInRun, head: AssetSpec): boolean {
  const isPlain = !spec.scatter && !spec.limited && asset.candidate === undefined
  return isPlain && spec.queue === head.queue && spec.priority === head.priority
}

const dependents = new WeakMap<PipelineSpec, Map<string, AssetSpec[]>>()

function dependentsOf(pipeline: PipelineSpec, name: string): readonly AssetSpec[] {
  let known = dependents.get(pipeline)
  if (!known) {
    known = new Map()
    for (const spec of pipeline.assets)
      for (const dependency of spec.dependsOn) known.set(dependency, [...(known.get(dependency) ?? []), spec])
    dependents.set(pipeline, known)
  }
  return known.get(name) ?? []
}
