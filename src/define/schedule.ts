/** `schedule` and `sensor`: what starts runs by itself. Checked when they are declared. */
import { z } from 'zod'
import { patternOf, someOccurrences } from '../../projections/schedule/occurrences.ts'
import { givenOf } from '../../projections/schedule/schedule.ts'
import { isTimeZone } from '../../projections/schedule/time-zone.ts'
import { InvalidError, messageOf } from '../../streams/errors.ts'
import { checkName } from '../../streams/ids.ts'
import {
  type CronTiming,
  overlapPolicy,
  type ScheduleSpec,
  type ScheduleTiming,
  type SensorSpec,
} from '../../streams/schedule-schemas.ts'
import { shown } from '../../streams/shown.ts'
import { parseDate } from '../options/date.ts'
import { type Duration, parseDuration } from '../options/duration.ts'
import { type OptionNames, refuseUnknown } from '../options/unknown.ts'
import { checkAround, checkAsked, checkInputNames } from './asked.ts'
import { asset } from './asset.ts'
import { type AnyAsset, type Asset, type AssetContext, type InputOf, isAsset } from './asset-type.ts'
import { input, inputsUpstream } from './input.ts'

type Awaitable<T> = T | Promise<T>

/** A value, or a function that makes it of the nominal time of an occurrence. */
export type AtTime<T> = T | ((at: Date) => Awaitable<T>)

/** What `schedule` takes. */
export interface ScheduleOptions<G = unknown> {
  /**
   * When: five fields (minute, hour, day of the month, month, day of the week), or six with seconds
   * first. Either this or `every`.
   */
  readonly cron?: string
  /** When: all so long, at least a second, counted from `anchor`. */
  readonly every?: Duration
  /** One of the moments of `every`. Default: 1970-01-01T00:00:00Z. */
  readonly anchor?: Date | string
  /** The time zone of `cron`, such as `Europe/Zurich`. Default `UTC`. */
  readonly timeZone?: string
  /** The asset that each run makes. */
  readonly run: Asset<string, unknown, G>
  /** What each run is asked for with. Functions run on a worker, and are retried as assets are. */
  readonly partition?: AtTime<string>
  readonly input?: AtTime<InputOf<G>>
  readonly tags?: AtTime<Readonly<Record<string, string>>>
  /**
   * What an occurrence does while a run of the schedule is open.
   *
   * - `skip` (default) leaves it out.
   * - `queue` starts it when all before it have ended.
   * - `cancel_running` cancels the open run, and then starts it.
   * - `allow` starts it at once.
   */
  readonly overlap?: 'skip' | 'queue' | 'cancel_running' | 'allow'
  /**
   * Which occurrences start that no engine was there for: the `last` (default), `none`, `all`, or
   * those of the last six hours (`{ within: '6h' }`). The newest one starts in any case while it is
   * late by at most 10 seconds.
   */
  readonly catchUp?: 'none' | 'last' | 'all' | { readonly within: Duration }
  /** Each run starts later, by up to this, the same time for the same occurrence. Default 0. */
  readonly jitter?: Duration
  readonly dst?: DstOptions
}

/** What becomes of times when clocks are changed. */
export interface DstOptions {
  /** A time that does not exist: `after` (default) the clocks were set forward; or `skip`. */
  readonly gap?: 'after' | 'skip'
  /**
   * A time that exists twice: the `first` time, or `both`. Default `first`; `both` if the hour of
   * the cron is `*` or a step.
   */
  readonly overlap?: 'first' | 'both'
}

/** A schedule, as declared: `pipeline(name, assets, { schedules: [ … ] })` takes it. */
export interface Schedule {
  readonly name: string
  readonly kind: 'schedule'
  readonly target: AnyAsset
  readonly spec: ScheduleSpec
  /** The assets that run its functions. */
  readonly internal: readonly AnyAsset[]
}

/** A run that a sensor asks for. */
export interface SensorRun<G = unknown> {
  readonly partition?: string
  readonly input?: InputOf<G>
  readonly tags?: Readonly<Record<string, string>>
  /** The same key starts no second run, whatever evaluation brings it. */
  readonly key?: string
}

/** What an evaluation of a sensor brings. */
export interface Sensed<C, G = unknown> {
  /** What the next evaluation gets. It is stored together with the runs. */
  readonly cursor: C
  readonly runs: readonly SensorRun<G>[]
}

