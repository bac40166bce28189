/**
 * What an open run waits for: tasks that must be on WORK, and decisions that must come. By it the
 * reconciler repairs, and verifying says what is missing.
 */
import type { Effect } from '../../../projections/effects.ts'
import { afterGate, hasEnded } from '../../../projections/gate/gate.ts'
import { carrierOf } from '../../../projections/run/chain.ts'
import { isEnded, runTimerOf } from '../../../projections/run/end.ts'
import { isSuspended, segmentOf } from '../../../projections/scatter/bits.ts'
import type { BarrierContext } from '../../../projections/scatter/context.ts'
import { type AssetInRun, type GateState, type Key, specOf, stateKey } from '../../../projections/state.ts'
import { attemptEffect, leaseEffect, resumeEffect } from '../../../projections/tasks.ts'
import { messageOf } from '../../../streams/errors.ts'
import { jetstreamManager } from '../../../streams/jetstream.ts'
import type { PipelineSpec } from '../../../streams/schemas.ts'
import type { Connection } from '../../log/connection.ts'
import { storedGate } from '../../log/gate-doc.ts'
import { streamBounds } from '../../log/nats.ts'

/** What was enqueued less than this ago may still be on its way. */
export const GRACE_MS = 5000

export type TaskEffect = Extract<Effect, { do: 'task' }>

export interface Expected {
  readonly tasks: Map<string, TaskEffect>
  /** Ids of runs. */
  readonly undecided: Set<string>
}

export interface ExpectedSource {
  /** A document of the state. */
  readonly doc: <D>(key: Key<D>) => Promise<D | undefined>
  /** The rest of the keys of the state that begin so. */
  readonly keysUnder: (start: string) => Promise<string[]>
  /** The server's time, at least. */
  readonly atLeast: () => number
}

/**
 * Tasks that open runs wait for, and runs that wait for a decision. `until`: only of what was
 * enqueued, or requested, before.
 */
export async function expectedOf(source: ExpectedSource, until: number): Promise<Expected> {
  const expected: Expected = { tasks: new Map(), undecided: new Set() }
  for (const runId of await source.keysUnder('open.')) {
    const run = await source.doc(stateKey.run(runId))
    if (!run || run.finishedMs !== undefined) continue
    const timer = runTimerOf(run)
    const late = timer !== undefined && timer.dueMs < source.atLeast() - GRACE_MS
    if (run.finishing || late || (run.status === 'requested' && (run.startedMs ?? run.requestedMs) < until))
      expected.undecided.add(runId)
    const pipeline = await source.doc(stateKey.pipeline(run.pipeline, run.version))
    if (!pipeline) continue
    for (const [name, asset] of Object.entries(run.assets)) {
      const spec = specOf(pipeline, name)
      if (!spec || isEnded(asset)) continue
      if (asset.ending) expected.undecided.add(runId)
      else await addExpected(source, expected, { run, pipeline, spec }, asset, until)
    }
  }
  return expected
}

async function addExpected(
  source: ExpectedSource,
  { tasks, undecided }: Expected,
  context: Pick<BarrierContext, 'run' | 'spec'> & { readonly pipeline: PipelineSpec },
  asset: AssetInRun,
  until: number,
): Promise<void> {
  const { run, pipeline, spec } = context
  const add = (effect: Effect, carrier?: string): void => {
    if (effect.do === 'task') tasks.set(carrier ?? effect.task.id, effect)
  }
  if ((asset.status === 'queued' || asset.status === 'running') && asset.attempt > 0 && (asset.queuedMs ?? 0) < until)
    add(attemptEffect(run, pipeline, spec, asset), carrierOf(run, spec.name))
  if (!spec.scatter) return
  const barrier = await source.doc(stateKey.barrier(run.id, spec.name))
  if (barrier?.status !== 'open') return
  const lateMs = source.atLeast() - GRACE_MS
  if (barrier.closing || (barrier.deadlineMs !== undefined && barrier.deadlineMs < lateMs)) undecided.add(run.id)
  if (barrier.closing) return
  for (const [id, lease] of Object.entries(barrier.leases))
    if (lease.fedMs < until) add(leaseEffect(context, barrier, id))
  if (!barrier.suspended) return
  for (const gate of await resuming(source, run.id, spec.name)) {
    const { resume, closed: over, index } = gate
    if (!resume || over || index === undefined || resume.queuedMs >= until || !hasEnded(gate)) continue
    const segment = await source.doc(stateKey.segment(run.id, spec.name, segmentOf(index)))
    // An older execution may have brought its value meanwhile.
    if (!segment || !isSuspended(segment, index)) continue
    if ('end' in afterGate(spec, gate)) undecided.add(run.id)
    else add(resumeEffect(context, gate))
  }
}

/** Gates after which an instance of this scatter continues now. */
async function resuming({ doc, keysUnder }: ExpectedSource, run: string, asset: string): Promise<GateState[]> {
  const gates: GateState[] = []
  for (const name of await keysUnder(stateKey.resuming(run, asset, ''))) {
    const gate = await storedGate(doc, { run, asset, gate: name })
    if (gate) gates.push(gate)
  }
  return gates
}

/** Ids of all tasks on WORK, held by a worker or not, due or scheduled. */
export async function tasksOnWork(connection: Connection, stream: string): Promise<Set<string>> {
  const present = new Set<string>()
  const { first, last, messages } = await streamBounds(connection.nc, stream)
  if (messages === 0) return present
  const jsm = await jetstreamManager(connection.nc)
  for (let seq = first; seq <= last; ) {
    let next = seq
    try {
      for await (const message of await jsm.direct.getBatch(stream, { seq, batch: 1000 })) {
        const id = message.header.get('Fs-Task')
        if (id) present.add(id)
        next = message.seq + 1
      }
    } catch (error) {
      // All from here on was acknowledged meanwhile.
      if (messageOf(error) !== 'message not found') throw error
    }
    if (next === seq) break
    seq = next
  }
  return present
}
