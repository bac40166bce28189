/** A declared asset, and what its functions get: who and where they are, gates, results. */
import type { z } from 'zod'
import type { AssetSpec } from '../../streams/schemas.ts'
import type { ErrorView } from '../../streams/thrown.ts'
import type { ItemReader } from '../items/reader.ts'
import type { RunLog } from '../logs/run-log.ts'
import type { ApprovalOptions, ChildRun, GateOptions, OpenedGate, Suspension } from './gates.ts'
import type { Limits } from './limits.ts'
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
  /**
   * Lines that are kept beside the run (`flowstone logs RUN`), with the attempt and the instance
   * that they are of, and that go to the worker's logger.
   */
  readonly log: RunLog
  /**
   * The span that this code runs in, as the header `traceparent` of W3C Trace Context. Send it
   * along where nothing else does. With `flowstone/otel`, OpenTelemetry passes it on by itself.
   */
  readonly traceparent: string
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
   * As `openGate`, for a person's decision: so that you can write to somebody where it is decided,
   * before you wait.
   */
  openApproval(options: ApprovalOptions): Promise<OpenedGate>
  /**
   * `return ctx.run(asset, { input })`: starts a run of another asset, by object or by name
   * (`'orders/invoice'`), and waits until it has ended, at no cost. The value is that of the run,
   * or what `onRun` makes of it. A run that fails, or is cancelled, fails what waits for it. Throws
   * InvalidError for bad options.
   */
  run<V, G = unknown>(asset: Asset<string, V, G>, options?: ChildOptions<InputOf<G>>): ChildRun<V>
  /** The same by name, of an asset whose code is elsewhere. */
  run<V = unknown>(asset: string, options?: ChildOptions): ChildRun<V>
  /** Ends with an error that no retry can help. */
  fail(reason: string): never
}

/** What somebody needs to answer a gate. Both throw where this process lacks a setting. */
export interface GateAddress {
  readonly token: string
  readonly callbackUrl: string
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
export type Awaitable<T> = T | Promise<T>
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
  /** In place of `execute`: it calls a hook. `addressOf`: a gate, and the secret that signed it. */
  hook?(
    ctx: AssetContext,
    deps: Readonly<Record<string, unknown>>,
    addressOf: (gate: string, keyId: string) => GateAddress,
  ): unknown
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

export function isAsset(value: unknown): value is AnyAsset {
  return (
    typeof value === 'object' &&
    value !== null &&
    'definition' in value &&
    'name' in value &&
    typeof value.name === 'string'
  )
}
