import { randomBytes } from 'node:crypto'
import { beforeEach, describe, expect, it } from 'vitest'
import { listKey, listsOfRun, shownOf } from '../../projections/run/lists.ts'
import { type Key, type RunState, stateKey } from '../../projections/state.ts'
import type { Piece } from '../../src/engine/archive/piece.ts'
import { piecesOfRun, piecesOfShard } from '../../src/engine/archive/pieces.ts'
import { recordsOf } from '../../src/engine/archive/read.ts'
import { Base } from '../../src/engine/history/base.ts'
import { Changed } from '../../src/engine/history/changed.ts'
import type { SealerOptions } from '../../src/engine/history/options.ts'
import { Packing, packedTo } from '../../src/engine/history/packing.ts'
import { NamedBlobs } from '../../src/engine/history/prune/named-blobs.ts'
import { readAnswer, writeOrder } from '../../src/engine/history/prune/orders.ts'
import { Pruner } from '../../src/engine/history/prune/pruner.ts'
import { References } from '../../src/engine/history/prune/references.ts'
import { insertEntries } from '../../src/engine/history/segments.ts'
import { Snapshots } from '../../src/engine/history/snapshots.ts'
import { Stored } from '../../src/engine/history/stored.ts'
import { Unsealed } from '../../src/engine/history/unsealed.ts'
import { Waves } from '../../src/engine/history/waves.ts'
import { Checkpointer } from '../../src/engine/shard/checkpoint.ts'
import { Store } from '../../src/engine/shard/store.ts'
import { type S3ClientLike, s3Object } from '../../src/items/s3.ts'
import type { ServerClock } from '../../src/log/clock.ts'
import { Connection } from '../../src/log/connection.ts'
import { publish } from '../../src/log/nats.ts'
import { readPack } from '../../src/log/packs.ts'
import { lastOfRun } from '../../src/log/run-fact.ts'
import type { ArchiveRecord } from '../../streams/archive.ts'
import { encodeFact, factPath } from '../../streams/facts.ts'
import type { SealedFact, SealedRun } from '../../streams/history.ts'
import { type RunId, runId } from '../../streams/ids.ts'
import { jetstreamManager } from '../../streams/jetstream.ts'
import { type PackSummary, retentionKey } from '../../streams/retention.ts'
import { ensureTopology } from '../../streams/topology.ts'
import { collect } from '../kit/collect.ts'
import { useServer } from '../kit/fixture.ts'
import { startS3 } from '../kit/s3.ts'
import { freshNamespace, rejection } from '../kit/stage.ts'

const server = useServer({ syncInterval: 'default' })
const NOW_MS = 1_000_000
const OLD_MS = 1000
/** No rest after a step is as long. */
const IDLE_MS = 2999
const quiet = (): void => undefined

function runDoc(id: RunId, more: Partial<RunState> = {}): RunState {
  const [requestedMs, finishedMs] = [OLD_MS, OLD_MS]
  const of = { pipeline: 'p', version: 'v1', target: 'a', upstream: 'all' } as const
  return { seq: 1, id, ...of, status: 'failed', requestedMs, finishedMs, assets: {}, ...more }
}

/** A value of an asset that the run has lost since: any fact will do. */
function factOf(run: RunId, asset: string, seq: number): SealedFact {
  const ids = { pipeline: 'p', asset, run }
  const data = { ...ids, attempt: 1, worker: 'w', value: { json: seq }, fingerprint: 'f', durationMs: 1 }
  const draft = { name: 'asset.materialized', ids, data } as unknown as Parameters<typeof encodeFact>[0]
  return { path: factPath('asset.materialized', ids), seq, timeMs: OLD_MS, ...encodeFact(draft) }
}

const packed = (doc: RunState, seq: number): SealedRun => ({
  run: doc.id,
  docs: { [stateKey.run(doc.id)]: doc },
  facts: [factOf(doc.id, 'a', seq)],
})
const tail = (run: RunId, seq: number): SealedRun => ({ run, docs: {}, facts: [factOf(run, 'b', seq)] })

class Shard implements AsyncDisposable {
  readonly options: SealerOptions
  readonly base: Base
  readonly checkpointer: Checkpointer

  private constructor(options: SealerOptions, base: Base, checkpointer: Checkpointer) {
    this.options = options
    this.base = base
    this.checkpointer = checkpointer
  }

