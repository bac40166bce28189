/** `asset`: a named piece of data, what it depends on, and the function that makes it. */
import { z } from 'zod'
import { InvalidError } from '../../streams/errors.ts'
import { checkName } from '../../streams/ids.ts'
import type { AssetSpec, RetrySpec, ScatterSpec } from '../../streams/schemas.ts'
import { shapeOf } from '../../streams/shape.ts'
import type { ErrorView } from '../../streams/thrown.ts'
import type { ItemReader } from '../items/reader.ts'
import { type Duration, parseDuration, parseRange } from '../options/duration.ts'
import { refuseUnknown } from '../options/unknown.ts'
import type { Logger } from '../telemetry.ts'
import { parseCodeVersion, schemaHash } from './code-version.ts'
import type { ApprovalOptions, ChildRun, GateOptions, OpenedGate, Suspension } from './gates.ts'
import { type Limits, parseRateLimit, parseSlots, type RateLimit, type SlotsSettings } from './limits.ts'
import type { ChildOptions } from './run-options.ts'
import type { StandardSchema } from './standard-schema.ts'

/**
 * What a worker gives to user code as `ctx.resources`: database pools, API clients. Empty here; a
 * project declares its own: `declare module 'flowstone' { interface Resources { db: Pool } }`, and
 * hands them to `flow.worker(…, { resources: { db } })`.
 */
// biome-ignore lint/suspicious/noEmptyInterface: made to be extended by users (declaration merging)
export interface Resources {}

/** What an asset's code gets: who and where it is, its dependencies, and gates. */
export interface AssetContext {
  readonly runId: string
  readonly asset: string
  /** The data partition the run is for, as given to `materialize`. */
  readonly partition: string | undefined
  /** Which execution of this asset in this run this is, from 1. */
  readonly attempt: number
  /** The same for every attempt: hand it to outside systems that deduplicate. */
  readonly idempotencyKey: string
  /**
   * Aborted when the run is cancelled, the time limit has passed, or the worker must stop. Pass it
   * on to fetch and the like.
   */
  readonly signal: AbortSignal
  readonly log: Logger
  readonly resources: Resources
  /**
   * `return ctx.signalGate({ … })`: waits for a signal from outside, at no cost. The value is what
   * `onSignal` makes of the signal. Throws InvalidError for bad options.
   */
  signalGate(options?: GateOptions): Suspension
  /** As `signalGate`, for a person's decision: its signal's payload is a `Decision`. */
  approval(options: ApprovalOptions): Suspension
  /**
   * Stores a gate before the outside job is begun, so that a quick answer finds it: start the job
   * with its token or address, then `return gate.wait()`.
   */
  openGate(options?: GateOptions): Promise<OpenedGate>
  /**
   * `return ctx.run(asset, { input })`: starts a run of another asset, by object or by name
   * (`'orders/invoice'`), and waits until it has ended, at no cost. The value is that of the run,
   * or what `onRun` makes of it. A run that fails, or is cancelled, fails what waits for it. Throws
   * InvalidError for bad options.
   */
  run<V, G = unknown>(asset: Asset<string, V, G>, options?: ChildOptions<InputOf<G>>): ChildRun<V>
  run<V = unknown>(asset: string, options?: ChildOptions): ChildRun<V>
  /** Ends with an error that no retry can help. */
  fail(reason: string): never
}

/** What `onSignal` gets. */
export interface Answered {
  readonly gate: AnsweredGate
}

/** The gate that was answered: how it was opened, by whom it was answered, and when. */
export interface AnsweredGate {
  /** `<run>.<asset>.<gate>`. */
  readonly id: string
  readonly metadata: unknown
  /** Who signalled, as far as was said. */
  readonly source: string | undefined
  readonly headers: Readonly<Record<string, string>>
  /** By the server's clock. */
  readonly answeredAt: Date
}

/** What `onTimeout` gets. */
export interface TimedOut {
  readonly gate: Pick<AnsweredGate, 'id' | 'metadata'>
  /** How often the gate has timed out, this time included. */
  readonly timeouts: number
  /**
   * How many of the gate's retries are left, the one that begins now included. 0: none, this was
   * the last time, and what `onTimeout` returns or throws counts. More: the gate waits on, and it
   * does not.
   */
  readonly retriesLeft: number
}

