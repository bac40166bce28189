/**
 * A history of runs that nobody ran: packs, index and lists as an engine leaves them, of any size
 * within minutes. All packs and pages are alike. One run can be found.
 */

import { LIST_PAGE, listKey, listOf } from '../projections/run/lists.ts'
import type { ListedRun, RunListEntry } from '../projections/state.ts'
import { Base } from '../src/engine/history/base.ts'
import { Appender } from '../src/log/appender.ts'
import type { Connection } from '../src/log/connection.ts'
import { encodeJson } from '../streams/codec.ts'
import { encodeFact, type FactDraft, factPath } from '../streams/facts.ts'
import { encodePack, encodePage, historyKey, indexHash, type SealedFact, type SealedRun } from '../streams/history.ts'
import { type RunId, runId } from '../streams/ids.ts'
import type { Topology } from '../streams/topology.ts'
import { finished, materialized, requested } from './made-up-runs.ts'
import { threeAssets } from './three-assets.ts'

const RUNS_A_PACK = 500
/** A run, its values, and its request. */
const ENTRIES_EACH = 5
const PAGE_ENTRIES = 256
const AT_ONCE = 200
/** The level of the index that takes so many entries; see segments.ts. */
const levelOf = (entries: number): number => Math.max(0, Math.ceil(Math.log(entries / 4096) / Math.log(8)))

/** Fills an empty namespace. Returns the run that can be found. */
export async function makeUpHistory(connection: Connection, { names }: Topology, runs: number): Promise<RunId> {
  const known = runId(0, 'old')
  const base = await Base.takeOver({ connection, names, shard: 0, engine: 'bench' })
  const packs = Math.ceil(runs / RUNS_A_PACK)
  const pack = await encodePack(Array.from({ length: RUNS_A_PACK }, (_, i) => sealed(i === 0 ? known : idOf(i))))
  await inParts(packs, AT_ONCE, (numbers) => base.write(numbers.map((n) => ({ key: historyKey.pack(n), bytes: pack }))))
  const hashes = randomHashes(runs * ENTRIES_EACH)
  hashes[0] = indexHash.run(known)
  hashes.sort()
  const bits = Math.max(0, Math.ceil(Math.log2(hashes.length / PAGE_ENTRIES)))
  let next = 0
  await inParts(2 ** bits, AT_ONCE * 4, async (numbers) => {
    const pages = numbers.map((n) => {
      const end = BigInt(n + 1) << BigInt(64 - bits)
      const from = next
      while (next < hashes.length && (hashes[next] ?? end) < end) next += 1
      const entries = Array.from(hashes.subarray(from, next), (hash) => ({ hash, pack: 0 }))
      return { key: historyKey.page(0, n), bytes: encodePage(entries) }
    })
    await base.write(pages)
  })
  const segment = { id: 0, bits, entries: hashes.length }
  const levels = [...Array.from({ length: levelOf(hashes.length) }, () => null), segment]
  const manifest = { ...base.manifest, graceMs: 180_000, packs, nextSegment: 1, levels }
  await fillLists(base, connection, names, runs, manifest)
  await base.checkpoint(0, undefined, manifest)
  return known
}

async function fillLists(
  base: Base,
  connection: Connection,
  names: Topology['names'],
  runs: number,
  manifest: Base['manifest'],
): Promise<void> {
  const pages = Math.floor(runs / LIST_PAGE)
  const entries = Array.from({ length: LIST_PAGE }, (_, i): RunListEntry => [idOf(i), 1, listed(idOf(i))])
  const bucket = names.stateBucket(0)
  const state = new Appender(connection, names.kvStream(bucket))
  for (const list of [listOf.all(), listOf.target('three', 'third')]) {
    await inParts(pages, AT_ONCE, async (numbers) => {
      for (const n of numbers) base.store.put(listKey.page(list, n), entries)
      await base.checkpoint(0, undefined, manifest)
    })
    const head = { of: list, pages, runs: [] }
    base.store.put(listKey.list(list), head)
    const subject = names.kvSubject(bucket, listKey.list(list))
    await state.append({ subject, payload: encodeJson(head), contentType: 'application/json' })
  }
}

async function inParts(
  count: number,
  size: number,
  each: (numbers: readonly number[]) => Promise<void>,
): Promise<void> {
  for (let from = 0; from < count; from += size)
    await each(Array.from({ length: Math.min(size, count - from) }, (_, i) => from + i))
}

function randomHashes(count: number): BigUint64Array {
  const hashes = new BigUint64Array(count)
  // No more than this is given at a time.
  for (let i = 0; i < count; i += 8192) crypto.getRandomValues(hashes.subarray(i, i + 8192))
  return hashes
}

function idOf(i: number): RunId {
  return runId(0, `made-up-${String(i).padStart(16, '0')}`)
}

function sealed(run: RunId): SealedRun {
  const { version, assets } = threeAssets.spec
  const drafts = [requested(run, version), ...assets.map(({ name }) => materialized(run, name)), finished(run, 4)]
  return { run, docs: { [`run.${run}`]: listed(run) }, facts: drafts.map(factOf) }
}

function factOf(draft: FactDraft, i: number): SealedFact {
  return { path: factPath(draft.name, draft.ids), seq: i + 1, timeMs: 1, ...encodeFact(draft) }
}

function listed(id: RunId): ListedRun {
  const assets = threeAssets.spec.assets.map(
    ({ name }) => [name, { status: 'materialized', phase: 'execute', attempt: 1, failures: 0 }] as const,
  )
  const of = { id, pipeline: 'three', version: threeAssets.spec.version, target: 'third', status: 'succeeded' } as const
  return { ...of, requestedMs: 1, finishedMs: 1, assets: Object.fromEntries(assets) }
}