  static async open(more: Partial<SealerOptions> = {}): Promise<Shard> {
    const connection = await Connection.open({ servers: server.url })
    const shards = more.shards ?? 1
    const { names } = await ensureTopology(connection.nc, { namespace: freshNamespace(), shards })
    const own = { connection, names, shard: 0, engine: 'engine' }
    const checkpointer = new Checkpointer(connection, names, 0, 'engine')
    await checkpointer.takeOver()
    const options: SealerOptions = {
      ...own,
      shards,
      clock: { now: () => NOW_MS } as ServerClock,
      logger: { debug: quiet, info: quiet, warn: quiet, error: quiet },
      retention: { runsMs: 1000 },
      afterMs: IDLE_MS,
      snapshotEvery: 16_000,
      state: new Store(connection, names, 0, checkpointer),
      stored: new Stored(checkpointer),
      changed: new Changed(16_000),
      shownTo: () => Number.POSITIVE_INFINITY,
      provenTo: () => Number.POSITIVE_INFINITY,
      leaving: async () => undefined,
      isStopped: () => false,
      touched: () => undefined,
      ...more,
    }
    return new Shard(options, await Base.takeOver(own), checkpointer)
  }

  /** Stores runs as packs, in this order. */
  async pack(...packs: readonly (readonly SealedRun[])[]): Promise<void> {
    const packing = new Packing(this.base)
    for (const runs of packs) {
      for (const { run, docs, facts } of runs) await packing.add(run, docs, facts)
      await packing.end()
    }
    const { manifest } = this.base
    const { obsolete, ...inserted } = await insertEntries(this.base, manifest, packing.entries)
    await this.base.checkpoint(0, undefined, { ...manifest, ...packedTo(manifest, packing.next), ...inserted })
    await this.base.drop(obsolete)
  }

  /** Documents of runs that are in no pack. */
  async putRuns(...docs: readonly RunState[]): Promise<void> {
    const { state } = this.options
    for (const doc of docs) state.put(stateKey.run(doc.id), doc)
    await this.checkpointer.write(state.takeTouched(), 0, undefined)
  }

  /** What is sealed, and what of it is still to be taken away, as the next engine has it. */
  async waves(): Promise<Waves> {
    const waves = new Waves(this.options, this.base)
    await waves.begin()
    return waves
  }

  async pruner(waves: Waves): Promise<Pruner> {
    const snapshots = new Snapshots(this.options, this.base)
    await snapshots.begin()
    const pruner = new Pruner(this.options, this.base, snapshots, waves)
    await pruner.begin()
    return pruner
  }

  /** Prunes until there is nothing to do. */
  async prune(waves?: Waves): Promise<void> {
    const pruner = await this.pruner(waves ?? (await this.waves()))
    for (let waitMs = 0; waitMs !== IDLE_MS; ) {
      waitMs = await pruner.step()
      if (waitMs === 20) await this.options.connection.ready(1)
    }
  }

  async piecesOf(run: string): Promise<Piece[]> {
    const found = await piecesOfRun(this.options, run)
    return found ? await collect(found.pieces) : []
  }

  /** Of all packs that count. */
  async pieces(): Promise<Piece[]> {
    const wanted = { sinceMs: 0, untilMs: Number.POSITIVE_INFINITY, pipelines: undefined, open: false }
    const pieces = await collect(piecesOfShard(this.options, 0, wanted, new Set()))
    return pieces.flatMap((piece) => ('open' in piece ? [] : [piece]))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.options.connection.close()
  }
}

const shown = (pieces: readonly Piece[]): unknown[] =>
  pieces.map(({ run, docs, facts }) => [run, Object.keys(docs).length, ...facts.map(({ seq }) => seq)])

let ids: RunId[] = []
beforeEach(() => {
  ids = Array.from({ length: 6 }, (_, i) => runId(0, `r${i}`))
})

