/** Sealed runs that nobody ran, each with packs, index and lists of its own, to be pruned. */
import { addToLists, listsOfRun, shownOf } from '../projections/run/lists.ts'
import { type RunState, stateKey } from '../projections/state.ts'
import { Base } from '../src/engine/history/base.ts'
import { Packing, packedTo } from '../src/engine/history/packing.ts'
import { insertEntries } from '../src/engine/history/segments.ts'
import type { Connection } from '../src/log/connection.ts'
import { encodeFact, type FactDraft, factPath } from '../streams/facts.ts'
import type { SealedFact } from '../streams/history.ts'
import { type RunId, runId } from '../streams/ids.ts'
import type { Topology } from '../streams/topology.ts'
import { finished, materialized, requested } from './made-up-runs.ts'
import { threeAssets } from './three-assets.ts'

const RUNS_A_WAVE = 2000
/** When the first one ended: long ago, so all of them are due. One followed another. */
const ENDED_MS = 1_600_000_000_000
const APART_MS = 10

/** Fills an empty namespace whose engine has not run yet. */
export async function makeUpPacks(connection: Connection, { names }: Topology, runs: number): Promise<void> {
  const base = await Base.takeOver({ connection, names, shard: 0, engine: 'bench' })
  let seq = 0
  let timeMs = ENDED_MS
  const factOf = (draft: FactDraft): SealedFact => {
    seq += 1
    return { path: factPath(draft.name, draft.ids), seq, timeMs, ...encodeFact(draft) }
  }
  for (let from = 0; from < runs; from += RUNS_A_WAVE) {
    const packing = new Packing(base)
    for (let i = from; i < Math.min(runs, from + RUNS_A_WAVE); i++) {
      timeMs += APART_MS
      const id = runId(0, `made-up-${String(i).padStart(16, '0')}`)
      const { version, assets } = threeAssets.spec
      const first = seq + 1
      const drafts = [requested(id, version), ...assets.map(({ name }) => materialized(id, name)), finished(id, first)]
      const doc = runOf(id, first, timeMs)
      await packing.add(id, { [stateKey.run(id)]: doc }, drafts.map(factOf))
      for (const { list, timeMs: at } of listsOfRun(doc)) addToLists(base.store, [list], id, at, shownOf(doc))
    }
    await packing.end()
    const before = base.manifest
    const { levels, nextSegment, obsolete } = await insertEntries(base, before, packing.entries)
    const manifest = { ...before, ...packedTo(before, packing.next), graceMs: 180_000, levels, nextSegment }
    await base.checkpoint(0, undefined, manifest)
    await base.drop(obsolete)
  }
}

function runOf(id: RunId, first: number, timeMs: number): RunState {
  const assets = threeAssets.spec.assets.map(({ name }, i) => {
    const value = { shard: 0, seq: first + 1 + i }
    return [name, { status: 'materialized', phase: 'execute', attempt: 1, failures: 0, value }] as const
  })
  return {
    seq: first + 4,
    id,
    pipeline: 'three',
    version: threeAssets.spec.version,
    target: 'third',
    upstream: 'all',
    status: 'succeeded',
    requestedMs: timeMs,
    finishedMs: timeMs,
    assets: Object.fromEntries(assets),
  }
}
