/** `pipeline`: assets that belong together, checked as a graph when it is declared. */

import { nearest } from '../../streams/did-you-mean.ts'
import { InvalidError } from '../../streams/errors.ts'
import { checkName, hash64 } from '../../streams/ids.ts'
import { type PipelineSpec, type UpstreamMode, upstreamMode } from '../../streams/schemas.ts'
import { shown } from '../../streams/shown.ts'
import { type Duration, parseRunTimeout } from '../options/duration.ts'
import { refuseUnknown } from '../options/unknown.ts'
import { type AnyAsset, isAsset } from './asset-type.ts'
import { type PipelineConcurrency, parsePipelineConcurrency } from './concurrency.ts'
import { type PipelineHooks, parseHooks } from './hooks.ts'
import { parseRetention, type RetentionOptions } from './retention.ts'
import type { Schedule, Sensor } from './schedule.ts'
import { isSubscription, type Subscription } from './subscription.ts'

/** Assets that are deployed together, from `pipeline(name, [ … ])`. */
export interface Pipeline {
  readonly name: string
  /**
   * The assets that are declared, and after them those that run code of schedules, sensors and
   * hooks.
   */
  readonly assets: readonly AnyAsset[]
  /**
   * What is registered on the log: the graph and its options, no code. `version` is a hash of it.
   */
  readonly spec: PipelineSpec
  readonly subscriptions: readonly Subscription[]
}

/** Options of `pipeline`. */
export interface PipelineOptions {
  /**
   * Longest time for each of its runs that names none (`materialize(…, { timeout })`), also of
   * those that a trigger starts. Default none.
   */
  readonly timeout?: Duration
  /**
   * What its runs do with upstream assets, where they say nothing: `all` (default), `stale`,
   * `missing` or `none`. See `materialize`.
   */
  readonly upstream?: UpstreamMode
  /**
   * How many of its runs are active at a time, all of them or by a key: `{ limit: 1, key:
   * 'partition' }`. Runs that name another `concurrency` themselves have that.
   */
  readonly concurrency?: PipelineConcurrency
  /**
   * How long its runs are kept after their end: `{ runs: '90d', failed: '180d', perAsset: {
   * keepLast: 100 } }`. Default: what the engine says. An asset may say it for itself.
   */
  readonly retention?: RetentionOptions
  /** Messages that start runs by themselves. Workers of the pipeline read them. */
  readonly subscriptions?: readonly Subscription[]
  /** What starts runs at certain times. See `schedule`. */
  readonly schedules?: readonly Schedule[]
  /** Code that looks whether runs are to be started. See `sensor`. */
  readonly sensors?: readonly Sensor[]
  /** Code that hears of its runs: of failures, ends, gates and runs that are late. */
  readonly hooks?: PipelineHooks
}

const OPTIONS = ['timeout', 'upstream', 'concurrency', 'retention', 'subscriptions', 'schedules', 'sensors', 'hooks']
const DECLARED_MAX = 10
const REGISTRY = Symbol.for('flowstone.pipelines')

interface Declaration {
  readonly assets: readonly AnyAsset[]
  readonly options: PipelineOptions
}

interface Registry {
  readonly declared: Pipeline[]
  readonly owners: WeakMap<AnyAsset, Set<Pipeline>>
  /** What `pipeline` was given. */
  readonly declarations: WeakMap<Pipeline, Declaration>
}

/**
 * One for all copies of this package in the process: a pipeline that one of them declared is known
 * to the others.
 */
const { declared, owners, declarations }: Registry = registry()

/**
 * Declares a pipeline. Throws InvalidError for duplicates, for dependencies that are not in the
 * list, and for cycles.
 */
export function pipeline(name: string, declaredAssets: readonly AnyAsset[], options: PipelineOptions = {}): Pipeline {
  const result = built(name, declaredAssets, options)
  declarations.set(result, { assets: [...declaredAssets], options })
  declared.push(result)
  if (declared.length > DECLARED_MAX) declared.shift()
  for (const member of declaredAssets) owners.set(member, (owners.get(member) ?? new Set()).add(result))
  return result
}

/**
 * Gives the pipeline hooks if it has none. It is changed itself, as others may hold it. Called
 * before anything uses it. `at`: where the hooks were given, for errors.
 */
