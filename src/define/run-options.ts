/** What a run is asked for with, by `flow.materialize` and `ctx.run`. */
import type { UpstreamMode } from '../../streams/schemas.ts'
import type { Duration } from '../options/duration.ts'
import type { RunConcurrencyOptions } from './concurrency.ts'

/** What to do when the newest run under a key has failed, or was cancelled. */
export type OnFailed = 'return' | 'retry'

/** What a run can be asked for with. `G`: what it is given, by the name of the input. */
export interface RunOptions<G = Readonly<Record<string, unknown>>> {
  /** The data partition to make, any text: a date, a customer. Default none. */
  readonly partition?: string
  /**
   * Values for the inputs that the asset goes back to, by name. Each is checked against the
   * input's schema. Together they take at most what a message of the server holds; larger values
   * are kept in the object store.
   */
  readonly input?: G
  /**
   * To find the run by, such as `{ tenant: 'a' }`. At most 32; each name and value has up to 256
   * characters.
   */
  readonly tags?: Readonly<Record<string, string>>
  /**
   * What to do with the assets that this one depends on. Default: the pipeline's, else `all`.
   *
   * - `all` makes them again.
   * - `stale` makes those that are not current: made from other values, or by other code.
   * - `missing` makes those that have no value in this partition.
   * - `none` makes nothing, and fails if a value is missing.
   *
   * A value that goes back to an input is reused only by a run that was given the same input.
   */
  readonly upstream?: UpstreamMode
  /**
   * Idempotency key: the same key gives the same run, however often and from wherever it is asked
   * for.
   */
  readonly key?: string
  /**
   * What to do when the run under `key` has failed or was cancelled. `return` (default): give that
   * run, whose `result()` rejects. `retry`: start another one under the key. A run that goes on, or
   * has succeeded, is given in any case.
   */
  readonly onFailed?: OnFailed
  /**
   * Longest time for the whole run, from the request on, waiting included. Default: the pipeline's;
   * `Infinity`: none. Over it, what is open is cancelled, and the run has failed with `timeout`.
   * The server keeps it: it holds while no process of yours runs.
   */
  readonly timeout?: Duration
  /** How many runs of a key are active at a time. Default: as the pipeline says. */
  readonly concurrency?: RunConcurrencyOptions
  /**
   * The span that asks for the run, as the header `traceparent` of W3C Trace Context. Default: with
   * `flowstone/otel` the active span, else none.
   */
  readonly traceparent?: string
  /** The header `tracestate` that came with it. */
  readonly tracestate?: string
}

/** What `ctx.run` takes. */
export interface ChildOptions<G = Readonly<Record<string, unknown>>> extends RunOptions<G> {
  /** Name of the pipeline, for an asset that is in several. Default: the one of this code. */
  readonly pipeline?: string
}
