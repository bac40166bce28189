/**
 * Planning a run that takes up an earlier one: what that made or took is taken, and the rest is
 * made.
 *
 *   asset                                      in the new run
 *   has a value, and nothing says otherwise    taken as it was
 *   named by `from`                            made again, with all downstream
 *   other shape in the new version             made again, with all downstream
 *   goes back to an input that is another      made again, with all downstream
 *   a scatter that did not succeed             only its instances that did not succeed are run, if
 *                                              its dependencies are those of then
 *   anything else                              made, as `upstream` says
 */
import type { PipelineSpec, UpstreamMode } from '../../streams/schemas.ts'
import { specOf } from '../state.ts'
import {
  earlierOf,
  type Given,
  inputsOf,
  type Known,
  type Plan,
  type PlannedAsset,
  reuseOf,
  upstreamOf,
  withInput,
} from './plan.ts'

/** What there is of the earlier run. */
export interface Earlier {
  readonly values: ReadonlyMap<string, Known>
  /** Closed scatters whose keys are all known, of assets without a value. */
  readonly scatters: ReadonlyMap<string, { readonly run: string; readonly total: number }>
  readonly inputs: Given
  /** The version of the pipeline that it had in the end. */
  readonly pipeline: PipelineSpec | undefined
}

export interface RetryPlan {
  readonly pipeline: PipelineSpec
  readonly target: string
  readonly upstream: UpstreamMode
  readonly from: string | undefined
  readonly given: Given
  readonly earlier: Earlier
  /** Newest values, for what the earlier run has none of. */
  readonly catalog: (asset: string) => Known | undefined
}

export function planRetry(retry: RetryPlan): Plan {
  const { pipeline, target, from, given } = retry
  const order = upstreamOf(pipeline, target)
  const misfit = !specOf(pipeline, target)
    ? `asset ${target}`
    : from !== undefined && !order.includes(from)
      ? `asset ${from} upstream of ${target}`
      : undefined
  if (misfit !== undefined) {
    const message = `version ${pipeline.version} of pipeline ${pipeline.name} has no ${misfit}`
    return { assets: [], error: { code: 'not_retryable', message } }
  }
  return withInput(pipeline, planNeeded(retry, madeAgain(retry, order)), given)
}

/** Assets that are made again though they may have a value. */
function madeAgain({ pipeline, from, given, earlier }: RetryPlan, order: readonly string[]): ReadonlySet<string> {
  const again = new Set<string>()
  for (const name of order) {
    const spec = specOf(pipeline, name)
    if (spec?.input) {
      if (given[name] !== earlier.inputs[name]) again.add(name)
      continue
    }
    if (name === from || !sameShape(pipeline, earlier, name) || spec?.dependsOn.some((other) => again.has(other)))
      again.add(name)
  }
  return again
}

function sameShape(pipeline: PipelineSpec, earlier: Earlier, name: string): boolean {
  if (!earlier.pipeline) return true
  const before = specOf(earlier.pipeline, name)
  return before !== undefined && before.shape === specOf(pipeline, name)?.shape
}

/** From the target down, to what is taken. */
function planNeeded(retry: RetryPlan, again: ReadonlySet<string>): Plan {
  const { pipeline, target, upstream } = retry
  const planned = new Map<string, PlannedAsset>()
  const absent: string[] = []
  const visit = (name: string): void => {
    if (planned.has(name)) return
    const spec = specOf(pipeline, name)
    const taken = spec?.input ? { name } : takenAs(retry, again, name)
    if (taken) {
      planned.set(name, taken)
      return
    }
    if (upstream === 'none' && name !== target && !again.has(name)) {
      absent.push(name)
      return
    }
    for (const dependency of spec?.dependsOn ?? []) visit(dependency)
    planned.set(name, madeAs(retry, again, planned, name))
  }
  visit(target)
  if (absent.length === 0) return { assets: [...planned.values()] }
  const message = `${target} needs ${absent.join(', ')}, which the earlier run did not have; materialize it with upstream 'missing' or 'all'`
  return { assets: [], error: { code: 'missing_upstream', message } }
}

function takenAs(
  { pipeline, target, upstream, given, earlier, catalog }: RetryPlan,
  again: ReadonlySet<string>,
  name: string,
): PlannedAsset | undefined {
  if (again.has(name)) return undefined
  const had = earlier.values.get(name)
  if (had) return reuseOf(name, had, 'earlier_run')
  if (name === target || (upstream !== 'missing' && upstream !== 'none')) return undefined
  const known = catalog(name)
  return known && known.inputs === inputsOf(pipeline, name, given) ? reuseOf(name, known, 'present') : undefined
}

function madeAs(
  { pipeline, target, upstream, from, earlier, catalog }: RetryPlan,
  again: ReadonlySet<string>,
  planned: ReadonlyMap<string, PlannedAsset>,
  name: string,
): PlannedAsset {
  const spec = specOf(pipeline, name)
  // Its keys follow from its dependencies: with others, those of then mean nothing.
  const asBefore = spec?.dependsOn.every((dependency) => {
    const reason = planned.get(dependency)?.from?.why
    return !again.has(dependency) && (specOf(pipeline, dependency)?.input || reason === 'earlier_run')
  })
  const scatter = spec?.scatter && asBefore && sameShape(pipeline, earlier, name) && earlier.scatters.get(name)
  if (scatter && (name === from || !again.has(name))) return { name, redrive: scatter }
  if (upstream !== 'stale' || name === target || again.has(name) || spec?.volatile) return { name }
  const known = catalog(name)
  return known?.fingerprint === undefined ? { name } : { name, candidate: earlierOf(known) }
}
