/**
 * The roles of docs/permissions.md on a server that enforces them: each can do its part, and no
 * more.
 */
import { PassThrough } from 'node:stream'
import { AckPolicy, type JetStreamManager, jetstreamManager } from '@nats-io/jetstream'
import { headers, type NatsConnection } from '@nats-io/nats-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { serveGates, serveMetrics } from '../../src/http/index.ts'
import { asset, connect, type Flow, input, pipeline } from '../../src/index.ts'
import { ServerMetrics } from '../../src/metrics/server.ts'
import { collect } from '../kit/collect.ts'
import { type GuardedServer, guardedServer, login } from '../kit/guarded.ts'
import { permissionsOf, ROLES, type Role } from '../kit/permissions.ts'
import { parseMetrics, seriesValue } from '../kit/prometheus.ts'
import { listeningLogger, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const NS = 'guarded'
const DEPLOYMENT = { ns: NS, shards: 1, pipeline: 'shop', queue: 'default' }
const GATES = { secrets: [{ id: 'k', secret: 'x'.repeat(40) }], baseUrl: 'http://127.0.0.1:9' }

const large = asset('large', { execute: () => 'x'.repeat(200_000) })
const many = asset('many', {
  dependsOn: [large],
  scatter: () => Array.from({ length: 60 }, (_, i) => i),
  scatterOptions: { maxConcurrent: 3, rateLimit: [1000, 'second'] },
  execute: ({ scatterKey }) => scatterKey,
  gather: async (results) => (await collect(results)).length,
})
const approved = asset('approved', {
  execute: (ctx) => ctx.approval({ message: 'pay?', timeout: '1h' }),
  onSignal: (_, payload) => payload,
})
const total = asset('total', {
  dependsOn: [many, approved],
  slots: { bucket: 'gpu', max: 2 },
  execute: (_, deps) => `${deps.many} ${JSON.stringify(deps.approved)}`,
})
const note = input('note', z.string())
const parcel = asset('parcel', { dependsOn: [note], execute: (_, deps) => deps.note.length })
const training = Promise.withResolvers<string>()
const trained = asset('trained', { slots: { bucket: 'trainer', max: 1 }, execute: () => training.promise })
const shop = pipeline('shop', [large, many, approved, total, note, parcel, trained])

let server: GuardedServer
let admin: NatsConnection
let jsm: JetStreamManager
const flows = new Map<Role, Flow>()
const logger = listeningLogger()

async function flowAs(role: Role): Promise<Flow> {
  const flow =
    flows.get(role) ?? (await connect({ servers: server.url, namespace: NS, nats: login(role), gates: GATES, logger }))
  flows.set(role, flow)
  return flow
}

beforeAll(async () => {
  const users = Object.fromEntries(ROLES.map((role) => [role, permissionsOf(role, DEPLOYMENT)]))
  const { publish } = permissionsOf('client', DEPLOYMENT)
  const small = {
    publish: publish.filter((subject) => !subject.startsWith('$O.')),
    subscribe: ['_INBOX_small.>', `${NS}.notify.run.*`],
  }
  const [http, operator] = [permissionsOf('http', DEPLOYMENT), permissionsOf('operator', DEPLOYMENT)]
  const console = {
    publish: [...http.publish, ...operator.publish],
    subscribe: [...http.subscribe, ...operator.subscribe],
  }
  server = await guardedServer({ ...users, small, console, admin: { publish: ['>'], subscribe: ['>'] } })
  admin = await server.as('admin')
  jsm = await jetstreamManager(admin)
  await (await (await flowAs('engine')).engine()).active
  await (await flowAs('worker')).worker(shop)
  // For outsiders, by whoever looks after the server: they may not make consumers.
  await jsm.consumers.add(`${NS}_FEED`, { durable_name: 'outside', ack_policy: AckPolicy.Explicit })
})
afterAll(async () => {
  for (const flow of [...flows.values()].toReversed()) await flow.close()
  await server?.[Symbol.asyncDispose]()
})

async function startAndStopAtGate(key: string): Promise<{ run: string; gate: string }> {
  const { id } = await (await flowAs('client')).materialize(total, { key, upstream: 'all' })
  const gates = (await flowAs('gates')).gates
  await until('it waits for its approval', async () => (await gates.list(id))[0]?.status === 'waiting')
  return { run: id, gate: (await gates.list(id))[0]?.id ?? '' }
}

describe('with the least permissions', () => {
  it('an engine, a worker, a client, who answers gates, and an operator do all of their part, and nothing is denied', async () => {
    const { run, gate } = await startAndStopAtGate('all')
    const gates = (await flowAs('gates')).gates
    await gates.extend(gate, '2h')
    await gates.signal(await gates.token(gate), { approved: true })
    await rejection(gates.signalById(gate, { approved: false }))
    await until('it is noted that it was refused', async () => (await gates.get(gate))?.refused?.count === 1)
    expect(await (await flowAs('client')).run(run).result()).toBe('60 {"approved":true}')

    const operator = await flowAs('operator')
    await until('it is listed', async () => (await operator.runs()).length > 0)
    expect((await collect(operator.history(run))).at(-1)?.kind).toBe('run.finished')
    await until('the state has it', async () => (await operator.scatter.status(`${run}.many`)).status === 'completed')
    expect((await operator.limiter.list()).length).toBeGreaterThan(0)
    expect((await operator.export({ to: new PassThrough().resume(), all: true })).runs).toBeGreaterThan(0)
    await operator.limiter.reset('gpu')
    const other = await startAndStopAtGate('cancelled')
    await operator.run(other.run).cancel('not wanted')
    await until('it is over', async () => (await operator.run(other.run).status())?.status === 'cancelled')
    for (const [role, flow] of flows) expect(flow.connection.denied, role).toEqual([])
  })

  it('who serves HTTP starts runs with large input, reads them, and answers gates, and nothing is denied', async () => {
    const flow = await flowAs('http')
    const run = await flow.request('shop/parcel', { input: { note: 'x'.repeat(200_000) }, key: 'over http' })
    expect((await collect(run.watch())).at(-1)?.run.status).toBe('succeeded')
    expect(await run.result()).toBe(200_000)
    expect((await run.view())?.target).toBe('parcel')
    const { gate } = await startAndStopAtGate('of http')
    await flow.gates.signal(await flow.gates.token(gate), { approved: true })
    expect((await run.status())?.waitingFor).toEqual([])
    expect(flow.connection.denied).toEqual([])
  })

  it('a client and who serves HTTP see why a run with slots waits, and nothing is denied', async () => {
    const client = await flowAs('client')
    const both = [await client.materialize(trained, { key: 'a' }), await client.materialize(trained, { key: 'b' })]
    for (const role of ['client', 'http'] as const) {
      const flow = await flowAs(role)
      await until(`${role} sees that one waits for the slot of the other`, async () => {
        const seen = await Promise.all(both.map(async ({ id }) => await flow.run(id).status()))
        return seen.some((status) => /^a slot of trainer: 1 of 1/.test(status?.assets.trained?.waitingFor[0] ?? ''))
      })
      expect(flow.connection.denied).toEqual([])
    }
    training.resolve('a model')
    for (const run of both) expect(await run.result()).toBe('a model')
  })

  it('the console of a user with the rights of HTTP and of an operator shows all, and nothing is denied', async () => {
    const nats = { ...login('console'), inboxPrefix: '_INBOX_http' }
    await using flow = await connect({ servers: server.url, namespace: NS, nats, logger })
    await using served = await serveGates(flow, { port: 0, console: true })
    for (const what of ['runs', 'assets', 'workers', 'engines', 'limits', 'audit', 'schedules', 'subscriptions'])
      expect((await fetch(new URL(`/api/v1/${what}`, served.url))).status, what).toBe(200)
    expect(flow.connection.denied).toEqual([])
    // One of its own: the others expect that nothing was denied.
    await using client = await connect({ servers: server.url, namespace: NS, nats: login('gates'), logger })
    expect(await rejection(client.limiter.list())).toMatchObject({ code: 'denied' })
  })

  it('an engine and an operator may read the metrics of the namespace; others say at /metrics that they may not', async () => {
    for (const role of ['engine', 'operator'] as const) {
      const flow = await flowAs(role)
      const { samples, problem } = await new ServerMetrics(flow).read()
      expect({ role, problem }).toEqual({ role, problem: undefined })
      expect(samples, role).toContainEqual(expect.objectContaining({ name: 'flowstone.server.readable', value: 1 }))
      expect(flow.connection.denied, role).toEqual([])
    }
    // One of its own: the others expect that nothing was denied.
    await using flow = await connect({ servers: server.url, namespace: NS, nats: login('http'), logger })
    await using metrics = await serveMetrics({ port: 0, flow })
    const text = await (await fetch(metrics.url)).text()
    expect(text).toMatch(/^# The metrics of the namespace could not be read: .*not allowed to publish to/m)
    expect(parseMetrics(text).has('flowstone_server_readable')).toBe(false)
    expect(seriesValue(parseMetrics(text), 'flowstone_tasks_returned_total')).toBe(0)
  })

  it('a client starts runs with large input, and the error of one that may not store it names the field', async () => {
    const client = await flowAs('client')
    const input = { note: 'y'.repeat(200_000) }
    expect(await (await client.materialize(parcel, { input })).result()).toBe(200_000)
    expect(client.connection.denied).toEqual([])
    await using small = await connect({ servers: server.url, namespace: NS, nats: login('small'), logger })
    const run = await small.materialize(parcel, { input: { note: 'short' } })
    expect(await run.result()).toBe(5)
    expect(await rejection(collect(small.history(run.id)))).toMatchObject({ code: 'denied' })
    const error = await rejection(small.materialize(parcel, { input: { note: 'z'.repeat(200_000) } }))
    expect(error.code).toBe('denied')
    expect(error.message).toMatch(
      /^materialize: input\.note: it is too large .*\(not allowed to publish to \$O\.guarded_blobs\..* or give the run a reference/,
    )
  })

  it('a trigger is stored and starts a run, and a reader of the feed hears of its end', async () => {
    const trigger = await server.as('trigger')
    const answer = await trigger.request(`${NS}.trigger.shop.large`, '{"key":"from outside","upstream":"all"}', {
      timeout: 5000,
    })
    expect(answer.json()).toMatchObject({ stream: `${NS}_TRIGGERS` })
    const feed = await server.as('feed')
    const told: string[] = []
    // A message is sent under its own subject, so it is heard by a subscription and not by
    // `request`.
    feed.subscribe('_INBOX_feed.told', {
      callback: (_, message) => {
        told.push(message.string())
        if (message.reply) feed.publish(message.reply, '+ACK')
      },
    })
    await until('the feed tells of its end', () => {
      feed.publish(NEXT, '{"batch":100,"no_wait":true}', { reply: '_INBOX_feed.told' })
      return told.some((body) => body.includes('"target":"large"'))
    })
  })
})

/** Subjects that nobody but the engine and who looks after the server may publish to. */
const FORBIDDEN = [
  `$JS.API.STREAM.PURGE.${NS}_LOG_0`,
  `$JS.API.STREAM.DELETE.${NS}_LOG_0`,
  `$JS.API.STREAM.UPDATE.${NS}_LOG_0`,
  `$JS.API.STREAM.MSG.DELETE.${NS}_LOG_0`,
  `$JS.API.STREAM.CREATE.other`,
  `$JS.API.STREAM.PURGE.${NS}_TRIGGERS`,
  `$KV.${NS}_state_0.engine`,
  `$KV.${NS}_control.topology`,
  `$KV.${NS}_control.claim.0`,
  `${NS}.log.0.run.0-x.finished`,
  `${NS}.log.0.run.0-x.planned`,
  `${NS}.feed.run.finished`,
  `${NS}.work.0.other.default.1.shared`,
  `${NS}.log.0.asset.other.a.0-x.end.materialized`,
]
const OUTSIDE = [
  ...FORBIDDEN,
  `${NS}.log.0.gate.0-x.a.a1n1.resolved`,
  `${NS}.log.0.run.0-x.cancel_requested`,
  `${NS}.work.0.shop.default.1.shared`,
  `${NS}.notify.run.0-x`,
  `$KV.${NS}_limits.slots.gpu`,
  `$O.${NS}_blobs.C.x`,
  `$JS.API.STREAM.MSG.GET.${NS}_LOG_0`,
  `$JS.API.DIRECT.GET.${NS}_LOG_0`,
  `$JS.API.STREAM.MSG.GET.KV_${NS}_state_0`,
  `$JS.API.CONSUMER.CREATE.${NS}_FEED.mine`,
  `$JS.API.CONSUMER.CREATE.${NS}_LOG_0.mine`,
  `$JS.API.STREAM.NAMES`,
]
const NEXT = `$JS.API.CONSUMER.MSG.NEXT.${NS}_FEED.outside`
const DENIED: readonly [Role, readonly string[]][] = [
  ['trigger', [...OUTSIDE, `${NS}.trigger.other.a`, NEXT]],
  ['feed', [...OUTSIDE, `${NS}.trigger.shop.large`]],
  [
    'gates',
    [...FORBIDDEN, `${NS}.log.0.run.0-x.cancel_requested`, `${NS}.trigger.shop.large`, `$KV.${NS}_limits.slots.gpu`],
  ],
  [
    'http',
    [...FORBIDDEN, `${NS}.log.0.run.0-x.cancel_requested`, `${NS}.trigger.shop.large`, `$KV.${NS}_limits.slots.gpu`],
  ],
  ['client', [...FORBIDDEN, `${NS}.log.0.gate.0-x.a.a1n1.resolved`, `$KV.${NS}_limits.slots.gpu`]],
  ['operator', [...FORBIDDEN, `${NS}.work.0.shop.default.1.shared`]],
  ['worker', [...FORBIDDEN, `${NS}.log.0.run.0-x.cancel_requested`, `${NS}.work.0.shop.other.1.shared`]],
]

describe('without more', () => {
  it.each(DENIED)('%s may publish nowhere else', async (role, subjects) => {
    const nc = await server.as(role)
    for (const subject of subjects)
      await expect(nc.request(subject, '{}', { timeout: 5000 }), subject).rejects.toThrow(/Permissions Violation/i)
  })

  it.each(ROLES.filter((role) => role !== 'engine'))('%s does not hear what others are answered', async (role) => {
    const nc = await server.as(role)
    for (const subject of [
      '>',
      '_INBOX.>',
      '_INBOX_client.>',
      '_INBOX_gates.>',
      `${NS}.log.>`,
      `$KV.${NS}_state_0.>`,
    ]) {
      if (subject === `_INBOX_${role}.>`) continue
      const refused = Promise.withResolvers<unknown>()
      nc.subscribe(subject, { callback: (error) => refused.resolve(error) })
      expect(String(await refused.promise)).toMatch(/Permissions Violation/i)
    }
  })

  it('headers of a trigger do nothing: no roll-up, time to live, schedule, or batch', async () => {
    const { gate, run } = await startAndStopAtGate('headers')
    const nc = await server.as('trigger')
    const ask = async (given: Record<string, string>): Promise<string> => {
      const h = headers()
      for (const [key, value] of Object.entries(given)) h.set(key, value)
      return (await nc.request(`${NS}.trigger.shop.large`, '{}', { headers: h, timeout: 5000 })).string()
    }
    const target = `${NS}.log.0.gate.${gate}.resolved`
    for (const given of [
      { 'Nats-Rollup': 'all' },
      { 'Nats-TTL': '1s' },
      { 'Nats-Schedule': '@at 2000-01-01T00:00:00Z', 'Nats-Schedule-Target': target },
      { 'Nats-Batch-Id': 'b', 'Nats-Batch-Sequence': '1', 'Nats-Batch-Commit': '1' },
    ])
      expect(await ask(given)).toContain('"error"')
    // Other assets of the run may still write to the log.
    expect(await jsm.streams.getMessage(`${NS}_LOG_0`, { last_by_subj: target })).toBeNull()
    expect((await jsm.streams.info(`${NS}_LOG_0`)).state.first_seq).toBe(1)
    await (await flowAs('operator')).run(run).cancel()
  })

  it('what the server sends for a trigger or a reader of the feed to a subject of the log is no fact', async () => {
    const { run } = await startAndStopAtGate('replies')
    const [trigger, feed] = [await server.as('trigger'), await server.as('feed')]
    const forged = [`${NS}.log.0.run.${run}.cancel_requested`, `${NS}.log.0.scatter.${run}.many.cancel_requested`]
    for (const reply of forged) {
      trigger.publish(`${NS}.trigger.shop.large`, '{"key":"reply"}', { reply })
      feed.publish(NEXT, '{"batch":1,"expires":1000000000}', { reply })
    }
    await Promise.all([trigger.flush(), feed.flush()])
    await (await (await flowAs('client')).materialize(large, { key: 'after' })).result()
    const operator = await flowAs('operator')
    await until('the state has it', async () => (await operator.run(run).status())?.status !== 'requested')
    expect((await operator.run(run).status())?.status).toBe('running')
    expect((await collect(operator.history(run))).map(({ kind }) => kind)).not.toContain('run.cancel_requested')
    expect((await (await flowAs('gates')).gates.list(run))[0]?.status).toBe('waiting')
  })
})

it('an engine and a worker with the rights of a version before logs work, and only keep no lines', async () => {
  const place = { ...DEPLOYMENT, ns: 'before' }
  const rightsOf = (role: Role) => {
    const { publish, subscribe } = permissionsOf(role, place)
    return { publish: publish.filter((subject) => !/_LOGS$|\.logs\./.test(subject)), subscribe }
  }
  const users = { engine: rightsOf('engine'), worker: rightsOf('worker') }
  await using own = await guardedServer(users)
  const heard = listeningLogger()
  const reach = async (user: string) =>
    await connect({ servers: own.url, namespace: place.ns, nats: login(user), gates: GATES, logger: heard })
  await using engine = await reach('engine')
  await (await engine.engine()).active
  await using worker = await reach('worker')
  const says = asset('says', {
    execute: ({ log }) => {
      log.info('hello')
      return 'done'
    },
  })
  await worker.worker(pipeline('shop', [says]))
  const run = await engine.request('shop/says')
  await until('it has ended', async () => (await run.view())?.status === 'succeeded')
  for (const { connection } of [engine, worker]) {
    await until('it says what it may not', () => connection.denied.length > 0)
    expect(connection.denied.every(({ subject }) => /LOGS|\.logs\./.test(subject))).toBe(true)
  }
})
