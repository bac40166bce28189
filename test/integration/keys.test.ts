import { jetstream, jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats, type NatsConnection } from '@nats-io/transport-node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { asset, pipeline } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { factsOf, openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })
let nc: NatsConnection
beforeAll(async () => {
  nc = await connectNats({ servers: server.url })
})
afterAll(async () => {
  await nc.close()
})

const state = { broken: false, calls: 0 }
const base = asset('base', { execute: () => 'base' })
const report = asset('report', {
  dependsOn: [base],
  retry: { maxAttempts: 1 },
  execute: () => {
    state.calls += 1
    if (state.broken) throw new Error('no ink')
    return `report ${state.calls}`
  },
})
const all = pipeline('all', [base, report])
const other = pipeline('other', [base])

const publish = (namespace: string, body: unknown, msgID?: string) =>
  jetstream(nc).publish(`${namespace}.trigger.all.report`, JSON.stringify(body), msgID === undefined ? {} : { msgID })

async function refusals(namespace: string): Promise<{ asset: string; reason: string; msgId?: string }[]> {
  const jsm = await jetstreamManager(nc)
  const filter = { subjects_filter: `${namespace}.log.0.trigger.*.refused` }
  const { subjects } = (await jsm.streams.info(`${namespace}_LOG_0`, filter)).state
  const found = await Promise.all(
    Object.keys(subjects ?? {}).map((subject) =>
      jsm.streams.getMessage(`${namespace}_LOG_0`, { last_by_subj: subject }),
    ),
  )
  return found.flatMap((message) => (message ? [message] : [])).map((message) => message.json())
}

describe('a key that was used for something else', () => {
  it('a key that was used for something else is a conflict that names all that differs', async () => {
    await using stage = await openStage(server.url, [all, other])
    const { flow } = stage
    const first = await flow.materialize(report, { key: 'k', partition: 'a', upstream: 'all' })
    expect(first.isNew).toBe(true)
    const conflict = async (...[of, options]: Parameters<typeof flow.materialize>): Promise<string> => {
      const error = await rejection(flow.materialize(of, options))
      expect(error).toMatchObject({ name: 'ConflictError', code: 'conflict' })
      return error.message
    }
    const same = { key: 'k', partition: 'a', upstream: 'all' } as const
    expect((await flow.materialize(report, same)).isNew).toBe(false)
    expect(await conflict(report, { ...same, upstream: 'missing' })).toBe(
      'key "k" was used for another request: upstream was "all", and is now "missing". Use another key, or ask for the same',
    )
    expect(await conflict(report, { key: 'k', upstream: 'all' })).toContain('partition was "a", and is now none')
    expect(await conflict(base, { ...same, partition: 'b', pipeline: other })).toMatch(
      /pipeline was "all", and is now "other"; target was "report", and is now "base"; partition was "a", and is now "b"/,
    )
  })

  it('a key that was used for something else is recorded as a refused trigger, and starts nothing', async () => {
    await using stage = await openStage(server.url, all, { shards: 3 })
    const { flow, namespace } = stage
    await publish(namespace, { key: 'nightly', partition: 'a' })
    await until('it is made', async () => (await flow.runs())[0]?.finishedAt !== undefined)
    await publish(namespace, { key: 'nightly', partition: 'b' })
    await publish(namespace, { key: 'nightly', partition: 'a', upstream: 'missing' })
    await publish(namespace, { key: 'nightly', partition: 'a' })
    await jetstream(nc).publish(`${namespace}.trigger.all.base`, '{"key":"nightly","partition":"a"}')
    await publish(namespace, { partition: 'c' })
    await until('the last one is made', async () => (await flow.runs()).some(({ partition }) => partition === 'c'))
    await until('the others are refused', async () => (await refusals(namespace)).length === 3)
    const reasons = (await refusals(namespace)).map(({ reason }) => reason).toSorted()
    expect(reasons).toEqual([
      expect.stringContaining('partition was "a", and is now "b"'),
      expect.stringContaining('target was "report", and is now "base"'),
      expect.stringContaining('upstream was "all", and is now "missing"'),
    ])
    for (const reason of reasons) expect(reason).toContain('key "nightly" was used for another request')
    expect(await flow.runs()).toHaveLength(2)
  })

  it('may be the message id of a trigger', async () => {
    await using stage = await openStage(server.url, all)
    const { flow, namespace } = stage
    await publish(namespace, { partition: 'a' }, 'order-1')
    await until('it is made', async () => (await flow.runs())[0]?.finishedAt !== undefined)
    // The server itself drops what comes with the same id within its window.
    const jsm = await jetstreamManager(nc)
    const { config } = (await jsm.streams.list(`${namespace}.trigger.>`).next())[0] ?? {}
    let window = 100_000_000
    await until('it is taken', async () => {
      // Another window each time: the server may look at what it remembers before it knows the new
      // one, and then not again until the old one has passed.
      window += 1_000_000
      await jsm.streams.update(config?.name ?? '', { duplicate_window: window })
      return !(await publish(namespace, { partition: 'b' }, 'order-1')).duplicate
    })
    await until('it is refused', async () => (await refusals(namespace)).length === 1)
    expect((await refusals(namespace))[0]).toMatchObject({
      msgId: 'order-1',
      reason: expect.stringContaining('Nats-Msg-Id "order-1" was used for another request'),
    })
  })
})

