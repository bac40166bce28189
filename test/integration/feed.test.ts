import { DeliverPolicy, jetstream, jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats, type NatsConnection } from '@nats-io/transport-node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { asset, input, pipeline, schedule, subscription } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { factsOf, openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })
/** An outsider: any NATS client, without this library. */
let nc: NatsConnection
beforeAll(async () => {
  nc = await connectNats({ servers: server.url })
})
afterAll(async () => {
  await nc.close()
})

const colours = asset('colours', { scatter: () => ['red', 'blue'], execute: ({ scatterKey }) => scatterKey.length })
const broken = asset('broken', {
  dependsOn: [colours],
  retry: { maxAttempts: 1 },
  execute: () => {
    throw new Error('no paint')
  },
})
const paint = pipeline('paint', [colours, broken])

/** The first `count` bodies under a subject of the feed. */
async function feed(namespace: string, subject: string, count: number): Promise<Record<string, unknown>[]> {
  const consumer = await jetstream(nc).consumers.get(`${namespace}_FEED`, {
    filter_subjects: `${namespace}.feed.${subject}`,
    deliver_policy: DeliverPolicy.All,
  })
  const bodies: Record<string, unknown>[] = []
  const messages = await consumer.fetch({ max_messages: count, expires: 10_000 })
  for await (const message of messages) {
    expect(message.headers?.get('Content-Type')).toBe('application/json')
    bodies.push(message.json())
  }
  return bodies
}

