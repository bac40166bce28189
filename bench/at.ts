/**
 * `at`: what a look at the past costs in a history of n facts, all of them sealed, and in the last
 * hour, of which none is (LAST_HOUR facts, or n if that is less). The history is made up:
 * snapshots as an engine leaves them, with some open runs. The stretches that are looked at have
 * packs of their own; the others share theirs. Rows: the time until open runs are listed as they
 * were, at the worst place: just before the next snapshot. And what snapshots take, beside packs.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { type CatalogEntry, type RunState, stateKey } from '../projections/state.ts'
import { Base } from '../src/engine/history/base.ts'
import { connect } from '../src/index.ts'
import { Appender } from '../src/log/appender.ts'
import { Connection } from '../src/log/connection.ts'
import { streamBounds } from '../src/log/nats.ts'
import { changesList } from '../src/log/past/changes.ts'
import { pastShard } from '../src/log/past/shard.ts'
import type { ChangesPlace } from '../streams/changes.ts'
import { encodeJson } from '../streams/codec.ts'
import { encodeFact, type FactDraft, factPath } from '../streams/facts.ts'
import { encodePack, historyKey, type SealedFact, type SealedRun } from '../streams/history.ts'
import { type RunId, runId } from '../streams/ids.ts'
import { encodeSnapshot, type SnapshotDoc, snapshotKey } from '../streams/snapshots.ts'
import { ensureTopology, type Topology } from '../streams/topology.ts'
import type { Bench, Job } from './bench.ts'
import { type Figure, rowsOf } from './figures.ts'
import { FACTS_EACH, fillLog, finished, materialized, requested } from './made-up-runs.ts'
import { withNamespace, withRaw } from './rig.ts'
import { median } from './stats.ts'
import { threeAssets } from './three-assets.ts'

const STRETCH_FACTS = 16_000
const RUNS_A_PACK = 500
/** Runs that are open all the time, and values of partitions. */
const OPEN = 1000
const LOOKS = 8
const FIRST_MS = Date.UTC(2026, 0, 1)
const AT_ONCE = 200
const LAST_HOUR = 300_000
const LOOK_MS = 200

export const at: Bench = {
  about: 'a history of n facts: time until the past is shown, size of snapshots',
  sizes: [1_000_000, 10_000_000],
  async run(job) {
    const figures: Figure[] = []
    for (const n of job.sizes) figures.push(...(await measure(job, n)))
    figures.push(...(await measureLastHour(job, Math.min(LAST_HOUR, ...job.sizes))))
    return figures
  },
}

/** An engine has folded n facts, and sealed none of them. Each look is as late as it can be. */
async function measureLastHour({ rig, fsync, say }: Job, n: number): Promise<Figure[]> {
  return await withRaw(rig.url, async (connection, topology) => {
    const { names } = topology
    await using flow = await connect({ servers: rig.url, namespace: names.ns })
    await flow.register(threeAssets)
    await fillLog(connection, topology, n, OPEN)
    const engine = await flow.engine()
    const { last } = await streamBounds(connection.nc, names.log(0))
    const source = { connection, names }
    let places: readonly ChangesPlace[] = []
    do {
      await sleep(LOOK_MS)
      places = (await changesList(source, 0))?.all ?? []
    } while ((places.at(-1)?.seq ?? 0) + STRETCH_FACTS < last)
    await engine.stop()
    const times: number[] = []
    const messages: number[] = []
    for (let i = 1; i <= LOOKS; i++) {
      // Just before the next changes.
      const near = places[Math.floor((i * places.length) / LOOKS)]?.seq ?? last
      const own = await Connection.open({ servers: rig.url })
      const before = own.nc.stats().inMsgs
      const startedMs = performance.now()
      const { view } = await pastShard({ connection: own, names }, 0, { seq: near - 1 })
      times.push(performance.now() - startedMs)
      messages.push(own.nc.stats().inMsgs - before)
      if (view.keys('open.').length === 0) throw new Error(`nothing is open at ${near}`)
      await own.close()
    }
    const bytes = places.reduce((sum, place) => sum + place.bytes + (place.whole ?? 0), 0)
    say(`at: ${n} facts that are not sealed, ${Math.round(median(times))} ms, ${median(messages)} messages`)
    const row = (unit: string, value: number): Figure => ({
      ...{ bench: 'at', n, fsync, value, unit },
      ...{ raw: null, ratio: null },
    })
    return [
      row('ms until the state of the last hour is there (p50)', median(times)),
      row('messages for it, at the most', Math.max(...messages)),
      row('bytes of changes for each fact', bytes / n),
    ]
  })
}