/** Hand it on as it is: `signal` is made when it is asked for, and a copy by spread has none. */
export interface InstanceContext<K> extends AssetContext {
  /** The key this instance stands for, as the scatter function gave it. */
  readonly scatterKey: K
  /** Position of the key in the scatter, from 0. */
  readonly index: number
}

/** What `onRun` gets: the run that `ctx.run` started, and its value. */
export interface FinishedChild<V> {
  /** Its id. */
  readonly run: string
  /** The value of its asset. */
  readonly value: V
}

/** An instance that succeeded, as a gather gets it. `index` is its place in the scatter, from 0. */
export interface ScatterResult<K, I> {
  readonly key: K
  readonly index: number
  readonly status: 'ok'
  readonly value: I
}

/** An instance that failed for good, in a scatter with `failureMode: 'partial'`. */
export interface ScatterFailure<K> {
  readonly key: K
  readonly index: number
  readonly status: 'failed'
  readonly value?: undefined
  readonly error: ErrorView
}

/**
 * What a failed instance means to its scatter. `all_or_nothing`: the scatter fails. `partial`: it
 * goes on, up to its `failureThreshold`.
 */
export type FailureMode = 'all_or_nothing' | 'partial'
/** What a gather gets: failed instances only where the scatter goes on without them. */
export type Gathered<K, I, F extends FailureMode> =
  | ScatterResult<K, I>
  | (F extends 'partial' ? ScatterFailure<K> : never)

/**
 * How the instances of a scatter run. Queue, priority and retry are those of the asset unless said
 * otherwise.
 */
export interface InstanceOptions<F extends FailureMode = FailureMode, K = unknown> {
  /**
   * How many instances of this scatter run at a time, over all workers and hosts; 1 to 2,048.
   * Default: as many as workers have room for. Enforced by the server: a worker that is taken for
   * dead (see `ackWait`) and is not may for that time run one instance more.
   */
  readonly maxConcurrent?: number
  /**
   * `all_or_nothing` (default): the first instance that fails for good fails the scatter at once.
   * `partial`: it goes on until `failureThreshold` is passed; ended below that it is a
   * `partial_failure`, and the gather and what is downstream run.
   */
  readonly failureMode?: F
  /**
   * How many may fail with `partial`: a fraction of the total (0 to 1), or `{ count }`. Default 0:
   * none. A fraction is looked at once all keys are known. Passed, the scatter fails at once, what
   * runs is aborted, and what waits is not begun.
   */
  readonly failureThreshold?: number | { readonly count: number }
  readonly retry?: RetryOptions & {
    /**
     * `individual` (default): each failed instance is retried after its own backoff. `batch`: all
     * failed ones are retried together, when the first pass has ended.
     */
    readonly strategy?: 'individual' | 'batch'
  }
  readonly queue?: string
  readonly priority?: 0 | 1 | 2 | 3
  /** Longest time for one instance. Default `'30m'`; `Infinity` for none. */
  readonly timeout?: Duration
  /**
   * Longest time for the whole scatter, from its first key on, pauses included. Default none. When
   * it has passed, the scatter fails with `timeout`, whatever `failureMode` says, and what runs is
   * aborted. The server keeps the time, so it also counts while no process of yours runs.
   */
  readonly totalTimeout?: Duration
  /**
   * Keys that stand for the same thing (see `scatterKeyHash`): `error` (default) fails the scatter
   * and lists them; `drop` keeps the first of each. `allow` keeps all.
   */
  readonly duplicates?: 'error' | 'drop' | 'allow'
  /**
   * How fast instances start, over all workers: `[10, 'second']`, or with a bucket that others
   * share. Default: as fast as they can.
   */
  readonly rateLimit?: RateLimit<K>
  /** Slots that each instance holds while it runs, in place of those of the asset. */
  readonly slots?: SlotsSettings<K>
}

