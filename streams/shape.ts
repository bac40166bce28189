/**
 * The shape of an asset: all that its code must have in common with the graph that a task was
 * planned with. A worker runs a task only if its own code has the task's shape. What the engine
 * decides by itself (queue, priority, retry, time limits, maxConcurrent, …) is not part of it, nor
 * are limits: a change of those strands nothing.
 */
import { canonicalJson } from './fingerprint.ts'
import { hash64 } from './ids.ts'
import type { AssetSpec } from './schemas.ts'

const SHAPE_LENGTH = 12

/** The parts of a shape, by the name that a person knows them by. */
export function shapeParts(spec: Omit<AssetSpec, 'shape'>): Readonly<Record<string, string>> {
  const { scatter } = spec
  return {
    kind: spec.input ? 'input' : scatter ? 'scatter' : 'plain',
    dependsOn: spec.dependsOn.toSorted().join(', ') || 'nothing',
    gather: yesNo(scatter?.gather),
    onSignal: yesNo(spec.onSignal),
    onTimeout: yesNo(spec.onTimeout),
    ...(spec.onRun ? { onRun: 'yes' } : {}),
    payloadSchema: spec.payloadSchema ?? 'none',
    failureMode: scatter?.failureMode ?? 'none',
    duplicates: scatter?.duplicates ?? 'none',
    codeVersion: spec.codeVersion ?? 'none',
    ...(spec.input ? { input: hash64(canonicalJson(spec.input.schema)) } : {}),
  }
}

export function shapeOf(spec: Omit<AssetSpec, 'shape'>): string {
  return hash64(JSON.stringify(shapeParts(spec))).slice(0, SHAPE_LENGTH)
}

/**
 * In what two versions of an asset differ: `dependsOn (a → a, b)`. Empty when their shapes are the
 * same.
 */
export function shapeDifferences(from: Omit<AssetSpec, 'shape'>, to: Omit<AssetSpec, 'shape'>): string[] {
  const [before, after] = [shapeParts(from), shapeParts(to)]
  return Object.keys({ ...before, ...after }).flatMap((part) => {
    const [was, is] = [before[part] ?? 'no', after[part] ?? 'no']
    return was === is ? [] : [`${part} (${was} → ${is})`]
  })
}

function yesNo(there: boolean | undefined): string {
  return there ? 'yes' : 'no'
}
