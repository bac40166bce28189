import { afterAll, beforeAll, expect, it } from 'vitest'
import { countStates, decodeStates, INSTANCE_STATES } from '../../projections/scatter/map.ts'
import { openApi } from '../../src/http/api/openapi.ts'
import { BASE, ROUTES } from '../../src/http/api/table.ts'
import { type GateServer, serveGates } from '../../src/http/index.ts'
import { newApiKey } from '../../src/http/shared/api-keys.ts'
import { asset, pipeline } from '../../src/index.ts'
import { Publisher } from '../events/kit.ts'
import { useServer } from '../kit/fixture.ts'
import { listeningLogger, openStage, type Stage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { ApiClient, code, liveEvents, orders } from './api-kit.ts'
import { request, SECRETS } from './kit.ts'

const keys = { admin: newApiKey(), viewer: newApiKey(), operator: newApiKey(), narrow: newApiKey() }
const server = useServer()
const logger = listeningLogger()
let stage: Stage
let http: GateServer
let local: GateServer
let api: ApiClient
let publisher: Publisher
/** Runs of the set-up: by the asset that they make. */
const runs: Record<string, string> = {}
/** When the set-up was done, and nothing else. */
let then: string

beforeAll(async () => {
  publisher = await Publisher.connect(server.url)
  await publisher.stream('INCOMING', ['incoming'])
  stage = await openStage(server.url, orders('INCOMING'), { gates: { secrets: SECRETS } })
  const { flow } = stage
  http = await serveGates(flow, {
    port: 0,
    logger,
    api: true,
    rateLimit: { key: false },
    apiKeys: [
      { id: 'admin', hash: keys.admin.hash, assets: ['*/*'], role: 'admin' },
      { id: 'viewer', hash: keys.viewer.hash, assets: ['*/*'], role: 'viewer' },
      { id: 'operator', hash: keys.operator.hash, assets: ['*/*'], role: 'operator' },
      { id: 'narrow', hash: keys.narrow.hash, assets: ['orders/report'], role: 'operator' },
    ],
  })
  local = await serveGates(flow, { port: 0, logger, api: true })
  api = new ApiClient(http.url, keys.admin.key)
  publisher.send('incoming', 'no json')
  for (const name of ['items', 'checked', 'broken', 'held', 'report', 'invoice']) {
    const input = name === 'invoice' ? { input: { order: { id: 'o-1', total: 12 } } } : {}
    runs[name] = (await flow.request(`orders/${name}`, { ...input, tags: { set: 'up' } })).id
  }
  await flow.run(runs.report ?? '').result()
  await flow.run(runs.invoice ?? '').result()
  await until('the scatter has come to its gate', async () => {
    const { suspended, failed, succeeded } = await flow.scatter.status(`${runs.items}.items`)
    return suspended === 1 && failed === 4 && succeeded === 95
  })
  await until('gates wait, a slot is held, a message is refused, and a run has failed', async () => {
    const [gates, { slots }, refused, failed] = await Promise.all([
      flow.gates.waiting(),
      flow.limiter.status('press'),
      flow.events.refused(),
      flow.runs({ status: 'failed' }),
    ])
    return gates.length === 2 && slots?.count === 1 && refused.length === 1 && failed.length === 1
  })
  then = new Date().toISOString()
})

afterAll(async () => {
  // Else its worker would wait for it.
  for (const { id } of (await stage?.flow.runs({ open: true })) ?? []) await stage.flow.run(id).cancel()
  await http?.close()
  await local?.close()
  await publisher?.[Symbol.asyncDispose]()
  await stage?.[Symbol.asyncDispose]()
})

it('the first look shows who asks, what runs and why it waits, what waits for people, and what failed', async () => {
  expect((await api.get('/me')).body).toMatchObject({ key: 'admin', may: ['read', 'start', 'operate', 'administer'] })
  const { body } = await api.get('/home')
  expect(body).toMatchObject({
    runs: { open: 3, more: false },
    gates: { waiting: 2, more: false },
    failed: [{ id: runs.broken, assets: { broken: { status: 'failed', error: { message: 'no paper' } } } }],
    due: [{ name: 'orders/nightly' }],
    scatters: [{ id: `${runs.items}.items`, suspended: 1 }],
    problems: [],
  })
  expect(body.throughput).toHaveLength(60)
  const counted = (body.throughput as { facts: number; failed: boolean }[]).reduce((sum, { facts }) => sum + facts, 0)
  expect(counted).toBeGreaterThan(20)
  expect((body.throughput as { failed: boolean }[]).some(({ failed }) => failed)).toBe(true)
})

it('assets are shown with their graph, state and newest value', async () => {
  expect((await api.get('/pipelines')).body).toMatchObject({ pipelines: [{ name: 'orders', schedules: ['nightly'] }] })
  expect((await api.get('/pipelines/:pipeline', { params: { pipeline: 'orders' } })).body).toMatchObject({
    assets: expect.arrayContaining([
      expect.objectContaining({ name: 'invoice', dependsOn: ['order'], kind: 'asset' }),
      expect.objectContaining({ name: 'items', kind: 'scatter', maxAttempts: 1 }),
      expect.objectContaining({ name: 'held', limits: ['press'] }),
    ]),
  })
  const { body } = await api.get('/assets', { query: { pipeline: 'orders' } })
  const states = Object.fromEntries(
    (body.assets as { name: string; state: string }[]).map((one) => [one.name, one.state]),
  )
  expect(states).toEqual({
    order: 'none',
    invoice: 'made',
    items: 'running',
    checked: 'gate',
    broken: 'failed',
    held: 'running',
    report: 'made',
  })
  expect((await api.get('/assets', { query: { q: 'inv', state: 'failed' } })).body).toEqual({ assets: [] })
  const params = { pipeline: 'orders', asset: 'invoice' }
  expect((await api.get('/assets/:pipeline/:asset', { params })).body).toMatchObject({
    asset: { newest: { run: runs.invoice, partition: '' }, partitions: 1 },
    runs: [{ id: runs.invoice }],
  })
  expect((await api.get('/assets/:pipeline/:asset/partitions', { params })).body).toEqual({
    partitions: [''],
    total: 1,
  })
  const typo = { params: { pipeline: 'orders', asset: 'invoise' } }
  for (const path of ['/assets/:pipeline/:asset/partitions', '/assets/:pipeline/:asset/value'])
    expect(await api.get(path, typo), path).toMatchObject({
      status: 404,
      body: { reason: 'unknown_asset', detail: 'There is no asset orders/invoise; did you mean invoice?' },
    })
  const value = { of: 'o-1', cents: { $bigint: '1200' } }
  expect((await api.get('/assets/:pipeline/:asset/value', { params })).body).toMatchObject({ run: runs.invoice, value })
  const cut = await api.get('/assets/:pipeline/:asset/value', { params, query: { maxBytes: '5' } })
  expect(cut.body).toMatchObject({ preview: '{"of"', bytes: JSON.stringify(value).length })
})

it('runs are found by filters and pages, and one is shown with scatters, gates, timeline, input and facts', async () => {
  const all = await api.get('/runs', { query: { tag: 'set=up' } })
  expect((all.body.runs as { id: string }[]).map(({ id }) => id).toSorted()).toEqual(Object.values(runs).toSorted())
  const first = await api.get('/runs', { query: { tag: 'set=up', limit: '4' } })
  const second = await api.get('/runs', { query: { tag: 'set=up', limit: '4', cursor: String(first.body.next) } })
  expect([...(first.body.runs as []), ...(second.body.runs as [])]).toEqual(all.body.runs)
  expect(second.body.next).toBeUndefined()
  expect((await api.get('/runs', { query: { status: ['failed', 'cancelled'] } })).body.runs).toHaveLength(1)
  const { body } = await api.get('/runs/:run', { params: { run: runs.items ?? '' } })
  expect(body).toMatchObject({
    run: { id: runs.items, assets: { items: { status: 'scattering' } } },
    scatters: [{ id: `${runs.items}.items`, stored: 100, failed: 4 }],
    gates: [{ status: 'waiting', index: 50 }],
    timeline: expect.arrayContaining([expect.objectContaining({ kind: 'scatter', asset: 'items' })]),
  })
  const held = await api.get('/runs/:run', { params: { run: runs.held ?? '' } })
  expect(held.body.timeline).toMatchObject([{ kind: 'attempt', asset: 'held', attempt: 1 }])
  const params = { run: runs.invoice ?? '' }
  expect((await api.get('/runs/:run/input', { params })).body).toEqual({ input: { order: { id: 'o-1', total: 12 } } })
  const facts = (await api.get('/runs/:run/history', { params })).body.facts as { kind: string; seq: number }[]
  // Only of attempts that take a while.
  const kinds = facts.map(({ kind }) => kind).filter((kind) => kind !== 'asset.started')
  expect(kinds).toEqual(['run.requested', 'asset.materialized', 'run.finished'])
  const query = { cursor: String(facts[0]?.seq), limit: '1' }
  expect((await api.get('/runs/:run/history', { params, query })).body.facts).toEqual([facts[1]])
})

it('what the code of a run logged is shown by page, filtered, and only for who sees the run', async () => {
  const params = { run: runs.invoice ?? '' }
  const logs = async (query: Record<string, string> = {}) =>
    (await api.get('/runs/:run/logs', { params, query })).body as { lines: object[]; next: string; more: boolean }
  await until('the lines are stored', async () => (await logs()).lines.length === 2)
  const of = { run: runs.invoice, pipeline: 'orders', asset: 'invoice', phase: 'execute', attempt: 1 }
  const lines = [
    { ...of, level: 'info', message: 'writes an invoice', fields: { of: 'o-1' } },
    { ...of, level: 'warn', message: 'no paper' },
  ]
  const all = await logs()
  expect(all).toMatchObject({ lines, more: false })
  expect(await logs({ level: 'warn', asset: 'invoice' })).toMatchObject({ lines: [lines[1]] })
  const first = await logs({ limit: '1' })
  expect(first).toMatchObject({ lines: [lines[0]], more: true })
  expect(await logs({ cursor: first.next })).toMatchObject({ lines: [lines[1]], more: false })
  expect(await logs({ cursor: all.next })).toMatchObject({ lines: [], next: all.next })
  expect(await api.get('/runs/:run/logs', { params, query: { asset: 'invoise' } })).toMatchObject({
    status: 404,
    body: { detail: expect.stringContaining('has no asset invoise; did you mean invoice?') },
  })
  expect(await api.get('/runs/:run/logs', { params, key: keys.narrow.key })).toMatchObject({ status: 404 })
  for (const [query, status] of [
    [{ instance: '1' }, 422],
    [{ cursor: 'x' }, 422],
    [{ level: 'loud' }, 400],
  ] as const)
    expect(await api.get('/runs/:run/logs', { params, query })).toMatchObject({ status })
})

it('a scatter is shown by counts, map, tiles, failures, errors and instances while it is open', async () => {
  const params = { scatter: `${runs.items}.items` }
  expect((await api.get('/scatters/:scatter', { params })).body).toMatchObject({
    status: 'open',
    failed: 4,
    suspended: 1,
  })
  const map = (await api.get('/scatters/:scatter/map', { params })).body
  expect(map).toMatchObject({ stored: 100, from: 0, length: 100, counts: [0, 0, 95, 4, 0, 1, 0] })
  const states = [...decodeStates(Buffer.from(String(map.runs), 'base64'))].map((state) => INSTANCE_STATES[state])
  expect(states).toEqual(Array.from({ length: 100 }, (_, n) => (n === 50 ? 'gate' : n % 30 === 7 ? 'failed' : 'done')))
  const part = (await api.get('/scatters/:scatter/map', { params, query: { from: '50', to: '52' } })).body
  expect([...decodeStates(Buffer.from(String(part.runs), 'base64'))]).toEqual([5, 2])
  expect((await api.get('/scatters/:scatter/tiles', { params, query: { size: '1000' } })).body.tiles).toEqual([
    { from: 0, to: 100, counts: map.counts },
  ])
  const failures = (await api.get('/scatters/:scatter/failures', { params, query: { limit: '3' } })).body
  expect(failures).toMatchObject({
    failures: [{ index: 7, key: 'item-7', error: { message: 'no stock of item 7' } }, { index: 37 }, { index: 67 }],
    next: '68',
  })
  const rest = (await api.get('/scatters/:scatter/failures', { params, query: { cursor: '68' } })).body
  expect(rest).toMatchObject({ failures: [{ index: 97, key: 'item-97' }] })
  const { errors } = (await api.get('/scatters/:scatter/errors', { params })).body as { errors: { spread: number[] }[] }
  expect(errors).toMatchObject([{ count: 4, message: 'no stock of item 7', instances: [7, 37, 67, 97] }])
  expect(errors[0]?.spread.flatMap((count, at) => (count > 0 ? [at] : []))).toEqual([7, 37, 67, 97])
  const instance = (index: number) => api.get('/scatters/:scatter/instances/:index', { params: { ...params, index } })
  expect((await instance(37)).body).toMatchObject({
    key: 'item-37',
    state: 'failed',
    attempts: [{ outcome: 'error', error: { message: 'no stock of item 37' } }],
    complete: true,
  })
  expect((await instance(50)).body).toMatchObject({ state: 'gate', attempts: [{ outcome: 'gate' }] })
  expect((await instance(100)).body).toMatchObject({ status: 404, reason: 'unknown_id' })
})

it('gates, limits, schedules, sensors, subscriptions, workers and engines are shown', async () => {
  const { gates } = (await api.get('/gates')).body as { gates: { id: string; kind: string }[] }
  expect(gates.map(({ kind }) => kind)).toEqual(['approval', 'signal'])
  const first = (await api.get('/gates', { query: { limit: '1' } })).body
  expect((await api.get('/gates', { query: { limit: '1', cursor: String(first.next) } })).body.gates).toEqual([
    gates[1],
  ])
  expect((await api.get('/gates/:gate', { params: { gate: gates[0]?.id ?? '' } })).body).toMatchObject(gates[0] ?? {})
  expect((await api.get('/limits', { query: { prefix: 'pr' } })).body).toMatchObject({
    limits: [{ bucket: 'press', slots: { limit: 1, count: 1, holders: [{ by: `${runs.held}.held` }], queue: [] } }],
  })
  expect((await api.get('/limits/:bucket', { params: { bucket: 'none/of these' } })).body).toEqual({
    bucket: 'none/of these',
  })
  expect((await api.get('/schedules')).body).toMatchObject({ schedules: [{ name: 'orders/nightly', state: 'active' }] })
  const nightly = { pipeline: 'orders', schedule: 'nightly' }
  expect((await api.get('/schedules/:pipeline/:schedule', { params: nightly })).body).toMatchObject({
    target: 'report',
  })
  const occurrences = (await api.get('/schedules/:pipeline/:schedule/occurrences', { params: nightly })).body
  expect(occurrences).toMatchObject({ occurrences: [], next: { length: 10 } })
  const three = { params: nightly, query: { next: '3' } }
  expect((await api.get('/schedules/:pipeline/:schedule/occurrences', three)).body.next).toHaveLength(3)
  expect((await api.get('/sensors')).body).toMatchObject({ sensors: [{ name: 'orders/files' }] })
  const files = { pipeline: 'orders', sensor: 'files' }
  expect((await api.get('/sensors/:pipeline/:sensor', { params: files })).body).toMatchObject({ everyMs: 3_600_000 })
  expect((await api.get('/subscriptions')).body).toMatchObject({
    subscriptions: [{ name: 'orders/incoming', refused: 1 }],
  })
  const incoming = { pipeline: 'orders', subscription: 'incoming' }
  const refused = (await api.get('/subscriptions/:pipeline/:subscription/refused', { params: incoming })).body
  expect(refused).toMatchObject({ refused: [{ seq: 1, stream: 'INCOMING' }] })
  expect((await api.get('/triggers/refused')).body).toEqual({ refused: [] })
  expect((await api.get('/workers')).body).toMatchObject({
    workers: [
      {
        state: 'answers',
        pipelines: [{ name: 'orders', queues: ['default'], running: expect.arrayContaining(['held']) }],
        loopDelayMs: expect.any(Number),
      },
    ],
    engines: [{ id: stage.engine?.id, active: [0] }],
    shards: [{ shard: 0, engine: stage.engine?.id }],
  })
  expect((await api.get('/engines')).body).toMatchObject({ shards: [{ shard: 0 }] })
})

it('the log is shown newest first, by kind, run, pipeline and time, in pages without gap or repeat', async () => {
  interface Shown {
    readonly facts: {
      readonly seq: number
      readonly kind: string
      readonly at: string
      readonly ids: Record<string, string>
    }[]
    readonly next?: string
  }
  const read = async (query: Record<string, string | string[]>): Promise<Shown> =>
    (await api.get('/log', { query })).body as unknown as Shown
  const all = await read({ limit: '500' })
  expect(all.next).toBeUndefined()
  // Nothing of it is sealed.
  expect(all).not.toHaveProperty('sealedBefore')
  expect(all.facts.map(({ seq }) => seq)).toEqual(all.facts.map(({ seq }) => seq).toSorted((a, b) => b - a))
  const paged: Shown['facts'] = []
  for (let cursor: string | undefined = ''; cursor !== undefined; ) {
    const page: Shown = await read({ limit: '7', ...(cursor === '' ? {} : { cursor }) })
    paged.push(...page.facts)
    cursor = page.next
  }
  expect(paged.map(({ seq }) => seq)).toEqual(all.facts.map(({ seq }) => seq))
  const ends = await read({ kind: ['run.finished', 'asset.failed'] })
  expect(new Set(ends.facts.map(({ kind }) => kind))).toEqual(new Set(['asset.failed', 'run.finished']))
  expect(ends.facts.map(({ ids }) => ids.run)).toEqual(expect.arrayContaining([runs.broken, runs.invoice, runs.report]))
  const ofRun = await read({ run: runs.invoice ?? '' })
  expect(ofRun.facts.every(({ ids }) => ids.run === runs.invoice)).toBe(true)
  const ofAsset = await read({ asset: 'items', limit: '500' })
  expect(ofAsset.facts.length).toBeGreaterThan(2)
  expect(ofAsset.facts.every(({ ids }) => ids.asset === 'items')).toBe(true)
  expect((await read({ asset: 'items', kind: ['pipeline.registered', 'run.finished'] })).facts).toEqual([])
  const ofPipeline = await read({ pipeline: 'orders', limit: '500' })
  expect(ofPipeline.facts.map(({ kind }) => kind)).toContain('pipeline.registered')
  const middle = all.facts[Math.floor(all.facts.length / 2)]
  const since = await read({ since: middle?.at ?? '', limit: '500' })
  const untilThen = await read({ until: middle?.at ?? '', limit: '500' })
  expect(since.facts.map(({ seq }) => seq)).toContain(middle?.seq)
  expect(new Set([...since.facts, ...untilThen.facts].map(({ seq }) => seq)).size).toBe(all.facts.length)
  const { points } = (await api.get('/log/rail', { query: { points: '10' } })).body as { points: { facts: number }[] }
  expect(points).toHaveLength(10)
})

it('a key sees what its assets and its role allow, and nothing without one', async () => {
  const as = (key: keyof typeof keys) => ({ key: keys[key].key })
  expect((await api.get('/runs', { ...as('narrow'), query: { limit: '100' } })).body.runs).toMatchObject([
    { id: runs.report },
  ])
  // It hears of no names beside its own.
  const lists = async (key: keyof typeof keys) =>
    await api.get('/runs', { ...as(key), query: { target: 'orders/invoise' } })
  expect((await lists('narrow')).body.runs).toEqual([])
  expect(await lists('viewer')).toMatchObject({
    status: 404,
    body: { detail: expect.stringContaining('mean invoice?') },
  })
  expect((await api.get('/gates', as('narrow'))).body.gates).toEqual([])
  expect((await api.get('/home', as('narrow'))).body).toMatchObject({ runs: { open: 0 }, failed: [] })
  expect((await api.get('/assets', as('narrow'))).body.assets).toMatchObject([{ name: 'report' }])
  for (const [path, params] of [
    ['/runs/:run', { run: runs.items ?? '' }],
    ['/runs/:run/history', { run: runs.items ?? '' }],
    ['/runs/:run/logs', { run: runs.items ?? '' }],
    ['/scatters/:scatter', { scatter: `${runs.items}.items` }],
    ['/assets/:pipeline/:asset/value', { pipeline: 'orders', asset: 'invoice' }],
    ['/subscriptions/:pipeline/:subscription/refused', { pipeline: 'orders', subscription: 'incoming' }],
  ] as const)
    expect(await api.get(path, { ...as('narrow'), params }), path).toMatchObject({ status: 404 })
  for (const path of ROUTES.filter(({ wide, path }) => wide && !path.includes(':')).map(({ path }) => path))
    expect(await api.get(path, as('narrow')), path).toMatchObject({ status: 403, body: { reason: 'forbidden' } })
  for (const headers of [{}, { Authorization: `Bearer ${newApiKey().key}` }])
    expect(await request(`${http.url}${BASE}/runs`, { headers })).toMatchObject({
      status: 401,
      body: { reason: 'unauthorized' },
    })
})

it('facts come live, and a client that connects again gets those since its last event', async () => {
  const { flow } = stage
  const read = async (last: string | undefined, act: () => Promise<string>): Promise<string> => {
    let run: string | undefined
    let isSkipped = false
    for await (const { id, event, data } of liveEvents(api, keys.viewer.key, 'facts=true', last)) {
      expect(event).toBe('facts')
      isSkipped ||= data.skipped === true
      run ??= await act()
      const facts = data.facts as { kind: string; ids: { run?: string } }[]
      const ended = facts.some(({ kind, ids }) => kind === 'run.finished' && ids.run === run)
      if (ended) return id
    }
    throw new Error(`the stream has ended${isSkipped ? ', and has left facts out' : ''}`)
  }
  const start = async (): Promise<string> => (await flow.request('orders/report')).id
  const last = await read(undefined, start)
  expect(last).toMatch(/^\d+\/\d+$/)
  const missed = await start()
  await flow.run(missed).result()
  await until('it is folded', async () => (await flow.run(missed).view())?.finishedAt !== undefined)
  await read(last, async () => missed)
  const narrow = await request(`${http.url}${BASE}/live?facts=true`, {
    headers: { Authorization: `Bearer ${keys.narrow.key}` },
  })
  expect(narrow).toMatchObject({ status: 403, body: { reason: 'forbidden' } })
})

it('live updates bring a map, its changes, runs and gates, and end with the server', async () => {
  const { flow } = stage
  const run = (await flow.request('orders/items')).id
  const scatter = `${run}.items`
  await until('it is there', async () => (await flow.scatter.status(scatter)).stored >= 0)
  let states = new Uint8Array()
  const seen = new Set<string>()
  let isCancelled = false
  const query = new URLSearchParams([...Object.entries({ scatter, run, runs: 'true', gates: 'true' })])
  for await (const { event, data } of liveEvents(api, keys.viewer.key, String(query))) {
    seen.add(event)
    if (event !== 'map' && event !== 'ranges') continue
    const { from = 0, length = 0, counts = [] } = data
    const grown = new Uint8Array(Math.max(states.length, from + length))
    grown.set(states)
    grown.set(decodeStates(Buffer.from(String(data.runs), 'base64'), grown.slice(from, from + length)), from)
    states = grown
    expect(countStates(states)).toEqual(counts)
    if (counts[5] === 1 && !isCancelled) {
      isCancelled = true
      await flow.run(run).cancel()
    }
    if (counts[6] === 1) break
  }
  expect([...seen].toSorted()).toEqual(['gates', 'map', 'ranges', 'run', 'runs'])
  expect(await api.get('/live', { query: { scatter: 'x'.repeat(9) } })).toMatchObject({ status: 404 })
  expect(await api.get('/live', { query: { run }, key: keys.narrow.key })).toMatchObject({ status: 404 })
  // A server that closes does not wait for those who listen.
  const other = await serveGates(flow, { port: 0, logger, api: true })
  const listening = liveEvents(new ApiClient(other.url, ''), 'none', 'gates=true')
  await expect(listening.next()).rejects.toThrow()
  const local = await request(`${other.url}${BASE}/me`)
  expect(local.status).toBe(200)
  const answer = await fetch(`${other.url}${BASE}/live?gates=true`)
  const body = answer.text()
  await other.close()
  // Cut off, it would be rejected.
  expect(await body).toMatch(/^$|^id: 1\nevent: gates\n/)
})

it('runs are started once for a key, cancelled, tried again, and moved to another version', async () => {
  const { flow } = stage
  const body = {
    target: 'orders/invoice',
    input: { order: { id: 'o-9', total: 1 } },
    tags: { by: 'api' },
    upstream: 'all',
  }
  const headers = { 'Idempotency-Key': 'once' }
  const first = await api.post('/runs', { body, headers })
  expect(first.body).toMatchObject({ isNew: true })
  expect((await api.post('/runs', { body, headers })).body).toEqual({ run: first.body.run, isNew: false })
  expect(await api.post('/runs', { body: { ...body, partition: 'p' }, headers })).toMatchObject({
    status: 409,
    body: { reason: 'conflict' },
  })
  const wrong = await api.post('/runs', { body: { ...body, input: { order: { id: 1 } } } })
  expect(wrong).toMatchObject({
    status: 422,
    body: { reason: 'invalid_input', detail: expect.stringContaining('order') },
  })
  expect(await api.post('/runs', { body: { target: 'orders/none' } })).toMatchObject({ status: 404 })
  expect(await api.post('/runs', { body: { traget: 'x' } })).toMatchObject({ status: 422, body: { field: 'target' } })
  const held = { run: runs.held ?? '' }
  await api.post('/runs/:run/cancel', { params: held, body: { reason: 'enough' } })
  await until('it is cancelled', async () => (await flow.run(held.run).view())?.status === 'cancelled')
  const again = await api.post('/runs/:run/retry', { params: held, body: {} })
  expect(again.body).toMatchObject({ isNew: true })
  expect(await api.post('/runs/:run/retry', { params: { run: String(again.body.run) } })).toMatchObject({
    status: 409,
    body: { reason: 'conflict', detail: expect.stringContaining('still open') },
  })
  await api.post('/runs/:run/cancel', { params: { run: String(again.body.run) } })
  await flow.register(orders('INCOMING', 2))
  const adopted = await api.post('/runs/:run/adopt', { params: { run: runs.checked ?? '' } })
  expect(adopted.body).toMatchObject({ run: runs.checked, added: [] })
})

it('gates are extended, answered once for a key, and cancelled; their run shows who did it', async () => {
  const { flow } = stage
  const [approval, signal] = await flow.gates.waiting()
  const params = { gate: approval?.id ?? '' }
  const { deadline } = (await api.post('/gates/:gate/extend', { params, body: { duration: '3h' } })).body
  expect(Date.parse(String(deadline))).toBeGreaterThan(Date.now() + 2 * 3_600_000)
  expect(await api.post('/gates/:gate/extend', { params, body: { duration: 'soon' } })).toMatchObject({ status: 422 })
  expect(await api.post('/gates/:gate/signal', { params, body: { payload: { ok: 1 } } })).toMatchObject({
    status: 422,
    body: { reason: 'invalid_payload' },
  })
  const body = { payload: { approved: true, comment: 'fine' } }
  const headers = { 'Idempotency-Key': 'yes' }
  const answer = { status: 'accepted', gate: params.gate }
  expect((await api.post('/gates/:gate/signal', { params, body, headers })).body).toEqual({
    ...answer,
    repeated: false,
  })
  expect((await api.post('/gates/:gate/signal', { params, body, headers })).body).toEqual({ ...answer, repeated: true })
  expect(await api.post('/gates/:gate/signal', { params, body })).toMatchObject({
    status: 409,
    body: { reason: 'already_signaled' },
  })
  expect((await api.get('/gates/:gate', { params })).body).toMatchObject({
    status: 'signaled',
    signal: { payload: body.payload, source: 'http:admin' },
  })
  await api.post('/gates/:gate/cancel', { params: { gate: signal?.id ?? '' }, body: { reason: 'no' } })
  expect((await api.get('/gates/:gate', { params: { gate: signal?.id ?? '' } })).body).toMatchObject({
    status: 'cancelled',
    reason: 'no',
  })
})

it('a scatter is redriven, paused, resumed and cancelled', async () => {
  const { flow } = stage
  const before = `${runs.items}.items`
  await until('the scatter is closed', async () => (await flow.scatter.status(before)).status !== 'open')
  const redriven = await api.post('/scatters/:scatter/redrive', { params: { scatter: before } })
  const scatter = `${redriven.body.run}.items`
  const params = { scatter }
  await until('the redrive waits', async () => (await flow.scatter.status(scatter)).suspended === 1)
  expect(await api.post('/scatters/:scatter/redrive', { params })).toMatchObject({ status: 409 })
  await api.post('/scatters/:scatter/pause', { params, body: { reason: 'lunch' } })
  await until('it is paused', async () => (await flow.scatter.status(scatter)).paused?.reason === 'lunch')
  await api.post('/scatters/:scatter/resume', { params })
  await until('it goes on', async () => (await flow.scatter.status(scatter)).paused === undefined)
  await api.post('/scatters/:scatter/cancel', { params })
  await until('it is cancelled', async () => (await flow.scatter.status(scatter)).status === 'cancelled')
  const { counts } = (await api.get('/scatters/:scatter/map', { params })).body
  expect(counts).toEqual([0, 0, 0, 4, 0, 0, 1])
})

it('schedules and sensors are paused, resumed and started; limits are emptied; messages are taken again', async () => {
  for (const kind of ['schedules', 'sensors'] as const) {
    const name = kind === 'schedules' ? 'nightly' : 'files'
    const params = { pipeline: 'orders', name }
    await api.post(`/${kind}/:pipeline/:name/pause`, { params, body: { reason: 'holiday' } })
    const paused = (await api.get(`/${kind}`)).body[kind]
    expect(paused).toMatchObject([{ state: 'paused', pausedBecause: 'holiday' }])
    await api.post(`/${kind}/:pipeline/:name/resume`, { params })
    expect((await api.get(`/${kind}`)).body[kind]).not.toMatchObject([{ state: 'paused' }])
    await api.post(`/${kind}/:pipeline/:name/trigger`, { params })
    expect(await api.post(`/${kind}/:pipeline/:name/pause`, { params: { ...params, name: 'none' } })).toMatchObject({
      status: 404,
    })
  }
  const occurrences = await api.get('/schedules/:pipeline/:schedule/occurrences', {
    params: { pipeline: 'orders', schedule: 'nightly' },
  })
  expect(occurrences.body.occurrences).toMatchObject([{ what: 'fired', by: 'trigger' }])
  const press = { params: { bucket: 'press' } }
  expect(await api.post('/limits/:bucket/reset', { ...press, key: keys.operator.key })).toMatchObject({
    status: 403,
    body: { reason: 'forbidden' },
  })
  await api.post('/limits/:bucket/reset', press)
  const message = { params: { pipeline: 'orders', subscription: 'incoming', seq: 1 } }
  const path = '/subscriptions/:pipeline/:subscription/refused/:seq/retry'
  expect(await api.post(path, message)).toMatchObject({ status: 422 })
  code.isRepaired = true
  const taken = await api.post(path, message)
  expect(await stage.flow.run(String(taken.body.run)).result()).toMatchObject({ of: 'o-2' })
})

it('a refused trigger is taken after all, once, by who may act', async () => {
  publisher.send(`${stage.namespace}.trigger.later.thing`, '{"partition":"p"}')
  const listed = async () => (await api.get('/triggers/refused')).body.refused as { id: string; run?: string }[]
  await until('it is refused', async () => (await listed()).length === 1)
  const [{ id = '' } = {}] = await listed()
  const path = '/triggers/refused/:trigger/retry'
  const params = { trigger: id }
  expect(await api.post(path, { params })).toMatchObject({ status: 404 })
  expect(await api.post(path, { params: { trigger: 'x' } })).toMatchObject({ status: 422 })
  expect(await api.post(path, { params, key: keys.viewer.key })).toMatchObject({ status: 403 })
  await stage.flow.register(pipeline('later', [asset('thing', { execute: () => 1 })]))
  const { status, body } = await api.post(path, { params })
  expect([status, body]).toEqual([202, { run: expect.any(String), isNew: true }])
  expect((await api.post(path, { params })).body).toEqual({ run: body.run, isNew: false })
  expect(await listed()).toMatchObject([{ id, kept: true, run: body.run, reason: expect.stringContaining('later') }])
  const started = (await stage.flow.audit({ by: 'http:admin', kind: 'run.requested' })).map(({ run }) => run)
  expect(started).toContain(body.run)
  await stage.flow.run(String(body.run)).cancel()
})

it('acts say who did them, and why says what led to the present', async () => {
  const acts = (await stage.flow.audit({ by: 'http:admin' })).map(({ kind }) => kind)
  expect(acts).toEqual(
    expect.arrayContaining(['run.requested', 'run.cancel_requested', 'gate.resolved', 'schedule.paused']),
  )
  const byAdmin = await api.get('/audit', { query: { by: 'http:admin', kind: ['run', 'gate'], limit: '2' } })
  expect(byAdmin.body.entries).toHaveLength(2)
  const query = { by: 'http:admin', kind: ['run', 'gate'], cursor: String(byAdmin.body.next), limit: '1000' }
  const rest = await api.get('/audit', { query })
  const listed = [...(byAdmin.body.entries as { kind: string }[]), ...(rest.body.entries as { kind: string }[])]
  expect(listed.map(({ kind }) => kind)).toEqual(acts.filter((kind) => /^(run|gate)\./.test(kind)))
  expect(rest.body.next).toBeUndefined()
  const earlier = await api.get('/audit', { query: { at: then, by: 'http:*' } })
  expect(earlier.body).toEqual({ entries: [] })
  expect(await api.get('/audit', { query: { cursor: 'x' } })).toMatchObject({ status: 400, body: { field: 'cursor' } })
  expect(await api.get('/audit', { query: { kind: 'runs' } })).toMatchObject({ status: 422 })
  expect(await api.get('/audit', { key: keys.narrow.key })).toMatchObject({ status: 403 })
  const { body } = await api.get('/why', { query: { run: runs.broken ?? '' } })
  expect(body).toMatchObject({
    of: { run: runs.broken },
    status: 'failed',
    verdict: { fact: { kind: 'run.finished', at: expect.any(String) } },
  })
  expect(JSON.stringify(body.chain)).toContain('no paper')
  expect((await api.get('/why', { query: { asset: 'orders/invoice' } })).body).toMatchObject({ status: 'materialized' })
  expect(await api.get('/why')).toMatchObject({ status: 400, body: { field: 'run' } })
  const others = { query: { run: runs.broken ?? '' }, key: keys.narrow.key }
  expect(await api.get('/why', others)).toMatchObject({ status: 404 })
})

it('reads show what was so at a time, or say that it is not kept', async () => {
  const at = { query: { at: then } }
  const scatter = { scatter: `${runs.items}.items` }
  const held = (await api.get('/runs/:run', { ...at, params: { run: runs.held ?? '' } })).body
  expect(held).toMatchObject({ run: { status: 'running' }, timeline: [{ asset: 'held' }] })
  expect((await api.get('/scatters/:scatter/map', { ...at, params: scatter })).body).toMatchObject({
    counts: [0, 0, 95, 4, 0, 1, 0],
  })
  expect((await api.get('/scatters/:scatter/errors', { ...at, params: scatter })).body).toMatchObject({
    errors: [{ count: 4 }],
  })
  const instance = await api.get('/scatters/:scatter/instances/:index', { ...at, params: { ...scatter, index: 50 } })
  expect(instance.body).toMatchObject({ state: 'gate', attempts: [{ outcome: 'gate' }] })
  expect((await api.get('/gates', at)).body.gates).toHaveLength(2)
  expect((await api.get('/home', at)).body).toMatchObject({
    runs: { open: 3 },
    gates: { waiting: 2 },
    failed: { length: 1 },
  })
  const { facts } = (await api.get('/log', at)).body as { facts: { at: string }[] }
  expect(facts.every((fact) => fact.at <= then)).toBe(true)
  const assets = (await api.get('/assets', at)).body.assets as { name: string; state: string }[]
  expect(assets.find(({ name }) => name === 'held')?.state).toBe('running')
  // Somebody has to say what it is about.
  const ofBroken = { query: { at: then, run: runs.broken ?? '' } }
  for (const { path, method, now } of ROUTES.filter(({ method, path }) => method === 'GET' && !path.includes(':')))
    expect(await api.get(path, path === '/why' ? ofBroken : at), `${method} ${path}`).toMatchObject(
      now ? { status: 404, body: { reason: 'not_kept' } } : { status: 200 },
    )
  expect((await api.get('/why', { query: { at: then, run: runs.held ?? '' } })).body).toMatchObject({
    status: 'running',
  })
  const params = { pipeline: 'orders', asset: 'invoice' }
  expect((await api.get('/assets/:pipeline/:asset/value', { ...at, params })).body).toMatchObject({ run: runs.invoice })
  const history = (await api.get('/runs/:run/history', { ...at, params: { run: runs.held ?? '' } })).body
  expect(JSON.stringify(history)).not.toContain('cancel_requested')
  expect(await api.get('/runs', { query: { at: '2999-01-01T00:00:00Z' } })).toMatchObject({ status: 422 })
  expect(await api.get('/runs', { query: { at: 'yesterday' } })).toMatchObject({ status: 400, body: { field: 'at' } })
})

it('a viewer may read and do nothing, and an operator nothing of assets that are not his', async () => {
  for (const { method, path, scope } of ROUTES.filter((route) => route.scope !== 'read')) {
    const params = {
      run: runs.items,
      scatter: `${runs.items}.items`,
      gate: `${runs.items}.items.a1n1`,
      pipeline: 'orders',
    }
    const call = {
      params: { ...params, name: 'x', bucket: 'x', subscription: 'x', seq: '1' } as Record<string, string>,
    }
    expect(await api[method === 'POST' ? 'post' : 'get'](path, { ...call, key: keys.viewer.key }), path).toMatchObject({
      status: 403,
      body: { reason: 'forbidden', detail: expect.stringContaining(scope) },
    })
    if (!/\/:(run|scatter|gate)\//.test(path)) continue
    const narrow = await api.post(path, { ...call, body: {}, key: keys.narrow.key })
    expect([404, 422], `${path} ${narrow.text}`).toContain(narrow.status)
  }
  const start = { body: { target: 'orders/invoice' }, key: keys.narrow.key }
  expect(await api.post('/runs', start)).toMatchObject({ status: 403 })
})

it('what is asked for wrongly is a problem that names the field', async () => {
  const { url } = http
  const headers = { Authorization: `Bearer ${keys.viewer.key}` }
  const ask = (path: string, init: RequestInit = {}) => request(`${url}${BASE}${path}`, { headers, ...init })
  expect(await ask('/runs?limti=3')).toMatchObject({
    status: 400,
    body: { reason: 'invalid_query', field: 'limti', detail: 'There is no query parameter limti; did you mean limit?' },
  })
  expect(await ask('/runs?limit=0')).toMatchObject({ status: 400, body: { field: 'limit' } })
  expect(await ask('/runs?status=done')).toMatchObject({ status: 400, body: { field: 'status' } })
  expect(await ask('/runs?tag=x')).toMatchObject({ status: 400, body: { field: 'tag' } })
  expect(await ask('/me?x=1')).toMatchObject({ status: 400, body: { field: 'x' } })
  expect(await ask('/runs/no-run')).toMatchObject({ status: 404, body: { reason: 'unknown_run' } })
  expect(await ask('/scatters/no-scatter')).toMatchObject({ status: 404, body: { reason: 'unknown_id' } })
  expect(await ask('/log?kind=run.ended')).toMatchObject({ status: 422, body: { reason: 'invalid_input' } })
  expect(await ask('/log?cursor=x')).toMatchObject({ status: 422 })
  for (const path of ['/gates', `/runs/${runs.items}/history`, `/scatters/${runs.items}.items/failures`])
    expect(await ask(`${path}?cursor=x`), path).toMatchObject({ status: 400, body: { field: 'cursor' } })
  expect(await ask('/nothing')).toMatchObject({ status: 404, body: { reason: 'unknown_id' } })
  expect(await ask('/runs', { method: 'DELETE' })).toMatchObject({ status: 405 })
  const answer = await ask('/runs')
  expect(answer.headers.get('access-control-allow-origin')).toBeNull()
  expect(answer.headers.get('cache-control')).toBe('no-store')
})

it('without keys a loopback address serves all, but not to pages of other sites', async () => {
  const ask = (headers: Record<string, string> = {}) => request(`${local.url}${BASE}/me`, { headers })
  expect((await ask()).body).toMatchObject({ key: 'local', allAssets: true, may: { length: 4 } })
  expect(await ask({ Origin: local.url, 'Sec-Fetch-Site': 'same-origin' })).toMatchObject({ status: 200 })
  expect(await ask({ 'Sec-Fetch-Site': 'cross-site' })).toMatchObject({ status: 403, body: { reason: 'cross_site' } })
  expect(await ask({ Origin: 'https://evil.example' })).toMatchObject({ status: 403 })
  expect(await ask({ Authorization: 'Bearer nonsense' })).toMatchObject({ status: 401 })
  const { flow } = stage
  await expect(serveGates(flow, { port: 0, host: '0.0.0.0', api: true })).rejects.toThrow(/only for loopback/)
  await expect(serveGates(flow, { port: 0, host: '0.0.0.0', api: { open: 'admin' } })).rejects.toThrow(/must be viewer/)
})

it('the OpenAPI document has every route, and every schema that it refers to', async () => {
  const { body } = await request(`${local.url}${BASE}/openapi.json`)
  expect(body).toEqual(JSON.parse(JSON.stringify(openApi())))
  const paths = body.paths as Record<string, Record<string, { operationId: string }>>
  const listed = Object.entries(paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method} ${path}`),
  )
  const known = ROUTES.map(({ method, path }) => `${method.toLowerCase()} ${BASE}${path.replaceAll(/:(\w+)/g, '{$1}')}`)
  expect(listed.toSorted()).toEqual(known.toSorted())
  const ids = Object.values(paths).flatMap((methods) => Object.values(methods).map(({ operationId }) => operationId))
  expect(new Set(ids).size).toBe(ids.length)
  const { schemas } = body.components as { schemas: Record<string, unknown> }
  const refs = [...JSON.stringify(body).matchAll(/"#\/components\/schemas\/(\w+)"/g)].map(([, name = '']) => name)
  expect([...new Set(refs)].filter((name) => !(name in schemas))).toEqual([])
})

it('a thing has one name in all answers and parameters', () => {
  const names = new Set<string>()
  JSON.stringify(openApi(), (key, value) => {
    if (key === 'properties') for (const name of Object.keys(value)) names.add(name)
    if (key === 'parameters') for (const { name } of value) names.add(name)
    return value
  })
  expect(['at', 'message', 'cursor'].filter((name) => !names.has(name))).toEqual([])
  expect(['time', 'timestamp', 'text', 'says', 'after'].filter((name) => names.has(name))).toEqual([])
})

it('every route of the table was called', () => {
  expect(ROUTES.map(({ method, path }) => `${method} ${path}`).filter((route) => !api.called.has(route))).toEqual([])
})