/** How often code is run again that failed, and after which waits. */
export interface RetryOptions {
  /**
   * How often the code is run at the most, losses of the worker process included. Default 3. 1:
   * never again, also when it was only beside what killed the worker. What lost a worker runs its
   * last attempt alone in its process, so that only what kills its worker by itself fails by it.
   */
  readonly maxAttempts?: number
  /**
   * First wait and longest wait between attempts, tripled each time, with jitter. Default
   * `'1s..60s'`.
   */
  readonly backoff?: Duration | `${string}..${string}`
}

export interface CommonOptions<D extends readonly AnyAsset[]> {
  /** Assets whose values this one needs. Default none. */
  readonly dependsOn?: D
  /** Which workers run it: those that serve this queue. Default `default`. */
  readonly queue?: string
  /** 0 (first) to 3. Default 1. */
  readonly priority?: 0 | 1 | 2 | 3
  /**
   * Longest time for one execution of each of its functions: `execute`, the scatter function until
   * its last key, the gather, `onSignal`, `onTimeout`. Loading the dependencies and storing the
   * value count too. Of instances, see `scatterOptions.timeout`. Default none. Over it, `signal` is
   * aborted and the attempt has failed.
   */
  readonly timeout?: Duration
  readonly retry?: RetryOptions
  /**
   * Slots that each execution holds while it runs, over all processes: `{ bucket: 'gpu', max: 4 }`.
   * Of a scatter: each instance. Not held by the scatter function and the gather, nor while it
   * waits at a gate.
   */
  readonly slots?: SlotsSettings<unknown> & { readonly bucket: string }
  /**
   * A text of your own, such as `'2'`. Change it when your code expects another form of what it is
   * given: keys, results of instances, values of dependencies. Runs that were planned before go on
   * with workers that still have the old code. Default none.
   */
  readonly codeVersion?: string
  /**
   * True: its value is never current, because it depends on more than its dependencies, such as the
   * time or a table. With `upstream: 'stale'` it is made again by each run. Default false.
   */
  readonly volatile?: boolean
  /**
   * Name of the I/O manager that stores the value, as registered with `connect({ io })`. Default
   * `nats`.
   */
  readonly io?: string
}

/**
 * A declared asset, from `asset(name, { … })`. `N`: its name. `V`: its value. `G`: what a run of it
 * is given, by the name of the input.
 */
export interface Asset<N extends string = string, V = unknown, G = unknown> {
  readonly name: N
  readonly definition: Definition
  /** Only a type: what `materialize` brings. */
  readonly value?: V
  /** Only a type: what `materialize` is given as `input`. */
  readonly inputs?: G
}

/** An asset of any name and value. */
export type AnyAsset = Asset<string, unknown>
/** The type of an asset's value: `ValueOf<typeof report>`. */
export type ValueOf<A> = A extends Asset<string, infer V> ? V : never
/** What a run of these is given: all that each of them is. */
export type InputsOf<D extends readonly AnyAsset[]> = D extends readonly [
  Asset<string, unknown, infer G>,
  ...infer Rest extends readonly AnyAsset[],
]
  ? G & InputsOf<Rest>
  : unknown
/** Of an asset whose inputs are not known by type, anything may be given by name. */
export type InputOf<G> = unknown extends G ? Readonly<Record<string, unknown>> : G
export type DepValues<D extends readonly AnyAsset[]> = { readonly [A in D[number] as A['name']]: ValueOf<A> }

type Awaitable<T> = T | Promise<T>
/**
 * Code that only waits, with no `onSignal`, has the payload for its value, and nobody knows the
 * type of that.
 */
type Settled<V> = [V] extends [never] ? V : V extends ChildRun<infer C> ? C : V extends Suspension ? unknown : V
/** As `Settled`, where `onRun` returns `R`: that comes in place of the value of the run. */
type AfterRun<V, R> = [R] extends [never] ? Settled<V> : Settled<Exclude<V, ChildRun>> | Settled<R>
/** What the runs make that code returns. */
type ChildValue<V> = V extends ChildRun<infer C> ? C : never
export type Keys<K> = Iterable<K> | AsyncIterable<K> | ItemReader<K>

/**
 * The asset's functions with their types erased, as the worker calls them. Methods, so that
 * narrower parameters fit.
 */
