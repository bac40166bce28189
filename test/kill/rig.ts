/**
 * A server, and engines and workers as processes of their own, that a test may kill, stop and start
 * at will. `await using rig = await startRig()`; at the end everything it started is gone. A failed
 * test prints what its processes had to say.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats, type NatsConnection } from '@nats-io/transport-node'
import { expect, inject, onTestFailed } from 'vitest'
import type { BarrierState } from '../../projections/scatter/state.ts'
import { type AnyAsset, connect, type Flow, type Pipeline, type Run } from '../../src/index.ts'
import { type RunningServer, startServer } from '../../src/server/index.ts'
import { type Names, namesOf } from '../../streams/subjects.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { until } from '../kit/until.ts'
import { busy, within } from '../kit/within.ts'
import { allOf, compareFeed } from './feed.ts'
import type { Settings } from './programs/child.ts'
import { INSTANCES, kills, SUM, type Total } from './programs/pipelines.ts'

const NODE = fileURLToPath(new URL('../../node_modules/.bin/node', import.meta.url))
const NAMESPACE = 'kill'

interface Told {
  readonly event: string
  readonly atMs: number
  readonly [field: string]: unknown
}

/** A child process of a test. */
export class Child {
  readonly told: Told[] = []
  readonly ended: Promise<void>
  errors = ''
  readonly #process: ChildProcess

  constructor(program: string, settings: Settings, env: Record<string, string>) {
    const path = join(inject('programs'), `${program}.js`)
    this.#process = spawn(NODE, [path, JSON.stringify(settings)], {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, ...env },
    })
    const { stdout, stderr } = this.#process
    if (!stdout || !stderr) throw new Error('no pipes')
    createInterface({ input: stdout }).on('line', (line) => this.told.push(JSON.parse(line) as Told))
    stderr.on('data', (data: Buffer) => {
      this.errors += data.toString()
    })
    this.ended = new Promise((done) => this.#process.once('exit', () => done()))
  }

  get pid(): number {
    return this.#process.pid ?? 0
  }

  get isAlive(): boolean {
    return this.#process.exitCode === null && this.#process.signalCode === null
  }

  /** Null while it is alive, and when a signal ended it. */
  get exitCode(): number | null {
    return this.#process.exitCode
  }

  /** Everything it reported of one kind. */
  of(event: string): Told[] {
    return this.told.filter((line) => line.event === event)
  }

  async has(event: string, timeoutMs = 60_000): Promise<void> {
    await until(`${event} of process ${this.#process.pid}`, () => this.of(event).length > 0, timeoutMs)
  }

  /** Only its own process, by its id. */
  signal(signal: NodeJS.Signals): void {
    this.#process.kill(signal)
  }

  async kill(): Promise<void> {
    this.signal('SIGKILL')
    await this.ended
  }

  /** A clean end: SIGTERM. */
  async stop(): Promise<void> {
    if (this.isAlive) this.signal('SIGTERM')
    await this.ended
  }
}

export class Rig implements AsyncDisposable {
  readonly names: Names = namesOf(NAMESPACE)
  readonly flow: Flow
  /** The test's own, quick connection; a new one after each restart of the server. */
  nc: NatsConnection
  readonly notes: string
  #server: RunningServer
  readonly #scratch: ReturnType<typeof scratchFolder>
  readonly #shards: number
  readonly #killsServer: boolean
  readonly #children: Child[] = []

  constructor(parts: {
    flow: Flow
    nc: NatsConnection
    server: RunningServer
    scratch: ReturnType<typeof scratchFolder>
    shards: number
    killsServer: boolean
  }) {
    this.flow = parts.flow
    this.nc = parts.nc
    this.#server = parts.server
    this.#scratch = parts.scratch
    this.#shards = parts.shards
    this.#killsServer = parts.killsServer
    this.notes = join(parts.scratch.path, 'notes')
  }

  /** Starts a process and waits until it is active. */
  async start(
    program: 'engine' | 'worker' | 'limits' | 'signaller' | 'http',
    settings: Partial<Settings> = {},
    env: Record<string, string> = {},
  ): Promise<Child> {
    const child = this.spawn(program, settings, env)
    const gone = child.ended.then(() => Promise.reject(new Error(`process ${child.pid} ended before it was ready`)))
    await Promise.race([child.has('ready', 60_000), gone])
    gone.catch(() => undefined)
    return child
  }

