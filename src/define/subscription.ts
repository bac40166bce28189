/** `subscription`: messages of a stream, a subject or a bucket that start runs. */

import { InvalidError } from '../../streams/errors.ts'
import type { SubscriptionSpec } from '../../streams/event-schemas.ts'
import { checkName } from '../../streams/ids.ts'
import { shown } from '../../streams/shown.ts'
import { type Duration, parseDuration } from '../options/duration.ts'
import { wholeNumber } from '../options/rate.ts'
import { refuseUnknown } from '../options/unknown.ts'
import { type AnyAsset, type Asset, type InputOf, isAsset } from './asset-type.ts'
import { parseRunConcurrency, type RunConcurrencyOptions } from './concurrency.ts'
import { inputsUpstream } from './input.ts'

/** A message, as the functions of a subscription get it. They must not wait for anything. */
export interface EventMessage {
  readonly subject: string
  readonly data: Uint8Array
  /** The first value of each header. */
  readonly headers: ReadonlyMap<string, string>
  /** Its Nats-Msg-Id. */
  readonly id: string | undefined
  /** Its sequence in its stream. */
  readonly seq: number
  /** When the server stored it. */
  readonly time: Date
  /** Its body, which must be JSON. `T` is not checked: the schema of the input does that. */
  json<T = ReturnType<typeof JSON.parse>>(): T
  /** Its body as text. */
  text(): string
  /** Of a change in a bucket. A key that was deleted has an empty body. */
  readonly bucket?: string
  readonly key?: string
  readonly operation?: 'PUT' | 'DEL' | 'PURGE'
}

/**
 * Where messages come from.
 *
 * - `stream`: a stream that is there. `subject`: only messages of this subject, or filter.
 * - `subject` alone: FlowStone keeps what is published there in a stream of its own.
 * - `bucket`: changes of a key-value bucket. `key`: only of this key, or filter.
 *
 * `start`: which messages of the stream or bucket count when the subscription is new: `all`
 * (default), or those that come from then on (`new`).
 */
export type EventSource =
  | { readonly stream: string; readonly subject?: string; readonly start?: 'all' | 'new' }
  | { readonly bucket: string; readonly key?: string; readonly start?: 'all' | 'new' }
  | { readonly subject: string }

/** When the run of a batch starts. */
export interface BatchOptions {
  /** So many messages at most, up to 1,000. */
  readonly maxItems: number
  /** So long after its first message the run starts, whatever has come. */
  readonly maxWait: Duration
  /** Messages with the same text share a batch. Default: all do. */
  readonly key?: (message: EventMessage) => string
}

/** When the run of messages starts that wait for each other. */
export interface DebounceOptions<T extends 'last' | 'all' = 'last' | 'all'> {
  /** Messages with the same text wait for each other. Default: all do. */
  readonly key?: (message: EventMessage) => string
  /** The run starts when no other message has come for so long. */
  readonly wait: Duration
  /** And at the latest so long after the first one. Default: no limit. */
  readonly maxWait?: Duration
  /** What the run is given: the last message (default), or a list of all. */
  readonly take?: T
}

interface Common {
  readonly from: EventSource
  /**
   * What a message is known by: two messages with the same key start one run. Default: its
   * Nats-Msg-Id, else its place in its stream.
   */
  readonly key?: (message: EventMessage) => string | undefined
  /** The data partition of the run. */
  readonly partition?: (message: EventMessage) => string | undefined
  readonly tags?: (message: EventMessage) => Readonly<Record<string, string>> | undefined
  /**
   * How many of its runs with the same key are active at a time; see `materialize`. `key`: of a
   * message, any text such as a customer. Default: one key for the subscription. Without it, the
   * pipeline's `concurrency` holds.
   */
  readonly concurrency?: {
    readonly key?: (message: EventMessage) => string | undefined
    readonly limit: number
    readonly onConflict?: 'queue' | 'skip' | 'cancel_running'
  }
  /** Only messages for which it is true start a run. */
  readonly filter?: (message: EventMessage) => boolean
  /**
   * How many of its runs may be open. While there are so many, messages wait in their stream.
   * Default 1,000.
   */
  readonly maxOpen?: number
}

/** A run for each message, or for the last of some. */
interface SingleOptions<G> extends Common {
  /** The asset that a run makes. */
  readonly run: Asset<string, unknown, G>
  /** What the run is given, by input. Default: the only input is the message's JSON. */
  readonly input?: (message: EventMessage) => InputOf<G>
  readonly batch?: undefined
  readonly debounce?: DebounceOptions<'last'>
}

