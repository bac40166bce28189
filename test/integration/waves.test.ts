import { describe, expect, it } from 'vitest'
import { type Key, stateKey } from '../../projections/state.ts'
import { Base } from '../../src/engine/history/base.ts'
import { Changed } from '../../src/engine/history/changed.ts'
import type { SealerOptions } from '../../src/engine/history/options.ts'
import { Stored } from '../../src/engine/history/stored.ts'
import { Unsealed } from '../../src/engine/history/unsealed.ts'
import { Waves } from '../../src/engine/history/waves.ts'
import { type RebuildDeps, rebuild } from '../../src/engine/rebuild.ts'
import { Checkpointer } from '../../src/engine/shard/checkpoint.ts'
import { Store } from '../../src/engine/shard/store.ts'
import type { ServerClock } from '../../src/log/clock.ts'
import { Connection } from '../../src/log/connection.ts'
import { readDoc } from '../../src/log/documents.ts'
import { streamInfo } from '../../src/log/nats.ts'
import { ensureTopology, type Topology } from '../../streams/topology.ts'
import { useServer } from '../kit/fixture.ts'
import { freshNamespace } from '../kit/stage.ts'

const server = useServer({ syncInterval: 'default' })
const AFTER_MS = 60_000

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
      const unused = (): never => expect.fail('nothing is decided')
      const { connection, clock, logger } = sealer
      const io = {} as RebuildDeps['io']
      await rebuild({ connection, topology, clock, logger, io, logOf: unused, workOf: unused })
    }
    await waves.purge(unsealed)
    expect(await shard.has('0-open')).toBe(true)
  })
})
