import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats, type NatsConnection } from '@nats-io/transport-node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { asset, InvalidError, pipeline } from '../../src/index.ts'
import { namesOf } from '../../streams/subjects.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage, type Stage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { busy } from '../kit/within.ts'

const server = useServer({ syncInterval: 'default' })
let nc: NatsConnection
beforeAll(async () => {
  nc = await connectNats({ servers: server.url })
})
afterAll(async () => {
  await nc.close()
})

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i)

/** More workers for the stage, each on a connection of its own, as other processes have. */
async function moreWorkers(stage: Stage, all: Parameters<typeof openStage>[1], concurrency = 10): Promise<void> {
  for (let i = 0; i < 2; i++) await (await stage.connect()).worker(all, { concurrency })
}

/** Most of these times in any stretch of so many milliseconds. */
function most(times: readonly number[], stretchMs: number): number {
  const sorted = times.toSorted((a, b) => a - b)
  return Math.max(...sorted.map((from) => sorted.filter((time) => time >= from && time < from + stretchMs).length))
}

/** Waits without keeping anything else in this process from its turn. */
async function pause(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms))
}

describe('rateLimit of a scatter', () => {
  it('spaces starts evenly over all workers, and every instance runs', async () => {
    const starts: { at: number; worker: string }[] = []
    const paced = asset('paced', {
      scatterOptions: { rateLimit: [25, 'second'] },
      scatter: () => range(50),
      execute: ({ index, runId }) => {
        starts.push({ at: performance.now(), worker: runId })
        return index
      },
    })
    const all = pipeline('paced', [paced])
    await using stage = await openStage(server.url, all)
    await moreWorkers(stage, all)
    const run = await stage.flow.materialize(paced)
    expect(await run.result()).toHaveLength(50)
    const times = starts.map(({ at }) => at)
    expect(times).toHaveLength(50)
    // One each 40 ms: timers are a little late, and never early.
    expect(Math.max(...times) - Math.min(...times)).toBeGreaterThanOrEqual(49 * 40 - 20)
    // Up to 100 ms behind its grant a start counts as in time: so many more may come together.
    const late = Math.ceil(100 / 40)
    expect(most(times, 1000)).toBeLessThanOrEqual(26 + late)
    expect(most(times, 200)).toBeLessThanOrEqual(6 + late)
    expect(Math.max(...times) - Math.min(...times)).toBeLessThan(49 * 40 * 3)
  })

  it('rateLimit of a scatter is shared by the name of its bucket: with other scatters, and with who asks the limiter', async () => {
    const starts: number[] = []
    const rateLimit = { bucket: 'openai', limit: 10, per: '600ms' } as const
    const one = asset('one', {
      scatterOptions: { rateLimit },
      scatter: () => range(15),
      execute: () => starts.push(performance.now()),
    })
    const two = asset('two', {
      scatterOptions: { rateLimit },
      scatter: () => range(15),
      execute: () => starts.push(performance.now()),
    })
    const all = pipeline('shared', [one, two])
    await using stage = await openStage(server.url, all)
    await moreWorkers(stage, all)
    const runs = await Promise.all([stage.flow.materialize(one), stage.flow.materialize(two)])
    let taken = 0
    while (taken < 5) {
      await stage.flow.limiter.take('openai', { limit: 10, per: '600ms' })
      starts.push(performance.now())
      taken += 1
    }
    for (const run of runs) expect(await run.result()).toHaveLength(15)
    expect(starts).toHaveLength(35)
    // A stretch that is shorter by what a start may come late behind its grant.
    expect(most(starts, 450)).toBeLessThanOrEqual(10)
    expect(Math.max(...starts) - Math.min(...starts)).toBeGreaterThanOrEqual(3 * 600 - 100)
  })

  it('instances of a quick rate ask together, also where only one may run at a time', async () => {
    const waits: { from: number; to: number }[] = []
    const keep = (event: unknown): void => {
      const to = performance.now()
      waits.push({ from: to - Number(Reflect.get(Object(event), 'durationMs')), to })
    }
    const quick = asset('quick', {
      scatterOptions: { rateLimit: { bucket: 'quick', limit: 2000, per: 'second' } },
      scatter: () => range(400),
      execute: ({ index }) => index,
    })
    await using stage = await openStage(server.url, pipeline('quick', [quick]), { worker: { concurrency: 1 } })
    subscribe('flowstone:rate_limit.wait', keep)
    try {
      expect(await (await stage.flow.materialize(quick)).result()).toHaveLength(400)
    } finally {
      unsubscribe('flowstone:rate_limit.wait', keep)
    }
    const together = waits.map((one) => waits.filter(({ from, to }) => from <= one.to && to >= one.from).length)
    expect(Math.max(...together)).toBeGreaterThan(10)
  })

  it('by key: a slow host does not hold up the others, even if its keys come first', async () => {
    const done: string[] = []
    const pages = [...range(30).map((i) => `slow/${i}`), ...range(10).map((i) => `quick-${i % 5}/${i}`)]
    const crawl = asset('crawl', {
      scatter: () => pages.map((url) => ({ url })),
      scatterOptions: {
        rateLimit: { bucket: (key) => `host:${key.url.split('/')[0]}`, limit: 10, per: 'second', shape: 'smooth' },
      },
      execute: ({ scatterKey }) => {
        done.push(scatterKey.url)
        return scatterKey.url
      },
    })
    const all = pipeline('crawl', [crawl])
    await using stage = await openStage(server.url, all, { worker: { concurrency: 4 } })
    const run = await stage.flow.materialize(crawl)
    await until('all of the quick hosts are done', () => done.filter((url) => url.startsWith('quick')).length === 10)
    expect(done.filter((url) => url.startsWith('slow')).length).toBeLessThan(20)
    expect(await run.result()).toHaveLength(40)
  })

  it('rateLimit of a scatter keeps no room from other work while it waits', async () => {
    const slow = asset('slow', {
      scatterOptions: { rateLimit: [1, 'second'] },
      scatter: () => range(200),
      execute: ({ index }) => index,
    })
    const quick = asset('quick', { execute: () => 'done' })
    const all = pipeline('room', [slow, quick])
    await using stage = await openStage(server.url, all, { worker: { concurrency: 2 } })
    const waits = await stage.flow.materialize(slow)
    const bucket = `scatter:${waits.id}.slow`
    await until('it waits', async () => ((await stage.flow.limiter.status(bucket)).rate?.waiting ?? 0) > 0)
    const startedMs = performance.now()
    for (let i = 0; i < 5; i++)
      expect(await (await stage.flow.materialize(quick, { key: `${i}` })).result()).toBe('done')
    // The scatter needs 200 s.
    expect(performance.now() - startedMs).toBeLessThan(20_000 * busy())
    // The state may lag what was heard of the quick ones.
    const scatter = async () => (await stage.flow.scatter.list(waits.id))[0]
    await until('the state knows it', async () => (await scatter()) !== undefined)
    expect((await scatter())?.failed).toBe(0)
    await waits.cancel()
  })

  it('rateLimit of a scatter ends at once when it is cancelled, and counts no attempt for what never began', async () => {
    const attempts: number[] = []
    const slow = asset('slow', {
      retry: { maxAttempts: 1 },
      scatterOptions: { rateLimit: [20, 'second'], maxConcurrent: 3 },
      scatter: () => range(30),
      execute: ({ attempt }) => attempts.push(attempt),
    })
    const all = pipeline('cancelled', [slow])
    await using stage = await openStage(server.url, all)
    await moreWorkers(stage, all)
    expect(await (await stage.flow.materialize(slow)).result()).toHaveLength(30)
    expect(new Set(attempts)).toEqual(new Set([1]))
    const run = await stage.flow.materialize(slow, { key: 'second' })
    await until('it has begun', () => attempts.length > 31)
    await run.cancel()
    await until('nothing of it is in hand', () => stage.worker?.busy === 0)
    const begun = attempts.length
    // What could begin would lie there.
    const jsm = await jetstreamManager(nc)
    const work = namesOf(stage.namespace).work(0)
    await until('no task is left', async () => (await jsm.streams.info(work)).state.messages === 0)
    expect(attempts.length).toBe(begun)
  })
})

