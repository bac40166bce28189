import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats, type NatsConnection } from '@nats-io/transport-node'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { stateKey } from '../../projections/state.ts'
import { Checkpointer, foldedTo } from '../../src/engine/shard/checkpoint.ts'
import { Store } from '../../src/engine/shard/store.ts'
import {
  asset,
  type EngineOptions,
  type Flow,
  type FlowAt,
  FlowStoneError,
  pipeline,
  schedule,
} from '../../src/index.ts'
import { Appender } from '../../src/log/appender.ts'
import { Connection } from '../../src/log/connection.ts'
import { factEntry } from '../../src/log/entries.ts'
import { streamBounds } from '../../src/log/nats.ts'
import { changesList } from '../../src/log/past/changes.ts'
import { pastShard } from '../../src/log/past/shard.ts'
import type { ChangesPlace } from '../../streams/changes.ts'
import type { FactDraft } from '../../streams/facts.ts'
import { runId } from '../../streams/ids.ts'
import { ensureTopology } from '../../streams/topology.ts'
import { collect } from '../kit/collect.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage, rejection, type Stage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })
let nc: NatsConnection

let next = 1
const count = asset('count', { execute: () => next++ })
const asks = asset('asks', {
  execute: (ctx) => ctx.signalGate({ timeout: '1h', correlationKey: `asks-${ctx.runId}` }),
  onSignal: (_ctx, payload) => payload,
})
const crowd = asset('crowd', {
  scatter: () => [0, 1, 2, 3],
  scatterOptions: { failureMode: 'partial', failureThreshold: 1, retry: { maxAttempts: 1 } },
  execute: (ctx) => ctx.signalGate({ timeout: '1h', correlationKey: `crowd-${ctx.scatterKey}` }),
  onSignal: (ctx, payload: string) => (ctx.scatterKey < 3 ? payload : ctx.fail('no')),
  gather: async (results) => (await collect(results)).length,
})
const shop = pipeline('shop', [count, asks, crowd], {
  schedules: [schedule('yearly', { every: '365d', run: count })],
})
const GATES = { secrets: [{ id: 'k1', secret: 'a secret of thirty-two bytes or more' }] }

/** All that is read of some runs, without what only the present can say. */
async function picture(flow: Flow | FlowAt, ids: readonly string[]): Promise<unknown> {
  const runs = ids.map(async (id) => {
    const status = await flow.run(id).view()
    if (!status) return { id }
    const scatters = await flow.scatter.list(id)
    const ended = scatters.flatMap((scatter) => (scatter.status === 'open' ? [] : [scatter.id]))
    return {
      status,
      scatters: scatters.map(
        ({ perSecond: _, estimatedEnd: _end, waitingFor: _for, running: _running, ...rest }) => rest,
      ),
      pending: await Promise.all(scatters.map(({ id }) => collect(flow.scatter.pending(id)))),
      failures: await Promise.all(ended.map((id) => collect(flow.scatter.failures(id)))),
      gates: await flow.gates.list(id),
      history: (await collect(flow.history(id))).map(({ seq, kind }) => `${seq} ${kind}`),
      input: await flow.run(id).input(),
      // What workers say just now is not known of the past.
      why: { ...(await flow.why(id)), state: [] },
    }
  })
  const { next: _, ...yearly } = await flow.schedules.get('yearly')
  return {
    runs: await Promise.all(runs),
    all: await flow.runs(),
    open: await flow.runs({ open: true }),
    failed: await flow.runs({ status: 'failed' }),
    waiting: await flow.gates.waiting(),
    named: await flow.gates.getByCorrelationKey('crowd-1'),
    count: await flow.value(count),
    partitions: await flow.partitions(count),
    yearly,
    occurrences: await flow.schedules.occurrences('yearly'),
    audit: await flow.audit(),
  }
}