describe('the feed', () => {
  it('the feed reports to outsiders, in JSON and under few subjects, what was made, what failed, and what has ended', async () => {
    await using stage = await openStage(server.url, paint)
    const run = await stage.flow.materialize(broken, { partition: 'p' })
    await rejection(run.result())
    const ns = stage.namespace
    expect(await feed(ns, 'asset.paint.colours.materialized', 1)).toMatchObject([
      {
        run: run.id,
        asset: 'colours',
        pipeline: 'paint',
        partition: 'p',
        value: {
          json: [
            { key: 'red', value: 3 },
            { key: 'blue', value: 4 },
          ],
        },
      },
    ])
    expect(await feed(ns, 'asset.paint.broken.failed', 1)).toMatchObject([
      {
        run: run.id,
        asset: 'broken',
        pipeline: 'paint',
        partition: 'p',
        error: { code: 'error', message: 'no paint' },
      },
    ])
    expect(await feed(ns, 'run.finished', 1)).toMatchObject([
      { run: run.id, pipeline: 'paint', target: 'broken', partition: 'p', status: 'failed', asset: 'broken' },
    ])
    expect(await feed(ns, 'scatter.closed', 1)).toMatchObject([
      { run: run.id, asset: 'colours', status: 'completed', total: 2, succeeded: 2, failed: 0 },
    ])
  })

  it('the feed tells a requester which of its requests ended, with a small value, and what was skipped, cancelled or refused', async () => {
    const plain = asset('plain', { execute: () => ({ colour: 'red' }) })
    const fails = asset('fails', {
      retry: { maxAttempts: 1 },
      execute: () => {
        throw new Error('no paint')
      },
    })
    const after = asset('after', { dependsOn: [fails], execute: () => 1 })
    const asks = asset('asks', { execute: (ctx) => ctx.approval({ message: 'ok?', timeout: '1h' }) })
    await using stage = await openStage(server.url, pipeline('told', [plain, fails, after, asks]), {
      gates: { secrets: [{ id: 'k', secret: 'x'.repeat(40) }], baseUrl: 'http://127.0.0.1:9' },
    })
    const { namespace: ns, flow } = stage
    const send = (name: string, body: string, msgID: string) =>
      jetstream(nc).publish(`${ns}.trigger.told.${name}`, body, { msgID })
    await send('plain', '{"key":"order-7","partition":"p"}', 'm1')
    const finished = { key: 'order-7', msgId: 'm1', partition: 'p', status: 'succeeded' }
    expect(await feed(ns, 'run.finished', 1)).toMatchObject([{ ...finished, result: { json: { colour: 'red' } } }])
    expect(await feed(ns, 'asset.told.plain.materialized', 1)).toMatchObject([
      { v: 1, fact: 'asset.materialized', key: 'order-7', msgId: 'm1', value: { json: { colour: 'red' } } },
    ])

    const broken = await flow.materialize(after, { key: 'order-8' })
    await rejection(broken.result())
    const [failed] = await feed(ns, 'asset.told.fails.failed', 1)
    expect(failed).toMatchObject({ run: broken.id, key: 'order-8', error: { message: 'no paint' } })
    expect(JSON.stringify([failed, await feed(ns, 'run.finished', 2)])).not.toMatch(/stack|\.ts:/)
    expect(JSON.stringify(await factsOf(flow, broken.id))).toMatch(/stack/)
    expect(await feed(ns, 'asset.told.after.skipped', 1)).toMatchObject([{ run: broken.id, because: 'fails' }])

    const asking = await flow.materialize(asks)
    expect(await feed(ns, `gate.created.${asking.id}.>`, 1)).toMatchObject([{ kind: 'approval' }])
    await asking.cancel('not now')
    expect(await feed(ns, 'asset.told.asks.cancelled', 1)).toMatchObject([{ run: asking.id, reason: 'not now' }])

    await send('plian', '{}', 'm2')
    const refused = await feed(ns, 'trigger.refused', 1)
    expect(refused).toMatchObject([{ pipeline: 'told', asset: 'plian', msgId: 'm2' }])
    expect(refused[0]).not.toHaveProperty('kept')
    expect(await flow.triggers.refused()).toMatchObject([{ pipeline: 'told', asset: 'plian', msgId: 'm2' }])
    expect(stage.lines.join('\n')).toContain('a trigger of plian was refused: pipeline told has no asset plian')
  })

  it('the feed has no stacks and no paths, in causes of a plain asset and of a scatter neither; the log has them', async () => {
    const deep = () => {
      const cause = Object.assign(new Error("open '/home/app/secret/orders.csv'"), { code: 'ENOENT' })
      const failure = new Error('reading /home/app/secret/orders.csv failed', { cause })
      throw new AggregateError([failure, cause], `both failed: ${failure.stack}`, { cause: failure })
    }
    const retry = { maxAttempts: 1 }
    const reads = asset('reads', { retry, execute: deep })
    const each = asset('each', { scatter: () => [1], scatterOptions: { retry }, execute: deep })
    const parts = asset('parts', {
      scatter: () => [1],
      scatterOptions: { retry, failureMode: 'partial' },
      execute: deep,
    })
    await using stage = await openStage(server.url, pipeline('paths', [reads, each, parts]))
    for (const broken of [reads, each, parts]) {
      const run = await stage.flow.materialize(broken)
      expect((await rejection(run.result())).message).toContain('orders.csv')
      expect(JSON.stringify(await factsOf(stage.flow, run.id))).toMatch(/stack.*home.app.secret/)
      // Whoever looks from inside still sees where.
      const shown = broken === reads ? '/home/app/secret' : 'orders.csv'
      await until('its state says where', async () => JSON.stringify(await run.status())?.includes(shown))
    }
    const bodies = JSON.stringify(await feed(stage.namespace, '>', 8))
    for (const kind of ['asset.failed', 'run.finished', 'scatter.closed']) expect(bodies).toContain(`"${kind}"`)
    expect(bodies).toContain('…/orders.csv')
    expect(bodies).not.toMatch(/stack|secret|\.ts:\d|\/home/)
  })

  it('the feed has the facts of all shards, and nothing of what is inside', async () => {
    await using stage = await openStage(server.url, paint, { shards: 3 })
    for (let i = 0; i < 8; i++) await (await stage.flow.materialize(colours, { key: `k${i}` })).result()
    const bodies = await feed(stage.namespace, '>', 24)
    expect(bodies).toHaveLength(24)
    const finished = bodies.filter(({ target }) => target !== undefined)
    expect(new Set(finished.map(({ run }) => String(run).split('-')[0])).size).toBeGreaterThan(1)
  })

  it('the feed tells of messages that started no run, and of occurrences that did not', async () => {
    const given = input('given', z.object({ id: z.string() }))
    const made = asset('made', { dependsOn: [given], execute: () => 1 })
    const heard = subscription('heard', {
      from: { stream: 'FEED_HEARD' },
      run: made,
      key: (message) => {
        throw new Error(`cannot read '/srv/app/keys/${message.seq}.json'`)
      },
    })
    const plain = asset('plain', { execute: () => 1 })
    const yearly = schedule('yearly', {
      cron: '@yearly',
      run: plain,
      partition: () => {
        throw new Error('no such year')
      },
    })
    await (await jetstreamManager(nc)).streams.add({ name: 'FEED_HEARD', subjects: ['feed.heard'] })
    await jetstream(nc).publish('feed.heard', '{"id":"a"}', { msgID: 'm1' })
    const all = pipeline('rare', [given, made, plain], { subscriptions: [heard], schedules: [yearly] })
    await using stage = await openStage(server.url, all)
    const ns = stage.namespace
    expect(await feed(ns, 'event.rare.heard.refused', 1)).toMatchObject([
      {
        fact: 'event.refused',
        pipeline: 'rare',
        subscription: 'heard',
        stream: 'FEED_HEARD',
        seq: 1,
        msgId: 'm1',
        reason: "key: cannot read '…/1.json'",
      },
    ])
    await rejection(stage.flow.schedules.trigger('yearly'))
    expect(await feed(ns, 'schedule.rare.yearly.skipped', 1)).toMatchObject([
      { why: 'evaluation_failed', by: 'trigger', atMs: expect.any(Number), error: { message: 'no such year' } },
    ])
  })
})

