/**
 * A second look at gates that wait for a run: one whose run was never requested starts it, and one
 * whose run has ended goes on. Both are done when facts are folded. They are missing here only if
 * a log lost its end, or an engine stepped over a fact.
 */
import type { GateState, Key } from '../../../projections/state.ts'
import { factPath } from '../../../streams/facts.ts'
import { assetName, parseGateId, parseRunId } from '../../../streams/ids.ts'
import { storedGate } from '../../log/gate-doc.ts'
import { directGetMany } from '../../log/nats.ts'
import { startChild, wakeParent } from '../shard/children.ts'
import type { DispatchContext } from '../shard/dispatch.ts'

/** What was asked for less than this ago may still be on its way. */
const GRACE_MS = 5000
const LOOK_AT_ONCE = 500

export interface ChildSweepDeps {
  /** The rest of the keys of the state bucket that begin so. */
  readonly keysUnder: (start: string) => Promise<string[]>
  readonly doc: <D>(key: Key<D>) => Promise<D | undefined>
}

/** Returns the gates that were repaired. */
export async function sweepChildren(context: DispatchContext, { keysUnder, doc }: ChildSweepDeps): Promise<string[]> {
  const keys = await keysUnder('child.')
  const repaired: string[] = []
  for (let i = 0; i < keys.length; i += LOOK_AT_ONCE) {
    const some = keys.slice(i, i + LOOK_AT_ONCE).map((key) => parseGateId(key))
    const gates = await Promise.all(some.map((at) => storedGate(doc, at)))
    const old = gates.flatMap((gate) =>
      gate?.status === 'waiting' && gate.child && gate.openedMs < context.clock.now() - GRACE_MS ? [gate] : [],
    )
    for (const gate of await stuckOf(context, old)) {
      await repair(context, gate)
      repaired.push(`${gate.run}.${gate.asset}.${gate.gate}`)
    }
  }
  return repaired
}

/** Those whose run is not there, or has ended. */
async function stuckOf({ connection, names }: DispatchContext, gates: readonly GateState[]): Promise<GateState[]> {
  const byShard = Map.groupBy(gates, ({ child }) => (child ? parseRunId(child.run).shard : 0))
  const stuck: GateState[] = []
  for (const [shard, some] of byShard) {
    const place = (name: 'run.requested' | 'run.finished', { child }: GateState): string =>
      names.fact(shard, factPath(name, { run: child?.run ?? '' }))
    const subjects = new Set(some.flatMap((gate) => [place('run.requested', gate), place('run.finished', gate)]))
    const found = await connection.read((nc) => directGetMany(nc, names.log(shard), [...subjects]))
    for (const gate of some)
      if (!found.has(place('run.requested', gate)) || found.has(place('run.finished', gate))) stuck.push(gate)
  }
  return stuck
}

async function repair(context: DispatchContext, { run, asset, gate, child }: GateState): Promise<void> {
  const ids = { run, asset: assetName(asset), gate }
  if (child && !(await wakeParent(context, child.run, ids))) await startChild(context, ids)
}
