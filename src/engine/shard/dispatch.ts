/** Carries out what decisions ask for. Everything here may be done twice without harm, because a successor does it again after a crash. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Command, TriggerRequest } from '../../../projections/effects.ts'
import { type Plan, planRedrive, planRun, upstreamOf } from '../../../projections/run/plan.ts'
import { refusalFor } from '../../../projections/run/request.ts'
import { type RunState, stateKey } from '../../../projections/state.ts'
import { encodeJson } from '../../../streams/codec.ts'
import { ConflictError } from '../../../streams/errors.ts'
import { parseRunId, type RunId, runIdIn } from '../../../streams/ids.ts'
import { jetstreamManager } from '../../../streams/jetstream.ts'
import type { PipelineSpec } from '../../../streams/schemas.ts'
import type { LaneName, Names, ScheduleOwner } from '../../../streams/subjects.ts'
import { extendEntries, openGates, resolveEntry } from '../../gates/entries.ts'
import type { Appender } from '../../log/appender.ts'
import type { ServerClock } from '../../log/clock.ts'
import type { Connection } from '../../log/connection.ts'
import { factEntry, markStale, stoppingTimer, taskEntry, timerEntry } from '../../log/entries.ts'
import { leaderGet } from '../../log/nats.ts'
import { factIfAny } from '../../worker/attempt/values.ts'
import { newestValues, valuesOfRun } from './catalog.ts'
import type { Store } from './store.ts'

const FLUSH_MS = 1000
/** An engine that folds a fact this long after it was stored is behind: facts that it has not seen yet may say otherwise. */
const BEHIND_MS = 250

export interface DispatchContext {
  readonly connection: Connection
  readonly names: Names
  readonly p: number
  readonly partitions: number
  readonly clock: ServerClock
  readonly store: Store
  readonly log: Appender
  readonly work: Appender
  /** The appender of another partition's log. */
  readonly logOf: (p: number) => Appender
}

/** `repair`: see `taskEntry`. */
export async function dispatch(context: DispatchContext, command: Command, nowMs: number, repair = ''): Promise<void> {
  const { names, p } = context
  switch (command.do) {
    case 'fact': {
      const entry = factEntry(names, p, command.fact)
      await unlessThere(context.log.append(command.stops ? stoppingTimer(names, p, entry, command.stops) : entry))
      // Whoever waits for the run is woken as soon as its end stands on the log, and is told where the value should be: to be read beside the end, not after it.
      if (command.fact.name === 'run.finished')
        context.connection.tell(names.note('run', command.fact.ids.run), encodeJson(command.fact.data.value ?? {}))
      return
    }
    case 'timer':
      await unlessThere(context.log.append(timerEntry(names, p, command.fact, command.dueMs)))
      return
    case 'extend_gate':
      await unlessThere(context.log.append(...extendEntries(names, p, command.fact)))
      return
    case 'time_out_gate': {
      const { ids, data } = command.end
      await unlessThere(context.log.append(factEntry(names, p, command.over), resolveEntry(names, p, ids, data)))
      return
    }
    case 'task': {
      const entry = taskEntry(names, p, command, nowMs, repair)
      await context.work.append(context.clock.now() - nowMs > BEHIND_MS ? markStale(entry) : entry)
      return
    }
    case 'cancel_gates':
      await cancelGates(context, command)
      return
    case 'plan':
      await plan(context, command.run)
      return
    case 'request':
      await request(context, command.trigger)
      return
    case 'abort':
      context.connection.tell(names.note('abort', command.run), command.asset ?? '')
      return
    case 'pause':
      context.connection.tell(names.note('pause', command.run), command.asset)
      return
    case 'open_lane': {
      const word = encodeJson({ ...command.lane, p, maxConcurrent: command.maxConcurrent, shape: command.shape })
      context.connection.tell(names.note('lane', `${command.lane.pipeline}.${command.lane.queue}`), word)
      return
    }
    case 'drop_schedules':
      // Of what is still on its way to the server, nothing could be taken away.
      await Promise.race([context.work.flush(), sleep(FLUSH_MS, undefined, { ref: false })])
      await dropSchedules(context.connection, names, p, command, command.only)
      return
    case 'close_lane':
      await closeLane(context.connection, names, p, command.lane)
      return
    default:
      command satisfies never
  }
}

