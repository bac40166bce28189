/**
 * Does the attempt of a task, and what is chained to it (projections/run/chain.ts): one after the
 * other, each with its outcome on the log before the next begins.
 *
 * A chain that stops in the middle leaves nothing behind. An attempt that fails or waits at a gate
 * says so on the log, and the engine makes a task of what follows. A worker that has no time or no
 * code for the next asset stores what is left as a new message. Of a worker that dies, the message
 * comes to another one, which looks how far the chain has come (`placeOnLog`).
 */
import { factPath } from '../../../streams/facts.ts'
import { fingerprintOf, hashOfValue } from '../../../streams/fingerprint.ts'
import { assetName, parseRunId } from '../../../streams/ids.ts'
import type { ValueAt } from '../../../streams/schemas.ts'
import type { AttemptTask } from '../../../streams/tasks.ts'
import type { AnyAsset } from '../../define/asset-type.ts'
import { leaderGet } from '../../log/nats.ts'
import { factOf } from '../../log/read-fact.ts'
import { HandBack } from '../pull/disposition.ts'
import type { InFlightTask } from '../pull/in-flight-task.ts'
import { requeueRest } from '../pull/requeue.ts'
import { keepUnmatched } from '../pull/unmatched.ts'
import { runAttempt } from './attempt.ts'
import type { Code } from './code.ts'
import { executions } from './executions.ts'
import type { WorkerShared } from './shared.ts'

/**
 * A chain stays where it began. After so much time of code what is left waits for its turn on the
 * queue, so that more urgent work, and other workers, have theirs.
 */
const CHAIN_MS = 1000

/** Values that a chain has made so far. */
export type MadeValues = ReadonlyMap<string, { readonly at: ValueAt; readonly hash: string }>

/** How far a chain has come: the attempt that is due, and what was made before. */
export interface ChainPlace {
  readonly task: AttemptTask
  readonly made: MadeValues
}

/** `place`: of a chain that another worker began. */
export async function runChain(
  shared: WorkerShared,
  held: InFlightTask,
  { task: first, made: before }: ChainPlace,
  asset: AnyAsset,
  code: Code,
): Promise<void> {
  const made = new Map(before)
  const kept: ValueAt[] = []
  try {
    let task = first
    let value = await runAttempt(shared, held, task, asset)
    while (value && task.chain) {
      made.set(task.asset, value)
      shared.values.keep(value.at, value.stored, value.bytes)
      kept.push(value.at)
      const next = nextOf(task, made)
      if (!next) return
      task = next
      held.goOn(task)
      await held.takeSeat()
      // Cancelled: nobody waits for it.
      if (held.abort.signal.aborted && !(held.abort.signal.reason instanceof HandBack)) return
      const member = code.of(task)
      const isLate = (held.seat?.usedMs ?? 0) > CHAIN_MS
      held.isLeaving = !member || isLate || held.abort.signal.aborted || shared.isDraining()
      if (!member) return await keepUnmatched(shared, held)
      if (held.isLeaving) return await requeueRest(shared, held.delivery, task)
      value = await executions.run({ runId: task.run, asset: task.asset }, () => runAttempt(shared, held, task, member))
    }
  } finally {
    for (const at of kept) shared.values.release(at)
  }
}

/**
 * The first attempt of a chain that has no end on the log. Undefined: all have ended, or one that
 * the next depends on has no value.
 */
export async function placeOnLog(
  shared: WorkerShared,
  shard: number,
  first: AttemptTask,
): Promise<ChainPlace | undefined> {
  const made = new Map<string, { at: ValueAt; hash: string }>()
  for (let task: AttemptTask | undefined = first; task; task = nextOf(task, made)) {
    const { connection, names } = shared
    const ids = { pipeline: task.pipeline, asset: assetName(task.asset), run: parseRunId(task.run).id }
    const path = factPath('asset.materialized', ids)
    const last_by_subj = names.fact(shard, `${path.slice(0, path.lastIndexOf('.'))}.*`)
    const found = await connection.read((nc) => leaderGet(nc, names.log(shard), { last_by_subj }))
    if (!found) return { task, made }
    const end = factOf(names, shard, found)
    if (end?.name !== 'asset.materialized') return undefined
    made.set(task.asset, { at: { shard, seq: found.seq }, hash: end.data.hash ?? hashOfValue(end.data.value) })
  }
  return undefined
}

/** The attempt that follows in the chain. */
function nextOf(task: AttemptTask, made: MadeValues): AttemptTask | undefined {
  const [step, ...rest] = task.chain ?? []
  if (!step) return undefined
  const { id, run, pipeline, version, partition, key, msgId, trace } = task
  const deps = { ...step.deps }
  const hashes: Record<string, string> = { ...step.hashes }
  for (const [name, { at, hash }] of made) {
    if (!step.dependsOn.includes(name)) continue
    deps[name] = at
    hashes[name] = hash
  }
  const fingerprint = fingerprintOf(step, hashes)
  return {
    kind: 'execute',
    id,
    run,
    pipeline,
    version,
    ...(partition === undefined ? {} : { partition }),
    ...(key === undefined ? {} : { key }),
    ...(msgId === undefined ? {} : { msgId }),
    ...(trace === undefined ? {} : { trace }),
    asset: step.asset,
    shape: step.shape,
    deps,
    ...(step.timeoutMs === undefined ? {} : { timeoutMs: step.timeoutMs }),
    attempt: step.attempt,
    attemptsLeft: step.attemptsLeft,
    ...(fingerprint === undefined ? {} : { fingerprint }),
    ...(step.inputs === undefined ? {} : { inputs: step.inputs }),
    ...(rest.length === 0 ? {} : { chain: rest }),
  }
}
