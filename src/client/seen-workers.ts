/**
 * What the workers of a pipeline that answer say of who may run a task: a worker of its queue, with
 * its code.
 */
import { type RunState, specOf, stateKey } from '../../projections/state.ts'
import { counted } from '../../streams/amounts.ts'
import type { AssetSpec, PipelineSpec } from '../../streams/schemas.ts'
import { shapeDifferences } from '../../streams/shape.ts'
import type { Names } from '../../streams/subjects.ts'
import type { Limiter } from '../limiter/limiter.ts'
import type { Connection } from '../log/connection.ts'
import { readDoc } from '../log/documents.ts'
import { askWorkers, type WorkerAnswer } from '../worker/control/worker-status.ts'

export interface SeenWorkers {
  readonly workers: readonly WorkerAnswer[]
  /** The asset as other versions that were seen have it. */
  readonly others: ReadonlyMap<string, AssetSpec | undefined>
  /** When the scatter's rate limit lets the next instance begin, where that is known. */
  readonly nextTurn?: Date | undefined
  /** An instance could begin now by its rate limit: nobody waits for that. */
  readonly hasRoom?: boolean
}

export interface WantedWorker {
  readonly pipeline: string
  readonly version: string
  readonly queue: string
  readonly spec: AssetSpec
}

export const NO_WORKERS: SeenWorkers = { workers: [], others: new Map() }
const VERSIONS_MAX = 5

interface SeeingDeps {
  readonly connection: Connection
  readonly names: Names
}

/** Asks the workers of a run's pipeline for one asset of it. */
export async function seeWorkers(
  { connection, names }: SeeingDeps,
  shard: number,
  run: Pick<RunState, 'id' | 'pipeline'>,
  spec: AssetSpec | undefined,
  asset: string,
): Promise<SeenWorkers> {
  const workers = await askWorkers(connection, names.workerStatus(run.pipeline), { run: run.id, asset })
  const others = new Map<string, AssetSpec | undefined>()
  if (!spec || workers.some(({ shapes }) => shapes.includes(spec.shape))) return { workers, others }
  const versions = [...new Set(workers.flatMap((worker) => worker.versions))].slice(0, VERSIONS_MAX)
  for (const version of versions) {
    const key = stateKey.pipeline(run.pipeline, version)
    // The bucket's type of document follows from its key.
    const doc = (await readDoc(connection, names, names.stateBucket(shard), key)) as PipelineSpec | undefined
    others.set(version, doc && specOf(doc, asset))
  }
  return { workers, others }
}

/** As `seeWorkers`, for a scatter; with the next turn of its rate limit. */
export async function seeScatter(
  deps: SeeingDeps & { readonly limiter: Limiter },
  shard: number,
  run: RunState,
  spec: AssetSpec,
): Promise<SeenWorkers> {
  const { rateLimit } = spec.scatter ?? {}
  const bucket = rateLimit && !rateLimit.perKey ? (rateLimit.bucket ?? `scatter:${run.id}.${spec.name}`) : undefined
  const [seen, limit] = await Promise.all([
    seeWorkers(deps, shard, run, spec, spec.name),
    bucket === undefined ? undefined : deps.limiter.status(bucket),
  ])
  // What was promised to somebody comes before whoever asks now.
  const turn = limit?.rate?.reservations[0]?.at ?? limit?.rate?.nextTurn
  const hasRoom = limit?.rate !== undefined && limit.rate.reservations.length === 0 && limit.rate.remaining >= 1
  return { ...seen, nextTurn: turn, hasRoom }
}

/** Workers that serve the queue, and those of them that have the code. */
export function ableOf({ workers }: SeenWorkers, { queue, spec }: WantedWorker): WorkerAnswer[] {
  return workers.filter(({ queues, shapes }) => queues.includes(queue) && shapes.includes(spec.shape))
}

/** Why nobody of those who answer can run it; undefined when somebody can. */
export function missingWorker(seen: SeenWorkers, wanted: WantedWorker): string | undefined {
  const { workers, others } = seen
  const { pipeline, version, queue, spec } = wanted
  if (workers.length === 0)
    return `a worker: none of pipeline ${pipeline} answers; start one with flowstone worker FILE, or flow.worker(pipeline)`
  if (ableOf(seen, wanted).length > 0) return undefined
  if (!workers.some(({ shapes }) => shapes.includes(spec.shape))) {
    const found = [...others].map(([name, other]) => `version ${name} (${differenceOf(spec, other)})`)
    return `a worker with version ${version} of pipeline ${pipeline}, which ${spec.name} was planned for; seen: ${found.join(', ') || 'none'}. Start a worker with that version, or move the run: flowstone adopt RUN`
  }
  const queues = [...new Set(workers.flatMap((worker) => worker.queues))].toSorted()
  return `a worker: none answers that serves queue ${pipeline}/${queue}; ${counted(workers.length, 'answer')}, for ${queues.join(', ')}`
}

function differenceOf(spec: AssetSpec, other: AssetSpec | undefined): string {
  return other ? shapeDifferences(spec, other).join(', ') : `it has no ${spec.name}`
}
