/**
 * How many runs of a subscription are open in a shard. Who reads its messages waits while there are
 * too many.
 */
import { type Key, type RunState, stateKey, type View } from '../state.ts'
import type { OpenRunsState } from './state.ts'

/** The document that `countOpenRun` changes, where the run is of a subscription. */
export function needsOfOpenRun(pipeline: string, subscription: string | undefined): Key<OpenRunsState>[] {
  return subscription === undefined ? [] : [stateKey.openRuns(pipeline, subscription)]
}

/** A run has begun (1) or ended (-1). */
export function countOpenRun(view: View, run: RunState, seq: number, by: 1 | -1): void {
  if (run.subscription === undefined) return
  const key = stateKey.openRuns(run.pipeline, run.subscription)
  const open = (view.get(key)?.open ?? 0) + by
  view.put(key, { seq, open: Math.max(0, open) })
}
