/** Why what waits in a run is waiting. */
import { groupKey } from '../../projections/run/concurrency-key.ts'
import { isEnded } from '../../projections/run/end.ts'
import type { BarrierState } from '../../projections/scatter/state.ts'
import { type AssetInRun, type ConcurrencyState, type RunState, specOf, stateKey } from '../../projections/state.ts'
import { counted } from '../../streams/amounts.ts'
import type { AssetSpec, PipelineSpec } from '../../streams/schemas.ts'
import { engineAtWork } from '../engine/shard/claim.ts'
import type { SlotsStatus } from '../limiter/limiter.ts'
import { readDoc } from '../log/documents.ts'
import type { WorkerAnswer } from '../worker/control/worker-status.ts'
import type { RunDeps, RunView } from './run-view.ts'
import { statusOf } from './scatter-status.ts'
import { ableOf, missingWorker, type SeenWorkers, seeScatter, seeWorkers, type WantedWorker } from './seen-workers.ts'

/** A run, its assets, and why what waits is waiting. */
export interface RunStatus extends RunView {
  /** Why nothing of the run goes on. Empty when something does. */
  readonly waitingFor: readonly string[]
  readonly assets: Readonly<
    Record<
      string,
      RunView['assets'][string] & {
        /** Why it waits, in words for people. Empty when it does not wait, or has just begun to. */
        readonly waitingFor: readonly string[]
      }
    >
  >
}

/** What was enqueued less than this ago is on its way. */
const FRESH_MS = 1000
/** Workers are asked for so many assets of a run at the most. */
const ASKED_MAX = 32
const HOLDERS_SHOWN = 5
/** Those before it in a queue are counted up to here. */
const AHEAD_MAX = 100

interface Explained {
  readonly deps: RunDeps
  readonly shard: number
  readonly run: RunState
  readonly pipeline: PipelineSpec
}

/** As `view`, with reasons. `run`: undefined while no engine has seen it. */
export async function explainRun(
  deps: RunDeps,
  shard: number,
  view: RunView,
  run: RunState | undefined,
): Promise<RunStatus> {
  const none = Object.fromEntries(
    Object.entries(view.assets).map(([name, asset]) => [name, { ...asset, waitingFor: [] as readonly string[] }]),
  )
  // Of the past nobody can be asked.
  if (view.finishedAt || deps.docs.past) return { ...view, waitingFor: [], assets: none }
  const waitingFor = await engineReason(deps, shard)
  if (!run) return { ...view, waitingFor, assets: none }
  if (run.queue) return { ...view, waitingFor: [...waitingFor, await turnReason(deps, shard, run)], assets: none }
  const { connection, names } = deps
  const key = stateKey.pipeline(run.pipeline, run.version)
  // The bucket's type of document follows from its key.
  const pipeline = (await readDoc(connection, names, names.stateBucket(shard), key)) as PipelineSpec | undefined
  if (!pipeline) return { ...view, waitingFor, assets: none }
  const at = { deps, shard, run, pipeline }
  let asked = 0
  const assets = await Promise.all(
    Object.entries(none).map(async ([name, asset]) => {
      const spec = specOf(pipeline, name)
      const doc = run.assets[name]
      if (!spec || !doc || isEnded(doc)) return [name, asset] as const
      const mayAsk = asked < ASKED_MAX
      asked += 1
      return [name, { ...asset, waitingFor: await reasonsOf(at, spec, doc, mayAsk) }] as const
    }),
  )
  return { ...view, waitingFor, assets: Object.fromEntries(assets) }
}

/** Which runs are before it, and its place in the queue. */
async function turnReason({ connection, names }: RunDeps, shard: number, run: RunState): Promise<string> {
  const read = (key: string): Promise<unknown> => readDoc(connection, names, names.stateBucket(shard), key)
  const key = groupKey(run.pipeline, run.concurrency)
  // The bucket's type of document follows from its key.
  const group = key && ((await read(key)) as ConcurrencyState | undefined)
  const { limit = 1 } = run.concurrency ?? {}
  if (!group) return 'its turn'
  let ahead = 0
  let about = ''
  for (let prev = run.queue?.prev; prev !== undefined; ahead++) {
    if (ahead === AHEAD_MAX) {
      about = `${AHEAD_MAX} or more of `
      break
    }
    prev = ((await read(stateKey.run(prev))) as RunState | undefined)?.queue?.prev
  }
  const place = about === '' ? `place ${ahead + 1} of ${group.waiting}` : `behind ${about}${group.waiting} that wait`
  const shown = group.running.slice(0, HOLDERS_SHOWN).join(', ')
  const more = group.running.length > HOLDERS_SHOWN ? `, and ${group.running.length - HOLDERS_SHOWN} more` : ''
  return `its turn under concurrency key ${JSON.stringify(group.key)}, limit ${limit}: active ${shown}${more}; ${place}`
}

async function engineReason({ connection, names }: RunDeps, shard: number): Promise<string[]> {
  const engine = await engineAtWork(connection, names, shard).catch(() => 'unknown')
  if (engine !== undefined) return []
  return ['an engine: none is active; start one with flowstone engine, or flow.engine()']
}

async function reasonsOf(at: Explained, spec: AssetSpec, asset: AssetInRun, mayAsk: boolean): Promise<string[]> {
  switch (asset.status) {
    case 'waiting':
      return dependencyReasons(at.run, spec)
    case 'suspended': {
      if (asset.child !== undefined) return [`run ${asset.child}`]
      const until = asset.waitsUntilMs === undefined ? '' : ` until ${new Date(asset.waitsUntilMs).toISOString()}`
      return [`a signal: at gate ${at.run.id}.${spec.name}.${asset.gate ?? '?'}${until}`]
    }
    case 'queued':
    case 'running': {
      const barrier = spec.scatter && asset.phase === 'scatter' ? await barrierOf(at, spec) : undefined
      if (barrier?.status === 'open') return mayAsk ? await scatterReasons(at, spec, barrier) : []
      return await attemptReasons(at, spec, asset, mayAsk)
    }
    case 'scattering': {
      const barrier = await barrierOf(at, spec)
      return barrier && mayAsk ? await scatterReasons(at, spec, barrier) : []
    }
    default:
      return []
  }
}