export interface Definition {
  readonly dependsOn: readonly AnyAsset[]
  readonly spec: AssetSpec
  readonly io: string
  /** Of an input: what it takes, and makes of it. */
  readonly inputSchema?: StandardSchema<unknown, unknown>
  /** Of its gates, where they name none. */
  readonly payloadSchema?: z.ZodType
  /** Of `execute`, also of each instance. */
  readonly limits?: Limits
  execute(ctx: InstanceContext<unknown>, deps: Readonly<Record<string, unknown>>): unknown
  onSignal?(
    ctx: InstanceContext<unknown> & Answered,
    payload: unknown,
    deps: Readonly<Record<string, unknown>>,
  ): unknown
  onTimeout?(ctx: InstanceContext<unknown> & TimedOut, deps: Readonly<Record<string, unknown>>): unknown
  onRun?(ctx: InstanceContext<unknown>, child: FinishedChild<unknown>, deps: Readonly<Record<string, unknown>>): unknown
  scatter?(deps: Readonly<Record<string, unknown>>, ctx: AssetContext): Awaitable<Keys<unknown>>
  gather?(
    results: AsyncIterable<Gathered<unknown, unknown, FailureMode>>,
    ctx: AssetContext,
    deps: Readonly<Record<string, unknown>>,
  ): unknown
}

export interface PlainOptions<D extends readonly AnyAsset[], V, P = unknown, R = never> extends CommonOptions<D> {
  // These keep a scatter from being taken for a plain asset, even while TypeScript infers the types
  // of its functions. TypeScript 7.0 fixes a parameter's type at that point.
  readonly scatter?: undefined
  readonly scatterOptions?: undefined
  readonly gather?: undefined
  execute(ctx: AssetContext, deps: DepValues<D>): Awaitable<V | Suspension>
  /**
   * What the payload of this asset's gates must look like, where a gate does not say so itself. A
   * gate that was opened under one schema goes on only with code that has the same one.
   */
  readonly payloadSchema?: z.ZodType<P>
  /**
   * Goes on when a gate was answered: makes the value of the payload, or waits again. Retried by
   * itself, from the gate on. Default: the payload is the value.
   */
  onSignal?(ctx: AssetContext & Answered, payload: P, deps: DepValues<D>): Awaitable<V | Suspension>
  /**
   * Goes on when nobody answered in time: a value, an error, or another gate. Default: as the
   * gate's `timeoutAction` says.
   */
  onTimeout?(ctx: AssetContext & TimedOut, deps: DepValues<D>): Awaitable<V | Suspension>
  /**
   * Goes on when the run of `ctx.run` has succeeded. Retried by itself, from there on: the run is
   * not started again. Default: the value of the run is the value.
   */
  onRun?(ctx: AssetContext, child: FinishedChild<NoInfer<ChildValue<V>>>, deps: DepValues<D>): Awaitable<R | Suspension>
}

export interface ScatterOptions<
  D extends readonly AnyAsset[],
  K,
  I,
  F extends FailureMode = FailureMode,
  P = unknown,
  R = never,
> extends CommonOptions<D> {
  readonly scatterOptions?: InstanceOptions<F, NoInfer<K>>
  /**
   * The keys, one for each instance: a list, any iterable or async iterable, or an item reader
   * (`flowstone/items`). With an item reader, a later attempt continues where the one before it
   * stopped. Called once an attempt. No keys: the scatter closes as completed.
   */
  scatter(deps: DepValues<D>, ctx: AssetContext): Awaitable<Keys<K>>
  /** Runs for each key, in parallel, on any worker. */
  execute(ctx: InstanceContext<K>, deps: DepValues<D>): Awaitable<I | Suspension>
  /** As for a plain asset. */
  readonly payloadSchema?: z.ZodType<P>
  /** As for a plain asset, for the instance that waited. */
  onSignal?(ctx: InstanceContext<K> & Answered, payload: P, deps: DepValues<D>): Awaitable<I | Suspension>
  onTimeout?(ctx: InstanceContext<K> & TimedOut, deps: DepValues<D>): Awaitable<I | Suspension>
  /** As for a plain asset, for the instance that started the run. */
  onRun?(
    ctx: InstanceContext<K>,
    child: FinishedChild<NoInfer<ChildValue<I>>>,
    deps: DepValues<D>,
  ): Awaitable<R | Suspension>
}

