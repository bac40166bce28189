/** `flow.at`: all as it was at a time in the past. It only reads. */
import type { AuditEntry } from '../../projections/audit.ts'
import type { Why } from '../../projections/why/types.ts'
import { FlowStoneError, InvalidError } from '../../streams/errors.ts'
import { parseRunId } from '../../streams/ids.ts'
import type { AnyAsset, Asset } from '../define/asset-type.ts'
import { Gates } from '../gates/gates.ts'
import type { GateSettings } from '../gates/settings.ts'
import { streamBounds } from '../log/nats.ts'
import { type PastSource, pastSource } from '../log/past/source.ts'
import { refuseUnknown } from '../options/unknown.ts'
import { placeOf } from '../runs/owner.ts'
import { type AuditOptions, audit } from './audit.ts'
import { type HistoryEntry, history } from './history.ts'
import { Inspect } from './inspect/inspect.ts'
import { Run } from './run.ts'
import type { RunDeps, RunView } from './run-view.ts'
import { listRuns, type RunsOptions } from './runs.ts'
import { Scatters } from './scatter.ts'
import { Schedules } from './schedules.ts'
import { Sensors } from './sensors.ts'
import { type AssetValue, assetValue, partitionsOf, type ValueOptions } from './values.ts'
import { type WhyTarget, why } from './why.ts'

/** A sequence of the log of a shard. */
export interface ShardSeq {
  readonly shard: number
  readonly seq: number
}

/**
 * A time in the past: by the server's clock, or by sequence. A bare sequence is of the only shard.
 * Shards that are not named are shown at the time of the latest of those that are.
 */
export type When = Date | number | ShardSeq | readonly ShardSeq[]

/** Where a `FlowAt` stands. */
export interface PositionAt {
  readonly at: Date
  /** Of each shard: the last fact that is shown. */
  readonly shards: readonly ShardSeq[]
}

/** What there is to read; all else is refused. */
const READS = {
  run: ['status', 'view', 'input', 'hooks'],
  scatter: ['status', 'list', 'pending', 'failures'],
  gates: ['get', 'list', 'waiting', 'getByCorrelationKey', 'getByToken', 'verify'],
  schedules: ['list', 'get', 'preview', 'occurrences'],
  sensors: ['list', 'get'],
  inspect: [
    'pipelines',
    'pipeline',
    'assets',
    'map',
    'tiles',
    'errors',
    'failures',
    'instance',
    'timeline',
    'facts',
    'factsOfRun',
    'rail',
  ],
} as const
/** What a flow does besides: what changes something, and what is only known of now. */
const REFUSED = [
  'adopt',
  'close',
  'diff',
  'doctor',
  'engine',
  'export',
  'import',
  'materialize',
  'problems',
  'ready',
  'rebuild',
  'register',
  'request',
  'retry',
  'setup',
  'verify',
  'worker',
] as const
/** The same of what gives something at once. */
const REFUSED_AT_ONCE = ['as', 'at', 'logs'] as const
/** Parts of a flow of which nothing can be shown. */
const REFUSED_PARTS = ['events', 'limiter', 'proof', 'retention', 'triggers'] as const

/**
 * A namespace as it was, from `flow.at`. It reads as the flow does, and has no connection of its
 * own. All else that a flow has throws FlowStoneError `read_only`.
 */
export class FlowAt {
  readonly #deps: RunDeps
  readonly #source: PastSource
  readonly #when: When
  /** Scatters as they were: `status`, `list`, `pending`, `failures`. */
  readonly scatter: Pick<Scatters, (typeof READS.scatter)[number]>
  /** Gates as they were: `get`, `list`, `waiting`, and by correlation key or token. */
  readonly gates: Pick<Gates, (typeof READS.gates)[number]>
  /** Schedules as they were: `list`, `get`, `preview`, `occurrences`. */
  readonly schedules: Pick<Schedules, (typeof READS.schedules)[number]>
  /** Sensors as they were: `list`, `get`. */
  readonly sensors: Pick<Sensors, (typeof READS.sensors)[number]>
  /** As `flow.inspect`, without who is there at this moment. */
  readonly inspect: Pick<Inspect, (typeof READS.inspect)[number]>