/** What `sensor` takes. */
export interface SensorOptions<C, G = unknown> {
  /** How often it is evaluated, at least a second. There is one evaluation at a time. */
  readonly every: Duration
  /** The asset that each run makes. */
  readonly run: Asset<string, unknown, G>
  /** Longest time for one evaluation. Default `'5m'`. */
  readonly timeout?: Duration
  /**
   * Looks whether there is something to do. `cursor` is what the last evaluation brought that went
   * well; undefined the first time. One that throws is tried again with the same cursor.
   */
  evaluate(ctx: AssetContext, cursor: C | undefined): Awaitable<Sensed<C, G>>
}

/** A sensor, as declared: `pipeline(name, assets, { sensors: [ … ] })` takes it. */
export interface Sensor {
  readonly name: string
  readonly kind: 'sensor'
  readonly target: AnyAsset
  readonly spec: SensorSpec
  readonly internal: readonly AnyAsset[]
}

const SCHEDULE_OPTIONS: OptionNames<ScheduleOptions> = {
  cron: true,
  every: true,
  anchor: true,
  timeZone: true,
  run: true,
  partition: true,
  input: true,
  tags: true,
  overlap: true,
  catchUp: true,
  jitter: true,
  dst: true,
}
const SENSOR_OPTIONS: OptionNames<SensorOptions<unknown>> = { every: true, run: true, timeout: true, evaluate: true }

/** Its internal assets are named after it. */
const NAME_MAX = 100
const EVERY_BOUNDS = { minMs: 1000 }
const EVALUATION_TIMEOUT = '5m'
/** From here on, occurrences show how close to each other they are. */
const SAMPLE_FROM_MS = Date.UTC(2024, 0, 1)
const SAMPLE = 60

/**
 * Declares when runs of an asset start by themselves. A pipeline takes it:
 * `pipeline(name, assets, { schedules: [nightly] })`. Throws InvalidError that names the option at
 * fault.
 */
export function schedule<G>(name: string, options: ScheduleOptions<G>): Schedule {
  const at = nameOf('schedule', name)
  refuseUnknown(at, options, SCHEDULE_OPTIONS)
  const target = targetOf(at, options.run)
  const timing = timingOf(at, options)
  const code = { partition: options.partition, input: options.input, tags: options.tags }
  const evaluates = Object.values(code).some((part) => part !== undefined) ? `schedule__${name}` : undefined
  if (options.input === undefined) mustNeedNoInput(at, target)
  checkConstants(at, target, code)
  const spec: ScheduleSpec = {
    name,
    target: target.name,
    timing,
    overlap: overlapOf(at, options.overlap),
    catchUp: catchUpOf(at, options.catchUp),
    jitterMs: jitterOf(at, options.jitter, timing),
    ...(evaluates === undefined ? {} : { evaluates }),
  }
  const evaluate = async (given: unknown): Promise<unknown> => {
    const nominal = new Date(Number(Object(given).atMs))
    const asked = await valuesAt(code, nominal)
    return await checkAsked(at, target, asked)
  }
  const internal =
    evaluates === undefined ? [] : internalAssets(evaluates, target, {}, (_ctx, given) => evaluate(given))
  return { name, kind: 'schedule', target, spec, internal }
}

/**
 * Declares code that looks now and then whether runs are to be started: `pipeline(name, assets, {
 * sensors: [newFiles] })`. Throws InvalidError that names the option at fault.
 */