describe('a run in several packs', () => {
  it('is archived and goes whole, also when the pack with the rest of it is read first', async () => {
    const [gone, last, kept] = ids as [RunId, RunId, RunId]
    await using s3 = await startS3('kept')
    await using shard = await Shard.open({ archive: { to: 's3://kept/runs', client: s3.client } })
    const value = { status: 'materialized', phase: 'execute', attempt: 1, failures: 0 } as const
    await shard.pack(
      [packed(runDoc(kept, { finishedMs: NOW_MS }), 1), packed(runDoc(gone), 2)],
      // Packs with the newest values are read first.
      [
        tail(gone, 3),
        tail(kept, 4),
        packed(runDoc(last, { assets: { a: { ...value, value: { shard: 0, seq: 5 } } } }), 5),
      ],
    )
    await shard.prune()
    const [key = ''] = [...s3.objects.keys()]
    const records = await collect(recordsOf(s3Object({ bucket: 'kept', key, client: s3.client })))
    const lines = records.flatMap(({ run, seq = 0 }: ArchiveRecord) => (run === undefined ? [] : [[run, seq]]))
    expect([...s3.objects.keys()]).toHaveLength(1)
    expect(lines).toEqual([
      [last, 0],
      [last, 5],
      [gone, 0],
      [gone, 2],
      [gone, 3],
    ])
    expect(shown(await shard.pieces())).toEqual([
      [kept, 1, 1],
      [kept, 0, 4],
    ])
    expect(await shard.piecesOf(gone)).toEqual([])
    // Its document is behind the rest of it by now.
    expect(shown(await shard.piecesOf(kept))).toEqual([
      [kept, 1, 1],
      [kept, 0, 4],
    ])
  })

  it('is archived under another name once a fact of it has come late', async () => {
    const [gone] = ids as [RunId]
    await using s3 = await startS3('kept')
    let isAway = true
    const client: S3ClientLike = s3.client
    const send: S3ClientLike['send'] = async (command) => {
      if (isAway && !command.constructor.name.startsWith('Put')) throw new Error('it is away')
      return await client.send(command)
    }
    await using shard = await Shard.open({ archive: { to: 's3://kept/runs', client: { send } } })
    await shard.pack([packed(runDoc(gone), 1)])
    // The first archive cannot be read back.
    await shard.prune()
    isAway = false
    expect(await shard.piecesOf(gone)).toHaveLength(1)
    const [first] = s3.asked.filter((asked) => asked.startsWith('put'))
    await shard.pack([tail(gone, 2)])
    await shard.prune()
    expect(await shard.piecesOf(gone)).toEqual([])
    const [, second] = s3.asked.filter((asked) => asked.startsWith('put'))
    expect(second).toBeDefined()
    expect(second).not.toBe(first)
  })

  it('is read in the order of its facts, whatever its packs are', async () => {
    const [gone, kept] = ids as [RunId, RunId]
    await using shard = await Shard.open()
    await shard.pack([packed(runDoc(kept, { finishedMs: NOW_MS }), 1), packed(runDoc(gone), 2)], [tail(kept, 4)])
    await shard.prune()
    const { connection, names } = shard.options
    expect(shard.base.manifest).toMatchObject({ packs: 3, gone: [[0, 0]] })
    const { path } = factOf(kept, '*', 0)
    expect(await lastOfRun({ connection, names }, kept, path)).toMatchObject({ seq: 4 })
    expect(shown(await shard.pieces())).toEqual([
      [kept, 1, 1],
      [kept, 0, 4],
    ])
  })
})

describe('what is not pruned', () => {
  it('is what runs name that are in no pack, whether they have ended or not', async () => {
    const [named, retried, redriven, gone, open, ended] = ids as [RunId, RunId, RunId, RunId, RunId, RunId]
    await using shard = await Shard.open()
    await shard.pack([
      packed(runDoc(named), 1),
      packed(runDoc(retried), 2),
      packed(runDoc(redriven), 3),
      packed(runDoc(gone), 4),
    ])
    const { finishedMs: _, ...request } = runDoc(open, { status: 'running', retryOf: named })
    await shard.putRuns(
      { ...request, redrive: { run: redriven, asset: 'a', total: 1 } },
      runDoc(ended, { finishedMs: NOW_MS, retryOf: retried }),
    )
    await shard.prune()
    expect((await shard.pieces()).map(({ run }) => run)).toEqual([named, retried, redriven])
  })

  it('is what was named while the archive was written', async () => {
    const [named, gone, later] = ids as [RunId, RunId, RunId]
    await using s3 = await startS3('kept')
    await using shard = await Shard.open({ archive: { to: 's3://kept/runs', client: s3.client } })
    await shard.pack([packed(runDoc(named), 1), packed(runDoc(gone), 2)])
    s3.hold = async (asked) => {
      if (asked.startsWith('put')) await shard.putRuns(runDoc(later, { finishedMs: NOW_MS, retryOf: named }))
    }
    await shard.prune()
    expect((await shard.pieces()).map(({ run }) => run)).toEqual([named])
  })

  it('is what another shard names, though its packs are pruned meanwhile', async () => {
    await using shard = await Shard.open({ shards: 2 })
    const { connection, names, engine } = shard.options
    const other = await Base.takeOver({ connection, names, shard: 1, engine })
    const summary = (run: string): PackSummary => {
      return { v: 1, bytes: 1, groups: [], newestMs: 0, values: {}, redrives: [run] }
    }
    other.store.put<PackSummary>(retentionKey.summary(199), summary('0-in-199'))
    await other.checkpoint(0, undefined, { ...other.manifest, packs: 200, summarizedTo: 200, gone: [[0, 198]] })
    const state = new Checkpointer(connection, names, 1, engine)
    await state.takeOver()
    const held: string[] = []
    const references = new References(shard.options, {
      hold: (run) => held.push(run),
      take: () => undefined,
      addRefs: ({ redrives = [] }) => held.push(...redrives),
    })
    // It pauses before the last pack, once for so many.
    const reading = references.read()
    expect(await reading.next()).toEqual({ done: false, value: undefined })
    other.store.delete<PackSummary>(retentionKey.summary(199))
    other.store.put<PackSummary>(retentionKey.summary(200), summary('0-in-200'))
    await other.checkpoint(0, undefined, { ...other.manifest, packs: 201, gone: [[0, 199]] })
    expect(await reading.next()).toMatchObject({ done: true })
    expect(held).toEqual(['0-in-200'])
  })
})

