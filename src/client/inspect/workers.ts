/** Who is there: workers and engines. */
import { FlowStoneError, messageOf } from '../../../streams/errors.ts'
import { askEngines } from '../../engine/answer.ts'
import { foldedTo } from '../../engine/shard/checkpoint.ts'
import { engineAtWork } from '../../engine/shard/claim.ts'
import { refusalOf } from '../../engine/shard/refusal.ts'
import { streamBounds } from '../../log/nats.ts'
import { workersSeen } from '../../worker/control/liveness.ts'
import { askWorkers, type WorkerAnswer } from '../../worker/control/worker-status.ts'
import type { RunDeps } from '../run-view.ts'
import { inTurns } from './in-turns.ts'

/** A worker that left its name, and did not take it away. */
export interface WorkerView {
  readonly id: string
  /**
   * `silent`: it does not answer. Then it has died, or its code holds up its process. `draining`:
   * it takes nothing more, and ends when what runs has ended.
   */
  readonly state: 'answers' | 'draining' | 'silent'
  /** When it gave its last sign of life. */
  readonly seenAt: Date
  readonly pipelines: readonly WorkerPipeline[]
  /** Pieces of code that may run at a time, and how many more there is room for, if it answers. */
  readonly slots: number | undefined
  readonly free: number | undefined
  /** The longest delay of its event loop in the last 10 to 20 seconds, if it answers. */
  readonly loopDelayMs: number | undefined
}

/** What a worker has of a pipeline. */
export interface WorkerPipeline {
  readonly name: string
  readonly queues: readonly string[]
  /** Versions of the pipeline that it has code of. */
  readonly versions: readonly string[]
  /** Assets that it makes now, by name, at most 20. */
  readonly running: readonly string[]
}

/** Who is active on a shard of the log, and how far behind its folding is. */
export interface ShardView {
  readonly shard: number
  /** Undefined: none is active. */
  readonly engine: string | undefined
  /** Facts of the log that are not folded yet. */
  readonly behind: number
  /** Sequence of the last fact. */
  readonly last: number
  /** Messages that the log holds now. */
  readonly messages: number
  /** What keeps engines from their work until somebody acts. */
  readonly problem: { readonly code: string; readonly message: string } | undefined
}

/** Asks all workers, which takes some 30 ms, and up to 250 ms where none answers. */
export async function workerViews(deps: RunDeps): Promise<WorkerView[]> {
  await deps.found()
  const { connection, names } = deps
  const seen = await workersSeen(connection, names)
  const pipelines = [...new Set(seen.flatMap((worker) => worker.pipelines))]
  const asked = await inTurns(
    pipelines,
    async (name) => [name, await askWorkers(connection, names.workerStatus(name), { run: '', asset: '' })] as const,
  )
  const answers = new Map(asked)
  return seen
    .map(({ id, seenMs, pipelines: own }): WorkerView => {
      const given = own.flatMap((name) => (answers.get(name) ?? []).filter(({ worker }) => worker === id))
      const [first] = given
      return {
        id,
        state: first ? (first.isDraining ? 'draining' : 'answers') : 'silent',
        seenAt: new Date(seenMs),
        pipelines: own.map((name) =>
          pipelineOf(
            name,
            answers.get(name)?.find(({ worker }) => worker === id),
          ),
        ),
        slots: first?.slots,
        free: first?.free,
        loopDelayMs: first?.loopDelayMs,
      }
    })
    .toSorted((a, b) => (a.id < b.id ? -1 : 1))
}

function pipelineOf(name: string, answer: WorkerAnswer | undefined): WorkerPipeline {
  return { name, queues: answer?.queues ?? [], versions: answer?.versions ?? [], running: answer?.assets ?? [] }
}

/** An engine that answers. */
export interface EngineView {
  readonly id: string
  /** Shards on which it is active. None: it stands by. */
  readonly active: readonly number[]
  /** It does not work, because its NATS user lacks a permission: which one. */
  readonly denied?: string
}

/** Asks all engines, which takes some 100 ms. Empty where none answers, or where it may not ask. */
export async function engineViews(deps: RunDeps): Promise<EngineView[]> {
  await deps.found()
  const answers = await askEngines(deps.connection, deps.names).catch((error: unknown) => {
    if (error instanceof FlowStoneError && error.code === 'denied') return []
    throw error
  })
  return answers
    .map(({ engine, active, denied }) => ({ id: engine, active, ...(denied === undefined ? {} : { denied }) }))
    .toSorted((a, b) => (a.id < b.id ? -1 : 1))
}

export async function shardViews(deps: RunDeps): Promise<ShardView[]> {
  await deps.found()
  const { connection, names, shards } = deps
  const shard = async (n: number): Promise<ShardView> => {
    const [engine, folded, { last, messages }, refusal] = await Promise.all([
      engineAtWork(connection, names, n),
      foldedTo(connection, names, n),
      connection.read((nc) => streamBounds(nc, names.log(n))),
      refusalOf(connection, names, n),
    ])
    const problem = refusal && { code: refusal.code, message: messageOf(refusal) }
    return { shard: n, engine, behind: Math.max(0, last - folded), last, messages, problem }
  }
  return await Promise.all(Array.from({ length: shards }, (_, n) => shard(n)))
}