/** One item of each input that is a list. */
export type ItemOf<G> = unknown extends G
  ? Readonly<Record<string, unknown>>
  : { readonly [K in keyof G]: NonNullable<G[K]> extends readonly (infer I)[] ? I : G[K] }

/** A run for several messages: each input is a list, and a message brings one item of it. */
interface ListOptions<G> extends Common {
  readonly run: Asset<string, unknown, G>
  /** What a message adds to the lists that the run is given. Default: its JSON, to the only one. */
  readonly input?: (message: EventMessage) => ItemOf<G>
}
interface BatchedOptions<G> extends ListOptions<G> {
  readonly batch: BatchOptions
  readonly debounce?: undefined
}
interface DebouncedOptions<G> extends ListOptions<G> {
  readonly batch?: undefined
  readonly debounce: DebounceOptions<'all'> & { readonly take: 'all' }
}

/** What a subscription reads, and what a run is given. */
export type SubscriptionOptions<G> = SingleOptions<G> | BatchedOptions<G> | DebouncedOptions<G>

/** What starts runs of a pipeline by itself: what `subscription` returned. */
export interface Subscription {
  readonly name: string
  readonly definition: SubscriptionDefinition
}

/** The options with their types erased. Methods, so that narrower parameters fit. */
export interface SubscriptionDefinition {
  readonly spec: SubscriptionSpec
  readonly run: AnyAsset
  readonly start: 'all' | 'new'
  /** A run is given a list of what its messages bring. */
  readonly isList: boolean
  readonly concurrency: Pick<RunConcurrencyOptions, 'limit' | 'onConflict'> | undefined
  /** The input that takes a message's JSON, where there is no function. */
  readonly only: string | undefined
  input?(message: EventMessage): unknown
  key?(message: EventMessage): unknown
  partition?(message: EventMessage): unknown
  tags?(message: EventMessage): unknown
  filter?(message: EventMessage): unknown
  group?(message: EventMessage): unknown
  concurrencyKey?(message: EventMessage): unknown
}

const OPTIONS = [
  'from',
  'run',
  'input',
  'key',
  'partition',
  'tags',
  'concurrency',
  'filter',
  'maxOpen',
  'batch',
  'debounce',
] as const
const FUNCTIONS = ['input', 'key', 'partition', 'tags', 'filter'] as const
export const MAX_OPEN = 1000
const MAX_OPEN_MAX = 1_000_000
export const ITEMS_MAX = 1000
const WAIT_MIN_MS = 10

/**
 * Declares what starts runs of a pipeline by itself: `subscription('order-created', { from: {
 * stream: 'ORDERS' }, run: invoice })`. Give it to the pipeline: `pipeline('orders', [order,
 * invoice], { subscriptions: [onOrder] })`. Throws InvalidError for bad options.
 */
export function subscription<G>(name: string, options: SubscriptionOptions<G>): Subscription {
  checkName('subscription name', name)
  const at = `subscription ${name}`
  refuseUnknown(at, options, OPTIONS)
  const { from, run, batch, debounce } = options
  if (!isAsset(run)) throw new InvalidError(`${at}: run must be an asset, which its runs make`)
  for (const field of FUNCTIONS)
    if (options[field] !== undefined && typeof options[field] !== 'function')
      throw new InvalidError(`${at}: ${field} must be a function of the message`)
  if (batch && debounce) throw new InvalidError(`${at}: batch and debounce exclude each other`)
  const { input, key, partition, tags, filter } = options
  const group = batch?.key ?? debounce?.key
  if (group !== undefined && typeof group !== 'function')
    throw new InvalidError(`${at}: ${batch ? 'batch' : 'debounce'}.key must be a function of the message`)
  const concurrency = parseConcurrency(`${at}: concurrency`, options.concurrency)
  const concurrencyKey = options.concurrency?.key
  const spec: SubscriptionSpec = {
    name,
    from: parseSource(`${at}: from`, from),
    run: run.name,
    maxOpen: options.maxOpen === undefined ? MAX_OPEN : wholeNumber(`${at}: maxOpen`, options.maxOpen, MAX_OPEN_MAX),
    ...(batch ? { batch: parseBatch(`${at}: batch`, batch) } : {}),
    ...(debounce ? { debounce: parseDebounce(`${at}: debounce`, debounce) } : {}),
  }
  const definition: SubscriptionDefinition = {
    spec,
    run,
    start: 'start' in from && from.start === 'new' ? 'new' : 'all',
    isList: batch !== undefined || debounce?.take === 'all',
    concurrency,
    only: input ? undefined : onlyInput(at, run),
    ...(input ? { input } : {}),
    ...(key ? { key } : {}),
    ...(partition ? { partition } : {}),
    ...(tags ? { tags } : {}),
    ...(filter ? { filter } : {}),
    ...(group ? { group } : {}),
    ...(concurrencyKey ? { concurrencyKey } : {}),
  }
  return { name, definition }
}

