import { describe, expect, it } from 'vitest'
import { type Key, stateKey } from '../../projections/state.ts'
import { Base } from '../../src/engine/history/base.ts'
import { Changed } from '../../src/engine/history/changed.ts'
import type { SealerOptions } from '../../src/engine/history/options.ts'
import { readAnswer, writeOrder } from '../../src/engine/history/prune/orders.ts'
import { restoreFromBase } from '../../src/engine/history/restore.ts'
import { Sealer } from '../../src/engine/history/sealer.ts'
import { Stored } from '../../src/engine/history/stored.ts'
import { Unsealed } from '../../src/engine/history/unsealed.ts'
import { Waves } from '../../src/engine/history/waves.ts'
import { type RebuildDeps, rebuild } from '../../src/engine/rebuild.ts'
import { Checkpointer } from '../../src/engine/shard/checkpoint.ts'
import { encodePosition } from '../../src/engine/shard/position.ts'
import { stagedEntries } from '../../src/engine/shard/staged.ts'
import { Store } from '../../src/engine/shard/store.ts'
import type { ServerClock } from '../../src/log/clock.ts'
import { Connection } from '../../src/log/connection.ts'
import { readDoc } from '../../src/log/documents.ts'
import { factEntry } from '../../src/log/entries.ts'
import { publish, publishBatch, streamInfo } from '../../src/log/nats.ts'
import { manifestOf, readPack } from '../../src/log/packs.ts'
import { encodePack, historyKey } from '../../streams/history.ts'
import { runId } from '../../streams/ids.ts'
import { ensureTopology, type Topology } from '../../streams/topology.ts'
import { useServer } from '../kit/fixture.ts'
import { freshNamespace, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })
const AFTER_MS = 60_000
const unused = (): never => expect.fail('nothing is decided')
const REBUILDS_ALL = { io: {} as RebuildDeps['io'], logOf: unused, workOf: unused }

/** A state whose documents are looked at by `load`, as an engine with much to do has it. */
class Hooked extends Store {
  /** Called while documents are read. */
  onLoad: () => void | Promise<void> = () => undefined
  /** Called once they are read, and the fence was looked at. */
  onLoaded: () => void | Promise<void> = () => undefined

  override async load(keys: readonly string[]): Promise<void> {
    const loading = super.load(keys)
    await this.onLoad()
    await loading
    await this.onLoaded()
  }
}

class Shard implements AsyncDisposable {
  nowMs = 1_000_000
  readonly topology: Topology
  readonly checkpointer: Checkpointer
  readonly state: Hooked
  readonly base: Base
  readonly sealer: SealerOptions

  private constructor(topology: Topology, checkpointer: Checkpointer, base: Base, connection: Connection) {
    const { names } = topology
    this.topology = topology
    this.checkpointer = checkpointer
    this.base = base
    this.state = new Hooked(connection, names, 0, checkpointer, { keeps: 1 })
    this.sealer = {
      ...{ connection, names, shard: 0, engine: 'engine', shards: 1, logger: console, retention: {} },
      clock: { now: () => this.nowMs } as ServerClock,
      afterMs: AFTER_MS,
      snapshotEvery: 16_000,
      state: this.state,
      stored: new Stored(checkpointer),
      changed: new Changed(16_000),
      shownTo: () => Number.POSITIVE_INFINITY,
      provenTo: () => Number.POSITIVE_INFINITY,
      leaving: async () => undefined,
      isStopped: () => false,
      touched: () => undefined,
    }
  }

  static async open(): Promise<Shard> {
    const connection = await Connection.open({ servers: server.url })
    const topology = await ensureTopology(connection.nc, { namespace: freshNamespace() })
    const { names } = topology
    const checkpointer = new Checkpointer(connection, names, 0, 'engine')
    await checkpointer.takeOver()
    const base = await Base.takeOver({ connection, names, shard: 0, engine: 'engine' })
    return new Shard(topology, checkpointer, base, connection)
  }

  async append(...paths: readonly string[]): Promise<void> {
    const { connection, names } = this.sealer
    for (const path of paths) await connection.nc.request(names.fact(0, path), '{}')
  }

  /** Paths of what the log has. */
  async log(): Promise<string[]> {
    const { connection, names } = this.sealer
    const { state } = await streamInfo(connection.nc, names.log(0), names.fact(0, '>'))
    const subjects = Object.keys(state.subjects ?? {})
    return subjects.map((subject) => names.factPath(subject) ?? '').toSorted()
  }

  async checkpoint(seq = this.checkpointer.seq): Promise<void> {
    const mark = seq === 0 ? undefined : { seq, ms: 1 }
    await this.checkpointer.write(this.state.takeTouched(), seq, mark)
  }

  /** Stores documents of runs in the state. */
  async putRuns(...runs: readonly string[]): Promise<void> {
    for (const run of runs) this.state.put(stateKey.run(run) as Key<unknown>, { run })
    await this.checkpoint()
  }