describe('a run with the id of one that was pruned', () => {
  it('keeps its documents, though the log has not lost all of the one before', async () => {
    const id = runId(0, `k${'0'.repeat(32)}`)
    await using shard = await Shard.open()
    const { state } = shard.options
    const waves = await shard.waves()
    const keys = [stateKey.run(id), stateKey.barrier(id, 'a')]
    waves.add({ from: 1, upTo: 2, runs: [id], keys, large: [id], atMs: 0 })
    await shard.pack([packed(runDoc(id), 1)])
    // The last fact of the log is one of this wave, so it stays.
    expect(await waves.purge(new Unsealed())).toBe(true)
    await shard.prune(waves)
    expect(await shard.pieces()).toEqual([])
    state.put(stateKey.barrier(id, 'a') as Key<unknown>, { asset: 'a' })
    await shard.putRuns(runDoc(id, { status: 'running' }))
    for (const one of [waves, await shard.waves()]) {
      await one.purge(new Unsealed())
      await shard.putRuns()
      for (const key of keys) expect(await state.read(key as Key<unknown>)).toBeDefined()
    }
  })

  it('a run with the id of one that was pruned begins, though the state had that one still', async () => {
    const id = runId(0, `k${'0'.repeat(32)}`)
    let store = async (): Promise<void> => undefined
    await using shard = await Shard.open({ touched: () => void store() })
    const { state } = shard.options
    store = async () => await shard.putRuns()
    await shard.putRuns(runDoc(id))
    await shard.pack([packed(runDoc(id), 1)])
    expect(state.get(stateKey.run(id))).toBeDefined()
    await shard.prune()
    expect(await shard.pieces()).toEqual([])
    await state.load([stateKey.run(id)])
    expect(state.get(stateKey.run(id))).toBeUndefined()
  })

  it('a run with the id of one that was pruned is one that the state has forgotten in memory, too', async () => {
    const id = runId(0, `k${'1'.repeat(32)}`)
    await using shard = await Shard.open()
    const { state, connection, names } = shard.options
    await shard.putRuns(runDoc(id))
    await shard.pack([packed(runDoc(id), 1)])
    // As a stroke for an older wave does, which knows nothing of this run.
    const jsm = await jetstreamManager(connection.nc)
    const filter = names.kvSubject(names.stateBucket(0), stateKey.run(id))
    await jsm.streams.purge(names.kvStream(names.stateBucket(0)), { filter })
    await shard.prune()
    expect(await shard.pieces()).toEqual([])
    expect(state.get(stateKey.run(id))).toBeUndefined()
  })
})

it('packs are there for the grace from when their runs are pruned, however long that takes', async () => {
  const [gone] = ids as [RunId]
  let nowMs = NOW_MS
  const leaving = async (): Promise<void> => {
    nowMs += 10 * IDLE_MS
  }
  await using shard = await Shard.open({ clock: { now: () => nowMs } as ServerClock, leaving })
  await shard.pack([packed(runDoc(gone), 1)])
  const waves = await shard.waves()
  await shard.prune(waves)
  await shard.prune(waves)
  expect(shard.base.manifest.gone).toEqual([[0, 0]])
  expect(await readPack(shard.options, 0, 0)).toHaveLength(1)
  nowMs += IDLE_MS
  await shard.prune(waves)
  expect(await readPack(shard.options, 0, 0)).toBeUndefined()
})

