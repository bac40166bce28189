/** Planning a run: which assets it makes, and which it takes as they are. */
import { nearest } from '../../streams/did-you-mean.ts'
import { hash64 } from '../../streams/ids.ts'
import type { EarlierValue, ReuseReason } from '../../streams/run-schemas.ts'
import type { ErrorInfo, PipelineSpec, UpstreamMode, ValueAt } from '../../streams/schemas.ts'
import { specOf } from '../state.ts'

export interface PlannedAsset {
  readonly name: string
  /** Taken as it is. */
  readonly reuse?: ValueAt
  readonly from?: Omit<EarlierValue, 'value'> & { readonly why: ReuseReason }
  /** Taken if it was made of what the dependencies turn out to be. */
  readonly candidate?: EarlierValue
  /** A scatter that runs only what did not succeed of the scatter of that run. */
  readonly redrive?: { readonly run: string; readonly total: number }
}

export interface Plan {
  readonly assets: readonly PlannedAsset[]
  readonly error?: ErrorInfo
}

/** What is known of a value that was made before. */
export interface Known {
  readonly value: ValueAt
  readonly run?: string | undefined
  readonly hash?: string | undefined
  readonly fingerprint?: string | undefined
  readonly inputs?: string | undefined
}

/** Hash of each value that the run was given, by input asset. */
export type Given = Readonly<Record<string, string>>

/**
 * A redrive: the scatter and all that hangs on it are made again; everything else is taken as the
 * earlier run had it, or made where that had nothing.
 */
export function planRedrive(
  pipeline: PipelineSpec,
  target: string,
  scatter: string,
  earlier: (asset: string) => Known | undefined,
): Plan {
  const order = upstreamOf(pipeline, target)
  if (!order.includes(scatter)) {
    return { assets: [], error: { code: 'not_redrivable', message: `${target} does not depend on ${scatter}` } }
  }
  return planAgain(pipeline, order, new Set([scatter]), earlier)
}

/** Makes these again, and all that hangs on them; everything else is taken as it was. */
function planAgain(
  pipeline: PipelineSpec,
  order: readonly string[],
  again: Set<string>,
  earlier: (asset: string) => Known | undefined,
): Plan {
  const assets = order.map((name) => {
    const spec = specOf(pipeline, name)
    if (spec?.input) return { name }
    if (spec?.dependsOn.some((dependency) => again.has(dependency))) again.add(name)
    const known = again.has(name) ? undefined : earlier(name)
    return known ? reuseOf(name, known, 'earlier_run') : { name }
  })
  return { assets }
}

/** The target and all that it needs, dependencies first. */
export function upstreamOf(pipeline: PipelineSpec, target: string): string[] {
  const seen = new Set<string>()
  const order: string[] = []
  const visit = (name: string): void => {
    if (seen.has(name)) return
    seen.add(name)
    for (const dependency of specOf(pipeline, name)?.dependsOn ?? []) visit(dependency)
    order.push(name)
  }
  visit(target)
  return order
}

/** Whether the plan follows from the request alone, with no look at what is materialized. */
export function planIsPure(pipeline: PipelineSpec, target: string, upstream: UpstreamMode): boolean {
  if (upstream === 'all') return true
  const dependsOn = specOf(pipeline, target)?.dependsOn ?? []
  return dependsOn.every((name) => specOf(pipeline, name)?.input)
}

/**
 * What the run was given for an asset: a hash of all inputs that it goes back to. Undefined for an
 * asset without any: its value is the same for every run.
 */
export function inputsOf(pipeline: PipelineSpec, asset: string, given: Given): string | undefined {
  const names = upstreamOf(pipeline, asset).filter((name) => specOf(pipeline, name)?.input)
  if (names.length === 0) return undefined
  return hash64(JSON.stringify(names.toSorted().map((name) => [name, given[name] ?? null])))
}

/**
 * - `all` makes every upstream asset again.
 * - `stale` makes those whose value is not current: what it was made of, or the code, has changed.
 * - `missing` makes those that have no value in this partition.
 * - `none` makes only the target, whose dependencies must have a value.
 *
 * The target is always made. A value that goes back to an input is taken only by a run that was
 * given the same.
 */
export function planRun(
  pipeline: PipelineSpec,
  target: string,
  upstream: UpstreamMode,
  catalog: (asset: string) => Known | undefined,
  given: Given = {},
): Plan {
  const spec = specOf(pipeline, target)
  if (!spec) {
    const names = pipeline.assets.map((a) => a.name)
    const message = `pipeline ${pipeline.name} has no asset ${target}${nearest(target, names)}`
    return { assets: [], error: { code: 'unknown_asset', message } }
  }
  const plan = upstream === 'missing' || upstream === 'none' ? planPresent : planAll
  return withInput(pipeline, plan(pipeline, target, upstream, catalog, given), given)
}

function planAll(
  pipeline: PipelineSpec,
  target: string,
  upstream: UpstreamMode,
  catalog: (asset: string) => Known | undefined,
): Plan {
  const assets = upstreamOf(pipeline, target).map((name): PlannedAsset => {
    const spec = specOf(pipeline, name)
    if (upstream === 'all' || name === target || spec?.input || spec?.volatile) return { name }
    const known = catalog(name)
    return known?.fingerprint === undefined ? { name } : { name, candidate: earlierOf(known) }
  })
  return { assets }
}

function planPresent(
  pipeline: PipelineSpec,
  target: string,
  upstream: UpstreamMode,
  catalog: (asset: string) => Known | undefined,
  given: Given,
): Plan {
  const planned = new Map<string, PlannedAsset>()
  const absent: string[] = []
  const visit = (name: string): void => {
    if (planned.has(name)) return
    const spec = specOf(pipeline, name)
    const known = name === target || spec?.input ? undefined : catalog(name)
    if (known && known.inputs === inputsOf(pipeline, name, given)) {
      planned.set(name, reuseOf(name, known, 'present'))
      return
    }
    if (name !== target && !spec?.input && upstream === 'none') {
      absent.push(name)
      return
    }
    for (const dependency of spec?.dependsOn ?? []) visit(dependency)
    planned.set(name, { name })
  }
  visit(target)
  if (absent.length === 0) return { assets: [...planned.values()] }
  const message = `${target} needs ${absent.join(', ')}, which ${absent.length > 1 ? 'have' : 'has'} no value in this partition; materialize with upstream 'missing' or 'all'`
  return { assets: [], error: { code: 'missing_upstream', message } }
}

/** Fails a plan that needs an input which was not given. */
export function withInput(pipeline: PipelineSpec, plan: Plan, given: Given): Plan {
  const missing = plan.assets.filter(({ name }) => specOf(pipeline, name)?.input && given[name] === undefined)
  if (missing.length === 0) return plan
  const names = missing.map(({ name }) => name).join(', ')
  return { assets: [], error: { code: 'missing_input', message: `the run was not given ${names}; pass it as input` } }
}

export function earlierOf({ value, run, hash, fingerprint }: Known): EarlierValue {
  return { value, ...made({ run, hash, fingerprint }) }
}

export function reuseOf(name: string, { value, run, hash }: Known, why: ReuseReason): PlannedAsset {
  return { name, reuse: value, from: { ...made({ run, hash }), why } }
}

function made<T extends Record<string, string | undefined>>(parts: T): { [K in keyof T]?: string } {
  return Object.fromEntries(Object.entries(parts).filter(([, part]) => part !== undefined)) as {
    [K in keyof T]?: string
  }
}
