/** How much waits, and how full what holds it is. For metrics: it reads no more than counts. */
import { jetstreamManager } from '../../../streams/jetstream.ts'
import { isGone, streamInfo } from '../../log/nats.ts'
import { workersSeen } from '../../worker/control/liveness.ts'
import type { RunDeps } from '../run-view.ts'

/** What waits in a queue of a pipeline, over all shards and priorities. */
export interface QueueLoad {
  readonly pipeline: string
  readonly queue: string
  /** Tasks that wait for a worker, and those that workers have. */
  readonly waiting: number
  readonly inFlight: number
  /** Of those: tasks that were delivered before, as of a worker that died. */
  readonly redelivered: number
}

/** What a stream holds. */
export interface StreamLoad {
  readonly name: string
  readonly messages: number
  readonly bytes: number
  /** Undefined: as much as the server has room for. */
  readonly maxBytes: number | undefined
}

/** What waits in a namespace. */
export interface Load {
  readonly queues: readonly QueueLoad[]
  /** Tasks that wait for a worker with other code. */
  readonly unmatched: number
  /** Triggers that no engine has taken yet. */
  readonly triggers: number
  /** Workers that left their names, by pipeline. */
  readonly workers: Readonly<Record<string, number>>
  readonly streams: readonly StreamLoad[]
}

export async function loadOf(deps: RunDeps): Promise<Load> {
  await deps.found()
  const { connection, names } = deps
  const [queues, unmatched, streams, workers] = await Promise.all([
    queuesOf(deps),
    Promise.all(shardsOf(deps).map((shard) => countOf(deps, names.work(shard), names.allUnmatched(shard)))),
    streamsOf(deps),
    workersSeen(connection, names),
  ])
  const counts: Record<string, number> = {}
  for (const { pipelines } of workers) for (const name of pipelines) counts[name] = (counts[name] ?? 0) + 1
  return {
    queues,
    unmatched: unmatched.reduce((sum, count) => sum + count, 0),
    triggers: streams.find(({ name }) => name === names.triggers)?.messages ?? 0,
    workers: counts,
    streams,
  }
}

function shardsOf({ shards }: RunDeps): number[] {
  return Array.from({ length: shards }, (_, shard) => shard)
}

async function subjectsOf({ connection }: RunDeps, stream: string, filter: string): Promise<Record<string, number>> {
  return await connection.read(async (nc) => (await streamInfo(nc, stream, filter)).state.subjects ?? {})
}

async function countOf(deps: RunDeps, stream: string, filter: string): Promise<number> {
  return Object.values(await subjectsOf(deps, stream, filter)).reduce((sum, count) => sum + count, 0)
}

/** By subjects: a queue that no worker ever read has no consumer. */
async function queuesOf(deps: RunDeps): Promise<QueueLoad[]> {
  const { connection, names } = deps
  const queues = new Map<
    string,
    { pipeline: string; queue: string; all: number; inFlight: number; redelivered: number }
  >()
  const of = (subject: string | undefined) => {
    const at = subject === undefined ? undefined : names.parseTask(subject)
    if (!at) return undefined
    const key = `${at.pipeline} ${at.queue}`
    const queue = queues.get(key) ?? { ...at, all: 0, inFlight: 0, redelivered: 0 }
    queues.set(key, queue)
    return queue
  }
  const read = async (shard: number): Promise<void> => {
    const work = names.work(shard)
    for (const filter of [names.sharedTasks(shard), names.allLimitedQueues(shard)])
      for (const [subject, count] of Object.entries(await subjectsOf(deps, work, filter))) {
        const queue = of(subject)
        if (queue) queue.all += count
      }
    const jsm = await jetstreamManager(connection.nc)
    for await (const { config, num_ack_pending, num_redelivered } of jsm.consumers.list(work)) {
      const queue = of(config.filter_subject)
      if (!queue) continue
      queue.inFlight += num_ack_pending
      queue.redelivered += num_redelivered
    }
  }
  await Promise.all(shardsOf(deps).map(read))
  return [...queues.values()].map(({ all, inFlight, ...queue }) => ({
    ...queue,
    inFlight,
    // Both were not counted at the same moment.
    waiting: Math.max(0, all - inFlight),
  }))
}

async function streamsOf(deps: RunDeps): Promise<StreamLoad[]> {
  const { connection, names } = deps
  const each = shardsOf(deps).flatMap((shard) => [
    names.log(shard),
    names.work(shard),
    names.kvStream(names.stateBucket(shard)),
    names.kvStream(names.historyBucket(shard)),
  ])
  const others = [names.triggers, names.feed, names.kvStream(names.limitsBucket), `OBJ_${names.blobBucket}`]
  const seen = await Promise.all(
    [...each, ...others].map(async (name): Promise<StreamLoad[]> => {
      try {
        const { state, config } = await connection.read((nc) => streamInfo(nc, name))
        const maxBytes = config.max_bytes > 0 ? config.max_bytes : undefined
        return [{ name, messages: state.messages, bytes: state.bytes, maxBytes }]
      } catch (error) {
        if (isGone(error)) return []
        throw error
      }
    }),
  )
  return seen.flat()
}
