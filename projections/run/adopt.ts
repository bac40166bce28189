/**
 * A run goes on with another version of its pipeline: because nobody has the code any more that it
 * was planned for.
 *
 *   asset                        on adoption
 *   ended                        unchanged
 *   not begun, other shape       planned anew: its attempts count from the start, dependencies that the run lacks are added
 *   not begun, other queue       enqueued anew, where its task waits for a worker
 *   begun                        goes on, if the new version has the same shape for it; else the adoption is refused
 *
 * Begun: it waits at a gate, has opened one, or has instances. What an attempt of the old code
 * still brings is taken: a finished value is never thrown away.
 */
import type { FactOf } from '../../streams/facts.ts'
import type { AssetSpec, PipelineSpec } from '../../streams/schemas.ts'
import { shapeDifferences } from '../../streams/shape.ts'
import { cut } from '../../streams/text.ts'
import type { Effect } from '../effects.ts'
import { type AssetInRun, editRun, type RunState, specOf, stateKey, type View } from '../state.ts'
import { instanceQueue } from '../tasks.ts'
import { unchain } from './chain.ts'
import { isEnded } from './end.ts'
import { assetInRun, nextAttempt, startReady } from './start-assets.ts'

interface Adoption {
  /** Why it cannot be, a reason each. Empty: it can. */
  readonly misfits: readonly string[]
  /** Assets that are planned anew. */
  readonly again: readonly string[]
  /** Assets whose task goes to another queue. */
  readonly moved: readonly string[]
  /** Assets that the run lacks and needs now. */
  readonly added: readonly string[]
}

export function planAdoption(view: View, run: RunState, from: PipelineSpec, to: PipelineSpec): Adoption {
  const misfits: string[] = []
  const again: string[] = []
  const moved: string[] = []
  const added = new Set<string>()
  const addMissing = (name: string, spec: AssetSpec): void => {
    for (const dependency of spec.dependsOn) {
      const there = run.assets[dependency]
      const spec = specOf(to, dependency)
      if (there ? isEnded(there) && there.value === undefined : run.upstream === 'none')
        misfits.push(`${name} needs ${dependency}, which ${there ? `is ${there.status}` : 'the run may not make'}`)
      if (there || added.has(dependency) || !spec) continue
      if (spec.input && run.inputs?.[dependency] === undefined)
        misfits.push(`${name} needs input ${dependency}, which the run was not given`)
      added.add(dependency)
      addMissing(dependency, spec)
    }
  }
  for (const [name, asset] of Object.entries(run.assets)) {
    if (isEnded(asset) || asset.ending) continue
    const before = specOf(from, name)
    const after = specOf(to, name)
    if (!before || !after) {
      misfits.push(`${name} is ${asset.status}, and the new version has no such asset`)
      continue
    }
    const differences = shapeDifferences(before, after)
    const barrier = view.get(stateKey.barrier(run.id, name))
    const begun = hasBegun(asset, barrier !== undefined)
    if (begun && barrier?.status === 'open') differences.push(...limitedQueueDifferences(before, after))
    if (begun && differences.length > 0)
      misfits.push(`${name} has begun (${asset.status}), and differs in ${differences.join(', ')}`)
    else if (differences.length > 0) again.push(name)
    else if (asset.status === 'queued' && (before.queue !== after.queue || before.priority !== after.priority))
      moved.push(name)
    addMissing(name, after)
  }
  return { misfits, again, moved, added: [...added] }
}

/**
 * A scatter function that runs may store keys at any moment. A plain asset has nothing to show
 * before it ends or waits.
 */
function hasBegun(asset: AssetInRun, hasInstances: boolean): boolean {
  if (hasInstances || asset.gated || asset.status === 'suspended' || asset.status === 'scattering') return true
  if (asset.phase === 'scatter') return asset.status === 'running'
  return asset.phase !== 'execute'
}

/** Leases that are out stand on a queue of their own. */
function limitedQueueDifferences(before: AssetSpec, after: AssetSpec): string[] {
  const limitedQueueOf = (spec: AssetSpec): Record<string, string> => {
    const { queue, priority } = instanceQueue(spec)
    return { maxConcurrent: String(spec.scatter?.maxConcurrent ?? 'none'), queue, priority: String(priority) }
  }
  const [a, b] = [limitedQueueOf(before), limitedQueueOf(after)]
  return Object.entries(a).flatMap(([part, value]) => (b[part] === value ? [] : [`${part} (${value} → ${b[part]})`]))
}

/** Decides, and does it. Who asked reads the answer from the log. */
export function onRunAdoptRequested(view: View, planned: RunState, fact: FactOf<'run.adopt_requested'>): Effect[] {
  const { version } = fact.data
  const ids = { run: planned.id, request: String(fact.seq) }
  const refuse = (misfits: readonly string[]): Effect[] => [
    {
      do: 'fact',
      fact: {
        name: 'run.adopt_refused',
        ids,
        data: { version, misfits: misfits.slice(0, MISFITS_MAX).map((misfit) => cut(misfit, MISFIT_LENGTH)) },
      },
    },
  ]
  if (planned.finishedMs !== undefined || planned.finishing || planned.cancelRequested)
    return refuse(['the run has ended'])
  if (planned.status === 'requested' || planned.status === 'queued') return refuse(['the run is not planned yet'])
  const from = view.get(stateKey.pipeline(planned.pipeline, planned.version))
  const to = view.get(stateKey.pipeline(planned.pipeline, version))
  if (!from || !to) return refuse([`version ${version} of pipeline ${planned.pipeline} is not registered`])
  const { misfits, again, moved, added } = planAdoption(view, planned, from, to)
  if (misfits.length > 0) return refuse(misfits)
  const before = planned.version
  const run = editRun(view, planned, fact)
  run.version = version
  for (const name of added) run.assets[name] = assetInRun(run, to, { name })
  const effects: Effect[] = []
  for (const name of again) {
    const { attempt: last, chained } = run.assets[name] ?? { attempt: 0 }
    const attempt = chained !== undefined && run.assets[name]?.status === 'waiting' ? last + 1 : last
    unchain(run, name, true)
    // An attempt of the old code that is reported from now on is not the current one.
    run.assets[name] = { ...assetInRun(run, to, { name }), attempt: attempt === 0 ? 0 : attempt + 1 }
    run.replanned = { ...run.replanned, [name]: attempt + 1 }
    effects.push({ do: 'drop_schedules', run: run.id, asset: name })
  }
  for (const name of moved) {
    const [asset, spec] = [run.assets[name], specOf(to, name)]
    if (!asset || !spec) continue
    unchain(run, name, true)
    effects.push(nextAttempt(run, to, spec, asset, fact.timeMs, asset.dueMs))
    run.replanned = { ...run.replanned, [name]: asset.attempt }
  }
  const data = { version, from: before, replanned: run.replanned ?? {}, added: [...added] }
  effects.push({ do: 'fact', fact: { name: 'run.adopted', ids, data } })
  return [...effects, ...startReady(run, to, fact.timeMs)]
}

const MISFITS_MAX = 20
const MISFIT_LENGTH = 1000
