/** What `asset(name, options)` takes. */
import type { z } from 'zod'
import type { Duration } from '../options/duration.ts'
import type {
  Answered,
  AnyAsset,
  AssetContext,
  Awaitable,
  FailureMode,
  FinishedChild,
  Gathered,
  InstanceContext,
  Keys,
  TimedOut,
  ValueOf,
} from './asset-type.ts'
import type { ChildRun, Suspension } from './gates.ts'
import type { RateLimit, SlotsSettings } from './limits.ts'
import type { AssetRetention } from './retention.ts'

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
   * How long runs that were asked for this asset are kept, and how many of its values: `{ runs:
   * '30d', keepLast: 10 }`. Default: what the pipeline says.
   */
  readonly retention?: AssetRetention
  /**
   * Name of the I/O manager that stores the value, as registered with `connect({ io })`. Default
   * `nats`.
   */
  readonly io?: string
}

export type DepValues<D extends readonly AnyAsset[]> = { readonly [A in D[number] as A['name']]: ValueOf<A> }

/**
 * Code that only waits, with no `onSignal`, has the payload for its value, and nobody knows the
 * type of that.
 */
type Settled<V> = [V] extends [never] ? V : V extends ChildRun<infer C> ? C : V extends Suspension ? unknown : V
/** As `Settled`, where `onRun` returns `R`: that comes in place of the value of the run. */
export type AfterRun<V, R> = [R] extends [never] ? Settled<V> : Settled<Exclude<V, ChildRun>> | Settled<R>
/** What the runs make that code returns. */
type ChildValue<V> = V extends ChildRun<infer C> ? C : never
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
