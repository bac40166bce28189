/**
 * Starts runs with what code of a schedule or sensor said. A worker ran that code, and checked what
 * it said; its value stands on the log. All here may be done twice: ids of runs follow from the
 * schedule and the nominal time, or from the sensor and the evaluation.
 */
import type { Effect } from '../../../projections/effects.ts'
import { concurrencyOf, givenValue } from '../../../projections/run/concurrency-key.ts'
import { inputOf } from '../../../projections/run/input.ts'
import { type RunRequest, runIdFor } from '../../../projections/run/request.ts'
import { stateKey } from '../../../projections/state.ts'
import { FlowStoneError, InvalidError, messageOf } from '../../../streams/errors.ts'
import type { DraftOf } from '../../../streams/facts.ts'
import { parseRunId } from '../../../streams/ids.ts'
import type { StoredValue, ValueAt } from '../../../streams/schemas.ts'
import type { Names } from '../../../streams/subjects.ts'
import { cut } from '../../../streams/text.ts'
import type { Io } from '../../io/manager.ts'
import type { Appender } from '../../log/appender.ts'
import type { Connection } from '../../log/connection.ts'
import { factEntry } from '../../log/entries.ts'
import { isStillSealed, sealedAt } from '../../log/history.ts'
import { leaderGet } from '../../log/nats.ts'
import { factIfAny } from '../../log/read-fact.ts'
import type { Store } from '../shard/store.ts'

export interface StartContext {
  readonly connection: Connection
  readonly names: Names
  readonly shard: number
  readonly shards: number
  readonly store: Store
  readonly log: Appender
  readonly logOf: (shard: number) => Appender
  readonly io: Io
}

type Of<D extends Effect['do']> = Extract<Effect, { do: D }>

/** What code may say of a run. */
interface Asked {
  readonly partition?: string
  readonly input?: Readonly<Record<string, unknown>>
  readonly tags?: Record<string, string>
  readonly key?: string
}

const REASON_MAX = 2000
const SENSED_AT_ONCE = 64
/** What would fail again, for whoever tries. */
const FINAL: ReadonlySet<string> = new Set(['missing_value', 'unknown_io', 'undecodable', 'invalid', 'denied'])

/** Starts the run of an occurrence. */
export async function startRun(context: StartContext, { fired, request }: Of<'start_run'>): Promise<void> {
  const { names, shard, log } = context
  if (await hasRunBefore(context, request)) return
  await log.appendOnce(factEntry(names, shard, fired), factEntry(names, shard, request))
}

/**
 * Whether an import has brought the run of an occurrence, as of one that was triggered under a key.
 * Then it is not started again, and nobody waits for its end.
 */
export async function hasRunBefore(
  context: Pick<StartContext, 'connection' | 'names' | 'shard' | 'log'>,
  { ids: { run }, data: { pipeline, schedule } }: DraftOf<'run.requested'>,
): Promise<boolean> {
  const { names, shard, log } = context
  if (!schedule || !(await isStillSealed(context, run))) return false
  const { name, occurrence, atMs, by } = schedule
  const error = { code: 'refused', message: `its run ${run} is in the history, where an import has stored it` }
  const data = { why: 'refused', atMs, error, ...(by ? { by } : {}) } as const
  const skipped = { name: 'schedule.skipped', ids: { pipeline, schedule: name, occurrence }, data } as const
  await log.appendOnce(factEntry(names, shard, skipped))
  return true
}

export async function startEvaluated(context: StartContext, effect: Of<'start_evaluated'>): Promise<void> {
  const { names, shard, log } = context
  const { fired, request, refused } = effect
  if (await hasRunBefore(context, request)) return
  try {
    const asked = (await load(context, effect.value)) as Asked
    const data = await requestWith(context, request.data, asked)
    await log.appendOnce(factEntry(names, shard, fired), factEntry(names, shard, { ...request, data }))
  } catch (error) {
    if (!isFinal(error)) throw error
    const why = { code: error.code, message: cut(messageOf(error), REASON_MAX) }
    await log.appendOnce(factEntry(names, shard, { ...refused, data: { ...refused.data, error: why } }))
  }
}