  constructor(live: RunDeps, gates: GateSettings, when: When) {
    this.#when = when
    this.#source = pastSource(live, limitsOf(when))
    const { past } = this.#source
    let checked: Promise<unknown> | undefined
    const found = async (): Promise<void> => {
      checked ??= this.#check(live)
      checked.catch(() => {
        checked = undefined
      })
      await checked
    }
    // What follows has them of `live`, where `shards` is not known yet.
    this.#deps = Object.assign(Object.create(live) as RunDeps, {
      docs: this.#source,
      found,
      clock: { now: () => past.timeMs },
      logOf: () => {
        throw readOnly('a write')
      },
    })
    this.scatter = guarded('scatter', new Scatters(this.#deps), READS.scatter)
    this.gates = guarded('gates', new Gates(this.#deps, gates), READS.gates)
    this.schedules = guarded('schedules', new Schedules(this.#deps), READS.schedules)
    this.sensors = guarded('sensors', new Sensors(this.#deps), READS.sensors)
    this.inspect = guarded('inspect', new Inspect(this.#deps), READS.inspect)
    for (const act of REFUSED) Object.defineProperty(this, act, { value: async () => await refuse(act) })
    for (const act of REFUSED_AT_ONCE)
      Object.defineProperty(this, act, {
        value: () => {
          throw readOnly(act)
        },
      })
    for (const part of REFUSED_PARTS) Object.defineProperty(this, part, { value: refusing(part) })
  }

  /** Which time that is. Throws as all reads do. */
  async position(): Promise<PositionAt> {
    await this.#deps.found()
    const { past } = this.#source
    const shards = Array.from({ length: this.#deps.shards }, async (_, shard) => ({
      shard,
      seq: await past.seqOf(shard),
    }))
    return { at: new Date(past.timeMs), shards: await Promise.all(shards) }
  }

  /** A run as it was: `status`, `view`, `input`. A run cannot be waited for in the past. */
  run(id: string): Pick<Run, (typeof READS.run)[number] | 'id'> {
    return guarded('run', new Run(this.#deps, id), READS.run)
  }

  /** As `flow.runs`. `after` goes on behind a run, as there. */
  async runs(options: RunsOptions = {}): Promise<RunView[]> {
    return await listRuns(this.#deps, options)
  }

  /** As `flow.value`: the newest value at that time, or the one that `run` had by then. */
  async value<V>(asset: Asset<string, V> | string, options: ValueOptions = {}): Promise<AssetValue<V> | undefined> {
    refuseUnknown('value', options, ['partition', 'run'])
    return await assetValue<V>(this.#deps, placeOf('value', asset), options)
  }

  /** As `flow.partitions`. */
  async partitions(asset: AnyAsset | string): Promise<string[]> {
    return await partitionsOf(this.#deps, placeOf('partitions', asset))
  }

  /** As `flow.history`: the facts that were there. */
  history(runId: string): AsyncGenerator<HistoryEntry> {
    return history(this.#deps, parseRunId(runId).id)
  }

  /** As `flow.why`: by the facts that were there, and without what workers said. */
  async why(what: WhyTarget): Promise<Why> {
    return await why(this.#deps, what)
  }

  /** As `flow.audit`: what had been done by then. */
  async audit(options: AuditOptions = {}): Promise<AuditEntry[]> {
    return await audit(this.#deps, options)
  }

  /** For `flow.diff`. */
  get deps(): RunDeps & { readonly docs: PastSource } {
    return Object.assign(Object.create(this.#deps), { docs: this.#source })
  }

  async #check(live: RunDeps): Promise<void> {
    await live.found()
    const when = this.#when
    const { shards, connection, names, clock } = live
    if (when instanceof Date) {
      if (when.getTime() > clock.now())
        throw new InvalidError(
          `at: ${when.toISOString()} has not come yet; it is ${new Date(clock.now()).toISOString()}`,
        )
    } else {
      if (typeof when === 'number' && shards > 1)
        throw new InvalidError(`at: there are ${shards} shards, so name one: { shard, seq }, or give a Date`)
      for (const [shard, seq] of limitsOf(when) as ReadonlyMap<number, number>) {
        if (shard >= shards) throw new InvalidError(`at: there is no shard ${shard}; there are ${shards}, from 0`)
        const { last } = await connection.read((nc) => streamBounds(nc, names.log(shard)))
        if (seq > last)
          throw new InvalidError(`at: sequence ${seq} of shard ${shard} has not come yet; the last is ${last}`)
      }
    }
    await this.#source.found()
  }
}

function limitsOf(when: When): ReadonlyMap<number, number> | Date {
  if (when instanceof Date) {
    if (!Number.isFinite(when.getTime())) throw new InvalidError('at: the Date is not valid')
    return when
  }
  const list: readonly unknown[] =
    typeof when === 'number' ? [{ shard: 0, seq: when }] : Array.isArray(when) ? when : [when]
  const limits = new Map<number, number>()
  for (const one of list) {
    const [shard, seq]: unknown[] =
      typeof one === 'object' && one !== null ? [Reflect.get(one, 'shard'), Reflect.get(one, 'seq')] : []
    if (!isWhole(shard, 0) || !isWhole(seq, 1))
      throw new InvalidError('at: give a Date, a sequence from 1 on, { shard, seq }, or a list of these')
    limits.set(shard, seq)
  }
  if (limits.size === 0) throw new InvalidError('at: the list of sequences is empty')
  return limits
}

function isWhole(value: unknown, least: number): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= least
}

/** Its reads, and nothing else. */
function guarded<T extends object>(what: string, target: T, reads: readonly string[]): T {
  return new Proxy(target, {
    get(_, key) {
      const value: unknown = Reflect.get(target, key, target)
      if (typeof value !== 'function') return value
      if (typeof key === 'symbol' || reads.includes(key) || key === 'constructor') return value.bind(target)
      return () => refuse(`${what}.${key}`)
    },
  })
}

/** Whatever is asked of it is refused. It is no promise. */
function refusing(part: string): object {
  return new Proxy(
    {},
    { get: (_, key) => (typeof key === 'symbol' || key === 'then' ? undefined : () => refuse(`${part}.${key}`)) },
  )
}

async function refuse(act: string): Promise<never> {
  throw readOnly(act)
}

function readOnly(act: string): FlowStoneError {
  return new FlowStoneError(
    'read_only',
    `${act}: flow.at(…) shows the past, and only what is known of it; call it of the flow itself`,
  )
}
