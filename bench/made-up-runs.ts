/** Facts of runs of the pipeline `three` that nobody ran. */
import { Appender } from '../src/log/appender.ts'
import type { Connection } from '../src/log/connection.ts'
import { factEntry } from '../src/log/entries.ts'
import { streamBounds } from '../src/log/nats.ts'
import type { FactDraft } from '../streams/facts.ts'
import { assetName, newRunId, type RunId } from '../streams/ids.ts'
import type { Topology } from '../streams/topology.ts'
import { instanceValue } from './payload.ts'
import { threeAssets } from './three-assets.ts'

/** Of a run: one that requests it, three values, and its end. */
export const FACTS_EACH = 5
/** Runs that are open at a time, unless somebody says otherwise. */
const OPEN_RUNS = 2_000
const FACTS_AT_ONCE = 10_000

/**
 * Appends so many facts of ended runs, five each. Nobody else may write meanwhile: an end says
 * where the value before it is. It expects nothing of the log, since each run's id is new.
 */
export async function fillLog(
  connection: Connection,
  { names }: Topology,
  facts: number,
  openRuns = OPEN_RUNS,
): Promise<void> {
  const log = new Appender(connection, names.log(0))
  const { last } = await streamBounds(connection.nc, names.log(0))
  let appends: Promise<unknown>[] = []
  for (const fact of factsOfRuns(Math.ceil(facts / FACTS_EACH), openRuns, last + 1)) {
    const { expect: _, ...entry } = factEntry(names, 0, fact)
    appends.push(log.append(entry))
    if (appends.length < FACTS_AT_ONCE) continue
    await Promise.all(appends)
    appends = []
  }
  await Promise.all(appends)
}

/** In the order of the log, whose first one gets the sequence `first`. */
function* factsOfRuns(runs: number, openRuns: number, first: number): Generator<FactDraft> {
  const { version, assets } = threeAssets.spec
  const startedMs = Date.now()
  let seq = first
  for (let from = 0; from < runs; from += openRuns) {
    const length = Math.min(openRuns, runs - from)
    const ids = Array.from({ length }, (_, i) => newRunId(startedMs + from + i, '0123456789abcdef', 1))
    for (const id of ids) yield requested(id, version)
    for (const { name } of assets) for (const id of ids) yield materialized(id, name)
    seq += length * FACTS_EACH
    for (const [i, id] of ids.entries()) yield finished(id, seq - 2 * length + i)
  }
}

export function requested(run: RunId, version: string): FactDraft {
  const data = { pipeline: 'three', version, target: 'third', upstream: 'all' } as const
  return { name: 'run.requested', ids: { run }, data }
}

export function materialized(run: RunId, asset: string): FactDraft {
  const data = { run, asset, pipeline: 'three', attempt: 1, worker: 'worker-0123456789', hash: 'f'.repeat(16) }
  return {
    name: 'asset.materialized',
    ids: { pipeline: 'three', asset: assetName(asset), run },
    data: { ...data, value: { json: instanceValue(1) }, durationMs: 0 },
  }
}

export function finished(run: RunId, seq: number): FactDraft {
  const data = { run, pipeline: 'three', target: 'third', status: 'succeeded', value: { shard: 0, seq } } as const
  return { name: 'run.finished', ids: { run }, data: { ...data, durationMs: 1 } }
}