/** Both may be gone already. What is published afterwards (a retry that comes due) is found by the reconciler. */
export async function closeLane(connection: Connection, names: Names, p: number, lane: LaneName): Promise<void> {
  const jsm = await jetstreamManager(connection.nc)
  await jsm.consumers.delete(names.work(p), names.laneConsumer(lane)).catch(() => false)
  await jsm.streams.purge(names.work(p), { filter: names.laneTask(p, lane) }).catch(() => undefined)
}

/** A hint that saves work: what is left fires, and is dropped by the worker that gets it, or is found by the reconciler. */
export async function dropSchedules(
  connection: Connection,
  names: Names,
  p: number,
  of: ScheduleOwner,
  only?: 'instances',
): Promise<void> {
  const jsm = await jetstreamManager(connection.nc)
  await jsm.streams.purge(names.work(p), { filter: names.schedulesOf(p, of, only) }).catch(() => undefined)
}

/** By the log, which is exact: gates that were opened and have not ended. */
async function cancelGates(
  { connection, names, p, log }: DispatchContext,
  { run, asset, attempt }: { readonly run: string; readonly asset: string; readonly attempt?: number },
): Promise<void> {
  const opened = await openGates(connection, names, p, { run, asset })
  const prefix = attempt === undefined ? '' : `a${attempt}n`
  await Promise.all(
    opened
      .filter(({ gate }) => gate.startsWith(prefix))
      .map((ids) =>
        unlessThere(
          log.append(resolveEntry(names, p, ids, { outcome: 'cancelled', reason: 'what opened it has ended' })),
        ),
      ),
  )
}

/** Starts the run of a trigger; or records that its key was used for something else. */
async function request(context: DispatchContext, trigger: TriggerRequest): Promise<void> {
  const { connection, names, p, partitions, log } = context
  const id = runIdIn(trigger.space, trigger.key, partitions)
  const target = parseRunId(id).partition
  const entry = factEntry(names, target, { name: 'run.requested', ids: { run: id }, data: trigger.request })
  try {
    await context.logOf(target).append(entry)
    return
  } catch (error) {
    if (!(error instanceof ConflictError)) throw error
  }
  const found = await connection.read((nc) => leaderGet(nc, names.log(target), { last_by_subj: entry.subject }))
  const earlier = found && factIfAny(names, target, found)
  const refusal = refusalFor(trigger, earlier?.name === 'run.requested' ? earlier.data : undefined)
  if (refusal) await unlessThere(log.append(factEntry(names, p, refusal)))
}

export async function unlessThere(appending: Promise<unknown>): Promise<void> {
  try {
    await appending
  } catch (error) {
    if (!(error instanceof ConflictError)) throw error
  }
}

/** Looks up what is materialized, in all shards, and records the answer as a fact: a replay finds the plan on the log and looks nothing up. */
async function plan(context: DispatchContext, runId: string): Promise<void> {
  const { store } = context
  const run: RunState | undefined = store.get(stateKey.run(runId))
  const pipeline: PipelineSpec | undefined = run && store.get(stateKey.pipeline(run.pipeline, run.version))
  if (!run || !pipeline || run.status !== 'requested') return
  const { target, upstream, id } = run
  if (run.redrive) {
    const { run: earlierId, asset } = run.redrive
    if (parseRunId(earlierId).partition >= context.partitions) {
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
  const found = await newestValues(context, run, pipeline)
  await appendPlan(
    context,
    id,
    planRun(pipeline, target, upstream, (asset) => found.get(asset)),
  )
}

async function appendPlan({ names, p, log }: DispatchContext, run: RunId, { assets, error }: Plan): Promise<void> {
  const data = { assets: [...assets], ...(error ? { error } : {}) }
  await unlessThere(log.append(factEntry(names, p, { name: 'run.planned', ids: { run }, data })))
}