describe('a function that names the bucket for each key', () => {
  const undecided = [undefined, null, '', 7, {}, Promise.resolve('late'), 'x'.repeat(257)]

  it.each(['rateLimit', 'slots'] as const)(
    'fails the instances for which it names none, and no others: %s',
    async (option) => {
      const bucket = ({ n }: { n: number }): string => (n < undecided.length ? undecided[n] : 'named') as string
      const limit =
        option === 'slots'
          ? { slots: { bucket, max: 2 } }
          : { rateLimit: { bucket, limit: 100, per: 'second' as const } }
      const ran: number[] = []
      const keyed = asset('keyed', {
        retry: { maxAttempts: 1 },
        scatter: () => range(undecided.length + 2).map((n) => ({ n })),
        scatterOptions: { ...limit, failureMode: 'partial', failureThreshold: 1 },
        execute: ({ index }) => ran.push(index),
        gather: async (results) => {
          const messages: string[] = []
          for await (const result of results) if (result.status !== 'ok') messages.push(result.error.message)
          return messages
        },
      })
      await using stage = await openStage(server.url, pipeline('keyed', [keyed]))
      const messages = await (await stage.flow.materialize(keyed)).result()
      expect(messages).toHaveLength(undecided.length)
      for (const message of messages)
        expect(message).toContain(`${option}: bucket must bring the name of a bucket for every key`)
      expect(ran.toSorted()).toEqual([undecided.length, undecided.length + 1])
    },
  )
})