/** Throws InvalidError when some cannot be started; the others are. */
export async function startSensed(context: StartContext, { value, request }: Of<'start_sensed'>): Promise<void> {
  const { names, shards, logOf } = context
  const { pipeline, sensor } = request
  const of = `${pipeline}/${sensor?.name ?? ''}`
  const { runs } = (await load(context, value).catch(throwInvalid)) as { readonly runs: readonly Asked[] }
  const wrong: string[] = []
  const begin = async (asked: Asked, i: number): Promise<void> => {
    const text = asked.key === undefined ? `${of}/${sensor?.evaluation}/${i}` : `${of}/key/${asked.key}`
    try {
      const data = await requestWith(context, request, asked)
      const id = runIdFor(data, 'sensor', text, shards)
      const { shard } = parseRunId(id)
      // A key may have been used long ago. And an archive may hold a run, and not the evaluation
      // that asked for it.
      if (await isStillSealed(context, id)) return
      await logOf(shard).appendOnce(factEntry(names, shard, { name: 'run.requested', ids: { run: id }, data }))
    } catch (error) {
      if (!isFinal(error)) throw error
      wrong.push(`runs[${i}]: ${error.message}`)
    }
  }
  for (let from = 0; from < runs.length; from += SENSED_AT_ONCE)
    await Promise.all(runs.slice(from, from + SENSED_AT_ONCE).map((asked, i) => begin(asked, from + i)))
  if (wrong.length > 0) throw new InvalidError(`sensor ${of}: ${wrong.slice(0, 3).join('; ')}`)
}

function isFinal(error: unknown): error is FlowStoneError {
  return error instanceof FlowStoneError && FINAL.has(error.code)
}

/** So that it is reported and left out, and the engine goes on. */
function throwInvalid(error: unknown): never {
  throw isFinal(error) ? new InvalidError(error.message, { cause: error }) : error
}

/**
 * The value of an evaluation as it is stored: from the leader, because it has just been stored. It
 * may be an old one of a sensor.
 */
export async function storedValue(
  { connection, names }: Pick<StartContext, 'connection' | 'names'>,
  { shard, seq }: ValueAt,
): Promise<StoredValue> {
  const found = await connection.read((nc) => leaderGet(nc, names.log(shard), { seq }))
  const fact = found ? factIfAny(names, shard, found) : await sealedAt({ connection, names }, shard, seq)
  if (fact?.name === 'asset.materialized') return fact.data.value
  throw new FlowStoneError('missing_value', `message ${seq} of ${names.log(shard)} is no value`)
}

async function load(context: StartContext, at: ValueAt): Promise<unknown> {
  return await context.io.load(await storedValue(context, at))
}

/** Throws InvalidError for what this version of the pipeline cannot be asked for with. */
async function requestWith({ store, io }: StartContext, request: RunRequest, asked: Asked): Promise<RunRequest> {
  const key = stateKey.pipeline(request.pipeline, request.version)
  if (!store.has(key)) await store.load([key])
  const pipeline = store.get(key)
  if (!pipeline) throw new InvalidError(`version ${request.version} of pipeline ${request.pipeline} is not registered`)
  const { partition, tags, input = {} } = asked
  const given = inputOf(pipeline, request.target, input)
  if ('reason' in given) throw new InvalidError(given.reason)
  const stored: Record<string, StoredValue> = { ...given.stored }
  for (const [name, value] of Object.entries(input))
    stored[name] = await io.store('nats', value, { run: '', pipeline: pipeline.name, asset: name, partition })
  const concurrency = concurrencyOf(pipeline, { partition, tags, input: (name) => givenValue(stored[name]) })
  return {
    ...request,
    ...(concurrency === undefined ? {} : { concurrency }),
    ...(partition === undefined ? {} : { partition }),
    ...(tags === undefined || Object.keys(tags).length === 0 ? {} : { tags }),
    ...(Object.keys(stored).length === 0 ? {} : { input: stored }),
  }
}
