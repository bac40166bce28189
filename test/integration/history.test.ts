import { jetstream, jetstreamManager } from '@nats-io/jetstream'
import { Kvm } from '@nats-io/kv'
import { connect as connectNats, headers, type NatsConnection } from '@nats-io/transport-node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import {
  asset,
  type HistoryEntry,
  input,
  pipeline,
  type Run,
  type RunView,
  type ScatterStatus,
} from '../../src/index.ts'
import { encodeFact, type FactDraft, factPath } from '../../streams/facts.ts'
import { decodePack, encodePack } from '../../streams/history.ts'
import { assetName } from '../../streams/ids.ts'
import { backUp, restore } from '../kit/backup.ts'
import { collect } from '../kit/collect.ts'
import { useServer } from '../kit/fixture.ts'
import { factsOf, kindsOf, openStage, rejection, type Stage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })
let nc: NatsConnection

beforeAll(async () => {
  nc = await connectNats({ servers: server.url })
})
afterAll(() => nc.close())

/** Subjects of a shard's log, behind `<ns>.log.0.`. */
async function onLog({ namespace }: Pick<Stage, 'namespace'>, filter = '>'): Promise<string[]> {
  const jsm = await jetstreamManager(nc)
  const prefix = `${namespace}.log.0.`
  const info = await jsm.streams.info(`${namespace}_LOG_0`, { subjects_filter: `${prefix}${filter}` })
  return Object.keys(info.state.subjects ?? {}).map((subject) => subject.slice(prefix.length))
}

/** Keys of a bucket that have a value. */
async function keysOf({ namespace }: Stage, bucket: string): Promise<string[]> {
  const kv = await new Kvm(jetstream(nc)).open(`${namespace}_${bucket}`, { bindOnly: true })
  return await collect(await kv.keys())
}

async function put(subject: string, data: Uint8Array, contentType: string): Promise<void> {
  const h = headers()
  h.set('Content-Type', contentType)
  await jetstream(nc).publish(subject, data, { headers: h })
}

const text = (of: string): Uint8Array => new TextEncoder().encode(of)

/** Waits until no fact of the run is on the log. */
async function gone(stage: Stage, run: string): Promise<void> {
  await until(
    `run ${run} has left the log`,
    async () =>
      (await onLog(stage, `*.${run}.>`)).length === 0 && (await onLog(stage, `asset.*.*.${run}.>`)).length === 0,
  )
}

const amount = input('amount', z.number().default(1))
const first = asset('first', { dependsOn: [amount], execute: async (_ctx, deps) => ({ amount: deps.amount }) })
const second = asset('second', { dependsOn: [first], execute: async (_ctx, deps) => deps.first.amount + 1 })
const failing = asset('failing', {
  dependsOn: [first],
  retry: { maxAttempts: 1 },
  execute: async () => {
    throw new Error('it is broken')
  },
})
const asks = asset('asks', {
  execute: async (ctx) => ctx.signalGate({ timeout: '1h', correlationKey: `asks-${ctx.runId}` }),
  onSignal: async (_ctx, payload) => ({ heard: payload }),
})
const many = asset('many', {
  retry: { maxAttempts: 1 },
  scatter: () => ['a', 'b', 'c', 'd'],
  scatterOptions: { retry: { maxAttempts: 1 }, failureMode: 'partial', failureThreshold: { count: 1 } },
  execute: ({ scatterKey }) => {
    if (scatterKey === 'c' && broken) throw new Error(`no ${scatterKey}`)
    return `done ${scatterKey}`
  },
  gather: async (results) => {
    const all = await collect(results)
    return all.map((result) => (result.status === 'ok' ? result.value : 'failed'))
  },
})
let broken = true
const calls = asset('calls', { execute: (ctx) => ctx.run(second, { key: 'called', upstream: 'all' }) })
const CROWD = 70
const crowd = asset('crowd', {
  scatter: () => Array.from({ length: CROWD }, (_, i) => i),
  scatterOptions: { failureMode: 'partial', failureThreshold: 1, maxConcurrent: CROWD, retry: { maxAttempts: 1 } },
  execute: (ctx) => ctx.signalGate({ timeout: '1h', correlationKey: `crowd-${ctx.scatterKey}` }),
  onSignal: (ctx, payload: string) => (ctx.scatterKey % 2 === 0 ? payload : ctx.fail('odd')),
  gather: async (results) => (await collect(results)).length,
})
const shop = pipeline('shop', [amount, first, second, failing, asks, many, calls, crowd])
const GATES = { secrets: [{ id: 'k1', secret: 'a secret of thirty-two bytes or more' }] }