describe('flow.at', () => {
  let stage: Stage
  let ids: string[]
  const moments: { seq: number; time: Date; shown: unknown }[] = []

  beforeAll(async () => {
    nc = await connectNats({ servers: server.url })
    stage = await openStage(server.url, shop, { sealAfter: '1s', snapshotEvery: 5, gates: GATES })
  })
  afterAll(async () => {
    await stage[Symbol.asyncDispose]()
    await nc.close()
  })

  /** What there is now, at a moment when nothing goes on. */
  async function remember(): Promise<void> {
    const jsm = await jetstreamManager(nc)
    const bounds = async (): Promise<number> => (await jsm.streams.info(`${stage.namespace}_LOG_0`)).state.last_seq
    for (;;) {
      // The list of partitions waits until all is folded.
      await stage.flow.partitions(count)
      const seq = await bounds()
      const shown = await picture(stage.flow, ids)
      if ((await bounds()) !== seq) continue
      const { time } = (await jsm.streams.getMessage(`${stage.namespace}_LOG_0`, { seq })) ?? { time: new Date() }
      moments.push({ seq, time, shown })
      return
    }
  }

  async function answer(from: number, to: number): Promise<void> {
    for (let i = from; i < to; i++) await stage.flow.gates.signalByCorrelationKey(`crowd-${i}`, 'go')
  }

  it('shows runs, scatters, gates, values and schedules as they were, on the log and in the history', async () => {
    const { flow } = stage
    const [gated, scattered] = await Promise.all([flow.materialize(asks), flow.materialize(crowd)])
    ids = [gated.id, scattered.id]
    const scatter = `${scattered.id}.crowd`
    const suspended = async (n: number): Promise<void> =>
      until(`${n} wait`, async () => (await flow.scatter.status(scatter)).suspended === n)
    await suspended(4)
    await until('the gate is open', async () => (await flow.gates.waiting()).length === 5)
    await flow.schedules.pause('yearly', 'for now')
    await remember()
    await (await flow.materialize(count, { key: 'first' })).result()
    await remember()
    await flow.gates.signalByCorrelationKey(`asks-${gated.id}`, { yes: true })
    await gated.result()
    await answer(0, 2)
    await suspended(2)
    await flow.schedules.resume('yearly')
    await flow.schedules.trigger('yearly')
    await until('no more is open', async () => (await flow.runs({ open: true })).length === 1)
    await remember()
    await answer(2, 4)
    await scattered.result()
    for (let i = 0; i < 6; i++) await (await flow.materialize(count, { partition: `p${i}` })).result()
    await until('the state shows the end', async () => (await flow.runs({ open: true })).length === 0)
    await remember()
    expect(new Set(moments.map(({ shown }) => JSON.stringify(shown))).size).toBe(moments.length)

    for (const { seq, shown } of moments) expect(await picture(flow.at(seq), ids)).toEqual(shown)

    const jsm = await jetstreamManager(nc)
    const snapshots = `$KV.${stage.namespace}_history_0.snapshot.*`
    await until('there are snapshots between them', async () => {
      // The last fact stays on the log: let it be one of another run.
      await (await flow.materialize(count)).result()
      const { state } = await jsm.streams.info(`KV_${stage.namespace}_history_0`, { subjects_filter: snapshots })
      return Object.keys(state.subjects ?? {}).length > 1
    })
    const subjects_filter = `${stage.namespace}.log.0.run.${scattered.id}.>`
    await until(
      'the run has left the log',
      async () =>
        Object.keys((await jsm.streams.info(`${stage.namespace}_LOG_0`, { subjects_filter })).state.subjects ?? {})
          .length === 0,
    )
    for (const { seq, time, shown } of moments) {
      expect(await picture(flow.at(seq), ids)).toEqual(shown)
      const { shards } = await flow.at(time).position()
      expect(shards).toEqual([{ shard: 0, seq }])
      expect(await picture(flow.at(time), ids)).toEqual(shown)
    }
  })

  it('says what changed between two times', async () => {
    const { flow } = stage
    const [first, , third, last] = moments
    const changed = await flow.diff(first?.seq ?? 0, last?.seq)
    const [gated = '', scattered = ''] = ids
    expect(changed.more).toEqual([])
    expect(changed.runs).toContainEqual({
      id: gated,
      target: 'shop/asks',
      partition: undefined,
      before: 'running',
      after: 'succeeded',
    })
    expect(changed.runs.filter(({ before }) => before === undefined)).toHaveLength(8)
    expect(changed.assets.map(({ asset, partition }) => `${asset}@${partition}`).toSorted()).toEqual(
      [
        'shop/asks@',
        'shop/crowd@',
        'shop/count@',
        ...Array.from({ length: 6 }, (_, i) => `shop/count@p${i}`),
      ].toSorted(),
    )
    expect(changed.gates).toHaveLength(5)
    expect(changed.gates.every(({ before, after }) => before === 'waiting' && after === 'signaled')).toBe(true)
    expect(changed.scatters).toMatchObject([
      { id: `${scattered}.crowd`, before: { succeeded: 0 }, after: { succeeded: 3, failed: 1 } },
    ])
    expect(changed.schedules).toMatchObject([{ name: 'shop/yearly', before: { state: 'paused' }, after: { fired: 1 } }])
    const none = await flow.diff(third?.seq ?? 0, third?.seq)
    const { runs, assets, gates, scatters, schedules } = none
    expect([runs, assets, gates, scatters, schedules]).toEqual([[], [], [], [], []])
    const cut = await flow.diff(first?.seq ?? 0, last?.time, { limit: 2 })
    expect(cut.runs).toHaveLength(2)
    expect(cut.more).toEqual(expect.arrayContaining(['runs', 'assets', 'gates']))
    // Just as many as there are: nothing is cut.
    const most = Math.max(...[changed.runs, changed.assets, changed.gates].map(({ length }) => length))
    expect(await flow.diff(first?.seq ?? 0, last?.seq, { limit: most })).toEqual(changed)
    const gatesCut = await flow.diff(first?.seq ?? 0, last?.seq, { limit: changed.gates.length })
    expect([gatesCut.gates, gatesCut.more.includes('gates')]).toEqual([changed.gates, false])
    expect((await flow.diff(first?.seq ?? 0, last?.seq, { limit: changed.runs.length - 1 })).more).toContain('runs')
    expect(await rejection(flow.diff(last?.seq ?? 0, first?.seq))).toMatchObject({ code: 'invalid' })
  })

  it('only reads, and names what it cannot show', async () => {
    const { flow } = stage
    const at = flow.at(moments[0]?.seq ?? 0)
    const [run = ''] = ids
    const acts = [
      () => Reflect.get(at.run(run), 'cancel')(),
      () => Reflect.get(at.run(run), 'result')(),
      () => Reflect.get(at.scatter, 'pause')('x'),
      () => Reflect.get(at.gates, 'signalById')('x'),
      () => Reflect.get(at.schedules, 'trigger')('yearly'),
      () => Reflect.get(at, 'materialize')(count),
    ]
    for (const act of acts) expect(await rejection(act())).toMatchObject({ code: 'read_only' })
    const wrong = [Number.MAX_SAFE_INTEGER, { shard: 7, seq: 1 }, new Date(Date.now() + 3_600_000)]
    for (const when of wrong) expect(await rejection(flow.at(when).runs())).toMatchObject({ code: 'invalid' })
    expect(() => flow.at(0)).toThrow('at: give a Date, a sequence')
    expect(await flow.at(new Date(0)).runs()).toEqual([])
    expect(await flow.at(1).run(run).view()).toBeUndefined()
    expect(await rejection(flow.at(1).schedules.get('nightly'))).toMatchObject({ code: 'not_found' })
  })

  it('refuses each member of a flow that it does not have, and says so', async () => {
    const { flow } = stage
    const at = flow.at(moments[0]?.seq ?? 0)
    const members = [...Object.getOwnPropertyNames(Object.getPrototypeOf(flow)), ...Object.getOwnPropertyNames(flow)]
    const missing = members.filter((name) => name !== 'constructor' && !(name in at))
    // Of the connection, and names: nothing of them is asked.
    expect(missing.toSorted()).toEqual(['closed', 'connection', 'namespace', 'shards'])
    const isRead = (name: string): boolean =>
      Object.hasOwn(Object.getPrototypeOf(at), name) || Object.keys(at).includes(name)
    const refused = members.filter((name) => name in at && name !== 'constructor' && !isRead(name))
    expect(refused).toEqual(
      expect.arrayContaining(['as', 'doctor', 'export', 'import', 'proof', 'retention', 'verify']),
    )
    for (const name of refused) {
      const member: unknown = Reflect.get(at, name)
      const call = async (): Promise<unknown> =>
        typeof member === 'function' ? await member.call(at) : await Reflect.get(Object(member), 'status')()
      expect(await rejection(call()), name).toMatchObject({ code: 'read_only', message: expect.stringContaining(name) })
    }
  })

  it('names a time whose runs were pruned, and goes on behind the next snapshot', async () => {
    const { flow } = stage
    const [first] = moments
    await flow.retention.prune({ olderThan: '1ms' })
    await until('the time cannot be shown', async () => {
      const error = await rejection(flow.at(first?.seq ?? 0).runs())
      return error instanceof FlowStoneError && error.code === 'no_snapshot'
    })
    // The next runs that are sealed bring a snapshot.
    await until('the present can be shown', async () => {
      const run = await flow.materialize(count)
      await run.result()
      const then = flow.at((await run.view())?.requestedAt ?? new Date(0))
      return await then.gates.waiting().then(
        () => true,
        () => false,
      )
    })
  })
})

