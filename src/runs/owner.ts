/** Which pipeline an asset is made in, and how a target is named without its code. */
import { nearest } from '../../streams/did-you-mean.ts'
import { InvalidError } from '../../streams/errors.ts'
import { shown } from '../../streams/shown.ts'
import { cut } from '../../streams/text.ts'
import { type AnyAsset, isAsset } from '../define/asset-type.ts'
import { isPipeline, type Pipeline, pipelinesOf } from '../define/pipeline.ts'

const NAME_SHOWN = 140

/** Throws InvalidError for what is no asset, and for one in no pipeline or in several. */
export function ownerOf(asset: AnyAsset, named: Pipeline | string | undefined, at = 'materialize'): Pipeline {
  if (!isAsset(asset)) {
    throw new InvalidError(
      `${at} takes an asset (what asset(name, …) returned), got ${typeof asset === 'string' ? `the text ${shown(asset)}` : typeof asset}`,
    )
  }
  const owners = pipelinesOf(asset)
  if (typeof named === 'string') {
    // Declared again under its name, as when code is loaded anew: the last one counts.
    const found = owners.findLast((owner) => owner.name === named)
    if (found) return found
    const hint = nearest(named, [...new Set(owners.map((owner) => owner.name))])
    throw new InvalidError(`asset ${asset.name} is in no pipeline ${cut(named, NAME_SHOWN)}${hint}`)
  }
  if (named && !isPipeline(named))
    throw new InvalidError(
      `${at}: pipeline must be a pipeline (what pipeline(name, …) returned), or its name, got ${shown(named)}`,
    )
  if (named) {
    if (named.assets.includes(asset)) return named
    const names = named.assets.map((member) => member.name)
    throw new InvalidError(`pipeline ${named.name} has no asset ${asset.name}${nearest(asset.name, names)}`)
  }
  const [owner] = owners
  if (!owner)
    throw new InvalidError(`asset ${asset.name} is in no pipeline; put it in one: pipeline('name', [${asset.name}, …])`)
  const names = new Set(owners.map((other) => other.name))
  if (names.size > 1)
    throw new InvalidError(
      `asset ${asset.name} is in several pipelines (${[...names].join(', ')}), and each has values of its own; say which: ${at}(${asset.name}, { pipeline: '${owner.name}' })`,
    )
  return owners.at(-1) ?? owner
}

/** `orders/invoice`, or `orders.invoice`: a pipeline and an asset of it. */
export function targetOf(at: string, target: unknown): { pipeline: string; asset: string } {
  const [, pipeline, asset] =
    (typeof target === 'string' ? /^([A-Za-z0-9_-]+)[/.]([A-Za-z0-9_-]+)$/.exec(target) : null) ?? []
  if (pipeline !== undefined && asset !== undefined) return { pipeline, asset }
  throw new InvalidError(`${at}: name a pipeline and an asset, such as 'orders/invoice', got ${shown(target)}`)
}

/** The pipeline and the name of an asset. */
export interface AssetPlace {
  readonly pipeline: string
  readonly asset: string
  /** By a text, which may have a typing mistake. */
  readonly isNamed?: true
}

/** The pipeline and the name of an asset, as declared or as a text. */
export function placeOf(at: string, asset: AnyAsset | string): AssetPlace {
  if (typeof asset === 'string') return { ...targetOf(at, asset), isNamed: true }
  return { pipeline: ownerOf(asset, undefined).name, asset: asset.name }
}