  /** Whether the state has the document of a run. */
  async has(run: string): Promise<boolean> {
    const { connection, names } = this.sealer
    return (await readDoc(connection, names, names.stateBucket(0), stateKey.run(run))) !== undefined
  }

  /** As the next engine has them. */
  async nextWaves(): Promise<Waves> {
    const waves = new Waves(this.sealer, this.base)
    await waves.begin()
    return waves
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.sealer.connection.close()
  }
}

it('facts of a run that lasted long stay for the grace of its own wave, also behind an older one', async () => {
  await using shard = await Shard.open()
  const paths = [
    'run.0-long.requested',
    'run.0-old.requested',
    'run.0-old.finished',
    'run.0-long.finished',
    'run.0-x.z',
  ]
  await shard.append(...paths)
  await shard.checkpoint(5)
  const waves = await shard.nextWaves()
  waves.add({ from: 2, upTo: 3, runs: ['0-old'], keys: ['run.0-old'], atMs: shard.nowMs })
  shard.nowMs += AFTER_MS
  waves.add({ from: 1, upTo: 4, runs: ['0-long'], keys: ['run.0-long'], atMs: shard.nowMs })
  expect(await waves.purge(new Unsealed())).toBe(true)
  expect(await shard.log()).toEqual(paths.toSorted())
  shard.nowMs += AFTER_MS
  // A stroke is made at most every thirty seconds, but by an engine that has just begun.
  await shard.base.checkpoint(4, undefined, shard.base.manifest)
  expect(await (await shard.nextWaves()).purge(new Unsealed())).toBe(true)
  expect(await shard.log()).toEqual(['run.0-x.z'])
})

describe('documents of runs that are not sealed', () => {
  it('are stored again before those of sealed runs go, though memory loses them meanwhile', async () => {
    await using shard = await Shard.open()
    await shard.putRuns('0-open', '0-old')
    const unsealed = new Unsealed()
    unsealed.add({ run: '0-open', firstSeq: 9, bytes: 0 })
    const waves = await shard.nextWaves()
    const { revision } = shard.checkpointer
    waves.add({ from: 1, upTo: 1, runs: ['0-old'], keys: [], revision, atMs: 0 })
    // A checkpoint comes while it is looked whether the bucket is still the same.
    shard.state.onLoad = () => {
      shard.state.onLoad = () => undefined
      shard.state.takeTouched()
    }
    for (let isDone = false; !isDone; ) {
      isDone = await waves.purge(unsealed)
      await shard.checkpoint()
    }
    expect(await shard.has('0-old')).toBe(false)
    expect(await shard.has('0-open')).toBe(true)
  })

  it('outlive the purge of an engine that stood still while the state was made again', async () => {
    await using shard = await Shard.open()
    const { base, state, topology, checkpointer, sealer } = shard
    await shard.append('run.0-old.requested', 'run.0-open.requested')
    for (let i = 0; i < 20; i++) await shard.putRuns('0-old')
    const { revision } = checkpointer
    await shard.putRuns('0-open')
    base.store.put(stateKey.run('0-open') as Key<unknown>, { run: '0-open' })
    await base.checkpoint(2, undefined, base.manifest)
    const unsealed = new Unsealed()
    unsealed.add({ run: '0-open', firstSeq: 2, bytes: 0, revision: checkpointer.revision })
    const waves = await shard.nextWaves()
    waves.add({ from: 1, upTo: 1, runs: ['0-old'], keys: [], revision, atMs: 0 })
    state.onLoaded = async () => {
      state.onLoaded = () => undefined
      const { connection, clock, logger } = sealer
      await rebuild({ ...REBUILDS_ALL, connection, topology, clock, logger })
    }
    await waves.purge(unsealed)
    expect(await shard.has('0-open')).toBe(true)
  })
})

