import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PassThrough } from 'node:stream'
import { jetstream, jetstreamManager } from '@nats-io/jetstream'
import { Kvm } from '@nats-io/kv'
import { Objm } from '@nats-io/obj'
import { connect as connectNats, type NatsConnection } from '@nats-io/transport-node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { readOrder, writeAnswer, writeOrder } from '../../src/engine/history/prune/orders.ts'
import { apiHandler } from '../../src/http/index.ts'
import { asset, connect, input, pipeline, type Run } from '../../src/index.ts'
import { Connection } from '../../src/log/connection.ts'
import { namesOf } from '../../streams/subjects.ts'
import { collect } from '../kit/collect.ts'
import { useServer } from '../kit/fixture.ts'
import { factsOf, freshNamespace, openStage, rejection, type Stage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })
let nc: NatsConnection

beforeAll(async () => {
  nc = await connectNats({ servers: server.url })
})
afterAll(() => nc.close())

/** Keys of a bucket that have a value. */
async function keysOf({ namespace }: Stage, bucket: string): Promise<string[]> {
  const kv = await new Kvm(jetstream(nc)).open(`${namespace}_${bucket}`, { bindOnly: true })
  return await collect(await kv.keys())
}

/** How many objects there are, and how many messages hold them. */
async function blobsOf({ namespace }: Stage): Promise<{ objects: number; subjects: number }> {
  const jsm = await jetstreamManager(nc)
  const { state } = await jsm.streams.info(`OBJ_${namespace}_blobs`, { subjects_filter: '>' })
  const subjects = Object.keys(state.subjects ?? {})
  return { objects: subjects.filter((subject) => subject.includes('.M.')).length, subjects: subjects.length }
}

const LARGE = 100_000
let made = 0
const amount = input('amount', z.number().default(1))
const source = asset('source', { dependsOn: [amount], execute: (_ctx, deps) => ({ amount: deps.amount }) })
/** Large enough for the object store, and different for each amount. */
const big = asset('big', {
  dependsOn: [source],
  execute: (_ctx, deps) => {
    made += 1
    return Array.from({ length: LARGE }, (_, i) => (i * 7919 + deps.source.amount * 104_729) % 1_000_003)
  },
})
const total = asset('total', { dependsOn: [big], execute: (_ctx, deps) => deps.big.length + (deps.big[1] ?? 0) })
const failing = asset('failing', {
  retry: { maxAttempts: 1 },
  execute: () => {
    throw new Error('it is broken')
  },
})
const longer = asset('longer', { retention: { runs: 'never' }, execute: () => 'longer' })
const last = asset('last', { retention: { keepLast: 2 }, execute: () => 'last' })
const shop = pipeline('shop', [amount, source, big, total, failing, longer, last], {
  retention: { runs: '1s', failed: 'never' },
})
const plain = asset('plain', { execute: () => 'plain' })
const other = pipeline('other', [plain])
const totalOf = (of: number): number => LARGE + 7919 + of * 104_729

