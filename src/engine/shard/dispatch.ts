/**
 * Carries out what decisions ask for. Everything here may be done twice without harm, because a
 * successor does it again after a crash.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Effect } from '../../../projections/effects.ts'
import { type Plan, planRedrive, planRun, upstreamOf } from '../../../projections/run/plan.ts'
import type { TriggerRequest } from '../../../projections/run/request.ts'
import { isSameRequest, refusalBecause, refusalFor, runIdFor } from '../../../projections/run/request.ts'
import { planRetry } from '../../../projections/run/retry.ts'
import { TRIGGER_BODY_MAX } from '../../../projections/run/trigger.ts'
import { type RunState, stateKey } from '../../../projections/state.ts'
import { encodeJson } from '../../../streams/codec.ts'
import { parseRunId, type RunId } from '../../../streams/ids.ts'
import { jetstreamManager } from '../../../streams/jetstream.ts'
import type { PipelineSpec } from '../../../streams/schemas.ts'
import type { LimitedQueueName, Names, ScheduleOwner } from '../../../streams/subjects.ts'
import { cut } from '../../../streams/text.ts'
import { mismatchOf, wireBytes } from '../../define/json-check.ts'
import { extendEntries, openGates, resolveEntry } from '../../gates/entries.ts'
import type { Io } from '../../io/manager.ts'
import type { Appender } from '../../log/appender.ts'
import type { ServerClock } from '../../log/clock.ts'
import type { Connection } from '../../log/connection.ts'
import { factEntry, markStale, stoppingTimer, taskEntry, timerEntry } from '../../log/entries.ts'
import { isStillSealed } from '../../log/history.ts'
import { runFact } from '../../log/run-fact.ts'
import { hasRunBefore, startEvaluated, startRun, startSensed } from '../schedules/start.ts'
import { newestValues, valuesOfRun } from './catalog.ts'
import { abandonChild, startChild, wakeParent } from './children.ts'
import { earlierRun } from './earlier.ts'
import { Starting } from './starting.ts'
import type { Store } from './store.ts'

const FLUSH_MS = 1000
const REASON_MAX = 2000
/**
 * An engine that folds a fact this long after it was stored is behind: facts that it has not seen
 * yet may say otherwise.
 */
const BEHIND_MS = 250

export interface DispatchContext {
  readonly connection: Connection
  readonly names: Names
  readonly shard: number
  readonly shards: number
  readonly clock: ServerClock
  readonly store: Store
  readonly log: Appender
  readonly work: Appender
  /** The appender of the log of another shard. */
  readonly logOf: (shard: number) => Appender
  readonly io: Io
  readonly starting: Starting
  /** The clock of schedules and sensors, where one runs: a document of theirs has changed. */
  readonly alarm?: (key: string) => void
}

export function dispatchContext(parts: Omit<DispatchContext, 'starting'>): DispatchContext {
  return { ...parts, starting: new Starting() }
}