export function sensor<C, G>(name: string, options: SensorOptions<C, G>): Sensor {
  const at = nameOf('sensor', name)
  refuseUnknown(at, options, SENSOR_OPTIONS)
  const target = targetOf(at, options.run)
  if (typeof options.evaluate !== 'function')
    throw new InvalidError(`${at}: evaluate must be a function, got ${typeof options.evaluate}`)
  const everyMs = parseDuration(`${at}: every`, options.every, EVERY_BOUNDS)
  const timeout = options.timeout ?? EVALUATION_TIMEOUT
  parseDuration(`${at}: timeout`, timeout, { minMs: 1 })
  const evaluates = `sensor__${name}`
  const spec: SensorSpec = { name, target: target.name, everyMs, evaluates }
  const evaluate = async (ctx: AssetContext, given: unknown): Promise<unknown> => {
    // The whole value of the evaluation before: only its cursor is for this one.
    const last: unknown = typeof given === 'object' && given !== null ? Reflect.get(given, 'cursor') : undefined
    const found: unknown = await options.evaluate(ctx, last as C | undefined)
    const runs: unknown = typeof found === 'object' && found !== null ? Reflect.get(found, 'runs') : undefined
    if (!Array.isArray(runs)) throw new InvalidError(`${at}: evaluate must return { cursor, runs: [ … ] }`)
    const checked = await Promise.all(runs.map((one, i) => checkAsked(`${at}: runs[${i}]`, target, one)))
    return { cursor: Reflect.get(Object(found), 'cursor'), runs: checked }
  }
  // The next evaluation is the next attempt.
  const settings = { timeout, retry: { maxAttempts: 1 } }
  return { name, kind: 'sensor', target, spec, internal: internalAssets(evaluates, target, settings, evaluate) }
}

/** An input and an asset of it, which runs code on the workers of the target. */
function internalAssets(
  name: string,
  target: AnyAsset,
  settings: { readonly timeout?: Duration; readonly retry?: { readonly maxAttempts: number } },
  run: (ctx: AssetContext, given: unknown) => Promise<unknown>,
): AnyAsset[] {
  const given = hidden(input(givenOf(name), z.unknown()))
  const { queue, priority } = target.definition.spec
  const evaluation = asset(name, {
    dependsOn: [given],
    queue,
    priority: priority as 0 | 1 | 2 | 3,
    ...settings,
    execute: async (ctx, deps) => {
      try {
        return await run(ctx, deps[given.name])
      } catch (error) {
        // What was said is wrong, and would be again.
        if (error instanceof InvalidError) ctx.fail(error.message)
        throw error
      }
    },
  })
  return [given, hidden(evaluation)]
}

function hidden(member: AnyAsset): AnyAsset {
  const { name, definition } = member
  return { name, definition: { ...definition, spec: { ...definition.spec, internal: true } } }
}

/** Functions are checked when a worker has run them. */
function checkConstants(at: string, target: AnyAsset, code: Readonly<Record<string, unknown>>): void {
  const constants = Object.fromEntries(Object.entries(code).filter(([, part]) => typeof part !== 'function'))
  checkAround(at, constants)
  if (constants.input !== undefined) checkInputNames(at, target, constants.input)
}

async function valuesAt(code: Readonly<Record<string, unknown>>, nominal: Date): Promise<Record<string, unknown>> {
  const asked: Record<string, unknown> = {}
  for (const [field, part] of Object.entries(code)) {
    const value: unknown = typeof part === 'function' ? await part(nominal) : part
    if (value !== undefined) asked[field] = value
  }
  return asked
}

function nameOf(kind: 'schedule' | 'sensor', name: string): string {
  checkName(`${kind} name`, name)
  if (name.length > NAME_MAX) throw new InvalidError(`${kind} name must have at most ${NAME_MAX} characters`)
  return `${kind} ${name}`
}

function targetOf(at: string, run: unknown): AnyAsset {
  if (!isAsset(run)) throw new InvalidError(`${at}: run must be an asset, got ${typeof run}`)
  if (run.definition.spec.input)
    throw new InvalidError(`${at}: run: ${run.name} is an input; name an asset that is made`)
  return run
}

function mustNeedNoInput(at: string, target: AnyAsset): void {
  for (const [name, { definition }] of inputsUpstream(target))
    if (!definition.spec.input?.absent)
      throw new InvalidError(`${at}: ${target.name} needs input ${name}: give input, such as (at) => ({ ${name}: … })`)
}

type TimingOptions = Pick<ScheduleOptions, 'cron' | 'every' | 'anchor' | 'timeZone' | 'dst'>