describe('runs that are older than they are kept', () => {
  let stage: Stage
  const runs: Run[] = []
  let facts: number[]
  let kept: Run[]

  beforeAll(async () => {
    stage = await openStage(server.url, [shop, other], { sealAfter: '1s' })
    const { flow } = stage
    for (let i = 1; i <= 3; i++) {
      const more = { input: { amount: i }, tags: { n: String(i) }, ...(i === 1 ? { key: 'key 1' } : {}) }
      const run = await flow.materialize(total, { ...more, upstream: 'all' })
      await run.result()
      runs.push(run)
    }
    facts = (await factsOf(flow, runs[0]?.id ?? '')).map(({ seq }) => seq)
    kept = [await flow.materialize(failing), await flow.materialize(longer), await flow.materialize(plain)]
    await Promise.all(kept.map((run) => run.result().catch(() => undefined)))
    for (let i = 0; i < 3; i++) await (await flow.materialize(last)).result()
    expect(await blobsOf(stage)).toMatchObject({ objects: 3 })
    await until('they are gone', async () => (await flow.runs({ target: 'shop/total' })).length === 0)
    await until('the first one is gone', async () => (await flow.runs({ target: 'shop/last' })).length === 2)
    await until('objects are gone', async () => (await blobsOf(stage)).objects === 1)
  })
  afterAll(() => stage[Symbol.asyncDispose]())

  it('left by rule, as the proof says', async () => {
    const [report] = await stage.flow.proof.verify()
    expect(report?.findings).toEqual([])
    expect(report?.left).toBeGreaterThanOrEqual(facts.length)
  })

  it('leave the newest values, and what these were made from', async () => {
    const { flow } = stage
    expect(await flow.value(total)).toMatchObject({ value: totalOf(3), run: runs[2]?.id })
    expect((await flow.value(big))?.value).toHaveLength(LARGE)
    const remains = await flow.retention.remains(runs[2]?.id ?? '')
    expect(remains).toMatchObject({ target: 'total', status: 'succeeded' })
    const value = (name: string, from: readonly string[]): object => ({
      asset: name,
      run: runs[2]?.id,
      isKept: true,
      from,
      hash: expect.any(String),
      timeMs: expect.any(Number),
    })
    expect(remains?.values.toSorted((a, b) => a.seq - b.seq)).toMatchObject([
      value('source', ['amount']),
      value('big', ['source']),
      value('total', ['big']),
    ])
    expect(await flow.retention.remains(runs[1]?.id ?? '')).toBeUndefined()
    // Chunks of what is gone are gone with it.
    const { subjects, objects } = await blobsOf(stage)
    expect(subjects).toBe(2 * objects)
  })

  it('are not there, and an error says that they were pruned', async () => {
    const { flow } = stage
    const results = await Promise.all(runs.map(({ id }) => rejection(flow.run(id).result())))
    expect(results.map(({ code }) => code)).toEqual(['not_found', 'pruned', 'pruned'])
    // When it was asked for is not in the id of a run that has a key.
    expect(results[0]?.message).toContain('or it was pruned')
    for (const { id } of runs.slice(1)) {
      expect(await rejection(factsOf(flow, id))).toMatchObject({ code: 'pruned' })
    }
    const [, one] = runs
    const id = one?.id ?? ''
    const asked: Record<string, () => Promise<unknown>> = {
      retry: () => flow.retry(id),
      adopt: () => flow.adopt(id),
      why: () => flow.why({ run: id }),
      page: () => flow.runs({ after: id }),
      input: () => flow.run(id).input(),
      scatter: () => flow.scatter.status(`${id}.big`),
      map: () => flow.inspect.map(`${id}.big`),
      gate: () => flow.gates.cancel(`${id}.big.a1n1`),
      export: () => flow.export({ runs: [id], to: new PassThrough() }),
    }
    for (const [what, ask] of Object.entries(asked))
      expect(await rejection(ask()), what).toMatchObject({ code: 'pruned' })
    const api = apiHandler(flow, { open: 'admin' })
    for (const path of [
      `/runs/${id}`,
      `/runs/${id}/history`,
      `/why?run=${id}`,
      `/gates/${id}.big.a1n1`,
      `/runs?cursor=${id}`,
    ]) {
      const answer = await api(new Request(`http://localhost/api/v1${path}`))
      expect([path, answer.status, await answer.json()]).toMatchObject([path, 410, { reason: 'pruned' }])
    }
  })

  it('go by the retention of their own asset or pipeline, how they ended, and newer values', async () => {
    const { flow } = stage
    const ids = kept.map(({ id }) => id)
    expect((await flow.runs()).map(({ id }) => id)).toEqual(expect.arrayContaining(ids))
    for (const id of ids) expect((await factsOf(flow, id)).length).toBeGreaterThan(2)
    expect(await flow.runs({ target: 'shop/last' })).toHaveLength(2)
  })

  it('are on record, with the sequences of all their facts', async () => {
    const pruned = async () => (await stage.flow.retention.records()).reduce((sum, { runs }) => sum + runs, 0)
    await until('who looked at the history a moment ago sees it', async () => (await pruned()) >= 4)
    const entries = await stage.flow.retention.records()
    expect(await pruned()).toBe(4)
    expect(entries[0]).toMatchObject({ why: 'policy', shard: 0 })
    const isIn = (seq: number): boolean =>
      entries.some(({ sequences }) => sequences.some(([from, to]) => from <= seq && seq <= to))
    expect(facts.filter((seq) => !isIn(seq))).toEqual([])
  })

  it('leave no key of their own in state and history', async () => {
    const keys = [...(await keysOf(stage, 'state_0')), ...(await keysOf(stage, 'history_0'))]
    expect(keys.filter((key) => runs.some(({ id }) => key.includes(id)))).toEqual([])
  })

  it('are asked for by age and pipeline, after a look at what would go', async () => {
    const { flow } = stage
    await flow.retention.gc({ dryRun: true, grace: '1s' })
    const asked = { olderThan: '1s', pipeline: 'other' } as const
    expect(await flow.retention.prune({ ...asked, dryRun: true })).toMatchObject({ runs: 1, facts: 2, dryRun: true })
    expect(await flow.runs({ target: 'other/plain' })).toHaveLength(1)
    expect(await flow.retention.prune(asked)).toMatchObject({ runs: 1, dryRun: false, oldest: expect.any(Date) })
    expect(await flow.runs({ target: 'other/plain' })).toHaveLength(0)
    expect(await flow.value(plain)).toMatchObject({ value: 'plain' })
    expect((await flow.retention.records({ limit: 1 }))[0]).toMatchObject({
      why: 'request',
      by: expect.any(String),
      runs: 1,
    })
  })

  it('leave objects alone that are stored again, and strays are found', async () => {
    const { flow } = stage
    const objects = await new Objm(jetstream(nc)).open(`${stage.namespace}_blobs`)
    await objects.putBlob({ name: 'stray' }, new Uint8Array(1000))
    await until('it is old enough', async () => (await flow.retention.gc({ dryRun: true, grace: '1s' })).objects === 1)
    expect(await flow.retention.gc({ grace: '1s' })).toEqual({ objects: 1, bytes: 1000, dryRun: false })
    expect(await blobsOf(stage)).toEqual({ objects: 1, subjects: 2 })
  })

  it('leave a state that is the same after a rebuild, and values that are taken as before', async () => {
    const { flow, engine } = stage
    const listed = (await flow.runs()).map(({ id }) => id)
    await engine?.stop()
    await flow.rebuild()
    expect((await flow.runs()).map(({ id }) => id)).toEqual(listed)
    // A task under the id of one of a minute ago is taken for the same; later it is missed.
    await (await flow.engine({ sealAfter: '1s', reconcileMs: 200 })).active
    const before = made
    const run = await flow.materialize(total, { input: { amount: 3 }, upstream: 'missing' })
    expect(await run.result()).toBe(totalOf(3))
    expect(made).toBe(before)
    const again = await flow.materialize(total, { input: { amount: 1 }, key: 'key 1', upstream: 'all' })
    expect(again).toMatchObject({ id: runs[0]?.id, isNew: true })
    expect(await again.result()).toBe(totalOf(1))
  })
})