describe('the history of a run', () => {
  it('the history of a run has its facts in order, decoded, and those of no other run', async () => {
    await using stage = await openStage(server.url, paint)
    const other = await stage.flow.materialize(colours)
    await other.result()
    const run = await stage.flow.materialize(broken, { upstream: 'all', partition: 'p' })
    await rejection(run.result())
    const facts = (await factsOf(stage.flow, run.id)).filter(({ kind }) => kind !== 'asset.started')
    expect(facts.map(({ kind }) => kind)).toEqual([
      'run.requested',
      'scatter.started',
      'scatter.items',
      'scatter.sized',
      ...facts.map(({ kind }) => kind).filter((kind) => kind === 'scatter.outcomes'),
      'scatter.closed',
      'asset.materialized',
      'attempt.ended',
      'asset.failed',
      'run.finished',
    ])
    expect(facts.every(({ ids }) => ids.run === run.id)).toBe(true)
    expect(facts.map(({ seq }) => seq)).toEqual(facts.map(({ seq }) => seq).toSorted((a, b) => a - b))
    expect(facts[0]?.data).toMatchObject({ target: 'broken', upstream: 'all', partition: 'p' })
    expect(facts[2]?.data).toMatchObject({ count: 2, keys: ['red', 'blue'] })
    expect(facts[0]?.at.getTime()).toBeGreaterThan(Date.now() - 60_000)
  })

  it('the history of a run is empty for a run that never was', async () => {
    await using stage = await openStage(server.url, paint)
    expect(await factsOf(stage.flow, '0-nobody')).toEqual([])
  })

  it('the history of a run, and the engine, step over what somebody else published to the log', async () => {
    const gate = Promise.withResolvers<string>()
    const held = asset('held', { execute: () => gate.promise })
    await using stage = await openStage(server.url, pipeline('held', [held]))
    const run = await stage.flow.materialize(held)
    await until('it runs', () => stage.worker?.busy === 1)
    const garbage: [string, string][] = [
      ['nonsense', 'x'],
      [`run.${run.id}.nonsense`, '{}'],
      [`run.${run.id}.planned`, '{'],
      [`run.${run.id}.cancel_requested`, '[]'],
      [`asset.held.held.${run.id}.attempt_ended.1.more`, ''],
      [`asset.held.held.${run.id}.attempt_ended.2`, '{"v":1,"phase":"execute"}'],
      [`asset.held.held.${run.id}.started.7`, '\u0000'],
      [
        `asset.held.other.${run.id}.end.failed`,
        '{"v":1,"run":"x","asset":"other","pipeline":"held","error":{"code":"c","message":"m"},"attempts":1}',
      ],
      [`scatter.${run.id}.held.closed`, '{"v":1}'],
      ['scatter.0-nobody.held.outcomes', '{}'],
      [
        'run.0-nobody.finished',
        '{"v":1,"run":"0-nobody","pipeline":"p","target":"t","status":"succeeded","durationMs":1}',
      ],
    ]
    for (const [path, body] of garbage) await jetstream(nc).publish(`${stage.namespace}.log.0.${path}`, body)
    gate.resolve('made')
    expect(await run.result()).toBe('made')
    const kinds = (await factsOf(stage.flow, run.id)).map(({ kind }) => kind)
    expect([kinds[0], kinds.at(-1)]).toEqual(['run.requested', 'run.finished'])
    expect(stage.lines.filter((line) => line.includes('is stepped over'))).not.toHaveLength(0)
    expect(stage.lines.filter((line) => line.includes('starts again'))).toEqual([])
    expect(await (await stage.flow.materialize(held)).result()).toBe('made')
  })
})
