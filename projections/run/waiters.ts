/**
 * What waits for a run: executions of assets that started it by `ctx.run`, or asked for it by its
 * key. Each stands at a gate of its own (gate.ts), on the log of its own run.
 *
 *   run     fact                        → run                                             caused by
 *   (none)  run.requested, `parent`     → requested; the parent waits for it                engine of the parent
 *   open    run.awaited                 → one more waits for it                             engine of who waits
 *   ended   run.awaited                 → unchanged; who waits goes on at once
 *   gone    run.awaited                 → as ended, if the history knows its end
 *   open    run.abandoned               → one less waits; a run that a parent started is
 *                                         cancelled with the last one                        engine of who waited
 *   any     run.finished                → whoever waits goes on                              engine
 *
 * So a run that somebody else has started is not cancelled by those who wait for it.
 */
import type { DraftOf, FactData, FactOf } from '../../streams/facts.ts'
import type { ChildEnd } from '../../streams/gate-schemas.ts'
import type { RunId } from '../../streams/ids.ts'
import type { Waiter } from '../../streams/run-schemas.ts'
import type { Effect, GateIds } from '../effects.ts'
import { editRun, type RunState, stateKey, type View } from '../state.ts'
import { cancelRun } from './run.ts'

export function onRunAwaited(view: View, before: RunState, fact: FactOf<'run.awaited'>): Effect[] {
  const waiter = waiterOf(fact)
  if (before.finishedMs !== undefined) return [wake(before, waiter)]
  const run = editRun(view, before, fact)
  run.waiters = [...(run.waiters ?? []), waiter]
  return []
}

/** Of a run that the state does not know: its document is gone when it ended a while ago. */
export function onUnknownAwaited({ ids, ...fact }: FactOf<'run.awaited'>): Effect[] {
  return [{ do: 'wake_parent', run: ids.run, waiter: waiterOf({ ids, ...fact }) }]
}

export function onRunAbandoned(view: View, before: RunState, fact: FactOf<'run.abandoned'>): Effect[] {
  if (before.finishedMs !== undefined) return []
  const gone = waiterOf(fact)
  const run = editRun(view, before, fact)
  const waiters = (run.waiters ?? []).filter((waiter) => !isSame(waiter, gone))
  if (waiters.length > 0) run.waiters = waiters
  else delete run.waiters
  if (!run.parent || waiters.length > 0) return []
  return cancelRun(view, run, fact, 'what waited for the run has ended')
}

/** When it has ended, all that wait for it go on. */
export function wakeAll(view: View, run: RunState): Effect[] {
  const { waiters } = run
  if (!waiters) return []
  delete view.edit(stateKey.run(run.id)).waiters
  return waiters.map((waiter) => wake(run, waiter))
}

/** What who waits hears of the end. */
export function endForParent({ status, value, asset, error }: FactData<'run.finished'>): ChildEnd {
  return {
    status,
    ...(value === undefined ? {} : { value }),
    ...(asset === undefined ? {} : { asset }),
    ...(error === undefined ? {} : { error }),
  }
}

/** One more waits for a run that is there. */
export function awaiting(child: RunId, { run, asset, gate }: GateIds): DraftOf<'run.awaited'> {
  return { name: 'run.awaited', ids: { run: child, parent: run, asset, gate }, data: {} }
}

export function abandonment(child: RunId, { run, asset, gate }: GateIds): DraftOf<'run.abandoned'> {
  return { name: 'run.abandoned', ids: { run: child, parent: run, asset, gate }, data: {} }
}

export function isSame(a: Waiter | undefined, b: Waiter): boolean {
  return a?.run === b.run && a.asset === b.asset && a.gate === b.gate
}

function waiterOf({ ids }: FactOf<'run.awaited' | 'run.abandoned'>): Waiter {
  return { run: ids.parent, asset: ids.asset, gate: ids.gate }
}

function wake(run: RunState, waiter: Waiter): Effect {
  return { do: 'wake_parent', run: run.id, waiter }
}