async function measure({ rig, fsync, say }: Job, n: number): Promise<Figure[]> {
  return await withNamespace(rig.url, async (namespace) => {
    const connection = await Connection.open({ servers: rig.url })
    const topology = await ensureTopology(connection.nc, { namespace })
    const stretches = Math.max(1, Math.ceil(n / STRETCH_FACTS))
    const looked = Array.from({ length: LOOKS }, (_, i) => Math.floor(((i + 0.5) * stretches) / LOOKS))
    const { snapshotBytes, packBytes } = await fill(connection, topology, stretches, new Set(looked))
    await connection.close()
    const times: number[] = []
    for (const stretch of looked) {
      // Each as a process that has read nothing before.
      await using flow = await connect({ servers: rig.url, namespace })
      const startedMs = performance.now()
      const then = flow.at(new Date(FIRST_MS + (stretch + 1) * STRETCH_FACTS - 1))
      const open = await then.runs({ open: true, limit: 10_000 })
      times.push(performance.now() - startedMs)
      if (open.length !== OPEN + 1) throw new Error(`${open.length} runs are open at stretch ${stretch}`)
    }
    say(`at: ${n} facts in ${stretches} stretches, ${Math.round(median(times))} ms`)
    const row = rowsOf({ bench: 'at', n, fsync })
    return [
      row('ms until open runs are shown as they were (p50)', median(times)),
      row('ms for the slowest of 8 looks', Math.max(...times)),
      row('bytes of a snapshot for each byte of packs', snapshotBytes / packBytes),
    ]
  })
}

async function fill(
  connection: Connection,
  { names }: Topology,
  stretches: number,
  looked: ReadonlySet<number>,
): Promise<{ snapshotBytes: number; packBytes: number }> {
  const base = await Base.takeOver({ connection, names, shard: 0, engine: 'bench' })
  const { version } = threeAssets.spec
  const bucket = names.stateBucket(0)
  const state = new Appender(connection, names.kvStream(bucket))
  const subject = names.kvSubject(bucket, stateKey.pipeline('three', version))
  await state.append({ subject, payload: encodeJson(threeAssets.spec), contentType: 'application/json' })
  const snapshot = await encodeSnapshot(openState())
  let packs = 0
  let packBytes = 0
  const shared: [number, number][] = [[0, 0]]
  for (let from = 0; from < stretches; from += AT_ONCE) {
    const numbers = Array.from({ length: Math.min(AT_ONCE, stretches - from) }, (_, i) => from + i)
    await base.write(numbers.map((n) => ({ key: snapshotKey.snapshot(n), bytes: snapshot })))
    for (const n of numbers) {
      const own: [number, number][] = []
      for (const [facts, bytes] of looked.has(n) ? await packsOf(n) : []) {
        await base.write([{ key: historyKey.pack(packs), bytes }])
        own.push([packs++, facts])
        packBytes += bytes.length
      }
      const seq = n * STRETCH_FACTS + 1
      const stretch = { seq, ms: FIRST_MS + seq - 1, packs: looked.has(n) ? own : shared }
      base.store.put(snapshotKey.stretch(n), stretch)
    }
    await base.checkpoint(0, undefined, base.manifest)
  }
  base.store.put(snapshotKey.stretches, { v: 1, first: 0, next: stretches })
  await base.checkpoint(0, undefined, { ...base.manifest, packs })
  return { snapshotBytes: snapshot.length, packBytes: packBytes / looked.size }
}

/** All facts of a stretch, of runs that begin and end in it; but the last one has not ended. */
async function packsOf(stretch: number): Promise<[facts: number, bytes: Uint8Array<ArrayBuffer>][]> {
  const { version, assets } = threeAssets.spec
  const packs: [number, Uint8Array<ArrayBuffer>][] = []
  const all = Math.floor((STRETCH_FACTS - 1) / FACTS_EACH)
  for (let from = 0; from < all; from += RUNS_A_PACK) {
    const runs = Array.from({ length: Math.min(RUNS_A_PACK, all - from) }, (_, i): SealedRun => {
      const id = runId(0, `s${stretch}-${from + i}`)
      const first = stretch * STRETCH_FACTS + 2 + (from + i) * FACTS_EACH
      const drafts = [
        requested(id, version),
        ...assets.map(({ name }) => materialized(id, name)),
        finished(id, first + 3),
      ]
      const kept = from + i === all - 1 ? drafts.slice(0, -1) : drafts
      return {
        run: id,
        docs: { [stateKey.run(id)]: openRun(id) },
        facts: kept.map((draft, k) => sealed(draft, first + k)),
      }
    })
    packs.push([runs.reduce((sum, { facts }) => sum + facts.length, 0), await encodePack(runs)])
  }
  return packs
}

function sealed(draft: FactDraft, seq: number): SealedFact {
  return { path: factPath(draft.name, draft.ids), seq, timeMs: FIRST_MS + seq - 1, ...encodeFact(draft) }
}

function openState(): SnapshotDoc[] {
  const docs: SnapshotDoc[] = [[stateKey.pipeline('three', threeAssets.spec.version), undefined]]
  for (let i = 0; i < OPEN; i++) {
    const id = runId(0, `open-${i}`)
    const entry: CatalogEntry = { seq: 1, run: id, value: { shard: 0, seq: 1 }, timeMs: FIRST_MS, hash: `${i}` }
    docs.push([stateKey.run(id), encodeJson(openRun(id))], [stateKey.open(id), encodeJson({ since: 1 })])
    docs.push([stateKey.asset('three', 'third', `day-${i}`), encodeJson(entry)])
  }
  return docs
}

function openRun(id: RunId): RunState {
  const assets = threeAssets.spec.assets.map(
    ({ name }) => [name, { status: 'running', phase: 'execute', attempt: 1, failures: 0, queuedMs: FIRST_MS }] as const,
  )
  const of = { id, seq: 1, pipeline: 'three', version: threeAssets.spec.version, target: 'third' } as const
  return { ...of, upstream: 'all', status: 'running', requestedMs: FIRST_MS, assets: Object.fromEntries(assets) }
}
