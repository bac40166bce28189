import { jetstream, jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats, headers, type NatsConnection } from '@nats-io/transport-node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { verify } from '../../src/engine/verify/verify.ts'
import { asset, pipeline, type Run, type VerifyFinding, type VerifyReport } from '../../src/index.ts'
import { ServerClock } from '../../src/log/clock.ts'
import { Connection } from '../../src/log/connection.ts'
import { ensureTopology } from '../../streams/topology.ts'
import { collect } from '../kit/collect.ts'
import { useServer } from '../kit/fixture.ts'
import { factsOf, openStage, rejection, type Stage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })
let nc: NatsConnection

beforeAll(async () => {
  nc = await connectNats({ servers: server.url })
})
afterAll(() => nc.close())

const GATES = { secrets: [{ id: 'k1', secret: 'a secret of thirty-two bytes or more' }] }
const LARGE = 'x'.repeat(200_000)
let tries = 0

const first = asset('first', { execute: () => ({ n: tries++ }) })
const second = asset('second', { dependsOn: [first], execute: (_ctx, deps) => deps.first.n + 1 })
const large = asset('large', { execute: (ctx) => `${ctx.runId} ${LARGE}` })
const noise = asset('noise', {
  execute: (ctx) => Buffer.from(Array.from({ length: 100_000 }, (_, i) => (i * 7919 + ctx.runId.length * tries) % 251)),
})
const failing = asset('failing', {
  retry: { maxAttempts: 2, backoff: '10ms' },
  execute: () => {
    throw new Error('it is broken')
  },
})
const many = asset('many', {
  scatter: () => Array.from({ length: 300 }, (_, i) => i),
  scatterOptions: { failureMode: 'partial', failureThreshold: 1, retry: { maxAttempts: 1 } },
  execute: ({ scatterKey }) => {
    if (scatterKey === 7) throw new Error('no seven')
    return scatterKey
  },
  gather: async (results) => (await collect(results)).length,
})
const asks = asset('asks', {
  execute: (ctx) => ctx.signalGate({ timeout: '1h', correlationKey: `asks-${ctx.runId}` }),
  onSignal: (_ctx, payload) => ({ heard: payload }),
})
const calls = asset('calls', { execute: (ctx) => ctx.run(second, { key: 'called', upstream: 'all' }) })
const nobody = asset('nobody', { queue: 'nobody', execute: () => 1 })
const shop = pipeline('shop', [first, second, large, noise, failing, many, asks, calls, nobody])

/** The name of the stored value of a run, from the fact that has it. */
async function storedName({ flow }: Stage, run: Run): Promise<string> {
  for (const { data } of await factsOf(flow, run.id)) {
    const ref: unknown = 'value' in data ? Reflect.get(Object(data.value), 'ref') : undefined
    if (ref) return `${Reflect.get(Object(ref), 'hash')}${Reflect.get(Object(ref), 'encoding') ? '-zstd' : ''}`
  }
  throw new Error(`run ${run.id} has no stored value`)
}

async function someRuns({ flow }: Stage): Promise<Run[]> {
  const runs = await Promise.all([
    flow.materialize(second, { upstream: 'all', tags: { kind: 'a' }, timeout: '1h' }),
    flow.materialize(large),
    flow.materialize(noise),
    flow.materialize(failing),
    flow.materialize(many),
    flow.materialize(calls),
    flow.materialize(first, { concurrency: { key: 'one', limit: 1 } }),
    flow.materialize(first, { concurrency: { key: 'one', limit: 1 } }),
  ])
  for (const run of runs) await run.result().catch(() => undefined)
  return runs
}

/** What was done by hand to a stream: a message in the place of another one, or none. */
async function put(subject: string, data: Uint8Array | string, contentType = 'application/json'): Promise<void> {
  const h = headers()
  h.set('Content-Type', contentType)
  await jetstream(nc).publish(subject, data, { headers: h })
}

async function purge(stream: string, filter: string): Promise<void> {
  const { purged } = await (await jetstreamManager(nc)).streams.purge(stream, { filter })
  expect(purged, filter).toBeGreaterThan(0)
}

async function read(stream: string, subject: string): Promise<{ data: Uint8Array; text: string }> {
  const found = await (await jetstreamManager(nc)).streams.getMessage(stream, { last_by_subj: subject })
  if (!found) throw new Error(`there is no ${subject}`)
  return { data: found.data, text: new TextDecoder().decode(found.data) }
}

