/** `asset`: a named piece of data, what it depends on, and the function that makes it. */
import { z } from 'zod'
import { InvalidError } from '../../streams/errors.ts'
import { checkName } from '../../streams/ids.ts'
import type { AssetSpec, RetrySpec } from '../../streams/schemas.ts'
import type { Logger } from '../telemetry.ts'
import { type Duration, parseDuration, parseRange } from './duration.ts'

/**
 * What a worker gives to user code as `ctx.resources`: database pools, API clients. Empty here; a project declares its own:
 * `declare module 'flowstone' { interface Resources { db: Pool } }`, and hands them to `flow.worker(…, { resources: { db } })`.
 */
// biome-ignore lint/suspicious/noEmptyInterface: made to be extended by users (declaration merging)
export interface Resources {}

export interface AssetContext {
  readonly run: string
  readonly asset: string
  /** The data partition the run is for, as given to `materialize`. */
  readonly partition: string | undefined
  /** Which execution of this asset in this run this is, from 1. */
  readonly attempt: number
  /** The same for every attempt: hand it to outside systems that deduplicate. */
  readonly idempotencyKey: string
  /** Aborted when the run is cancelled, the time limit is over, or the worker must stop. Pass it on to fetch and the like. */
  readonly signal: AbortSignal
  readonly log: Logger
  readonly resources: Resources
}

export interface InstanceContext<K> extends AssetContext {
  /** The key this instance stands for, as the scatter function gave it. */
  readonly scatterKey: K
  /** Position of the key in the scatter, from 0. */
  readonly index: number
}

export interface ScatterResult<K, I> {
  readonly key: K
  readonly index: number
  readonly status: 'ok'
  readonly value: I
}

export interface RetryOptions {
  /** How often the code is run at the most, failures of the worker process included. Default 3. 1: never again. */
  readonly maxAttempts?: number
  /** First wait and longest wait between attempts, tripled each time, with jitter. Default `'1s..60s'`. */
  readonly backoff?: Duration | `${string}..${string}`
}

export interface CommonOptions<D extends readonly AnyAsset[]> {
  /** Assets whose values this one needs. Default none. */
  readonly dependsOn?: D
  /** Which workers run it: those that serve this queue. Default `default`. */
  readonly queue?: string
  /** 0 (first) to 3. Default 1. */
  readonly priority?: 0 | 1 | 2 | 3
  /** Longest time for one execution (of one instance, where the asset scatters). Default none. Over it, `signal` is aborted and the attempt has failed. */
  readonly timeout?: Duration
  readonly retry?: RetryOptions
  /** Name of the I/O manager that stores the value, as registered with `connect({ io })`. Default `nats`. */
  readonly io?: string
}

export interface Asset<N extends string = string, V = unknown> {
  readonly name: N
  readonly definition: Definition
  /** Only a type: what `materialize` brings. */
  readonly value?: V
}
export type AnyAsset = Asset<string, unknown>
export type ValueOf<A> = A extends Asset<string, infer V> ? V : never
export type DepValues<D extends readonly AnyAsset[]> = { readonly [A in D[number] as A['name']]: ValueOf<A> }

type Awaitable<T> = T | Promise<T>
export type Keys<K> = Iterable<K> | AsyncIterable<K>

/** The asset's functions with their types erased, as the worker calls them. Methods, so that narrower parameters fit. */
export interface Definition {
  readonly dependsOn: readonly AnyAsset[]
  readonly spec: AssetSpec
  readonly io: string
  execute(ctx: InstanceContext<unknown>, deps: Readonly<Record<string, unknown>>): unknown
  scatter?(deps: Readonly<Record<string, unknown>>, ctx: AssetContext): Awaitable<Keys<unknown>>
  gather?(results: AsyncIterable<ScatterResult<unknown, unknown>>, ctx: AssetContext, deps: Readonly<Record<string, unknown>>): unknown
}

export interface PlainOptions<D extends readonly AnyAsset[], V> extends CommonOptions<D> {
  execute(ctx: AssetContext, deps: DepValues<D>): Awaitable<V>
}

export interface ScatterOptions<D extends readonly AnyAsset[], K, I> extends CommonOptions<D> {
  /** The keys, one for each instance: a list, or any iterable or async iterable. Called once an attempt; an empty one closes the scatter as completed. */
  scatter(deps: DepValues<D>, ctx: AssetContext): Awaitable<Keys<K>>
  /** Runs for each key, in parallel, on any worker. */
  execute(ctx: InstanceContext<K>, deps: DepValues<D>): Awaitable<I>
}

export interface GatherOptions<D extends readonly AnyAsset[], K, I, V> extends ScatterOptions<D, K, I> {
  /** Makes the asset's value of the results, which come in the order of the keys, read from the log as they are asked for. */
  gather(results: AsyncIterable<ScatterResult<K, I>>, ctx: AssetContext, deps: DepValues<D>): Awaitable<V>
}