export interface GatherOptions<
  D extends readonly AnyAsset[],
  K,
  I,
  V,
  F extends FailureMode = FailureMode,
  P = unknown,
  R = never,
> extends ScatterOptions<D, K, I, F, P, R> {
  /**
   * Makes the asset's value of the results, which come in the order of the keys, read from the log
   * as they are asked for.
   */
  gather(results: AsyncIterable<Gathered<K, AfterRun<I, R>, F>>, ctx: AssetContext, deps: DepValues<D>): Awaitable<V>
}

const ALLOWED = [
  'dependsOn',
  'queue',
  'priority',
  'timeout',
  'retry',
  'io',
  'slots',
  'codeVersion',
  'volatile',
  'payloadSchema',
  'execute',
  'onSignal',
  'onTimeout',
  'onRun',
  'scatter',
  'scatterOptions',
  'gather',
]

/**
 * Declares an asset. Three forms: plain (`execute`), scatter (`scatter` and `execute`; the value is
 * the list of `{ key, value }`), and scatter with `gather`. Throws InvalidError that names the
 * option at fault.
 */
export function asset<
  const N extends string,
  const D extends readonly AnyAsset[] = [],
  K = never,
  I = unknown,
  V = never,
  const F extends FailureMode = 'all_or_nothing',
  P = unknown,
  R = never,
>(name: N, options: GatherOptions<D, K, I, V, F, P, R>): Asset<N, V, InputsOf<D>>
export function asset<
  const N extends string,
  const D extends readonly AnyAsset[] = [],
  K = never,
  I = unknown,
  P = unknown,
  R = never,
>(
  name: N,
  options: ScatterOptions<D, K, I, FailureMode, P, R>,
): Asset<N, { key: K; value: AfterRun<I, R> }[], InputsOf<D>>
export function asset<
  const N extends string,
  const D extends readonly AnyAsset[] = [],
  V = unknown,
  P = unknown,
  R = never,
>(name: N, options: PlainOptions<D, V, P, R>): Asset<N, AfterRun<V, R>, InputsOf<D>>
export function asset(
  name: string,
  options: CommonOptions<readonly AnyAsset[]> &
    Pick<Definition, 'execute' | 'onSignal' | 'onTimeout' | 'onRun'> & {
      scatter?: Definition['scatter'] | undefined
      gather?: Definition['gather'] | undefined
      scatterOptions?: InstanceOptions<FailureMode, never> | undefined
      payloadSchema?: z.ZodType | undefined
    },
): AnyAsset {
  checkName('asset name', name)
  const at = `asset ${name}`
  if (typeof options !== 'object' || options === null)
    throw new InvalidError(`${at}: options must be an object with execute`)
  refuseUnknown(at, options, ALLOWED)
  checkParts(at, options)
  const dependsOn = options.dependsOn ?? []
  if (!Array.isArray(dependsOn)) throw new InvalidError(`${at}: dependsOn must be an array of assets`)
  for (const [i, dependency] of dependsOn.entries()) {
    if (!isAsset(dependency)) {
      throw new InvalidError(
        `${at}: dependsOn[${i}] is no asset (${dependency === undefined ? 'undefined: is it declared further down, or imported in a circle?' : typeof dependency})`,
      )
    }
  }
  const names = dependsOn.map((dependency) => dependency.name)
  const twice = names.find((dependency, i) => names.indexOf(dependency) !== i)
  if (twice !== undefined) throw new InvalidError(`${at}: dependsOn names ${twice} twice`)
  const rate = options.scatterOptions?.rateLimit
  const paced = rate === undefined ? undefined : parseRateLimit(`${at}: scatterOptions: rateLimit`, rate)
  const slots = options.slots === undefined ? undefined : parseSlots(`${at}: slots`, options.slots)
  const own = options.scatterOptions?.slots
  const ownSlots = own === undefined ? undefined : parseSlots(`${at}: scatterOptions: slots`, own)
  const held = ownSlots ?? slots
  const scatterSpec = options.scatter && {
    ...parseInstanceOptions(at, options.scatterOptions ?? {}),
    ...(paced ? { rateLimit: paced.spec } : {}),
    ...(held ? { slots: held.spec } : {}),
    ...(options.gather ? { gather: true } : {}),
  }
  const graph: Omit<AssetSpec, 'shape'> = {
    name,
    dependsOn: names,
    ...(scatterSpec ? { scatter: scatterSpec } : {}),
    ...(slots ? { slots: slots.spec } : {}),
    queue: checkName(`${at}: queue`, options.queue ?? 'default'),
    priority: parsePriority(`${at}: priority`, options.priority),
    ...(options.timeout === undefined
      ? {}
      : { timeoutMs: positive(`${at}: timeout`, parseDuration(`${at}: timeout`, options.timeout)) }),
    retry: parseRetry(`${at}: retry`, options.retry),
    ...(options.onTimeout ? { onTimeout: true } : {}),
    ...(options.onSignal ? { onSignal: true } : {}),
    ...(options.onRun ? { onRun: true } : {}),
    ...(options.payloadSchema === undefined ? {} : { payloadSchema: schemaHash(at, options.payloadSchema) }),
    ...(parseVolatile(at, options.volatile) ? { volatile: true } : {}),
    ...(options.codeVersion === undefined ? {} : { codeVersion: parseCodeVersion(at, options.codeVersion) }),
  }
  const spec: AssetSpec = { ...graph, shape: shapeOf(graph) }
  const { execute, onSignal, onTimeout, onRun, scatter, gather, payloadSchema } = options
  const definition: Definition = {
    dependsOn,
    spec,
    io: options.io ?? 'nats',
    ...(paced || held
      ? { limits: { ...(paced ? { rate: paced.limit } : {}), ...(held ? { slots: held.limit } : {}) } }
      : {}),
    execute,
    ...(onSignal ? { onSignal } : {}),
    ...(onTimeout ? { onTimeout } : {}),
    ...(onRun ? { onRun } : {}),
    ...(scatter ? { scatter } : {}),
    ...(gather ? { gather } : {}),
    ...(payloadSchema ? { payloadSchema } : {}),
  }
  return { name, definition }
}