describe('a sealed run', () => {
  let stage: Stage
  let runs: Record<'plain' | 'keyed' | 'failed' | 'gated' | 'scattered' | 'called' | 'calling' | 'crowded', Run>
  let before: { facts: HistoryEntry[]; view: RunView | undefined; scatter: ScatterStatus; crowd: ScatterStatus }
  let token = ''

  /** All runs first, so that they are sealed together. */
  beforeAll(async () => {
    stage = await openStage(server.url, shop, { sealAfter: '1s', gates: GATES })
    const { flow } = stage
    const input = { input: { amount: 41 }, tags: { kind: 'sealed' } }
    const [plain, keyed, failed, gated, scattered, called, calling, crowded] = await Promise.all([
      flow.materialize(second, { ...input, upstream: 'all' }),
      flow.materialize(second, { key: 'once', upstream: 'all' }),
      flow.materialize(failing, { upstream: 'all' }),
      flow.materialize(asks),
      flow.materialize(many),
      flow.materialize(second, { key: 'called', upstream: 'all' }),
      flow.materialize(calls),
      flow.materialize(crowd, { concurrency: { key: 'one', limit: 1 } }),
    ])
    runs = { plain, keyed, failed, gated, scattered, called, calling, crowded }
    await until('the gate is open', async () => (await flow.gates.list(gated.id)).length === 1)
    token = await flow.gates.token((await flow.gates.list(gated.id))[0]?.id ?? '')
    await flow.gates.signal(token, { yes: true })
    expect(await gated.result()).toEqual({ heard: { yes: true } })
    expect(await scattered.result()).toEqual(['done a', 'done b', 'failed', 'done d'])
    expect(await plain.result()).toBe(42)
    const crowdId = `${crowded.id}.crowd`
    await until(
      'all of the crowd wait',
      async () => (await flow.scatter.status(crowdId).catch(() => undefined))?.suspended === CROWD,
    )
    await Promise.all(Array.from({ length: CROWD }, (_, i) => flow.gates.signalByCorrelationKey(`crowd-${i}`, 'go')))
    expect(await crowded.result()).toBe(CROWD)
    await Promise.all([keyed.result(), called.result(), calling.result(), rejection(failed.result())])
    for (const run of Object.values(runs))
      await until('the state shows the end', async () => (await run.view())?.finishedAt !== undefined)
    before = {
      facts: await factsOf(flow, plain.id),
      view: await plain.view(),
      scatter: await flow.scatter.status(`${scattered.id}.many`),
      crowd: await flow.scatter.status(crowdId),
    }
    // The last fact stays on the log: let it be one of another run.
    await (await flow.materialize(first, { upstream: 'all' })).result()
    for (const run of Object.values(runs)) await gone(stage, run.id)
  })
  afterAll(() => stage[Symbol.asyncDispose]())

  it('leaves nothing of its own in the state, in the base and on the log', async () => {
    const ids = Object.values(runs).map(({ id }) => id)
    const ofRuns = (keys: readonly string[]): string[] => keys.filter((key) => ids.some((id) => key.includes(id)))
    await until('all are gone', async () => {
      const [state, base] = await Promise.all([keysOf(stage, 'state_0'), keysOf(stage, 'history_0')])
      return ofRuns([...state, ...base, ...(await onLog(stage))]).length === 0
    })
    const kinds = new Set((await keysOf(stage, 'state_0')).map((key) => key.split('.', 1)[0]))
    for (const one of ['run', 'open']) kinds.delete(one)
    expect([...kinds].toSorted()).toEqual(['asset', 'engine', 'limited_queues', 'newest', 'pipeline', 'runs'])
  })

  it('tells of a scatter with many gates what it told before', async () => {
    const { flow } = stage
    const id = `${runs.crowded.id}.crowd`
    expect(await flow.scatter.status(id)).toEqual(before.crowd)
    expect(await flow.scatter.list(runs.crowded.id)).toEqual([before.crowd])
    expect(await collect(flow.scatter.pending(id))).toEqual([])
    const failures = await collect(flow.scatter.failures(id))
    expect(failures.map(({ index }) => index)).toEqual(Array.from({ length: CROWD / 2 }, (_, i) => 2 * i + 1))
    expect(failures[0]?.error.message).toContain('odd')
    const [update] = await collect(flow.run(runs.crowded.id).watch())
    expect(update?.scatters).toMatchObject([{ asset: 'crowd', succeeded: CROWD / 2, failed: CROWD / 2 }])
    expect(await flow.gates.list(runs.crowded.id)).toHaveLength(CROWD)
    expect(await flow.gates.getByCorrelationKey('crowd-3')).toMatchObject({ status: 'signaled', index: 3 })
  })

  it('gives its result, its facts, its input and its view as before', async () => {
    const { flow } = stage
    const run = flow.run(runs.plain.id)
    expect(await run.result()).toBe(42)
    expect(await factsOf(flow, run.id)).toEqual(before.facts)
    expect(await run.view()).toEqual(before.view)
    expect(await run.input()).toEqual({ amount: 41 })
    expect(await flow.value(first, { run: run.id })).toMatchObject({ value: { amount: 41 } })
    await run.cancel()
    expect(await onLog(stage, `run.${run.id}.>`)).toEqual([])
  })

  it('is in the lists of runs as before', async () => {
    const { flow } = stage
    expect(await flow.runs({ tag: { kind: 'sealed' } })).toEqual([before.view])
    const listed = (await flow.runs()).map(({ id }) => id)
    for (const { id } of Object.values(runs)) expect(listed).toContain(id)
    expect((await flow.runs({ status: 'failed' })).map(({ id }) => id)).toEqual([runs.failed.id])
    const page = await flow.runs({ after: listed[2] ?? '', limit: 2 })
    expect(page.map(({ id }) => id)).toEqual(listed.slice(3, 5))
  })

  it('is the one that its key stands for, for ever', async () => {
    const { flow } = stage
    const again = await flow.materialize(second, { key: 'once', upstream: 'all' })
    expect([again.id, again.isNew]).toEqual([runs.keyed.id, false])
    expect(await again.result()).toBe(2)
    expect(await onLog(stage, `run.${again.id}.>`)).toEqual([])
    expect(await rejection(flow.materialize(first, { key: 'once' }))).toMatchObject({ code: 'conflict' })
  })

  it('gives its value to a run that asks for it under its key', async () => {
    const { flow } = stage
    expect(await (await flow.materialize(calls)).result()).toBe(2)
    expect(await onLog(stage, `run.${runs.called.id}.requested`)).toEqual([])
  })

  it('can be tried again', async () => {
    const { flow } = stage
    const error = await rejection(flow.run(runs.failed.id).result())
    expect(error.message).toContain('it is broken')
    const retried = await flow.retry(runs.failed.id)
    await rejection(retried.result())
    expect(await kindsOf(flow, retried.id)).not.toContain('asset.materialized')
  })

  it('says of its gates how they ended, and takes no signal', async () => {
    const { flow } = stage
    const [gate] = await flow.gates.list(runs.gated.id)
    expect(gate).toMatchObject({ status: 'signaled', signal: { payload: { yes: true } } })
    const id = gate?.id ?? ''
    expect(await rejection(flow.gates.signal(token, { yes: false }))).toMatchObject({ reason: 'already_signaled' })
    const named = flow.gates.signalByCorrelationKey(`asks-${runs.gated.id}`, 1)
    expect(await rejection(named)).toMatchObject({ reason: 'already_signaled' })
    expect(await rejection(flow.gates.cancel(id))).toMatchObject({ code: 'conflict' })
    expect(await rejection(flow.gates.extend(id, '1h'))).toMatchObject({ code: 'conflict' })
    expect(await onLog(stage, `gate.${runs.gated.id}.>`)).toEqual([])
    expect(await onLog(stage, 'correlation.>')).toEqual([])
  })

  it('is redriven, with what it brought', async () => {
    const { flow } = stage
    const id = `${runs.scattered.id}.many`
    expect(await flow.scatter.status(id)).toEqual(before.scatter)
    expect(await collect(flow.scatter.failures(id))).toMatchObject([{ index: 2, key: 'c', attempts: 1 }])
    broken = false
    const redriven = await flow.scatter.redrive(id)
    expect(await redriven.result()).toEqual(['done a', 'done b', 'done c', 'done d'])
  })

  it('is there when the state is made again', async () => {
    const { flow, engine } = stage
    const run = await flow.materialize(second, { upstream: 'none' })
    expect(await run.result()).toBe(2)
    await until('the state shows the end', async () => (await run.view())?.finishedAt !== undefined)
    const listed = await flow.runs({ limit: 1000 })
    await engine?.stop()
    await flow.rebuild()
    expect(await flow.runs({ limit: 1000 })).toEqual(listed)
    const jsm = await jetstreamManager(nc)
    await jsm.streams.delete(`KV_${stage.namespace}_state_0`)
    const next = await flow.engine({ sealAfter: '1s' })
    await next.active
    const last = await flow.materialize(second, { upstream: 'none' })
    expect(await last.result()).toBe(2)
    await until('the state shows the end', async () => (await last.view())?.finishedAt !== undefined)
    expect((await flow.runs({ limit: 1000 })).slice(1)).toEqual(listed)
    expect(await flow.value(second, { run: runs.plain.id })).toMatchObject({ value: 42 })
  })

  it('is there when its streams are restored from a backup, one by one', async () => {
    const { namespace } = stage
    const listed = await stage.flow.runs({ limit: 1000 })
    await stage.flow.close()
    const jsm = await jetstreamManager(nc)
    const kept = ['LOG_0', 'PROOF'].map((name) => `${namespace}_${name}`)
    const buckets = ['history_0', 'control'].map((name) => `KV_${namespace}_${name}`)
    const backups = await backUp(nc, [...kept, ...buckets, `OBJ_${namespace}_blobs`])
    const streams = (await collect(jsm.streams.names())).filter((name) => name.includes(namespace))
    for (const name of streams) await jsm.streams.delete(name)
    await restore(nc, backups)

    const flow = await stage.connect()
    await flow.setup()
    await flow.rebuild()
    expect(await flow.runs({ limit: 1000 })).toEqual(listed)
    expect(await flow.value(second, { run: runs.plain.id })).toMatchObject({ value: 42 })
    expect((await flow.verify()).findings).toEqual([])
    const engine = await flow.engine({ sealAfter: '1s' })
    await flow.worker(shop)
    await engine.active
    expect((await flow.materialize(second, { key: 'once', upstream: 'all' })).id).toBe(runs.keyed.id)
    const run = await flow.materialize(second, { upstream: 'none' })
    expect(await run.result()).toBe(2)
    await (await flow.materialize(first)).result()
    await gone(stage, run.id)
    const [proof] = await flow.proof.verify()
    expect(proof?.findings).toEqual([])
  })

  it('shows what came after it was sealed', async () => {
    const { namespace } = stage
    const flow = await stage.connect()
    const [run, scatter] = [runs.plain.id, runs.scattered.id]
    const [worker, error] = ['late', { code: 'worker_lost', message: 'it died' }]
    const late: FactDraft[] = [
      {
        name: 'attempt.ended',
        ids: { pipeline: 'shop', asset: assetName('first'), run, attempt: '9' },
        data: { phase: 'execute', worker, outcome: 'lost', error, durationMs: 1 },
      },
      {
        name: 'lease.lost',
        ids: { run: scatter, asset: assetName('many'), lease: '0-4-9' },
        data: { lease: '0-4-9', worker },
      },
    ]
    for (const draft of late) {
      const { payload, contentType } = encodeFact(draft)
      await put(`${namespace}.log.0.${factPath(draft.name, draft.ids)}`, payload, contentType)
    }
    expect((await factsOf(flow, run)).at(-1)).toMatchObject({ kind: 'attempt.ended', ids: { attempt: '9' } })
    expect((await flow.inspect.timeline(run)).map((span) => span.worker)).toContain('late')
    const { attempts } = await flow.inspect.instance(`${scatter}.many`, 2)
    expect(attempts.map(({ outcome }) => outcome)).toEqual(['error', 'lost'])
  })

  it('shows what can be read of it where its pack is damaged, and says what cannot', async () => {
    const { namespace } = stage
    const jsm = await jetstreamManager(nc)
    const [bucket, path] = [`KV_${namespace}_history_0`, `run.${runs.plain.id}.finished`]
    for (const key of (await keysOf(stage, 'history_0')).filter((one) => one.startsWith('pack.'))) {
      const subject = `$KV.${namespace}_history_0.${key}`
      const content = await decodePack(
        (await jsm.streams.getMessage(bucket, { last_by_subj: subject }))?.data ?? text(''),
      )
      const broken = content.map((part) => ({
        ...part,
        facts: part.facts.map((fact) => (fact.path === path ? { ...fact, payload: text('{}') } : fact)),
      }))
      if (!content.some(({ facts }) => facts.some((fact) => fact.path === path))) continue
      await put(subject, await encodePack(broken), 'application/octet-stream')
    }
    // It has read nothing before.
    const flow = await stage.connect()
    const left = (await factsOf(flow, runs.plain.id)).map(({ seq }) => seq)
    const wanted = before.facts.filter(({ kind }) => kind !== 'run.finished').map(({ seq }) => seq)
    expect(left).toEqual(expect.arrayContaining(wanted))
    expect(left.length).toBe(wanted.length + 1)
    expect((await flow.audit({ limit: 1000 })).length).toBeGreaterThan(0)
    expect(stage.lines.filter((line) => line.includes(`${namespace}.log.0.${path} cannot be read`))).toHaveLength(1)
  })
})