describe('a moment whose facts are not sealed', () => {
  const RUNS = 2000
  const EVERY = 200
  /** Facts that were folded without changes being stored. */
  const GAP = 300

  /** Facts of runs that fail, but each tenth stays open. In the order of the log. */
  function madeUp(version: string): FactDraft[] {
    const of = { pipeline: 'shop', target: 'count' } as const
    return Array.from({ length: RUNS }, (_, i) => {
      const run = runId(0, `run-${i}`)
      const requested: FactDraft = { name: 'run.requested', ids: { run }, data: { ...of, version, upstream: 'all' } }
      const error = { code: 'made_up', message: 'nobody ran it' }
      const data = { ...of, run, status: 'failed', error, durationMs: 1 } as const
      const finished: FactDraft = { name: 'run.finished', ids: { run }, data }
      return i % 10 === 0 ? [requested] : [requested, finished]
    }).flat()
  }

  it('is shown by few messages, and as the log says, also where an engine stored no changes', async () => {
    await using stage = await openStage(server.url, shop, { engine: false, worker: false, gates: GATES })
    const { flow, namespace } = stage
    const connection = await Connection.open({ servers: server.url })
    const { names } = await ensureTopology(connection.nc, { namespace })
    const source = { connection, names }
    await flow.register(shop)
    const drafts = madeUp(shop.spec.version)
    const log = new Appender(connection, names.log(0))
    const { last } = await streamBounds(connection.nc, names.log(0))
    const append = async (some: readonly FactDraft[]): Promise<void> => {
      const entries = some.map((draft) => ({ ...factEntry(names, 0, draft), expect: undefined }))
      await Promise.all(entries.map(({ expect: _, ...entry }) => log.append(entry)))
    }
    const changed = async (): Promise<readonly ChangesPlace[]> => (await changesList(source, 0))?.all ?? []
    const end = async (): Promise<number> => (await streamBounds(connection.nc, names.log(0))).last
    const folds = async (options: EngineOptions, isDone: (to: number) => Promise<boolean>): Promise<void> => {
      const engine = await flow.engine(options)
      const to = await end()
      await until('all is folded', () => isDone(to))
      await engine.stop()
    }
    const storesChanges = async (): Promise<void> =>
      await folds({ snapshotEvery: EVERY }, async (to) => ((await changed()).at(-1)?.seq ?? 0) > to - EVERY)
    const half = drafts.length / 2
    await append(drafts.slice(0, half))
    await storesChanges()
    // As an older version would.
    await append(drafts.slice(half, half + GAP))
    await folds({ sealAfter: 'never' }, async (to) => (await foldedTo(connection, names, 0)) >= to)
    await append(drafts.slice(half + GAP))
    await storesChanges()
    const all = await changed()
    expect(all.filter(({ from }, i) => i > 0 && from > (all[i - 1]?.seq ?? 0))).toHaveLength(1)

    /** The runs that are open in it, and what a process is sent that has read nothing before. */
    async function look(seq: number): Promise<{ open: string[]; messages: number }> {
      const own = await Connection.open({ servers: server.url })
      const before = own.nc.stats().inMsgs
      const { view } = await pastShard({ connection: own, names }, 0, { seq })
      const messages = own.nc.stats().inMsgs - before
      await own.close()
      return { open: view.keys('open.').toSorted(), messages }
    }
    function openAt(seq: number): string[] {
      const open = new Set<string>()
      for (const { name, ids } of drafts.slice(0, seq - last)) {
        if (name === 'run.requested') open.add(stateKey.open(ids.run))
        else if (name === 'run.finished') open.delete(stateKey.open(ids.run))
      }
      return [...open].toSorted()
    }
    const asked = [last + 1, last + half - 7, last + half + 900, last + drafts.length - 3]
    for (const seq of asked) {
      const { open, messages } = await look(seq)
      expect(open).toEqual(openAt(seq))
      // Facts that no changes are of, as many as a reader has ahead of those, and documents.
      const near = all.findLast((place) => place.seq <= seq)?.seq ?? 0
      expect(messages).toBeLessThan(seq - near + GAP + 2000)
    }

    // Without them it is the same, and takes all messages.
    const jsm = await jetstreamManager(connection.nc)
    const filter = names.kvSubject(names.historyBucket(0), 'changes')
    await jsm.streams.purge(names.kvStream(names.historyBucket(0)), { filter })
    for (const seq of asked) expect((await look(seq)).open).toEqual(openAt(seq))
    expect((await look(asked.at(-1) ?? 0)).messages).toBeGreaterThan(drafts.length - 1000)
    await connection.close()
  })
})