/** Throws for what is no function, and for what only a scatter has. */
function checkParts(at: string, options: object): void {
  for (const key of ['execute', 'onSignal', 'onTimeout', 'onRun', 'scatter', 'gather'] as const) {
    const value: unknown = Reflect.get(options, key)
    if (typeof value !== 'function' && (key === 'execute' || value !== undefined))
      throw new InvalidError(`${at}: ${key} must be a function, got ${typeof value}`)
  }
  for (const key of ['gather', 'scatterOptions'] as const)
    if (Reflect.get(options, key) && !Reflect.get(options, 'scatter'))
      throw new InvalidError(`${at}: ${key} needs scatter`)
}

function parseVolatile(at: string, value: unknown): boolean {
  if (value === undefined || typeof value === 'boolean') return value === true
  throw new InvalidError(`${at}: volatile must be true or false, got ${typeof value}`)
}

export function isAsset(value: unknown): value is AnyAsset {
  return (
    typeof value === 'object' &&
    value !== null &&
    'definition' in value &&
    'name' in value &&
    typeof value.name === 'string'
  )
}

const INSTANCE_ALLOWED = [
  'maxConcurrent',
  'failureMode',
  'failureThreshold',
  'retry',
  'queue',
  'priority',
  'timeout',
  'totalTimeout',
  'duplicates',
  'rateLimit',
  'slots',
]
export const MAX_CONCURRENT = 2048
const INSTANCE_TIMEOUT_MS = 30 * 60_000
/** Beyond the calendar no schedule can be made of it. */
const TOTAL_MAX_MS = 365 * 86_400_000
/** What a timer in a process can hold. */
export const TIMER_MAX_MS = 2 ** 31 - 1

