/** What the doctor reads of work: queues, open runs, timers, triggers, schedules, gates. */

import type { SeenSecrets } from '../../../projections/doctor/secrets.ts'
import type { SeenConsumer, SeenRun, SeenSchedule, SeenWork } from '../../../projections/doctor/work.ts'
import { parsePath } from '../../../streams/facts.ts'
import { jetstreamManager } from '../../../streams/jetstream.ts'
import { waitingGates } from '../../gates/waiting.ts'
import { streamInfo } from '../../log/nats.ts'
import { runFact } from '../../log/run-fact.ts'
import { readRuns } from '../run-doc.ts'
import { Schedules } from '../schedules.ts'
import { Sensors } from '../sensors.ts'
import { type DoctorDeps, look } from './look.ts'

/** Open runs that are looked at one by one, for each shard, and gates. */
const RUNS_MAX = 200
const GATES_MAX = 50

export async function seeWork(deps: DoctorDeps): Promise<SeenWork> {
  const { connection, names } = deps
  const openBefore = await look(connection, () => openRuns(deps))
  const [consumers, unmatched, timers, oldest, triggers, schedules] = await Promise.all([
    look(connection, () => taskConsumers(deps)),
    look(connection, () => unmatchedTasks(deps)),
    look(connection, () => timedRuns(deps)),
    look(connection, () => oldestRuns(deps, 'value' in openBefore ? openBefore.value : [])),
    look(connection, async () => {
      const { state } = await streamInfo(connection.nc, names.triggers)
      const oldestMs = state.messages === 0 ? undefined : deps.clock.now() - Date.parse(state.first_ts)
      return { count: state.messages, oldestMs }
    }),
    look(connection, () => schedulesOf(deps)),
  ])
  // Who began or ended meanwhile is in one of both.
  const openAfter = await look(connection, () => openRuns(deps))
  const open =
    'value' in openBefore && 'value' in openAfter
      ? { value: new Set([...openBefore.value, ...openAfter.value]) }
      : { unseen: 'unseen' in openBefore ? openBefore.unseen : 'unseen' in openAfter ? openAfter.unseen : '' }
  const oldestSeen = 'unseen' in openBefore ? openBefore : oldest
  return { consumers, unmatched, open, oldest: oldestSeen, timers, triggers, schedules }
}

async function perShard<T>({ shards }: DoctorDeps, of: (shard: number) => Promise<readonly T[]>): Promise<T[]> {
  return (await Promise.all(Array.from({ length: shards }, (_, shard) => of(shard)))).flat()
}

async function subjectsOf({ connection }: DoctorDeps, stream: string, filter: string): Promise<string[]> {
  const { state } = await streamInfo(connection.nc, stream, filter)
  return Object.keys(state.subjects ?? {})
}

async function openRuns(deps: DoctorDeps): Promise<string[]> {
  const { names } = deps
  return await perShard(deps, async (shard) => {
    const bucket = names.stateBucket(shard)
    const prefix = names.kvSubject(bucket, 'open.')
    const subjects = await subjectsOf(deps, names.kvStream(bucket), `${prefix}*`)
    return subjects.map((subject) => subject.slice(prefix.length))
  })
}

async function oldestRuns(deps: DoctorDeps, open: readonly string[]): Promise<SeenRun[]> {
  const nowMs = deps.clock.now()
  const all = await perShard(deps, async (shard) => {
    // Ids of most runs begin with their time.
    const some = open
      .filter((id) => id.startsWith(`${shard}-`))
      .toSorted()
      .slice(0, RUNS_MAX)
    return [...(await readRuns(deps, shard, some)).values()].flatMap((run) => run ?? [])
  })
  return all
    .toSorted((a, b) => a.requestedMs - b.requestedMs)
    .map(({ id, status, requestedMs, assets }) => ({
      id,
      status,
      ageMs: nowMs - requestedMs,
      assets: Object.values(assets).map((asset) => asset.status),
      queued: status === 'queued',
    }))
}

async function taskConsumers(deps: DoctorDeps): Promise<SeenConsumer[]> {
  const { connection, names } = deps
  const jsm = await jetstreamManager(connection.nc)
  return await perShard(deps, async (shard) => {
    const found: SeenConsumer[] = []
    for await (const info of jsm.consumers.list(names.work(shard)))
      found.push({
        shard,
        name: info.name,
        run: names.parseLimitedQueue(info.name)?.run,
        pending: info.num_pending,
        ackPending: info.num_ack_pending,
        redelivered: info.num_redelivered,
        waiting: info.num_waiting,
      })
    return found
  })
}

async function unmatchedTasks(deps: DoctorDeps): Promise<number> {
  const { names } = deps
  const all = await perShard(deps, (shard) => subjectsOf(deps, names.work(shard), names.allUnmatched(shard)))
  return all.length
}

/** Runs of the timers on the logs. */
async function timedRuns(deps: DoctorDeps): Promise<string[]> {
  const { names } = deps
  const paths = ['run.*.timer', 'scatter.*.*.timer', 'gate.*.*.*.timer']
  return await perShard(deps, async (shard) => {
    const subjects = await Promise.all(paths.map((path) => subjectsOf(deps, names.log(shard), names.fact(shard, path))))
    return subjects.flat().flatMap((subject) => {
      const fired = `${names.factPath(subject) ?? ''}_fired`
      return parsePath(fired)?.ids.run ?? []
    })
  })
}

async function schedulesOf(deps: DoctorDeps): Promise<SeenSchedule[]> {
  const [schedules, sensors] = await Promise.all([new Schedules(deps).list(), new Sensors(deps).list()])
  const nowMs = deps.clock.now()
  return [
    ...schedules.map(({ name, state, next }) => ({
      name,
      kind: 'schedule' as const,
      paused: state === 'paused',
      lateMs: next && next.getTime() < nowMs ? nowMs - next.getTime() : undefined,
      failures: 0,
    })),
    ...sensors.map(({ name, state, failures }) => ({
      name,
      kind: 'sensor' as const,
      paused: state === 'paused',
      lateMs: undefined,
      failures,
    })),
  ]
}

export async function seeSecrets(
  deps: DoctorDeps,
  apiKeys: readonly { readonly id: string; readonly expires?: Date | string }[],
): Promise<SeenSecrets> {
  const waiting = await look(deps.connection, async () => {
    const gates = await waitingGates(deps, GATES_MAX, undefined)
    const nowMs = deps.clock.now()
    const signed = gates.map(async ({ run, asset, gate }) => {
      const fact = await runFact(deps, run, 'gate.created', { run, asset, gate })
      return fact ? [{ keyId: fact.data.keyId, ageMs: nowMs - fact.timeMs }] : []
    })
    return (await Promise.all(signed)).flat()
  })
  return {
    gateKeys: deps.gateKeys,
    waiting,
    apiKeys: apiKeys.map(({ id, expires }) => ({
      id,
      expiresInMs: expires === undefined ? undefined : new Date(expires).getTime() - Date.now(),
    })),
  }
}