export function giveHooks(at: string, one: Pipeline, hooks: PipelineHooks): void {
  const declaration = declarations.get(one)
  if (!declaration)
    throw new InvalidError(
      `${at}: pipeline ${one.name} was not made by pipeline(name, …); give it its hooks where it is declared`,
    )
  const { assets, options } = declaration
  if (options.hooks !== undefined) return
  const more = { ...options, hooks }
  Object.assign(one, built(one.name, assets, more, at))
  declarations.set(one, { assets, options: more })
}

function built(
  name: string,
  declaredAssets: readonly AnyAsset[],
  options: PipelineOptions,
  hooksAt = `pipeline ${name}: hooks`,
): Pipeline {
  checkName('pipeline name', name)
  const at = `pipeline ${name}`
  refuseUnknown(at, options, OPTIONS)
  const upstream =
    options.upstream === undefined ? {} : { upstream: parseUpstream(`${at}: upstream`, options.upstream) }
  const timeoutMs = options.timeout === undefined ? 0 : parseRunTimeout(`${at}: timeout`, options.timeout)
  if (!Array.isArray(declaredAssets) || declaredAssets.length === 0)
    throw new InvalidError(`${at}: give it at least one asset`)
  const schedules = membersOf(at, 'schedule', options.schedules, declaredAssets)
  const sensors = membersOf(at, 'sensor', options.sensors, declaredAssets)
  const declaresAssets = declaredAssets.every(isAsset)
  const hooks =
    options.hooks === undefined || !declaresAssets ? undefined : parseHooks(hooksAt, options.hooks, declaredAssets)
  const assets: readonly AnyAsset[] = [
    ...declaredAssets,
    ...[...schedules, ...sensors].flatMap(({ internal }) => internal),
    ...(hooks?.internal ?? []),
  ]
  const byName = new Map<string, AnyAsset>()
  for (const [i, member] of assets.entries()) {
    if (!isAsset(member))
      throw new InvalidError(`${at}: assets[${i}] is no asset; declare it with asset(name, options)`)
    if (byName.has(member.name)) throw new InvalidError(`${at}: there are two assets named ${member.name}`)
    byName.set(member.name, member)
  }
  for (const member of assets) {
    for (const dependency of member.definition.dependsOn) {
      const found = byName.get(dependency.name)
      if (!found) {
        const others = [...byName.keys()].filter((name) => name !== member.name)
        const hint = nearest(dependency.name, others)
        throw new InvalidError(
          `${at}: ${member.name} depends on ${dependency.name}, which is not in the pipeline; add it to the list${hint}`,
        )
      }
      if (found !== dependency)
        throw new InvalidError(`${at}: ${member.name} depends on another asset that is also named ${dependency.name}`)
    }
  }
  refuseCycles(at, assets)
  const specs = assets.map((member) => member.definition.spec)
  const inputs = specs.flatMap((spec) => (spec.input ? [spec.name] : []))
  const concurrency = parsePipelineConcurrency(`${at}: concurrency`, options.concurrency, inputs)
  const subscriptions = checkSubscriptions(at, assets, options.subscriptions ?? [])
  const settings = {
    ...(timeoutMs === 0 ? {} : { timeoutMs }),
    ...upstream,
    ...(concurrency ? { concurrency } : {}),
    ...(options.retention && { retention: parseRetention(`${at}: retention`, options.retention) }),
    ...(subscriptions.length === 0 ? {} : { subscriptions: subscriptions.map(({ definition }) => definition.spec) }),
    ...(schedules.length === 0 ? {} : { schedules: schedules.map(({ spec }) => spec) }),
    ...(sensors.length === 0 ? {} : { sensors: sensors.map(({ spec }) => spec) }),
    ...(hooks ? { hooks: hooks.spec } : {}),
  }
  const sorted = specs.toSorted((a, b) => (a.name < b.name ? -1 : 1))
  const version = hash64(JSON.stringify(Object.keys(settings).length === 0 ? sorted : [sorted, settings]))
  return {
    name,
    assets: [...assets],
    spec: { name, version, assets: specs, ...settings },
    subscriptions,
  }
}