  /** Starts a process, and does not wait for it. */
  spawn(program: string, settings: Partial<Settings>, env: Record<string, string>): Child {
    const { url } = this.#server
    const all = { url, namespace: NAMESPACE, shards: this.#shards, ...settings }
    const child = new Child(program, all, { KILL_NOTES: this.notes, ...env })
    this.#children.push(child)
    return child
  }

  /** All that were started, in order. */
  get children(): readonly Child[] {
    return this.#children
  }

  /** Of the server. */
  get url(): string {
    return this.#server.url
  }

  /** Of the server. */
  get port(): number {
    return this.#server.port
  }

  /** An active engine, unless `standby`. */
  async engine(settings: Partial<Settings> = {}): Promise<Child> {
    const child = await this.start('engine', settings)
    await until('the engine is at work', () => child.of('engine.active').length >= this.#shards)
    return child
  }

  /** Starts a process that kills itself where `env` says, and waits for that. */
  async dies(program: string, env: Record<string, string>, settings: Partial<Settings> = {}): Promise<void> {
    const child = this.spawn(program, settings, env)
    const why = `process ${child.pid} kills itself: ${JSON.stringify(env)}`
    await until(why, () => !child.isAlive, 30_000)
    if (child.exitCode !== null) throw new Error(`not so: ${why}`)
  }

  /** Only of a rig that was started with `killsServer`. */
  async killServer(): Promise<void> {
    if (!this.#killsServer) throw new Error('start the rig with { killsServer: true }: its server must write at once')
    await this.#server.kill()
  }

  async startServer(): Promise<void> {
    const { dir, port } = this.#server
    this.#server = await startServer({ dir, port })
    // What is asked while a connection is broken gets no answer, and a test has no time to wait for
    // that.
    await this.nc.close()
    this.nc = await connectNats({ servers: this.#server.url })
  }

  async materialize<V>(asset: { name: string } & AnyAsset, key?: string, from: Pipeline = kills): Promise<Run<V>> {
    const named = key === undefined ? {} : { key }
    return (await this.flow.materialize(asset, { pipeline: from, ...named })) as Run<V>
  }

  /** The barrier as the state bucket shows it. */
  async barrier(run: Run, asset: string): Promise<BarrierState | undefined> {
    const shard = Number(run.id.split('-')[0])
    const bucket = this.names.stateBucket(shard)
    const doc = await this.#lastJson(
      this.names.kvStream(bucket),
      this.names.kvSubject(bucket, `barrier.${run.id}.${asset}`),
    )
    return doc as BarrierState | undefined
  }

  /** How many facts of this kind are on the log of the first shard. */
  async facts(path: string): Promise<number> {
    const jsm = await jetstreamManager(this.nc)
    const { state } = await jsm.streams.info(this.names.log(0), { subjects_filter: this.names.fact(0, path) })
    return Object.values(state.subjects ?? {}).reduce((sum, count) => sum + count, 0)
  }

  /** Waits until so many instances are done, and the run goes on. */
  async progress(run: Run, asset: string, done: number): Promise<void> {
    await until(
      `${done} instances of ${asset} done`,
      async () => ((await this.barrier(run, asset))?.succeeded ?? 0) >= done,
    )
  }

  /** Lines that were written whole: a program may be in the middle of one. */
  noted(): string[] {
    return existsSync(this.notes) ? readFileSync(this.notes, 'utf8').split('\n').slice(0, -1) : []
  }

  /** All live keys of the state buckets with their bytes, apart from the engine's position. */
  async state(): Promise<Map<string, string>> {
    const found = new Map<string, string>()
    for (let shard = 0; shard < this.#shards; shard++) {
      for (const { subject, data } of await allOf(this.nc, this.names.kvStream(this.names.stateBucket(shard)))) {
        if (subject.endsWith('.engine') || data.length === 0) continue
        found.set(subject, Buffer.from(data).toString('latin1'))
      }
    }
    return found
  }

  /** Last sequence of each state bucket: it moves with every write. */
  async stateSeqs(): Promise<number[]> {
    const jsm = await jetstreamManager(this.nc)
    const seqs: number[] = []
    for (let shard = 0; shard < this.#shards; shard++) {
      seqs.push((await jsm.streams.info(this.names.kvStream(this.names.stateBucket(shard)))).state.last_seq)
    }
    return seqs
  }

  /**
   * Checks that the feed shows each fact once, all of them where an engine is alive to do so. Then
   * stops all processes, and checks that the state buckets are the fold of the log, byte for byte.
   */
  async expectStateIsFold(): Promise<void> {
    const feed = () => compareFeed(this.nc, this.names, this.#shards)
    if (this.#children.some((child) => child.isAlive && child.of('engine.active').length > 0)) {
      let [seen, compared] = [-1, -1]
      await until('the feed shows all facts', async () => {
        const before = seen
        seen = (await (await jetstreamManager(this.nc)).streams.info(this.names.feed)).state.last_seq
        // To compare it takes long, so it is done once for each end that it comes to.
        if (seen !== before || seen === compared) return false
        compared = seen
        return (await feed()).missing === 0
      })
      expect((await feed()).shown).toBeGreaterThan(0)
    }
    await Promise.all(this.#children.map((child) => child.stop()))
    await feed()
    await this.expectProven()
    const before = await this.state()
    let claimed: unknown
    await until('the claims are free', async () => {
      try {
        const late = sleep(20_000 * busy(), 'the rebuild did not end in time', { ref: false })
        claimed = await Promise.race([this.flow.rebuild(), late])
        return typeof claimed !== 'string'
      } catch (error) {
        claimed = error
        return false
      }
    }).catch((error: unknown) => {
      throw new Error(`${String(error)}: ${String(claimed)}`)
    })
    const after = await this.state()
    expect([...after.keys()].toSorted()).toEqual([...before.keys()].toSorted())
    for (const [key, bytes] of before) expect(after.get(key), key).toBe(bytes)
    expect(before.size).toBeGreaterThan(2)
  }

  /** All facts are as their blocks say, and no block is missing. */
  async expectProven(): Promise<void> {
    for (const { findings, gaps, covers } of await this.flow.proof.verify()) {
      expect(findings).toEqual([])
      expect(gaps).toEqual([])
      expect(covers?.from ?? 1).toBe(1)
    }
  }

  /** The run has succeeded, every instance counted once, and nothing is left open. */
  async expectWhole(run: Run, asset: string, count = INSTANCES): Promise<void> {
    const value = (await run.result({ signal: within(45_000) })) as Total
    expect(value).toEqual({ count, sum: count === INSTANCES ? SUM : (count * (count - 1)) / 2, inOrder: true })
    const done = async (): Promise<boolean> => (await run.status())?.finishedAt !== undefined
    await until('the end is in the state bucket', done)
    expect((await run.status())?.status).toBe('succeeded')
    expect(await this.barrier(run, asset)).toMatchObject({
      status: 'completed',
      total: count,
      succeeded: count,
      failed: 0,
      leases: {},
    })
    const ends = []
    for await (const { kind } of this.flow.history(run.id))
      if (/finished|closed|materialized/.test(kind)) ends.push(kind)
    expect(ends).toEqual(['scatter.closed', 'asset.materialized', 'run.finished'])
  }

  async #lastJson(stream: string, subject: string): Promise<unknown> {
    const jsm = await jetstreamManager(this.nc, { checkAPI: false })
    const message = await jsm.streams.getMessage(stream, { last_by_subj: subject }).catch(() => undefined)
    return message && message.data.length > 0 ? message.json() : undefined
  }

  report(): string {
    return this.#children
      .map((child, i) => {
        const told = child.told.filter(({ event }) => !/lease.stop|task.received/.test(event)).slice(-15)
        return `--- process ${i}\n${child.errors.slice(-2000)}${told.map((line) => JSON.stringify(line)).join('\n')}`
      })
      .join('\n')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#children.map((child) => (child.isAlive ? child.kill() : undefined)))
    await this.nc.close()
    await this.flow.close()
    await this.#server.stop()
    this.#scratch[Symbol.dispose]()
  }
}

/** An active engine, its standby, and a worker. */
export async function pair(rig: Rig): Promise<{ victim: Child; heir: Child }> {
  const [victim] = await Promise.all([rig.engine(), rig.start('worker')])
  return { victim, heir: await rig.start('engine') }
}

/**
 * `killsServer`: the test kills nats-server, too, which then waits for the disk with every write.
 * Else it does not: what the death of another process leaves does not depend on the disk.
 */
export async function startRig(options: { shards?: number; killsServer?: boolean } = {}): Promise<Rig> {
  const scratch = scratchFolder()
  const { killsServer = false } = options
  const syncInterval = killsServer ? 'always' : 'default'
  const server = await startServer({ dir: join(scratch.path, 'nats'), syncInterval })
  const shards = options.shards ?? 1
  const flow = await connect({ servers: server.url, namespace: NAMESPACE, shards })
  await flow.setup()
  const nc = await connectNats({ servers: server.url })
  const rig = new Rig({ flow, nc, server, scratch, shards, killsServer })
  onTestFailed(() => console.error(rig.report()))
  return rig
}