const ALLOWED = ['dependsOn', 'queue', 'priority', 'timeout', 'retry', 'io', 'execute', 'scatter', 'gather']

/**
 * Declares an asset. Three forms: plain (`execute`), scatter (`scatter` and `execute`; the value is the list of `{ key, value }`), and scatter with `gather`.
 * Throws InvalidError that names the option at fault.
 */
export function asset<const N extends string, const D extends readonly AnyAsset[] = [], K = never, I = never, V = never>(
  name: N,
  options: GatherOptions<D, K, I, V>,
): Asset<N, V>
export function asset<const N extends string, const D extends readonly AnyAsset[] = [], K = never, I = never>(
  name: N,
  options: ScatterOptions<D, K, I>,
): Asset<N, { key: K; value: I }[]>
export function asset<const N extends string, const D extends readonly AnyAsset[] = [], V = never>(name: N, options: PlainOptions<D, V>): Asset<N, V>
export function asset(name: string, options: CommonOptions<readonly AnyAsset[]> & Pick<Definition, 'execute' | 'scatter' | 'gather'>): AnyAsset {
  checkName('asset name', name)
  const at = `asset ${name}`
  if (typeof options !== 'object' || options === null) throw new InvalidError(`${at}: options must be an object with execute`)
  for (const key of Object.keys(options)) {
    if (!ALLOWED.includes(key)) throw new InvalidError(`${at}: there is no option ${key}; allowed are ${ALLOWED.join(', ')}`)
  }
  for (const key of ['execute', 'scatter', 'gather'] as const) {
    const value: unknown = options[key]
    if (typeof value !== 'function' && (key === 'execute' || value !== undefined)) throw new InvalidError(`${at}: ${key} must be a function, got ${typeof value}`)
  }
  if (options.gather && !options.scatter) throw new InvalidError(`${at}: gather needs scatter`)
  const dependsOn = options.dependsOn ?? []
  if (!Array.isArray(dependsOn)) throw new InvalidError(`${at}: dependsOn must be an array of assets`)
  for (const [i, dependency] of dependsOn.entries()) {
    if (!isAsset(dependency)) {
      throw new InvalidError(`${at}: dependsOn[${i}] is no asset (${dependency === undefined ? 'undefined: is it declared further down, or imported in a circle?' : typeof dependency})`)
    }
  }
  const names = dependsOn.map((dependency) => dependency.name)
  const twice = names.find((dependency, i) => names.indexOf(dependency) !== i)
  if (twice !== undefined) throw new InvalidError(`${at}: dependsOn names ${twice} twice`)
  const spec: AssetSpec = {
    name,
    dependsOn: names,
    ...(options.scatter ? { scatter: {} } : {}),
    queue: checkName(`${at}: queue`, options.queue ?? 'default'),
    priority: parsePriority(at, options.priority),
    ...(options.timeout === undefined ? {} : { timeoutMs: positive(`${at}: timeout`, parseDuration(`${at}: timeout`, options.timeout)) }),
    retry: parseRetry(at, options.retry),
  }
  const { execute, scatter, gather } = options
  const definition: Definition = { dependsOn, spec, io: options.io ?? 'nats', execute, ...(scatter ? { scatter } : {}), ...(gather ? { gather } : {}) }
  return { name, definition }
}

export function isAsset(value: unknown): value is AnyAsset {
  return typeof value === 'object' && value !== null && 'definition' in value && 'name' in value && typeof value.name === 'string'
}

function parsePriority(at: string, value: unknown): number {
  const checked = z.int().min(0).max(3).safeParse(value ?? 1)
  if (checked.success) return checked.data
  throw new InvalidError(`${at}: priority must be 0, 1, 2 or 3, got ${JSON.stringify(value)}`)
}

function positive(field: string, ms: number): number {
  if (ms > 0 && ms <= 2 ** 31 - 1) return ms
  throw new InvalidError(`${field} must be more than 0 and at most 24 days`)
}

function parseRetry(at: string, retry: RetryOptions | undefined): RetrySpec {
  const known = ['maxAttempts', 'backoff']
  for (const key of Object.keys(retry ?? {})) {
    if (!known.includes(key)) throw new InvalidError(`${at}: retry has no option ${key}; allowed are ${known.join(', ')}`)
  }
  const maxAttempts = retry?.maxAttempts ?? 3
  if (!Number.isInteger(maxAttempts) || maxAttempts < 1) throw new InvalidError(`${at}: retry.maxAttempts must be a whole number from 1, got ${JSON.stringify(maxAttempts)}`)
  const { minMs, maxMs } = parseRange(`${at}: retry.backoff`, retry?.backoff ?? '1s..60s')
  return { maxAttempts, backoffMinMs: minMs, backoffMaxMs: maxMs }
}