/** `repair`: see `taskEntry`. */
export async function dispatch(context: DispatchContext, effect: Effect, nowMs: number, repair = ''): Promise<void> {
  const { names, shard } = context
  switch (effect.do) {
    case 'fact': {
      const { fact, stops } = effect
      const entry = factEntry(names, shard, fact)
      const append = (): Promise<unknown> =>
        context.log.appendOnce(stops ? stoppingTimer(names, shard, entry, stops) : entry)
      if (fact.name === 'run.requested') {
        await context.starting.begin(fact.ids.run, async () => {
          if (!(await hasRunBefore(context, fact))) await append()
        })
        return
      }
      if (fact.name === 'run.cancel_requested') await context.starting.begun(fact.ids.run)
      await append()
      // Wakes the clients that wait for the run as soon as its end is on the log. A value that is
      // not in that fact is read together with it: the notification says where it should be.
      if (fact.name === 'run.finished') {
        const { value, result } = fact.data
        context.connection.tell(
          names.notification('run', fact.ids.run),
          encodeJson(result === undefined && value ? value : {}),
        )
      }
      return
    }
    case 'timer': {
      const { expect, ...timer } = timerEntry(names, shard, effect.fact, effect.dueMs)
      await context.log.appendOnce(effect.replaces || !expect ? timer : { ...timer, expect })
      return
    }
    case 'extend_gate':
      await context.log.appendOnce(...extendEntries(names, shard, effect.fact))
      return
    case 'time_out_gate': {
      const { ids, data } = effect.end
      await context.log.appendOnce(factEntry(names, shard, effect.close), resolveEntry(names, shard, ids, data))
      return
    }
    case 'task': {
      const entry = taskEntry(names, shard, effect, nowMs, repair)
      await context.work.append(context.clock.now() - nowMs > BEHIND_MS ? markStale(entry) : entry)
      return
    }
    case 'cancel_gates':
      await cancelGates(context, effect)
      return
    case 'start_child':
      await startChild(context, effect.gate)
      return
    case 'abandon_child':
      await abandonChild(context, effect.gate, effect.child)
      return
    case 'wake_parent':
      await wakeParent(context, effect.run, effect.waiter)
      return
    case 'plan':
      await plan(context, effect.run)
      return
    case 'request':
      await request(context, effect.trigger)
      return
    case 'start_run':
      await context.starting.begin(effect.request.ids.run, () => startRun(context, effect))
      return
    case 'start_evaluated':
      await context.starting.begin(effect.request.ids.run, () => startEvaluated(context, effect))
      return
    case 'start_sensed':
      await startSensed(context, effect)
      return
    case 'alarm':
      context.alarm?.(effect.key)
      return
    case 'abort':
      context.connection.tell(names.notification('abort', effect.run), effect.asset ?? '')
      return
    case 'pause':
      context.connection.tell(names.notification('pause', effect.run), effect.asset)
      return
    case 'open_limited_queue': {
      const word = encodeJson({
        ...effect.limitedQueue,
        shard,
        maxConcurrent: effect.maxConcurrent,
        shape: effect.shape,
      })
      context.connection.tell(
        names.notification('limited_queue', `${effect.limitedQueue.pipeline}.${effect.limitedQueue.queue}`),
        word,
      )
      return
    }
    case 'drop_schedules':
      // Of what is still on its way to the server, nothing could be taken away.
      await Promise.race([context.work.flush(), sleep(FLUSH_MS, undefined, { ref: false })])
      await dropSchedules(context.connection, names, shard, effect, effect.only)
      return
    case 'close_limited_queue':
      await closeLimitedQueue(context.connection, names, shard, effect.limitedQueue)
      return
    default:
      effect satisfies never
  }
}

/**
 * Both may be gone already. The reconciler finds tasks that are published afterwards (a retry that
 * comes due).
 */
export async function closeLimitedQueue(
  connection: Connection,
  names: Names,
  shard: number,
  limitedQueue: LimitedQueueName,
): Promise<void> {
  const jsm = await jetstreamManager(connection.nc)
  await jsm.consumers.delete(names.work(shard), names.limitedQueueConsumer(limitedQueue)).catch(() => false)
  await jsm.streams
    .purge(names.work(shard), { filter: names.limitedQueueTask(shard, limitedQueue) })
    .catch(() => undefined)
}

/**
 * Only saves work. A schedule that is left fires; then the worker that gets its task drops it, or
 * the reconciler finds it.
 */
export async function dropSchedules(
  connection: Connection,
  names: Names,
  shard: number,
  of: ScheduleOwner,
  only?: 'instances',
): Promise<void> {
  const jsm = await jetstreamManager(connection.nc)
  await jsm.streams.purge(names.work(shard), { filter: names.schedulesOf(shard, of, only) }).catch(() => undefined)
}

/** By the log, which is exact: gates that were opened and have not ended. */
async function cancelGates(
  { connection, names, shard, log }: DispatchContext,
  { run, asset, attempt }: { readonly run: string; readonly asset: string; readonly attempt?: number },
): Promise<void> {
  const opened = await openGates(connection, names, shard, { run, asset })
  const prefix = attempt === undefined ? '' : `a${attempt}n`
  await Promise.all(
    opened
      .filter(({ gate }) => gate.startsWith(prefix))
      .map((ids) =>
        log.appendOnce(resolveEntry(names, shard, ids, { outcome: 'cancelled', reason: 'what opened it has ended' })),
      ),
  )
}