describe('a state that begins with the base', () => {
  /** More than a reader has in memory; and as many as fit one batch twice. */
  const [MANY, SOME] = [2000, 400]
  const keyOf = (i: number): Key<unknown> => stateKey.run(`0-${i}`)

  /** How many documents there are of each kind. */
  async function docsIn({ sealer: { connection, names } }: Shard, count: number): Promise<Record<string, number>> {
    const bucket = names.stateBucket(0)
    const docs = await Promise.all(
      Array.from({ length: count }, (_, i) => readDoc(connection, names, bucket, keyOf(i))),
    )
    const counts: Record<string, number> = {}
    for (const doc of docs) counts[JSON.stringify(doc)] = (counts[JSON.stringify(doc)] ?? 0) + 1
    return counts
  }

  function putAll(store: Store, count: number, at: number): void {
    for (let i = 0; i < count; i++) store.put(keyOf(i), { at })
  }

  it('has it as it was at one position, though the engine before is still storing it', async () => {
    await using shard = await Shard.open()
    const { base, sealer } = shard
    await shard.append('run.0-1.requested', 'run.0-2.requested')
    putAll(base.store, MANY, 1)
    await base.checkpoint(1, undefined, base.manifest)
    let later: Promise<void> | undefined
    const { connection, names } = sealer
    class Next extends Checkpointer {
      override async write(...of: Parameters<Checkpointer['write']>): Promise<void> {
        if (!later) {
          putAll(base.store, MANY, 2)
          later = base.checkpoint(2, undefined, base.manifest)
          await later.catch(() => undefined)
        }
        await super.write(...of)
      }
    }
    const next = new Next(connection, names, 0, 'next')
    await next.takeOver()
    const seq = await restoreFromBase({ ...sealer, engine: 'next' }, next)
    expect(await docsIn(shard, MANY)).toEqual({ [JSON.stringify({ at: seq })]: MANY })
  })

  it('has all of a large checkpoint of it, also of an engine that died half way', async () => {
    await using shard = await Shard.open()
    const { base, sealer } = shard
    const { connection, names } = sealer
    await shard.append('run.0-1.requested', 'run.0-2.requested')
    putAll(base.store, SOME, 1)
    await base.checkpoint(1, undefined, base.manifest)
    const bucket = names.historyBucket(0)
    const store = new Store(connection, names, 0, { look: async () => undefined }, { bucket, compress: true })
    putAll(store, SOME, 2)
    const documents = store.takeTouched()
    const redo = { id: 'dead', count: documents.length, seq: 2 }
    const payload = encodePosition({ seq: 1, recoverTo: 0, redo })
    const entries = [
      ...stagedEntries(names, bucket, 'dead', 0, documents),
      { subject: names.kvSubject(bucket, 'engine'), payload },
      ...documents.slice(0, SOME / 2),
    ]
    const ack = await publishBatch(
      connection.nc,
      entries.map((entry) => ({ entry, unit: undefined })),
      'dead',
      5000,
    )
    expect(ack.error).toBeUndefined()
    const next = new Checkpointer(connection, names, 0, 'next')
    await next.takeOver()
    expect(await restoreFromBase({ ...sealer, engine: 'next' }, next)).toBe(2)
    expect(await docsIn(shard, SOME)).toEqual({ [JSON.stringify({ at: 2 })]: SOME })
  })
})

it('a history whose position no engine wrote keeps its packs, and a rebuild begins a new base beside them', async () => {
  await using shard = await Shard.open()
  const { base, sealer, topology } = shard
  const { connection, names } = sealer
  await shard.append('run.0-1.requested')
  await base.write([{ key: historyKey.pack(0), bytes: await encodePack([]) }])
  await base.checkpoint(1, undefined, { ...base.manifest, packs: 1 })
  const subject = names.kvSubject(names.historyBucket(0), 'engine')
  expect(await publish(connection.nc, { subject, payload: Buffer.from('{}') }, undefined, 5000)).toHaveProperty('seq')
  const takeOver = (): Promise<Base> => Base.takeOver({ connection, names, shard: 0, engine: 'next' })
  expect(await rejection(takeOver())).toMatchObject({ code: 'bad_state' })
  expect(await readPack(sealer, 0, 0)).toEqual([])
  const lines: string[] = []
  const logger = { ...console, warn: (line: string) => void lines.push(line) }
  await rebuild({ ...REBUILDS_ALL, connection, topology, clock: sealer.clock, logger })
  expect(lines).toMatchObject([expect.stringContaining('a position that no engine wrote')])
  expect((await takeOver()).manifest).toMatchObject({ packs: 1 })
  expect(await readPack(sealer, 0, 0)).toEqual([])
})

it('facts stay on the log for the grace from when they are sealed, however long sealing takes', async () => {
  await using shard = await Shard.open()
  const { connection, names } = shard.sealer
  const data = { run: '0-a', pipeline: 'p', target: 'a', status: 'cancelled', durationMs: 1 } as const
  const finished = { name: 'run.finished', ids: { run: runId(0, 'a') }, data } as const
  expect((await publish(connection.nc, factEntry(names, 0, finished), undefined, 5000)).error).toBeUndefined()
  // Two are no facts: the proof has to say that one leaves. The last one stays.
  await shard.append('run.0-b.z', 'run.0-c.z')
  await shard.checkpoint(3)
  // All is old enough.
  shard.nowMs = Date.now() + 3_600_000
  const leaving = async (): Promise<void> => {
    shard.nowMs += 5 * AFTER_MS
  }
  const sealer = new Sealer({ ...shard.sealer, leaving })
  await writeOrder(shard.sealer, 0, { v: 1, id: 'order', dryRun: true })
  sealer.start()
  try {
    // An engine seals, purges, and then does what it was asked for.
    await until('it is answered', async () => (await readAnswer(shard.sealer, 0))?.id === 'order')
    expect((await manifestOf(shard.sealer, 0))?.packs).toBe(1)
    expect(await shard.log()).toEqual(['run.0-a.finished', 'run.0-b.z', 'run.0-c.z'])
  } finally {
    sealer.stop()
  }
})