export function isSubscription(value: unknown): value is Subscription {
  if (typeof value !== 'object' || value === null || !('definition' in value)) return false
  const { definition } = value
  return typeof definition === 'object' && definition !== null && 'isList' in definition && 'run' in definition
}

/** The input that the JSON of a message is, where the options do not say it. */
function onlyInput(at: string, run: AnyAsset): string {
  const names = [...inputsUpstream(run).keys()]
  const [name] = names
  if (name !== undefined && names.length === 1) return name
  if (names.length === 0)
    throw new InvalidError(
      `${at}: ${run.name} goes back to no input, so its run cannot be given the message; declare an input, or say input: () => ({})`,
    )
  throw new InvalidError(
    `${at}: ${run.name} goes back to ${names.length} inputs (${names.join(', ')}); say what each is given: input: (message) => ({ ${names.join(': …, ')}: … })`,
  )
}

function parseSource(at: string, from: unknown): SubscriptionSpec['from'] {
  if (typeof from !== 'object' || from === null)
    throw new InvalidError(`${at} must be { stream, subject? }, { bucket, key? } or { subject }`)
  const field = (name: string): string | undefined => {
    const value: unknown = Reflect.get(from, name)
    if (value === undefined) return undefined
    if (typeof value === 'string' && value !== '' && value.length <= 512 && !/\s/.test(value)) return value
    throw new InvalidError(`${at}.${name} must be text of 1 to 512 characters without spaces`)
  }
  const start: unknown = Reflect.get(from, 'start')
  if (start !== undefined && start !== 'all' && start !== 'new')
    throw new InvalidError(`${at}.start must be all or new, got ${shown(start)}`)
  const [stream, bucket, subject, key] = [field('stream'), field('bucket'), field('subject'), field('key')]
  if (stream !== undefined && bucket !== undefined)
    throw new InvalidError(`${at} must name a stream or a bucket, not both`)
  if (bucket !== undefined) {
    refuseUnknown(at, from, ['bucket', 'key', 'start'])
    return { bucket: checkName(`${at}.bucket`, bucket), ...(key === undefined ? {} : { key }) }
  }
  if (stream !== undefined) {
    refuseUnknown(at, from, ['stream', 'subject', 'start'])
    if (/[.*>/\\]/.test(stream) || stream.length > 255)
      throw new InvalidError(`${at}.stream must be the name of a stream, got ${shown(stream)}`)
    return { stream, ...(subject === undefined ? {} : { subject }) }
  }
  if (subject === undefined)
    throw new InvalidError(`${at} must be { stream, subject? }, { bucket, key? } or { subject }`)
  refuseUnknown(at, from, ['subject'])
  return { subject }
}

function parseConcurrency(at: string, given: Common['concurrency']): SubscriptionDefinition['concurrency'] {
  if (given === undefined) return undefined
  if (typeof given !== 'object' || given === null) throw new InvalidError(`${at} must be an object: { limit: 1 }`)
  const { key, ...limit } = given
  if (key !== undefined && typeof key !== 'function')
    throw new InvalidError(`${at}.key must be a function of the message`)
  const parsed = parseRunConcurrency(at, limit)
  return parsed && { limit: parsed.limit, onConflict: parsed.onConflict }
}

function parseBatch(at: string, batch: BatchOptions): NonNullable<SubscriptionSpec['batch']> {
  refuseUnknown(at, batch, ['maxItems', 'maxWait', 'key'])
  return {
    maxItems: wholeNumber(`${at}.maxItems`, batch.maxItems, ITEMS_MAX),
    maxWaitMs: parseDuration(`${at}.maxWait`, batch.maxWait, { minMs: WAIT_MIN_MS }),
  }
}

function parseDebounce(at: string, debounce: DebounceOptions): NonNullable<SubscriptionSpec['debounce']> {
  refuseUnknown(at, debounce, ['key', 'wait', 'maxWait', 'take'])
  const take = debounce.take ?? 'last'
  if (take !== 'last' && take !== 'all') throw new InvalidError(`${at}.take must be last or all`)
  const waitMs = parseDuration(`${at}.wait`, debounce.wait, { minMs: WAIT_MIN_MS })
  const maxWait = debounce.maxWait
  const bound = maxWait === undefined ? {} : { maxWaitMs: parseDuration(`${at}.maxWait`, maxWait, { minMs: waitMs }) }
  return { waitMs, ...bound, take }
}