describe('slots', () => {
  it('slots are held by instances while they run, over all workers, by weight, and all run', async () => {
    let held = 0
    let peak = 0
    const train = asset('train', {
      slots: { bucket: 'gpu', max: 4, weight: 2 },
      scatter: () => range(30),
      execute: async ({ index }) => {
        held += 2
        peak = Math.max(peak, held)
        await pause(15)
        held -= 2
        return index
      },
    })
    const all = pipeline('train', [train])
    await using stage = await openStage(server.url, all)
    await moreWorkers(stage, all)
    expect(await (await stage.flow.materialize(train)).result()).toHaveLength(30)
    expect(peak).toBe(4)
    expect((await stage.flow.limiter.status('gpu')).slots).toMatchObject({ count: 0, waiting: 0 })
  })

  it('slots are held by plain assets too, and given back when those fail', async () => {
    let held = 0
    let peak = 0
    const plain = asset('plain', {
      slots: { bucket: 'one', max: 1 },
      retry: { maxAttempts: 2, backoff: '10ms' },
      execute: async ({ attempt }) => {
        held += 1
        peak = Math.max(peak, held)
        await pause(10)
        held -= 1
        if (attempt === 1) throw new Error('once more')
        return attempt
      },
    })
    const all = pipeline('plain', [plain])
    await using stage = await openStage(server.url, all)
    await moreWorkers(stage, all)
    const runs = await Promise.all(range(8).map((i) => stage.flow.materialize(plain, { key: `${i}` })))
    expect(await Promise.all(runs.map((run) => run.result()))).toEqual(range(8).map(() => 2))
    expect(peak).toBe(1)
  })

  it('abort what runs when they are lost, and it is tried again', async () => {
    const reasons: unknown[] = []
    const work = asset('work', {
      scatterOptions: {
        slots: { bucket: (key) => `lost-${key}`, max: 1, lease: '600ms' },
        retry: { maxAttempts: 2, backoff: '10ms' },
      },
      scatter: () => ['a'],
      execute: ({ signal, attempt }) =>
        attempt > 1
          ? attempt
          : new Promise<number>(() => {
              signal.addEventListener('abort', () => reasons.push(signal.reason))
            }),
    })
    await using stage = await openStage(server.url, pipeline('lost', [work]))
    const run = await stage.flow.materialize(work)
    await until('it runs', async () => (await stage.flow.limiter.status('lost-a')).slots?.count === 1)
    await stage.flow.limiter.reset('lost-a')
    expect(await run.result()).toEqual([{ key: 'a', value: 2 }])
    expect(reasons).toMatchObject([{ code: 'slot_lost' }])
  })
})

describe('what waits at a gate', () => {
  it('what waits at a gate holds no slot meanwhile, neither an instance nor a plain asset', async () => {
    const asked = asset('asked', {
      scatter: () => [1, 2, 3],
      scatterOptions: { slots: { bucket: 'desk', max: 1 }, maxConcurrent: 1 },
      execute: (ctx) => ctx.signalGate({ timeout: '1h' }),
      onSignal: (_, payload: number) => payload,
    })
    const plain = asset('plain', {
      slots: { bucket: 'desk', max: 1 },
      execute: (ctx) => ctx.signalGate({ timeout: '1h' }),
      onSignal: (_, payload: number) => payload,
    })
    const gates = { secrets: [{ id: 'k1', secret: 's'.repeat(32) }] }
    await using stage = await openStage(server.url, pipeline('asked', [asked, plain]), { gates })
    const { flow } = stage
    const runs = [await flow.materialize(asked), await flow.materialize(plain)]
    const waiting = async () => (await Promise.all(runs.map(({ id }) => flow.gates.list(id)))).flat()
    await until('all four wait', async () => (await waiting()).length === 4)
    await until('the desk is free', async () => (await flow.limiter.status('desk')).slots?.count === 0)
    for (const { id } of await waiting()) await flow.gates.signal(await flow.gates.token(id), 7)
    expect(await runs[0]?.result()).toHaveLength(3)
    expect(await runs[1]?.result()).toBe(7)
  })
})

describe('the options', () => {
  it.each([
    [{ rateLimit: [0, 'second'] }, /rateLimit: limit must be a whole number from 1/],
    [{ rateLimit: { limit: 5, per: 'minute', bucket: '' } }, /rateLimit: bucket must be text/],
    [
      { rateLimit: { limit: 5, per: 'minute', buckets: 'a' } },
      /rateLimit: there is no option buckets; did you mean bucket/,
    ],
    [{ slots: { max: 4 } }, /slots: bucket must be text/],
    [{ slots: { bucket: 'gpu', max: 2, weight: 3 } }, /slots: weight must be a whole number from 1 to 2/],
    [{ slots: { bucket: 'gpu', max: 2, lease: '1ms' } }, /slots: lease must be at least 500 ms/],
  ])('%j are refused where they are declared', (scatterOptions, message) => {
    const declare = (): unknown =>
      Reflect.apply(asset, undefined, ['a', { scatter: () => [1], execute: () => 1, scatterOptions }])
    expect(declare).toThrow(InvalidError)
    expect(declare).toThrow(message)
  })
})