function timingOf(at: string, { cron, every, anchor, timeZone, dst }: TimingOptions): ScheduleTiming {
  if ((cron === undefined) === (every === undefined)) throw new InvalidError(`${at}: give it either cron or every`)
  if (cron === undefined) {
    for (const [field, value] of Object.entries({ timeZone, dst }))
      if (value !== undefined)
        throw new InvalidError(`${at}: ${field} is for cron; every is the same in all time zones`)
    return { everyMs: parseDuration(`${at}: every`, every, EVERY_BOUNDS), anchorMs: anchorOf(at, anchor) }
  }
  if (anchor !== undefined) throw new InvalidError(`${at}: anchor is for every`)
  const zone = timeZone ?? 'UTC'
  if (typeof zone !== 'string' || !isTimeZone(zone))
    throw new InvalidError(
      `${at}: timeZone must be one of the IANA database, such as 'Europe/Zurich', got ${shown(zone)}`,
    )
  return { cron: cronOf(at, cron), timeZone: zone, dst: dstOf(at, cron, dst) }
}

function anchorOf(at: string, anchor: unknown): number {
  if (anchor === undefined) return 0
  const ms = anchor instanceof Date ? anchor.getTime() : typeof anchor === 'string' ? parseDate(anchor) : undefined
  if (ms !== undefined && Number.isInteger(ms)) return ms
  throw new InvalidError(`${at}: anchor must be a date, such as '2026-01-01T00:05:00Z', got ${shown(anchor)}`)
}

function cronOf(at: string, cron: unknown): string {
  if (typeof cron !== 'string' || cron.length > 200 || cron.startsWith('@reboot'))
    throw new InvalidError(`${at}: cron must be text such as '0 2 * * *', got ${shown(cron)}`)
  const fields = cron.trim().split(/\s+/)
  if (!cron.startsWith('@') && fields.length !== 5 && fields.length !== 6)
    throw new InvalidError(`${at}: cron must have 5 fields, or 6 with seconds first, got ${shown(cron)}`)
  try {
    if (patternOf(cron).nextRun(new Date(SAMPLE_FROM_MS))) return cron
  } catch (cause) {
    const why = cron.startsWith('@')
      ? 'there is no such name; one is @daily'
      : messageOf(cause).replace(/^CronPattern: /, '')
    throw new InvalidError(`${at}: cron ${JSON.stringify(cron)}: ${why}`, { cause })
  }
  throw new InvalidError(`${at}: cron ${JSON.stringify(cron)} names no time that ever comes`)
}

function dstOf(at: string, cron: string, dst: DstOptions = {}): CronTiming['dst'] {
  refuseUnknown(`${at}: dst`, dst, ['gap', 'overlap'])
  const fields = cron.trim().split(/\s+/)
  const hour = fields.at(fields.length === 6 ? 2 : 1)
  const isEachHour = cron.startsWith('@hourly') || hour?.startsWith('*') === true
  const { gap = 'after', overlap = isEachHour ? 'both' : 'first' } = dst
  if (gap !== 'after' && gap !== 'skip')
    throw new InvalidError(`${at}: dst.gap must be after or skip, got ${shown(gap)}`)
  if (overlap !== 'first' && overlap !== 'both')
    throw new InvalidError(`${at}: dst.overlap must be first or both, got ${shown(overlap)}`)
  return { gap, overlap }
}

function overlapOf(at: string, value: unknown): ScheduleSpec['overlap'] {
  const checked = overlapPolicy.safeParse(value ?? 'skip')
  if (checked.success) return checked.data
  throw new InvalidError(`${at}: overlap must be skip, queue, cancel_running or allow, got ${shown(value)}`)
}

function catchUpOf(at: string, value: ScheduleOptions['catchUp'] = 'last'): ScheduleSpec['catchUp'] {
  if (value === 'none' || value === 'last' || value === 'all') return value
  if (typeof value !== 'object' || value === null)
    throw new InvalidError(`${at}: catchUp must be none, last, all or { within: '6h' }, got ${shown(value)}`)
  refuseUnknown(`${at}: catchUp`, value, ['within'])
  return { withinMs: parseDuration(`${at}: catchUp.within`, value.within, { minMs: 1 }) }
}

/** With more jitter than that, one occurrence would hold up the next one. */
function jitterOf(at: string, value: Duration | undefined, timing: ScheduleTiming): number {
  if (value === undefined) return 0
  const jitterMs = parseDuration(`${at}: jitter`, value)
  const some = someOccurrences(timing, SAMPLE_FROM_MS, SAMPLE)
  const closest = Math.min(...some.slice(1).map((ms, i) => ms - (some[i] ?? 0)))
  if (jitterMs < closest) return jitterMs
  throw new InvalidError(`${at}: jitter must be shorter than the time between two occurrences, got ${shown(value)}`)
}