function dependencyReasons(run: RunState, spec: AssetSpec): string[] {
  const missing = spec.dependsOn.filter((name) => !run.assets[name]?.value)
  if (missing.length === 0) return []
  return [
    `its dependencies: ${missing.map((name) => `${name} (${run.assets[name]?.status ?? 'not there'})`).join(', ')}`,
  ]
}

async function barrierOf({ deps, shard, run }: Explained, spec: AssetSpec): Promise<BarrierState | undefined> {
  const { connection, names } = deps
  // The bucket's type of document follows from its key.
  return (await readDoc(connection, names, names.stateBucket(shard), stateKey.barrier(run.id, spec.name))) as
    | BarrierState
    | undefined
}

async function scatterReasons(at: Explained, spec: AssetSpec, barrier: BarrierState): Promise<string[]> {
  const { deps, shard, run } = at
  const isOut = barrier.status === 'open' && Object.keys(barrier.leases).length > 0
  const seen = isOut ? await seeScatter(deps, shard, run, spec) : undefined
  const { pipeline, version } = run
  const id = `${run.id}.${spec.name}`
  return [...statusOf({ id, barrier, spec, pipeline, version, seen, nowMs: deps.clock.now() }).waitingFor]
}

async function attemptReasons(at: Explained, spec: AssetSpec, asset: AssetInRun, mayAsk: boolean): Promise<string[]> {
  const { deps, shard, run } = at
  const nowMs = deps.clock.now()
  if (asset.dueMs !== undefined && asset.dueMs > nowMs) {
    const why = asset.error ? `; the last one failed: ${asset.error.message}` : ''
    return [`a retry delay: attempt ${asset.attempt} at ${new Date(asset.dueMs).toISOString()}${why}`]
  }
  if (nowMs - Math.max(asset.queuedMs ?? 0, asset.dueMs ?? 0) < FRESH_MS || !mayAsk) return []
  const seen = await seeWorkers(deps, shard, run, spec, spec.name)
  const held = seen.workers.flatMap((worker) =>
    worker.attempts.filter(({ attempt }) => attempt === asset.attempt).map(({ waits }) => ({ worker, waits })),
  )
  const [one] = held
  if (one) return one.waits ? await heldReasons(at, one.worker, one.waits) : []
  const wanted: WantedWorker = { pipeline: run.pipeline, version: run.version, queue: spec.queue, spec }
  const missing = missingWorker(seen, wanted)
  if (missing !== undefined) return [missing]
  // Its slot is asked for by a worker; while none is free, the task is mostly on its way back to
  // the queue.
  const bucket = asset.phase === 'execute' ? spec.slots?.bucket : undefined
  const slots = bucket === undefined ? undefined : (await deps.limiter.status(bucket)).slots
  if (bucket !== undefined && slots && slots.remaining < (spec.slots?.weight ?? 1)) return [slotReason(bucket, slots)]
  return [roomReason(seen, wanted, asset)]
}

function roomReason(seen: SeenWorkers, wanted: WantedWorker, asset: AssetInRun): string {
  const able = ableOf(seen, wanted)
  const since = asset.queuedMs === undefined ? '' : ` since ${new Date(asset.queuedMs).toISOString()}`
  const queue = `${wanted.pipeline}/${wanted.queue}`
  if (able.every(({ free }) => free === 0)) {
    const slots = able.reduce((sum, worker) => sum + worker.slots, 0)
    return `room in a worker: it is on queue ${queue}${since}; slots: ${slots}, of ${counted(able.length, 'worker')}, and all are taken`
  }
  return `its turn: it is on queue ${queue}${since}, with ${counted(able.length, 'worker')}`
}

async function heldReasons(
  { deps }: Explained,
  { worker, slots }: WorkerAnswer,
  waits: NonNullable<WorkerAnswer['attempts'][number]['waits']>,
): Promise<string[]> {
  const { bucket = '?', untilMs } = waits
  switch (waits.for) {
    case 'room':
      return [`room in ${worker}, which runs ${counted(slots, 'piece')} of code at a time`]
    case 'alone':
      return [`${worker} to finish all else: it lost a worker before, so its last attempt runs alone`]
    case 'rate': {
      const turn = untilMs === undefined ? '' : `, its turn is at ${new Date(untilMs).toISOString()}`
      return [`rate limit ${bucket}${turn}`]
    }
    case 'slot': {
      const status = (await deps.limiter.status(bucket)).slots
      return [status ? slotReason(bucket, status) : `a slot of ${bucket}`]
    }
    default:
      return waits.for satisfies never
  }
}

function slotReason(bucket: string, { limit, count, waiting, holders }: SlotsStatus): string {
  const shown = holders.slice(0, HOLDERS_SHOWN).map(({ by, slot, ageMs }) => {
    const seconds = Math.round(ageMs / 1000)
    return `${by ?? `slot ${slot}`} (for ${seconds} s)`
  })
  const more = holders.length > HOLDERS_SHOWN ? `, and ${holders.length - HOLDERS_SHOWN} more` : ''
  return `a slot of ${bucket}: ${count} of ${limit} are taken, by ${shown.join(', ')}${more}; waiting: ${waiting}`
}