function checkSubscriptions(at: string, assets: readonly AnyAsset[], given: readonly Subscription[]): Subscription[] {
  if (!Array.isArray(given)) throw new InvalidError(`${at}: subscriptions must be a list`)
  const names = new Set<string>()
  for (const [i, one] of given.entries()) {
    if (!isSubscription(one))
      throw new InvalidError(`${at}: subscriptions[${i}] is none; declare it with subscription(name, options)`)
    if (names.has(one.name)) throw new InvalidError(`${at}: there are two subscriptions named ${one.name}`)
    names.add(one.name)
    if (!assets.includes(one.definition.run))
      throw new InvalidError(
        `${at}: subscription ${one.name} runs ${one.definition.run.name}, which is not in the pipeline; add it to the list`,
      )
  }
  return [...given]
}

/** Schedules or sensors of a pipeline. Throws InvalidError for what does not belong there. */
function membersOf<M extends Schedule | Sensor>(
  at: string,
  kind: M['kind'],
  members: readonly M[] = [],
  assets: readonly AnyAsset[],
): readonly M[] {
  if (!Array.isArray(members)) throw new InvalidError(`${at}: ${kind}s must be a list`)
  const names = new Set<string>()
  for (const [i, member] of members.entries()) {
    if (typeof member !== 'object' || member === null || member.kind !== kind)
      throw new InvalidError(`${at}: ${kind}s[${i}] is no ${kind}; declare it with ${kind}(name, options)`)
    if (names.has(member.name)) throw new InvalidError(`${at}: there are two ${kind}s named ${member.name}`)
    names.add(member.name)
    if (!assets.includes(member.target))
      throw new InvalidError(
        `${at}: ${kind} ${member.name} runs ${member.target.name}, which is not in the pipeline; add it to the list`,
      )
  }
  return members
}

export function parseUpstream(at: string, value: unknown): UpstreamMode {
  const checked = upstreamMode.safeParse(value)
  if (checked.success) return checked.data
  throw new InvalidError(`${at} must be ${UPSTREAM_MODES}, got ${shown(value)}`)
}

const UPSTREAM_MODES = 'all, stale, missing or none'

/** Some that were declared in this process lately, exported or not: for advice. */
export function declaredPipelines(): readonly Pipeline[] {
  return declared
}

/** Also of another copy of this module. */
export function isPipeline(value: unknown): value is Pipeline {
  return (
    typeof value === 'object' &&
    value !== null &&
    'spec' in value &&
    'name' in value &&
    typeof value.name === 'string' &&
    'assets' in value &&
    Array.isArray(value.assets) &&
    value.assets.every(isAsset)
  )
}

/** Throws InvalidError for what is no pipeline. */
export function checkPipeline(at: string, value: unknown): Pipeline {
  if (isPipeline(value)) return value
  throw new InvalidError(`${at} takes a pipeline (what pipeline(name, …) returned), got ${shown(value)}`)
}

/** The pipelines that were declared with this asset. */
export function pipelinesOf(asset: AnyAsset): Pipeline[] {
  return [...(owners.get(asset) ?? [])]
}

function refuseCycles(at: string, assets: readonly AnyAsset[]): void {
  const state = new Map<string, 'open' | 'done'>()
  const visit = (member: AnyAsset, path: readonly string[]): void => {
    if (state.get(member.name) === 'done') return
    if (state.get(member.name) === 'open') {
      const cycle = [...path.slice(path.indexOf(member.name)), member.name]
      throw new InvalidError(`${at}: its assets depend on each other in a circle: ${cycle.join(' → ')}`)
    }
    state.set(member.name, 'open')
    for (const dependency of member.definition.dependsOn) visit(dependency, [...path, member.name])
    state.set(member.name, 'done')
  }
  for (const member of assets) visit(member, [])
}

function registry(): Registry {
  const realm: { [REGISTRY]?: Partial<Registry> } = Object(globalThis)
  // A copy of an older version may have made it, and have known less.
  const known = realm[REGISTRY] ?? {}
  realm[REGISTRY] = known
  const { declared = [], owners = new WeakMap(), declarations = new WeakMap() } = known
  return Object.assign(known, { declared, owners, declarations })
}