it('a checkpoint that comes while documents for a fact are read does not name that fact', async () => {
  const written: { readonly seq: number; readonly mark: number | undefined }[] = []
  const read = new Set<() => void>()
  const { load } = Store.prototype
  const { write } = Checkpointer.prototype
  vi.spyOn(Checkpointer.prototype, 'write').mockImplementation(async function (this: Checkpointer, docs, seq, mark) {
    written.push({ seq, mark: mark?.seq })
    await write.call(this, docs, seq, mark)
    for (const goOn of read) goOn()
  })
  let held = 0
  vi.spyOn(Store.prototype, 'load').mockImplementation(async function (this: Store, keys) {
    await load.call(this, keys)
    // Lists that a run is to stand in.
    if (!keys.some((key) => key.startsWith('runs.'))) return
    const before = written.length
    const { promise, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(resolve, 500)
    read.add(resolve)
    await promise
    read.delete(resolve)
    clearTimeout(timer)
    if (written.length > before) held += 1
  })
  try {
    await using stage = await openStage(server.url, shop, { worker: false, gates: GATES })
    await stage.flow.register(shop)
    await until('a checkpoint came while a fact waited', async () => {
      await stage.flow.request('shop/count', { tags: { n: String(written.length) } })
      return held > 0
    })
    expect(written.length).toBeGreaterThan(0)
    for (const { seq, mark } of written) expect(mark ?? 0).toBeLessThanOrEqual(seq)
  } finally {
    vi.restoreAllMocks()
  }
})
