/** What a run is asked for with: checked here, before the run exists. */
import { concurrencyOf, givenValue, type KeySource } from '../../projections/run/concurrency-key.ts'
import { upstreamOf } from '../../projections/run/plan.ts'
import type { RunRequest } from '../../projections/run/request.ts'
import { specOf } from '../../projections/state.ts'
import { nearest } from '../../streams/did-you-mean.ts'
import { FlowStoneError, InvalidError } from '../../streams/errors.ts'
import type { AssetSpec, PipelineSpec, StoredValue } from '../../streams/schemas.ts'
import { shown } from '../../streams/shown.ts'
import { checkText } from '../../streams/text.ts'
import { type TraceContext, traceContextOf } from '../../streams/trace.ts'
import { parseRunConcurrency } from '../define/concurrency.ts'
import { mismatchOf, wireBytes } from '../define/json-check.ts'
import { parseUpstream } from '../define/pipeline.ts'
import type { OnFailed, RunOptions } from '../define/run-options.ts'
import { parseWith, type StandardSchema } from '../define/standard-schema.ts'
import type { Io, IoContext } from '../io/manager.ts'
import { parseRunTimeout } from '../options/duration.ts'

/** Of a partition, and of a key. */
export const TEXT_MAX = 512
const TAGS_MAX = 32
const TAG_MAX = 256

export interface RequestContext {
  /** Names the call in errors. */
  readonly at: string
  readonly pipeline: PipelineSpec
  readonly target: string
  readonly io: Io
  /** The schemas of inputs, where their code is here. Else they are checked by JSON Schema. */
  readonly schemas?: ReadonlyMap<string, StandardSchema>
  /** Stored values of inputs that are not given anew. */
  readonly kept?: Readonly<Record<string, StoredValue>>
}

/** Marks a value that is for the only input of an asset, whatever its name. */
const ONLY: unique symbol = Symbol('only input')

/** Input for an asset of one input, whose name the caller does not know; of none, it is dropped. */
export function onlyInput(value: unknown): Readonly<Record<string, unknown>> {
  return { [ONLY]: value }
}

/**
 * The request of a run. Throws InvalidError that names the field, and `not_found` for an asset that
 * the pipeline has not.
 */
export async function runRequestOf(context: RequestContext, options: RunOptions<unknown>): Promise<RunRequest> {
  const { at, pipeline, target } = context
  if (!specOf(pipeline, target)) {
    const names = pipeline.assets.map(({ name }) => name)
    throw new FlowStoneError(
      'not_found',
      `${at}: pipeline ${pipeline.name} has no asset ${target}${nearest(target, names)}`,
    )
  }
  const upstream =
    options.upstream === undefined ? pipeline.upstream : parseUpstream(`${at}: upstream`, options.upstream)
  for (const field of ['partition', 'key'] as const) checkField(`${at}: ${field}`, options[field])
  if (options.key === '') throw new InvalidError(`${at}: key must not be empty`)
  const timeoutMs = options.timeout === undefined ? undefined : parseRunTimeout(`${at}: timeout`, options.timeout)
  parseOnFailed(at, options)
  const tags = parseTags(`${at}: tags`, options.tags)
  const trace = parseTrace(at, options)
  const own = parseRunConcurrency(`${at}: concurrency`, options.concurrency)
  const input = await inputOf(context, options)
  const concurrency = own ?? concurrencyOf(pipeline, sourceOf(options, input))
  return {
    pipeline: pipeline.name,
    version: pipeline.version,
    target,
    upstream: upstream ?? 'all',
    ...(options.partition === undefined ? {} : { partition: options.partition }),
    ...(options.key === undefined ? {} : { key: options.key }),
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
    ...(input === undefined ? {} : { input }),
    ...(tags === undefined ? {} : { tags }),
    ...(concurrency === undefined ? {} : { concurrency }),
    ...(trace === undefined ? {} : { trace }),
  }
}

function parseTrace(at: string, { traceparent, tracestate }: RunOptions<unknown>): TraceContext | undefined {
  if (traceparent === undefined) {
    if (tracestate !== undefined) throw new InvalidError(`${at}: tracestate needs traceparent`)
    return undefined
  }
  const text: unknown = traceparent
  const trace = typeof text === 'string' ? traceContextOf(text, tracestate) : undefined
  if (trace) return trace
  throw new InvalidError(
    `${at}: traceparent must be a header of W3C Trace Context, such as 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01, got ${shown(text)}`,
  )
}

/** What makes the concurrency key of a run: of its input what was given, else the default. */
function sourceOf(
  { partition, tags, input: given }: RunOptions<unknown>,
  stored: Readonly<Record<string, StoredValue>> | undefined,
): KeySource {
  const values = new Map(Object.entries(given ?? {}))
  return { partition, tags, input: (name) => values.get(name) ?? givenValue(stored?.[name]) }
}

export function parseOnFailed(at: string, { onFailed, key }: Pick<RunOptions, 'onFailed' | 'key'>): OnFailed {
  const what: unknown = onFailed ?? 'return'
  if (what !== 'return' && what !== 'retry')
    throw new InvalidError(`${at}: onFailed must be return or retry, got ${shown(onFailed)}`)
  if (what === 'retry' && key === undefined)
    throw new InvalidError(`${at}: onFailed needs key: without a key every run is a new one`)
  return what
}