it('what nobody who prunes has asked for changes nothing', async () => {
  const [gone] = ids as [RunId]
  await using shard = await Shard.open()
  const { connection, names } = shard.options
  const subject = names.kvSubject(names.controlBucket, 'prune.0')
  await publish(connection.nc, { subject, payload: Buffer.from('[[[[') }, undefined, 5000)
  await shard.pack([packed(runDoc(gone), 1)])
  await shard.prune()
  expect(await shard.pieces()).toEqual([])
})

describe('a step that fails', () => {
  it('leaves lists and packs as they were, and its order to the next engine', async () => {
    const [gone] = ids as [RunId]
    let isBroken = true
    const leaving = async (): Promise<void> => {
      if (isBroken) throw new Error('no proof')
    }
    await using shard = await Shard.open({ leaving, retention: {} })
    await writeOrder(shard.options, 0, { v: 1, id: 'order', beforeMs: NOW_MS })
    const [{ list = '' } = {}] = listsOfRun(runDoc(gone))
    const shown = async (): Promise<unknown> => (await shard.base.store.read(listKey.list(list)))?.runs[0]?.[2]
    shard.base.store.put(listKey.list(list), { of: 'p', pages: 0, runs: [[gone, OLD_MS, shownOf(runDoc(gone))]] })
    await shard.pack([packed(runDoc(gone), 1)])
    expect(await rejection(shard.prune())).toMatchObject({ message: 'no proof' })
    expect(await readAnswer(shard.options, 0)).toBeUndefined()
    await shard.base.checkpoint(0, undefined, shard.base.manifest)
    expect(await shown()).toMatchObject({ id: gone })
    expect((await shard.pieces()).map(({ run }) => run)).toEqual([gone])
    isBroken = false
    await shard.prune()
    expect(await shard.pieces()).toEqual([])
    expect(await shown()).toBeNull()
    expect(await readAnswer(shard.options, 0)).toMatchObject({ id: 'order', runs: 1 })
  })
})

describe('objects that nothing names', () => {
  it('are none of a run that is sealed while it is looked for them', async () => {
    const [id] = ids as [RunId]
    const blob = 'b'.repeat(64)
    const value = { manager: 'nats', ref: { hash: blob, bytes: 1 } }
    const payload = Buffer.from(JSON.stringify({ value }))
    const fact = { ...factOf(id, 'a', 1), payload, contentType: 'application/json' }
    await using shard = await Shard.open()
    const { base, options } = shard
    const key = 'unsealed.000000000000001.0-open' as Key<unknown>
    const found: unknown[] = []
    // It is sealed before each of the questions.
    for (let at = 1, isOver = false; !isOver; at++) {
      base.store.put(key, { since: 1, blobs: [blob] })
      await base.checkpoint(0, undefined, { ...base.manifest, packs: 0, summarizedTo: 0, levels: [] })
      let asked = 0
      const read: Connection['read'] = async (ask, signal) => {
        asked += 1
        if (asked === at) {
          base.store.delete(key)
          await shard.pack([{ run: id, docs: {}, facts: [fact] }])
        }
        return await options.connection.read(ask, signal)
      }
      const connection = { nc: options.connection.nc, read } as unknown as Connection
      const named = await NamedBlobs.of({ ...options, connection }, 0)
      isOver = asked < at
      found.push(isOver ? [] : await named?.unnamed([blob]))
    }
    expect(found.length).toBeGreaterThan(5)
    expect(new Set(found.map((one) => JSON.stringify(one ?? [])))).toEqual(new Set(['[]']))
  })

  it('are not known while the index is merged, and are whatever a document of the base takes', async () => {
    await using shard = await Shard.open()
    const { base } = shard
    const large = { inputs: [], noise: randomBytes(2_000_000).toString('base64') }
    base.store.put('event_group.large', large)
    await shard.pack([packed(runDoc(ids[0] as RunId), 1)])
    const named = await NamedBlobs.of(shard.options, 0)
    const blob = 'a'.repeat(64)
    expect(await named?.unnamed([blob])).toEqual([blob])
    await shard.pack([packed(runDoc(ids[1] as RunId), 2)])
    expect(await named?.unnamed([blob])).toBeUndefined()
    expect(await (await NamedBlobs.of(shard.options, 0))?.unnamed([blob])).toEqual([blob])
  })
})