/** Starts the run of a trigger; or records that its key was used for something else. */
async function request(context: DispatchContext, trigger: TriggerRequest): Promise<void> {
  const { names, shard, shards, log } = context
  for (const { name, schema, value } of trigger.given) {
    const at = `input.${name}`
    const mismatch = mismatchOf(schema, value, wireBytes(at, value, TRIGGER_BODY_MAX), 'its schema')
    if (mismatch === undefined) continue
    const reason = cut(`${at}: ${mismatch}`, REASON_MAX)
    await log.appendOnce(factEntry(names, shard, refusalBecause(trigger, reason)))
    return
  }
  const id = runIdFor(trigger.request, trigger.space, trigger.key, shards)
  const target = parseRunId(id).shard
  // A message that comes twice: an append would be refused, with all that is stored beside it.
  const known = target === shard ? context.store.get(stateKey.run(id)) : undefined
  if (known && isSameRequest(known, trigger.request)) return
  const entry = factEntry(names, target, { name: 'run.requested', ids: { run: id }, data: trigger.request })
  const isThere = (await isStillSealed(context, id)) || (await context.logOf(target).appendOnce(entry)) === 'exists'
  if (!isThere) return
  const refusal = refusalFor(trigger, (await runFact(context, id, 'run.requested'))?.data)
  if (refusal) await log.appendOnce(factEntry(names, shard, refusal))
}

/**
 * Looks up what is materialized, in all shards, and records the answer as a fact: a replay finds
 * the plan on the log and looks nothing up.
 */
async function plan(context: DispatchContext, runId: string): Promise<void> {
  const { store } = context
  const run: RunState | undefined = store.get(stateKey.run(runId))
  const pipeline: PipelineSpec | undefined = run && store.get(stateKey.pipeline(run.pipeline, run.version))
  if (!run || !pipeline || run.status !== 'requested') return
  const { target, upstream, id } = run
  if (run.redrive) {
    const { run: earlierId, asset } = run.redrive
    if (parseRunId(earlierId).shard >= context.shards) {
      await appendPlan(context, id, {
        assets: [],
        error: { code: 'not_found', message: `there is no run ${earlierId}` },
      })
      return
    }
    const earlier = await valuesOfRun(context, earlierId, run, upstreamOf(pipeline, target))
    await appendPlan(
      context,
      id,
      planRedrive(pipeline, target, asset, (name) => earlier.get(name)),
    )
    return
  }
  if (run.retry) {
    await appendPlan(context, id, await planOfRetry(context, run, pipeline, run.retry))
    return
  }
  const found = await newestValues(context, run, pipeline)
  await appendPlan(
    context,
    id,
    planRun(pipeline, target, upstream, (asset) => found.get(asset), run.inputs),
  )
}

async function planOfRetry(
  context: DispatchContext,
  run: RunState,
  pipeline: PipelineSpec,
  { run: earlierId, from }: NonNullable<RunState['retry']>,
): Promise<Plan> {
  const { target, upstream, inputs: given = {} } = run
  const isThere = parseRunId(earlierId).shard < context.shards
  const earlier = isThere ? await earlierRun(context, earlierId, upstreamOf(pipeline, target)) : undefined
  if (!earlier) return { assets: [], error: { code: 'not_found', message: `there is no run ${earlierId}` } }
  const found = upstream === 'all' ? undefined : await newestValues(context, run, pipeline)
  return planRetry({ pipeline, target, upstream, from, given, earlier, catalog: (asset) => found?.get(asset) })
}

async function appendPlan({ names, shard, log }: DispatchContext, run: RunId, { assets, error }: Plan): Promise<void> {
  const data = { assets: [...assets], ...(error ? { error } : {}) }
  await log.appendOnce(factEntry(names, shard, { name: 'run.planned', ids: { run }, data }))
}