describe('a key of a user', () => {
  it('a key of a user is never one that is made inside: of messages, triggers, redrives', async () => {
    state.broken = false
    await using stage = await openStage(server.url, all)
    const { flow, namespace } = stage
    await publish(namespace, { partition: 'a' }, 'm1')
    await until('it is made', async () => (await flow.runs())[0]?.finishedAt !== undefined)
    const [triggered] = await flow.runs()
    const seen = new Set([triggered?.id])
    for (const key of [
      'msgid:m1',
      'message:1:m1',
      'm1',
      'trigger#1',
      'trigger:1:1',
      `redrive#${triggered?.id}.report`,
    ]) {
      const run = await flow.materialize(report, { key, partition: 'a' })
      expect(run.isNew).toBe(true)
      seen.add(run.id)
      await run.result()
    }
    expect(seen.size).toBe(7)
  })
})

describe('a run under a key that has failed', () => {
  it('a run under a key that has failed is given again, said to be an old one, and tried again when that is asked for', async () => {
    await using stage = await openStage(server.url, all, { shards: 3 })
    const { flow } = stage
    state.broken = true
    const first = await flow.materialize(report, { key: 'k' })
    expect((await rejection(first.result())).message).toMatch(/failed at report: no ink$/)
    const again = await flow.materialize(report, { key: 'k' })
    expect([again.id, again.isNew]).toEqual([first.id, false])
    expect((await rejection(again.result())).message).toMatch(
      /failed at report: no ink \(an earlier run under key "k"; to try again: materialize with onFailed: 'retry'\)$/,
    )

    const second = await flow.materialize(report, { key: 'k', onFailed: 'retry' })
    expect(second.isNew).toBe(true)
    await rejection(second.result())
    expect((await flow.materialize(report, { key: 'k' })).id).toBe(second.id)
    state.broken = false
    // Whoever asks at the same time gets one run.
    const both = await Promise.all([1, 2, 3].map(() => flow.materialize(report, { key: 'k', onFailed: 'retry' })))
    expect(new Set(both.map(({ id }) => id)).size).toBe(1)
    expect(both.filter(({ isNew }) => isNew)).toHaveLength(1)
    const value = await both[0]?.result()
    const later = await flow.materialize(report, { key: 'k', onFailed: 'retry' })
    expect([later.id, later.isNew, await later.result()]).toEqual([both[0]?.id, false, value])
    const [requested] = await factsOf(flow, later.id)
    expect(requested?.data).toMatchObject({ key: 'k', retryOf: second.id })
    const error = await rejection(flow.materialize(report, { key: 'k', partition: 'x', onFailed: 'retry' }))
    expect(error).toMatchObject({ code: 'conflict' })
  })

  it('a run under a key that has failed counts as failed when it was cancelled; one that goes on is given as it is', async () => {
    const gate = Promise.withResolvers<string>()
    const slow = asset('slow', { execute: () => gate.promise })
    await using stage = await openStage(server.url, pipeline('slow', [slow]))
    const { flow } = stage
    const first = await flow.materialize(slow, { key: 'k' })
    expect((await flow.materialize(slow, { key: 'k', onFailed: 'retry' })).id).toBe(first.id)
    await first.cancel()
    await rejection(first.result())
    gate.resolve('made')
    const second = await flow.materialize(slow, { key: 'k', onFailed: 'retry' })
    expect([second.id === first.id, second.isNew, await second.result()]).toEqual([false, true, 'made'])
  })

  it('needs a key, and one of two words', async () => {
    await using stage = await openStage(server.url, all, { engine: false, worker: false })
    expect((await rejection(stage.flow.materialize(report, { onFailed: 'retry' }))).message).toContain('needs key')
    const odd = { key: 'k', onFailed: 'again' as 'retry' }
    expect((await rejection(stage.flow.materialize(report, odd))).message).toContain('onFailed must be return or retry')
  })
})