/** Of a partition, and of a key. Throws InvalidError. */
export function checkField(at: string, value: unknown): void {
  if (value === undefined) return
  if (typeof value !== 'string' || value.length > TEXT_MAX)
    throw new InvalidError(`${at} must be text of at most ${TEXT_MAX} characters`)
  checkText(at, value)
}

/** Throws InvalidError for what are no tags. None: undefined. */
export function parseTags(at: string, tags: unknown): Record<string, string> | undefined {
  if (tags === undefined) return undefined
  if (typeof tags !== 'object' || tags === null || Array.isArray(tags))
    throw new InvalidError(`${at} must be an object of texts, such as { tenant: 'a' }`)
  const entries = Object.entries(tags)
  if (entries.length > TAGS_MAX) throw new InvalidError(`${at}: at most ${TAGS_MAX}, got ${entries.length}`)
  for (const [name, value] of entries) {
    if (typeof value !== 'string') throw new InvalidError(`${at}.${name} must be text, got ${typeof value}`)
    if (name === '' || name.length > TAG_MAX || value.length > TAG_MAX)
      throw new InvalidError(`${at}.${name}: name and value must have at most ${TAG_MAX} characters`)
    checkText(`${at}: name`, name)
    checkText(`${at}.${name}`, value)
  }
  return entries.length === 0 ? undefined : Object.fromEntries(entries)
}

async function inputOf(
  { at, pipeline, target, io, schemas, kept = {} }: RequestContext,
  { input: given, partition }: RunOptions<unknown>,
): Promise<Record<string, StoredValue> | undefined> {
  if (specOf(pipeline, target)?.input)
    throw new InvalidError(`${at}: ${target} is an input, which a run is given; name an asset that depends on it`)
  const wanted = inputsNeeded(pipeline, target)
  const all = given ?? {}
  if (typeof all !== 'object' || Array.isArray(all))
    throw new InvalidError(`${at}: input must be an object with a value for each input: { order: … }`)
  const names = wanted.map(({ name }) => name)
  const values = valuesOf(at, target, all, names)
  for (const name of values.keys())
    if (!names.includes(name)) {
      const why = names.length === 0 ? `${target} goes back to no input` : `there is no input ${name}`
      throw new InvalidError(`${at}: input: ${why}${names.length === 0 ? '' : nearest(name, names)}`)
    }
  const stored = await Promise.all(
    wanted.map(async ({ name, input }) => {
      if (!values.has(name)) {
        const before = kept[name]
        if (before) return [name, before] as const
        if (input?.absent) return [name, input.absent] as const
        throw new InvalidError(`${at}: input: ${name} is missing, and ${target} needs it: { input: { ${name}: … } }`)
      }
      const value = values.get(name)
      const place = `${at}: input.${name}`
      const schema = schemas?.get(name)
      // What is stored is what was given; each worker makes of it what its schema says.
      if (schema) await parseWith(place, schema, value)
      else checkByJson(place, input?.schema ?? {}, value)
      return [
        name,
        await storedInput(io, place, value, { run: '', pipeline: pipeline.name, asset: name, partition }),
      ] as const
    }),
  )
  return stored.length === 0 ? undefined : Object.fromEntries(stored)
}

/** What a part of the system with few permissions may not store is said of the field. */
async function storedInput(io: Io, place: string, value: unknown, context: IoContext): Promise<StoredValue> {
  try {
    return await io.store('nats', value, context)
  } catch (cause) {
    if (!(cause instanceof FlowStoneError) || cause.code !== 'denied') throw cause
    throw new FlowStoneError(
      'denied',
      `${place}: it is too large for a message, and this NATS user may not write to the object store (${cause.message}). Allow it (docs/permissions.md), or give the run a reference to the value`,
      { cause },
    )
  }
}

function valuesOf(at: string, target: string, given: object, names: readonly string[]): Map<string, unknown> {
  if (!Object.hasOwn(given, ONLY)) return new Map(Object.entries(given).filter(([, value]) => value !== undefined))
  const [name, second] = names
  if (second !== undefined)
    throw new InvalidError(`${at}: input: ${target} goes back to ${names.join(', ')}; say what each of them is given`)
  return new Map(name === undefined ? [] : [[name, Reflect.get(given, ONLY)]])
}

/** The inputs that an asset goes back to. */
export function inputsNeeded(pipeline: PipelineSpec, target: string): AssetSpec[] {
  return upstreamOf(pipeline, target).flatMap((name) => {
    const spec = specOf(pipeline, name)
    return spec?.input ? [spec] : []
  })
}

const INPUT_MAX_BYTES = 64 * 1024 * 1024

/** Throws InvalidError for a value that does not fit its JSON Schema. */
export function checkByJson(at: string, schema: Readonly<Record<string, unknown>>, value: unknown): void {
  const mismatch = mismatchOf(schema, value, wireBytes(at, value, INPUT_MAX_BYTES), `its schema`)
  if (mismatch !== undefined) throw new InvalidError(`${at}: ${mismatch}`)
}