/** As `flow.verify`, for what happened a moment ago. */
async function verifyNow({ namespace }: Stage): Promise<VerifyReport> {
  const connection = await Connection.open({ servers: server.url })
  try {
    const topology = await ensureTopology(connection.nc, { namespace })
    const clock = new ServerClock(connection, topology.names.kvStream(topology.names.controlBucket))
    await clock.ready()
    return await verify({ connection, ...topology, clock, graceMs: 0 }, {})
  } finally {
    await connection.close()
  }
}

describe('verifying a namespace', () => {
  let stage: Stage
  let sealed: Run[]

  beforeAll(async () => {
    stage = await openStage(server.url, shop, { sealAfter: '1s', gates: GATES, worker: { queues: ['default'] } })
    sealed = await someRuns(stage)
  })
  afterAll(() => stage[Symbol.asyncDispose]())

  it('finds nothing while work goes on and runs are sealed', async () => {
    const { flow } = stage
    const open = await flow.materialize(asks, { key: 'asks' })
    let isOver = false
    const working = (async () => {
      while (!isOver) await someRuns(stage)
    })()
    const seen = new Set<string>()
    const looked: VerifyReport[] = []
    for (let i = 0; i < 2; i++) looked.push(await flow.verify({ onProgress: ({ step }) => seen.add(step) }))
    isOver = true
    await working
    for (const report of looked) expect(report).toMatchObject({ findings: [], ok: true, more: 0, notes: [] })
    expect([...seen]).toEqual(expect.arrayContaining(['reading the log', 'reading the state']))
    expect((await open.status())?.status).toBe('running')
  })

  it('names each thing that was damaged, and what to do', async () => {
    const { flow, namespace: ns, engine, worker } = stage
    await until('all are sealed', async () => {
      const report = await flow.verify({ only: ['history'] })
      return (report.checks[0]?.looked.runs ?? 0) >= sealed.length
    })
    await engine?.stop()
    const keeping = await flow.engine({ sealAfter: 'never' })
    await keeping.active
    const [changed, lost] = [await flow.materialize(first), await flow.materialize(first)]
    await Promise.all([changed.result(), lost.result()])
    const [kept, gone] = [await flow.materialize(large), await flow.materialize(large)]
    await Promise.all([kept.result(), gone.result()])
    const waits = await flow.materialize(nobody)
    await until('its task is there', async () => (await waits.status())?.assets.nobody?.status === 'queued')
    const gate = (await flow.gates.list((await flow.materialize(asks, { key: 'asks' })).id))[0]?.id
    const twice = `asset.shop.first.${changed.id}.end.materialized`
    await put(`${ns}.log.0.${twice}`, (await read(`${ns}_LOG_0`, `${ns}.log.0.${twice}`)).data)
    await until('the state shows the ends', async () => (await gone.view())?.finishedAt !== undefined)
    await worker?.stop()
    await keeping.stop()

    const [log, state, history] = [`${ns}_LOG_0`, `KV_${ns}_state_0`, `KV_${ns}_history_0`]
    const key = (of: string): string => `$KV.${ns}_state_0.${of}`
    const doc = await read(state, key(`run.${changed.id}`))
    await put(key(`run.${changed.id}`), doc.text.replace('"succeeded"', '"failed"'))
    await purge(state, key('newest.shop'))
    await put(key(`barrier.${changed.id}.first`), '{"seq":1}')
    await purge(log, `${ns}.log.0.asset.shop.first.${lost.id}.end.materialized`)
    await purge(log, `${ns}.log.0.gate.${gate}.timer`)
    await purge(`${ns}_WORK_0`, `${ns}.work.0.>`)
    await put(`$KV.${ns}_history_0.pack.0`, 'no pack', 'application/octet-stream')
    const index = await (await jetstreamManager(nc)).streams.info(history, {
      subjects_filter: `$KV.${ns}_history_0.index.>`,
    })
    // Older segments may be about to go.
    const page = Object.keys(index.state.subjects ?? {})
      .toSorted((a, b) => Number(a.split('.').at(-2)) - Number(b.split('.').at(-2)))
      .at(-1)
    await put(page ?? '', Buffer.alloc(24, 0xff), 'application/octet-stream')
    const [keptName, goneName] = [await storedName(stage, kept), await storedName(stage, gone)]
    const meta = (name: string): string => `$O.${ns}_blobs.M.${Buffer.from(name).toString('base64url')}`
    await purge(`OBJ_${ns}_blobs`, meta(goneName))
    const { nuid, size } = JSON.parse((await read(`OBJ_${ns}_blobs`, meta(keptName))).text) as {
      nuid: string
      size: number
    }
    await purge(`OBJ_${ns}_blobs`, `$O.${ns}_blobs.C.${nuid}`)
    await put(`$O.${ns}_blobs.C.${nuid}`, Buffer.alloc(size))

    const { findings, ok } = await verifyNow(stage)
    expect(ok).toBe(false)
    const found = (kind: string): VerifyFinding[] => findings.filter((finding) => finding.kind === kind)
    for (const { advice, message } of findings) expect([advice, message]).not.toContain('')
    expect(found('document_differs')).toContainEqual(
      expect.objectContaining({
        document: `run.${changed.id}`,
        field: 'status',
        expected: 'succeeded',
        found: 'failed',
      }),
    )
    expect(found('document_missing')).toMatchObject([{ check: 'state', document: 'newest.shop' }])
    expect(found('document_unexpected')).toMatchObject([{ document: `barrier.${changed.id}.first` }])
    const path = `asset.shop.first.${lost.id}.end.materialized`
    expect(found('fact_missing')).toContainEqual(expect.objectContaining({ fact: path, document: `run.${lost.id}` }))
    expect(found('fact_twice')).toMatchObject([{ check: 'facts', fact: twice }])
    expect(found('pack_damaged')).toMatchObject([{ check: 'history', document: 'pack.0' }])
    expect(found('page_damaged')).toMatchObject([{ document: (page ?? '').slice(`$KV.${ns}_history_0.`.length) }])
    expect(found('value_missing')).toMatchObject([{ check: 'values', value: goneName }])
    expect(found('value_damaged')).toMatchObject([{ value: keptName }])
    expect(found('task_missing')).toMatchObject([{ check: 'open', document: `run.${waits.id}` }])
    expect(found('schedule_missing')).toMatchObject([{ fact: `gate.${gate}.timer` }])
    // All else follows from these.
    const kinds = new Set(findings.map(({ kind }) => kind))
    expect([...kinds].toSorted()).toEqual([
      'document_differs',
      'document_missing',
      'document_unexpected',
      'fact_missing',
      'fact_twice',
      'index_incomplete',
      'pack_damaged',
      'page_damaged',
      'schedule_missing',
      'task_missing',
      'value_damaged',
      'value_missing',
    ])
    const short = await flow.verify({ only: ['history', 'values'], limit: 2 })
    expect([short.findings.length, short.more, short.ok]).toEqual([2, 3, false])

    // What nobody could look at is not fine, though nothing was found.
    const withoutPack = await flow.verify({ only: ['values'] })
    expect(withoutPack.notes).toContainEqual(
      expect.stringMatching(/^could not look at pack\.0 of the history of shard 0: /),
    )
    await purge(state, key('engine'))
    for (const only of ['state', 'open'] as const) {
      const { notes, ...report } = await flow.verify({ only: [only] })
      expect([only, report]).toMatchObject([only, { findings: [], ok: false }])
      expect(notes).toEqual([expect.stringMatching(/^could not look at the state of shard 0: it has none yet/)])
    }
    await purge(history, `$KV.${ns}_history_0.manifest`)
    const withoutManifest = await flow.verify({ only: ['history'] })
    expect(withoutManifest).toMatchObject({ ok: false, findings: [{ kind: 'manifest_missing', document: 'manifest' }] })
    expect(await flow.verify({ only: ['values'] })).toMatchObject({
      notes: ['could not look at the history of shard 0: its manifest is gone'],
    })
  })

  it('refuses a check that there is none of, and a rate that is no number', async () => {
    const { flow } = stage
    expect((await rejection(flow.verify({ only: ['stat' as 'state'] }))).message).toContain('did you mean state?')
    expect(await rejection(flow.verify({ rate: 0 }))).toMatchObject({ code: 'invalid' })
    const signal = AbortSignal.abort(new Error('no more'))
    expect((await rejection(flow.verify({ signal }))).message).toBe('no more')
  })
})

it('schedules behind what is folded hide no place that an earlier one has left', async () => {
  const begin = Promise.withResolvers<void>()
  const quick = asset('quick', { execute: () => 1 })
  const late = asset('late', {
    execute: async (ctx) => {
      await begin.promise
      return ctx.signalGate({ timeout: '1h' })
    },
  })
  await using stage = await openStage(server.url, pipeline('p', [quick, late]), { gates: GATES })
  const { flow, engine } = stage
  // Its end takes its time limit off the log.
  await (await flow.materialize(quick, { timeout: '1h' })).result()
  const run = await flow.materialize(late)
  await until('it runs', async () => (await factsOf(flow, run.id)).some(({ kind }) => kind === 'asset.started'))
  await engine?.stop()
  begin.resolve()
  await until('its gate is open', async () => (await factsOf(flow, run.id)).some(({ kind }) => kind === 'gate.created'))
  const { findings } = await flow.verify()
  expect(findings.filter(({ kind }) => kind === 'log_has_holes')).toEqual([])
})
