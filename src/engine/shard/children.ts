/**
 * Runs that executions wait for (`ctx.run`), across shards: how they start, how they hear that
 * nobody waits any more, and how who waits hears of their end. By the log, and harmless when done
 * twice.
 */
import type { GateIds } from '../../../projections/effects.ts'
import { conflictOf } from '../../../projections/run/request.ts'
import { abandonment, awaiting, endForParent, isSame } from '../../../projections/run/waiters.ts'
import type { DraftOf } from '../../../streams/facts.ts'
import type { ChildEnd } from '../../../streams/gate-schemas.ts'
import { assetName, parseRunId, type RunId } from '../../../streams/ids.ts'
import type { Waiter } from '../../../streams/run-schemas.ts'
import type { Names } from '../../../streams/subjects.ts'
import { resolveEntry } from '../../gates/entries.ts'
import type { Appender } from '../../log/appender.ts'
import type { Connection } from '../../log/connection.ts'
import { factEntry } from '../../log/entries.ts'
import { isSealed } from '../../log/history.ts'
import { runFact } from '../../log/run-fact.ts'
import { waitCycle } from './wait-cycle.ts'

interface Context {
  readonly connection: Connection
  readonly names: Names
  /** Of the log that is folded. */
  readonly shard: number
  readonly logOf: (shard: number) => Appender
}

/** Starts the run that a gate waits for, or has the gate wait for the one that is there. */
export async function startChild(context: Context, gate: GateIds): Promise<void> {
  const { data } = (await runFact(context, gate.run, 'child.requested', { ...gate })) ?? {}
  if (!data) return
  const child = parseRunId(data.child).id
  const request: DraftOf<'run.requested'> = { name: 'run.requested', ids: { run: child }, data: data.request }
  if (await append(context, request)) return
  const earlier = await runFact(context, child, 'run.requested')
  if (isSame(earlier?.data.parent, gate)) return
  const conflict = conflictOf('key', data.request.key ?? child, earlier?.data, data.request)
  if (conflict === undefined) await awaitChild(context, child, gate)
  else await end(context, gate, { status: 'failed', error: { code: 'conflict', message: conflict } })
}

/** The wait is on the log before circles are looked for: see wait-cycle.ts. */
async function awaitChild(context: Context, child: RunId, gate: GateIds): Promise<void> {
  await append(context, awaiting(child, gate))
  const cycle = await waitCycle(context, child, gate)
  if (cycle === undefined) return
  await end(context, gate, { status: 'failed', error: { code: 'wait_cycle', message: cycle } })
  await append(context, abandonment(child, gate))
}

/** It is started first, if it was not: a run that was never there could not be cancelled. */
export async function abandonChild(context: Context, gate: GateIds, child: RunId): Promise<void> {
  await startChild(context, gate)
  await append(context, abandonment(child, gate))
}

/** Ends the gate of who waits, if the run has ended. Says whether it has. */
export async function wakeParent(context: Context, child: string, waiter: Waiter): Promise<boolean> {
  const { id } = parseRunId(child)
  const finished = await runFact(context, id, 'run.finished')
  if (!finished) return false
  const gate = { run: parseRunId(waiter.run).id, asset: assetName(waiter.asset), gate: waiter.gate }
  await end(context, gate, endForParent(finished.data))
  return true
}

async function end({ names, logOf }: Context, gate: GateIds, child: ChildEnd): Promise<void> {
  const { shard } = parseRunId(gate.run)
  await logOf(shard).appendOnce(resolveEntry(names, shard, gate, { outcome: 'signaled', child }))
}

/** To the log of the run. True when it is stored, false when it was there. */
async function append(
  context: Context,
  fact: DraftOf<'run.requested' | 'run.awaited' | 'run.abandoned'>,
): Promise<boolean> {
  const { names, logOf } = context
  if (fact.name === 'run.requested' && (await isSealed(context, fact.ids.run))) return false
  const { shard } = parseRunId(fact.ids.run)
  return (await logOf(shard).appendOnce(factEntry(names, shard, fact))) === 'stored'
}
