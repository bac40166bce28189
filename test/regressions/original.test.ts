/**
 * What broke in the original (docs/bugs.md): each of its defects that concerns scatters, as a
 * scatter that must come out right here.
 */
import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats, headers, type NatsConnection } from '@nats-io/transport-node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { asset, pipeline } from '../../src/index.ts'
import { namesOf } from '../../streams/subjects.ts'
import { collect } from '../kit/collect.ts'
import { useServer } from '../kit/fixture.ts'
import { factsOf, openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { within } from '../kit/within.ts'

const server = useServer({ syncInterval: 'default' })
let nc: NatsConnection
beforeAll(async () => {
  nc = await connectNats({ servers: server.url })
})
afterAll(async () => {
  await nc.close()
})

const limit = () => ({ signal: within(20_000) })
const range = (count: number) => Array.from({ length: count }, (_, i) => i)

describe('defect 1: max_concurrent deadlocks while at least as many are pending as may run', () => {
  it.each([
    [1, 10],
    [3, 3],
    [3, 100],
    [100, 10],
  ])('maxConcurrent %d with %d instances ends', async (maxConcurrent, count) => {
    const work = asset('work', {
      scatterOptions: { maxConcurrent },
      scatter: () => range(count),
      execute: ({ index }) => index,
    })
    await using stage = await openStage(server.url, pipeline('limited', [work]))
    expect(await (await stage.flow.materialize(work)).result(limit())).toHaveLength(count)
  })
})

describe('defect 2: completing twice counts twice, and failing and then succeeding counts as both', () => {
  it('an instance whose outcome comes twice counts once, and the gather waits for the rest', async () => {
    const gate = Promise.withResolvers<void>()
    let gathered = 0
    const work = asset('work', {
      scatter: () => range(4),
      execute: async ({ index }) => {
        if (index === 3) await gate.promise
        return index
      },
      gather: async (results) => {
        gathered += 1
        return (await collect(results)).map(({ value }) => value)
      },
    })
    await using stage = await openStage(server.url, pipeline('twice', [work]), { worker: { drainTimeout: '1s' } })
    const run = await stage.flow.materialize(work)
    const id = `${run.id}.work`
    const succeeded = async () => (await stage.flow.scatter.status(id).catch(() => undefined))?.succeeded
    await until('three are done', async () => (await succeeded()) === 3)
    // The same facts once more, as a worker would send them that heard no answer.
    const names = namesOf(stage.namespace)
    const jsm = await jetstreamManager(nc)
    const outcomes = (await factsOf(stage.flow, run.id)).filter(({ kind }) => kind === 'scatter.outcomes')
    for (const { seq } of [...outcomes, ...outcomes]) {
      const message = await jsm.streams.getMessage(names.log(0), { seq })
      if (!message) throw new Error(`no message ${seq}`)
      const h = headers()
      h.set('Content-Type', message.header.get('Content-Type'))
      await nc.request(message.subject, message.data, { headers: h, timeout: 5000 })
    }
    const last = (await jsm.streams.info(names.log(0))).state.last_seq
    await until('all of it is folded', async () => {
      const message = await jsm.streams.getMessage(names.kvStream(names.stateBucket(0)), {
        last_by_subj: names.kvSubject(names.stateBucket(0), 'engine'),
      })
      return Number(message?.json<{ seq: number }>().seq) >= last
    })
    expect(await stage.flow.scatter.status(id)).toMatchObject({ status: 'open', succeeded: 3, failed: 0, pending: 1 })
    expect(gathered).toBe(0)
    gate.resolve()
    expect(await run.result(limit())).toEqual([0, 1, 2, 3])
    expect(gathered).toBe(1)
  })

  it('an instance that fails and then succeeds counts as one success, and the gather comes after it', async () => {
    const ended: number[] = []
    const work = asset('work', {
      retry: { maxAttempts: 3, backoff: '100ms' },
      scatter: () => range(6),
      execute: ({ index, attempt }) => {
        if (index % 2 === 0 && attempt < 3) throw new Error('not yet')
        ended.push(index)
        return index
      },
      gather: async (results) => ({ ended: ended.length, values: (await collect(results)).map(({ value }) => value) }),
    })
    await using stage = await openStage(server.url, pipeline('flaky', [work]))
    const run = await stage.flow.materialize(work)
    expect(await run.result(limit())).toEqual({ ended: 6, values: range(6) })
    const closed = (await factsOf(stage.flow, run.id)).filter(({ kind }) => kind === 'scatter.closed')
    expect(closed.map(({ data }) => data)).toMatchObject([{ status: 'completed', total: 6, succeeded: 6, failed: 0 }])
  })
})

describe('defect 3: a failed attempt counts as a failed instance, and all_or_nothing dies of the first passing error', () => {
  it('a scatter each of whose instances fails once succeeds', async () => {
    const work = asset('work', {
      retry: { maxAttempts: 2, backoff: '10ms' },
      scatterOptions: { failureMode: 'all_or_nothing' },
      scatter: () => range(50),
      execute: ({ index, attempt }) => {
        if (attempt === 1) throw new Error('passing')
        return index
      },
    })
    await using stage = await openStage(server.url, pipeline('passing', [work]))
    expect(await (await stage.flow.materialize(work)).result(limit())).toHaveLength(50)
  })
})

describe('defect 4: gather is no durable step, and after a partial failure nothing downstream happens', () => {
  it('a scatter that closed while nobody was there to gather is gathered by whoever comes, and what depends on it runs', async () => {
    let nobody = true
    const work = asset('work', {
      queue: 'gathering',
      scatterOptions: {
        queue: 'instances',
        failureMode: 'partial',
        failureThreshold: 0.5,
        retry: { maxAttempts: 1 },
      },
      scatter: () => range(10),
      execute: ({ index }) => {
        if (index % 3 === 0) throw new Error('broken')
        return index
      },
      gather: async (results) => {
        if (nobody) throw new Error('gathered by one that was to be gone')
        return (await collect(results)).filter(({ status }) => status === 'ok').length
      },
    })
    const next = asset('next', { dependsOn: [work], execute: (_, deps) => `${deps.work} of 10` })
    const all = pipeline('durable', [work, next])
    await using stage = await openStage(server.url, all, { worker: { queues: ['gathering'] } })
    const run = await stage.flow.materialize(next)
    const status = async () => (await stage.flow.scatter.status(`${run.id}.work`).catch(() => undefined))?.status
    await until('its keys are stored', async () => (await status()) === 'open')
    await stage.worker?.stop()
    const other = await stage.connect()
    const instances = await other.worker(all, { queues: ['instances'] })
    await until('it is closed', async () => (await status()) === 'partial_failure')
    // Everybody leaves, and others come.
    await instances.stop()
    await stage.engine?.stop()
    nobody = false
    const late = await stage.connect()
    await late.engine()
    await late.worker(all)
    expect(await run.result(limit())).toBe('6 of 10')
  })
})

describe('defect 10: cancelling a scatter marks what never ran as failed', () => {
  it('what never ran counts as cancelled, and can be run by a redrive', async () => {
    const gate = Promise.withResolvers<void>()
    const work = asset('work', {
      retry: { maxAttempts: 1 },
      scatter: () => range(30),
      execute: async ({ index, signal }) => {
        if (index >= 2) await gate.promise
        signal.throwIfAborted()
        return index
      },
    })
    await using stage = await openStage(server.url, pipeline('cancelled', [work]), { worker: { drainTimeout: '1s' } })
    const run = await stage.flow.materialize(work)
    const id = `${run.id}.work`
    const { scatter } = stage.flow
    await until('two are done', async () => (await scatter.status(id).catch(() => undefined))?.succeeded === 2)
    await scatter.cancel(id)
    expect(await rejection(run.result(limit()))).toMatchObject({ code: 'cancelled' })
    await until('it is closed', async () => (await scatter.status(id)).status === 'cancelled')
    expect(await scatter.status(id)).toMatchObject({ succeeded: 2, failed: 0, cancelled: 28, redrivable: 28 })
    expect(await collect(scatter.failures(id))).toEqual([])
    gate.resolve()
    expect(await (await scatter.redrive(id)).result(limit())).toHaveLength(30)
  })
})

describe('defect 11: the barrier holds all keys and is written for each instance; an empty scatter cannot finish', () => {
  it('of no instances is completed at once', async () => {
    const work = asset('work', { scatter: () => range(0), execute: ({ index }) => index })
    await using stage = await openStage(server.url, pipeline('empty', [work]))
    expect(await (await stage.flow.materialize(work)).result(limit())).toEqual([])
  })

  it('of 60,000 instances has small documents, written far less often than once an instance', async () => {
    const count = 60_000
    const work = asset('work', {
      scatter: () => range(count).map((n) => ({ path: `/a/rather/long/key/of/an/instance/${n}` })),
      execute: ({ index }) => index,
      gather: async (results) => {
        let sum = 0
        for await (const { value } of results) sum += value ?? 0
        return sum
      },
    })
    await using stage = await openStage(server.url, pipeline('large', [work]), { worker: { concurrency: 10 } })
    const run = await stage.flow.materialize(work)
    const names = namesOf(stage.namespace)
    const stream = names.kvStream(names.stateBucket(0))
    let largest = 0
    const watching = nc.subscribe(`$KV.${names.stateBucket(0)}.barrier.>`, {
      callback: (_, message) => {
        largest = Math.max(largest, message.data.length)
      },
    })
    expect(await run.result({ signal: within(50_000) })).toBe((count * (count - 1)) / 2)
    watching.unsubscribe()
    expect(largest).toBeGreaterThan(0)
    expect(largest).toBeLessThan(256 * 1024)
    const jsm = await jetstreamManager(nc)
    expect((await jsm.streams.info(stream)).state.last_seq).toBeLessThan(count / 10)
  })
})
