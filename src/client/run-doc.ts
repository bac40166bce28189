/** The documents of a run: from the state, or from the history when the run is sealed. */
import type { BarrierState } from '../../projections/scatter/state.ts'
import { type RunState, stateKey } from '../../projections/state.ts'
import { parseRunId } from '../../streams/ids.ts'
import type { RunDeps } from './run-view.ts'

/**
 * Documents of runs of one shard, by run, in one request. Of any replica, so they may lag a moment.
 * What that does not have is read one by one.
 */
export async function readRuns(
  deps: Pick<RunDeps, 'docs'>,
  shard: number,
  runs: readonly string[],
): Promise<ReadonlyMap<string, RunState | undefined>> {
  const there = await deps.docs.many(shard, runs.map(stateKey.run))
  const docs = runs.map(async (run) => {
    // The bucket's type of document follows from its key.
    const doc = there.get(stateKey.run(run)) as RunState | undefined
    return [run, doc ?? (await readRun(deps, run))] as const
  })
  return new Map(await Promise.all(docs))
}

/** Undefined where there is no such run, or no engine has seen it. */
export async function readRun(
  { docs }: Pick<RunDeps, 'docs'>,
  run: string,
  signal?: AbortSignal,
): Promise<RunState | undefined> {
  // The bucket's type of document follows from its key.
  return (await docs.ofRun(run, stateKey.run(run), signal)) as RunState | undefined
}

/** The barrier of an asset; undefined where its scatter never began. */
export async function readBarrier(
  { docs }: Pick<RunDeps, 'docs'>,
  { id, finishedMs }: Readonly<RunState>,
  asset: string,
  signal?: AbortSignal,
): Promise<BarrierState | undefined> {
  const key = stateKey.barrier(id, asset)
  const isOpen = finishedMs === undefined && !docs.past
  const doc = isOpen ? await docs.read(parseRunId(id).shard, key, signal) : await docs.ofRun(id, key, signal)
  // As above.
  return doc as BarrierState | undefined
}
