/** Planning a run: which assets it makes, and which it takes as they are. */
import { nearest } from '../../streams/did-you-mean.ts'
import type { ErrorInfo, PipelineSpec, UpstreamMode, ValueAt } from '../../streams/schemas.ts'
import { specOf } from '../state.ts'

export interface Plan {
  readonly assets: { name: string; reuse?: ValueAt }[]
  readonly error?: ErrorInfo
}

/**
 * A redrive: the scatter and all that hangs on it are made again; everything else is taken as the
 * earlier run had it, or made where that had nothing.
 */
export function planRedrive(
  pipeline: PipelineSpec,
  target: string,
  scatter: string,
  earlier: (asset: string) => ValueAt | undefined,
): Plan {
  const order = upstreamOf(pipeline, target)
  if (!order.includes(scatter)) {
    return { assets: [], error: { code: 'not_redrivable', message: `${target} does not depend on ${scatter}` } }
  }
  const again = new Set([scatter])
  const assets = order.map((name) => {
    if (specOf(pipeline, name)?.dependsOn.some((dependency) => again.has(dependency))) again.add(name)
    const value = again.has(name) ? undefined : earlier(name)
    return value ? { name, reuse: value } : { name }
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
  return upstream === 'all' || (specOf(pipeline, target)?.dependsOn.length ?? 0) === 0
}

/**
 * `all` makes every upstream asset again; `missing` those that have no value in this partition;
 * `none` only the target, whose dependencies must have one.
 */
export function planRun(
  pipeline: PipelineSpec,
  target: string,
  upstream: UpstreamMode,
  catalog: (asset: string) => ValueAt | undefined,
): Plan {
  const spec = specOf(pipeline, target)
  if (!spec) {
    const names = pipeline.assets.map((a) => a.name)
    const message = `pipeline ${pipeline.name} has no asset ${target}${nearest(target, names)}`
    return { assets: [], error: { code: 'unknown_asset', message } }
  }
  if (upstream === 'all') return { assets: upstreamOf(pipeline, target).map((name) => ({ name })) }

  const planned = new Map<string, { name: string; reuse?: ValueAt }>()
  const absent: string[] = []
  const visit = (name: string): void => {
    if (planned.has(name)) return
    const value = name === target ? undefined : catalog(name)
    if (value) {
      planned.set(name, { name, reuse: value })
      return
    }
    if (name !== target && upstream === 'none') {
      absent.push(name)
      return
    }
    for (const dependency of specOf(pipeline, name)?.dependsOn ?? []) visit(dependency)
    planned.set(name, { name })
  }
  visit(target)
  if (absent.length > 0) {
    const message = `${target} needs ${absent.join(', ')}, which ${absent.length > 1 ? 'have' : 'has'} no value in this partition; materialize with upstream 'missing' or 'all'`
    return { assets: [], error: { code: 'missing_upstream', message } }
  }
  return { assets: [...planned.values()] }
}
