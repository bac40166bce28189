/**
 * Runs the instances of a lease, with the worker's own concurrency, and reports them in groups:
 * when the lease ends, and every 50 ms while it lasts. The lease is acknowledged only after the
 * last report is stored.
 */
import { assetName, parseRunId } from '../../../streams/ids.ts'
import type { LeaseTask } from '../../../streams/tasks.ts'
import type { AnyAsset } from '../../define/asset-type.ts'
import { isAway } from '../../log/unreachable.ts'
import { failureOf, runCode } from '../attempt/run-code.ts'
import type { WorkerShared } from '../attempt/shared.ts'
import { beginSpan } from '../attempt/traced.ts'
import type { Deps, KeyChunk } from '../attempt/values.ts'
import { HandBack } from '../pull/disposition.ts'
import type { InFlightTask } from '../pull/in-flight-task.ts'
import { Slots } from '../pull/slots.ts'
import { returnLease } from './lease-facts.ts'
import { LeaseRun } from './lease-run.ts'
import { Report } from './report.ts'

/**
 * Each lease of a limited queue stands for one of `maxConcurrent`. This worker runs as many
 * instances of the scatter at a time as it holds leases of it. Not one of each: while one lease
 * waits for its report to be stored, another's instances use its place. A lease is acknowledged,
 * and may be followed by another, only when its place is free.
 */
export async function runLease(
  shared: WorkerShared,
  held: InFlightTask,
  task: LeaseTask,
  asset: AnyAsset,
): Promise<void> {
  if (!task.serial) return await runInstances(shared, held, task, asset, undefined)
  const limitedQueue = `${task.run}.${asset.name}`
  const places = shared.places.get(limitedQueue) ?? new Slots(0)
  shared.places.set(limitedQueue, places)
  places.grow()
  try {
    await runInstances(shared, held, task, asset, places)
  } finally {
    await places.shrink()
    if (places.size === 0) shared.places.delete(limitedQueue)
  }
}

async function runInstances(
  shared: WorkerShared,
  held: InFlightTask,
  task: LeaseTask,
  asset: AnyAsset,
  places: Slots | undefined,
): Promise<void> {
  const startedMs = performance.now()
  const at = { shard: held.shard, run: parseRunId(task.run).id, asset: assetName(asset.name) }
  const report = new Report(shared, at, task)
  const loaded = await load(shared, held, task, asset, report)
  if (!loaded) return
  const span = beginSpan(shared, task)
  const lease = new LeaseRun({ shared, held, task, asset, report, startedMs, ...loaded }, places)
  let broken: unknown
  try {
    await span.run(() => lease.run())
  } catch (error) {
    broken = error
    throw error
  } finally {
    const { instances, succeeded, failed, suspended, returned, error } = lease.counts
    const counted = { instances, succeeded, failed, suspended, returned }
    const named = Object.entries(counted).map(([name, count]) => [`flowstone.instances.${name}`, count])
    span.end(Object.fromEntries(named), broken ?? error)
  }
}

/**
 * Keys and dependencies, within the time limit of an instance. What fails here fails every instance
 * of the lease, as if each had loaded its own; undefined then, and when the work is not wanted any
 * more.
 */
async function load(
  shared: WorkerShared,
  held: InFlightTask,
  task: LeaseTask,
  asset: AnyAsset,
  report: Report,
): Promise<{ keyChunk: KeyChunk; deps: Deps } | undefined> {
  const { signal } = held.abort
  try {
    return await runCode(signal, task.timeoutMs, async (own) => {
      const [keyChunk, deps] = await Promise.all([
        shared.values.keyChunk(held.shard, parseRunId(task.run).id, assetName(task.asset), task.keyChunk),
        shared.values.deps(task.deps, asset, own),
      ])
      return { keyChunk, deps }
    })
  } catch (thrown) {
    if (signal.aborted) {
      if (signal.reason instanceof HandBack) await returnLease(shared, held, task)
      return undefined
    }
    // No attempt is charged, and the lease is delivered again.
    if (isAway(thrown)) throw thrown
    const failure = failureOf(thrown)
    for (let index = task.from; index < task.to; index++) report.failure(index, 0, failure)
    await report.end(undefined)
    return undefined
  }
}
