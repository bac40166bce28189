/** What a worker says about a lease that it does not finish. */
import type { FactDraft } from '../../../streams/facts.ts'
import { assetName, parseRunId } from '../../../streams/ids.ts'
import type { LeaseTask } from '../../../streams/tasks.ts'
import { factEntry } from '../../log/entries.ts'
import type { WorkerShared } from '../attempt/shared.ts'
import type { InFlightTask } from '../pull/in-flight-task.ts'

/** Reports that the worker that held a lease before has died. The engine leases the rest again. */
export async function reportLostLease(shared: WorkerShared, held: InFlightTask, task: LeaseTask): Promise<void> {
  const { lease } = task
  const ids = { run: parseRunId(task.run).id, asset: assetName(task.asset), lease }
  await appendLeaseFact(shared, held, { name: 'lease.lost', ids, data: { lease, worker: shared.id } })
}

/**
 * Returns a lease that this worker does not finish. The engine leases the rest again, instance by
 * instance. With `rest`, only the instances from `rest.from` on are returned, none of which was
 * started; the engine leases them as it leases new ones.
 */
export async function returnLease(
  shared: WorkerShared,
  held: InFlightTask,
  task: LeaseTask,
  rest?: { readonly from: number; readonly heldMs?: number },
): Promise<void> {
  const { lease } = task
  const ids = {
    run: parseRunId(task.run).id,
    asset: assetName(task.asset),
    // The worker may return the instances before `from` later. That is another fact.
    lease: rest ? `${lease}-${rest.from}` : lease,
  }
  const heldMs = rest?.heldMs === undefined ? {} : { heldMs: Math.round(rest.heldMs) }
  const data = { lease, worker: shared.id, ...(rest ? { from: rest.from, ...heldMs } : {}) }
  await appendLeaseFact(shared, held, { name: 'lease.returned', ids, data })
}

async function appendLeaseFact(shared: WorkerShared, held: InFlightTask, fact: FactDraft): Promise<void> {
  await shared.logOf(held.shard).appendOnce(factEntry(shared.names, held.shard, fact))
}
