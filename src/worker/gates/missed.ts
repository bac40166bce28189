/**
 * A signal may be kept for a gate whose worker died before it looked for one. An asset that waits
 * is stored together with its gate, so nobody runs its code again. Who gets its task again looks.
 */
import { factPath } from '../../../streams/facts.ts'
import { assetName, parseRunId } from '../../../streams/ids.ts'
import type { Task } from '../../../streams/tasks.ts'
import { takeEarly } from '../../gates/early.ts'
import { leaderGet } from '../../log/nats.ts'
import { factOf } from '../../log/read-fact.ts'
import type { WorkerShared } from '../attempt/shared.ts'

/** Of an attempt that nobody waits for: the signal that was kept for the gate where it waits. */
export async function takeMissed(shared: WorkerShared, shard: number, task: Task): Promise<void> {
  if (task.kind !== 'execute' && task.kind !== 'signal' && task.kind !== 'timeout') return
  const { connection, names, io, refusals } = shared
  const last = async (path: string): Promise<ReturnType<typeof factOf> | undefined> => {
    const last_by_subj = names.fact(shard, path)
    const found = await connection.read((nc) => leaderGet(nc, names.log(shard), { last_by_subj }))
    return found && factOf(names, shard, found)
  }
  const at = { run: parseRunId(task.run).id, asset: assetName(task.asset) }
  const waits = await last(
    factPath('asset.suspended', { ...at, pipeline: task.pipeline, attempt: String(task.attempt) }),
  )
  if (waits?.name !== 'asset.suspended') return
  const ids = { ...at, gate: waits.data.gate }
  const created = await last(factPath('gate.created', ids))
  if (created?.name !== 'gate.created' || created.data.correlationHash === undefined) return
  const place = { connection, names, io, refusals, log: shared.logOf(shard), shard }
  await takeEarly(place, created.data.correlationHash, ids, created.data.payload)
}