describe('runs that are archived before they are pruned', () => {
  const folder = mkdtempSync(join(tmpdir(), 'flowstone-retention-'))
  afterAll(() => rmSync(folder, { recursive: true }))

  it('go when the archive has them, and not before', async () => {
    const at = join(folder, 'archive')
    // No folder can be made there.
    writeFileSync(at, 'in the way')
    await using stage = await openStage(server.url, [shop], { sealAfter: '1s', retention: { archive: `file:${at}` } })
    const { flow, lines } = stage
    const runs = await Promise.all(
      [1, 2].map((i) => flow.materialize(total, { input: { amount: i }, tags: { n: String(i) }, upstream: 'all' })),
    )
    await Promise.all(runs.map((run) => run.result()))
    const facts = await Promise.all(runs.map(({ id }) => factsOf(flow, id)))
    const warned = (): number => lines.filter((line) => line.includes('not pruned: they cannot be archived')).length
    await until('it is warned', async () => warned() > 0)
    const [found] = (await flow.doctor()).filter(({ check }) => check === 'history.archive')
    expect(found).toMatchObject({ level: 'warn', about: 'shard 0' })
    expect(await rejection(flow.retention.prune())).toMatchObject({
      code: 'refused',
      message: expect.stringContaining(`archived to file:${at}`),
    })
    const elsewhere = `file:${join(folder, 'elsewhere')}`
    const report = await flow.retention.prune({ archive: elsewhere, dryRun: true })
    expect(report).toMatchObject({ runs: 2, archives: [elsewhere], dryRun: true })
    expect(await flow.runs()).toHaveLength(2)
    expect(await flow.retention.records()).toEqual([])
    expect(readdirSync(folder)).toEqual(['archive'])
    expect(warned()).toBe(1)

    rmSync(at)
    await until('they are gone', async () => (await flow.runs()).length === 0)
    // Who looked at the history a moment ago goes by that.
    const archived = async () => (await flow.retention.records()).flatMap(({ archive }) => archive ?? [])
    await until('they are on record', async () => (await archived()).reduce((sum, { runs: n }) => sum + n, 0) === 2)
    const archives = (await archived()).map(({ to }) => to)
    expect(archives.map((path) => path.slice(at.length + 1)).toSorted()).toEqual(readdirSync(at).toSorted())

    await using copy = await connect({ servers: server.url, namespace: freshNamespace() })
    expect(await copy.import(archives)).toMatchObject({ runs: 2 })
    for (const [i, run] of runs.entries()) {
      expect(await factsOf(copy, run.id)).toEqual(facts[i])
      expect(await copy.run(run.id).result()).toBe(totalOf(i + 1))
    }
    expect((await copy.value(big))?.value).toHaveLength(LARGE)
    await until(
      'the doctor finds nothing',
      async () => !(await flow.doctor()).some(({ check }) => check === 'history.archive'),
    )
  })
})