function parseInstanceOptions(asset: string, options: InstanceOptions<FailureMode, never>): ScatterSpec {
  const at = `${asset}: scatterOptions`
  refuseUnknown(at, options, INSTANCE_ALLOWED)
  const { failureThreshold = 0, queue, priority, timeout, totalTimeout } = options
  const count = typeof failureThreshold === 'object' ? failureThreshold?.count : undefined
  if (count === undefined ? !isFraction(failureThreshold) : !(Number.isInteger(count) && count >= 0)) {
    throw new InvalidError(
      `${at}: failureThreshold must be a fraction from 0 to 1, or { count: a whole number }, got ${JSON.stringify(failureThreshold)}`,
    )
  }
  const { maxConcurrent } = options
  if (
    maxConcurrent !== undefined &&
    !(Number.isInteger(maxConcurrent) && maxConcurrent >= 1 && maxConcurrent <= MAX_CONCURRENT)
  ) {
    throw new InvalidError(
      `${at}: maxConcurrent must be a whole number from 1 to ${MAX_CONCURRENT}, got ${JSON.stringify(maxConcurrent)}`,
    )
  }
  const failureMode = oneOf(`${at}: failureMode`, options.failureMode ?? 'all_or_nothing', [
    'all_or_nothing',
    'partial',
  ])
  if (failureMode === 'all_or_nothing' && options.failureThreshold !== undefined) {
    throw new InvalidError(
      `${at}: failureThreshold needs failureMode 'partial'; with 'all_or_nothing' the first failed instance ends the scatter`,
    )
  }
  const { strategy, ...retry } = options.retry ?? {}
  return {
    ...(maxConcurrent === undefined ? {} : { maxConcurrent }),
    failureMode,
    threshold: count === undefined ? { fraction: Number(failureThreshold) } : { count },
    strategy: oneOf(`${at}: retry.strategy`, strategy ?? 'individual', ['individual', 'batch']),
    ...(options.retry === undefined ? {} : { retry: parseRetry(`${at}: retry`, retry) }),
    ...(timeout === Number.POSITIVE_INFINITY
      ? {}
      : { timeoutMs: positive(`${at}: timeout`, parseDuration(`${at}: timeout`, timeout ?? INSTANCE_TIMEOUT_MS)) }),
    ...(totalTimeout === undefined
      ? {}
      : {
          totalTimeoutMs: positive(
            `${at}: totalTimeout`,
            parseDuration(`${at}: totalTimeout`, totalTimeout),
            TOTAL_MAX_MS,
          ),
        }),
    ...(queue === undefined ? {} : { queue: checkName(`${at}: queue`, queue) }),
    ...(priority === undefined ? {} : { priority: parsePriority(`${at}: priority`, priority) }),
    duplicates: oneOf(`${at}: duplicates`, options.duplicates ?? 'error', ['error', 'drop', 'allow']),
  }
}

function isFraction(value: unknown): boolean {
  return typeof value === 'number' && value >= 0 && value <= 1
}

function oneOf<const T extends string>(field: string, value: string, allowed: readonly T[]): T {
  const found = allowed.find((candidate) => candidate === value)
  if (found !== undefined) return found
  throw new InvalidError(`${field} must be one of ${allowed.join(', ')}, got ${JSON.stringify(value)}`)
}

function parsePriority(field: string, value: unknown): number {
  const checked = z
    .int()
    .min(0)
    .max(3)
    .safeParse(value ?? 1)
  if (checked.success) return checked.data
  throw new InvalidError(`${field} must be 0, 1, 2 or 3, got ${JSON.stringify(value)}`)
}

function positive(field: string, ms: number, max = TIMER_MAX_MS): number {
  if (ms > 0 && ms <= max) return ms
  throw new InvalidError(`${field} must be more than 0 and at most ${Math.floor(max / 86_400_000)} days`)
}

function parseRetry(at: string, retry: RetryOptions | undefined): RetrySpec {
  refuseUnknown(at, retry ?? {}, ['maxAttempts', 'backoff'])
  const maxAttempts = retry?.maxAttempts ?? 3
  if (!Number.isInteger(maxAttempts) || maxAttempts < 1)
    throw new InvalidError(`${at}.maxAttempts must be a whole number from 1, got ${JSON.stringify(maxAttempts)}`)
  const { minMs, maxMs } = parseRange(`${at}.backoff`, retry?.backoff ?? '1s..60s')
  return { maxAttempts, backoffMinMs: minMs, backoffMaxMs: maxMs }
}