describe('runs of two shards', () => {
  it('keep what a kept run of the other shard took', async () => {
    let count = 0
    const seed = asset('seed', { execute: () => ++count })
    const use = asset('use', { dependsOn: [seed], retention: { runs: 'never' }, execute: (_ctx, deps) => deps.seed })
    const two = pipeline('two', [seed, use], { retention: { runs: '1s' } })
    await using stage = await openStage(server.url, two, { shards: 2, sealAfter: '1s', reconcileMs: 200 })
    const { flow } = stage
    const made: Run[] = []
    const seeds = async (key?: string): Promise<Run> => {
      const run = await flow.materialize(seed, key === undefined ? {} : { key })
      await run.result()
      made.push(run)
      return run
    }
    await seeds()
    const shard = made[0]?.id[0]
    let user: Run | undefined
    while (user?.id[0] === undefined || user.id[0] === shard) {
      user = await flow.materialize(use, { upstream: 'missing' })
      expect(await user.result()).toBe(1)
    }
    while (new Set(made.slice(1).map(({ id }) => id[0])).size < 2) await seeds()
    const { id } = await seeds('a key')
    // A run with a key stays while its end is the last fact of its shard.
    for (let run: Run | undefined; run?.id[0] !== id[0]; await run.result())
      run = await flow.materialize(use, { upstream: 'missing' })
    // A list may not have them yet.
    const left = async (): Promise<unknown[]> => await Promise.all(made.map((run) => run.view()))
    await until('they are gone', async () => (await left()).every((view) => view === undefined), 120_000)
    await until('no list has them', async () => (await flow.runs({ target: 'two/seed' })).length === 0)
    const shards = (await flow.retention.records()).map((record) => record.shard)
    expect(new Set(shards)).toEqual(new Set([0, 1]))
    const remains = await Promise.all(made.map(({ id }) => flow.retention.remains(id)))
    expect(remains[0]?.values).toMatchObject([{ asset: 'seed', isKept: true }])
    const again = await flow.retry(user.id, { from: use })
    expect(await again.result()).toBe(1)
    expect(await flow.value(seed)).toMatchObject({ value: count, run: id })
    // What made its lists before is not in the way of another run under the key.
    expect(await flow.materialize(seed, { key: 'a key' })).toMatchObject({ id, isNew: true })
    const listed = async (): Promise<string[]> => (await flow.runs({ target: 'two/seed' })).map((run) => run.id)
    await until('it is listed', async () => (await listed()).length > 0)
    expect(await listed()).toEqual([id])
    expect((await flow.verify()).findings).toEqual([])
    expect(stage.lines.filter((line) => line.includes('not pruned'))).toEqual([])
  })
})

it('who asks to prune hears it when a later request has taken the place of this one', async () => {
  await using stage = await openStage(server.url, [], { engine: false, worker: false })
  const connection = await Connection.open({ servers: server.url })
  const place = { connection, names: namesOf(stage.namespace) }
  const asked = rejection(stage.flow.retention.prune({ dryRun: true }))
  await until('it has asked', async () => (await readOrder(place, 0)) !== undefined)
  await writeOrder(place, 0, { v: 1, id: 'later' })
  await writeAnswer(place, 0, { v: 1, id: 'later', runs: 0, facts: 0, bytes: 0 })
  expect(await asked).toMatchObject({ code: 'conflict' })
  await connection.close()
})
