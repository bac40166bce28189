import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { describe, expect, it } from 'vitest'
import { asset, pipeline } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { factsOf, openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })

const range = (count: number) => Array.from({ length: count }, (_, i) => i)

describe('a worker that is stopped', () => {
  it('a worker that is stopped waits for what runs, and takes nothing new', async () => {
    const gate = Promise.withResolvers<string>()
    let others = 0
    const held = asset('held', { execute: () => gate.promise })
    const other = asset('other', { execute: () => (others += 1) })
    const all = pipeline('waits', [held, other])
    await using stage = await openStage(server.url, all, { worker: { concurrency: 5 } })
    const run = await stage.flow.materialize(held)
    await until('it runs', () => stage.worker?.busy === 1)
    const stopping = stage.worker?.stop()
    const later = await stage.flow.materialize(other)
    await until('the engine has queued it', async () => (await later.status())?.assets.other?.status === 'queued')
    gate.resolve('done')
    await stopping
    expect(await run.result()).toBe('done')
    expect(others).toBe(0)
    await stage.worker?.stop()
    await stage.flow.worker(all)
    expect(await later.result()).toBe(1)
  })

  it('hands back what does not end in time, which another one runs, and no attempt is charged', async () => {
    const runs: { worker: string; kind: string; attempt: number }[] = []
    const work = (kind: string, resources: object, attempt: number, signal: AbortSignal) => {
      const worker = String(Reflect.get(resources, 'name'))
      runs.push({ worker, kind, attempt })
      if (worker === 'second') return kind
      return new Promise<string>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
    }
    // One attempt only: if it were charged, the run would fail.
    const retry = { maxAttempts: 1 } as const
    const plain = asset('plain', {
      retry,
      execute: ({ resources, attempt, signal }) => work('plain', resources, attempt, signal),
    })
    const scattered = asset('scattered', {
      retry,
      scatter: () => range(6),
      execute: ({ resources, attempt, signal }) => work('instance', resources, attempt, signal),
    })
    const all = pipeline('hands_back', [plain, scattered])
    await using stage = await openStage(server.url, all, {
      worker: { concurrency: 7, drainTimeout: 50, resources: { name: 'first' } },
    })
    const one = await stage.flow.materialize(plain)
    const many = await stage.flow.materialize(scattered)
    await until('all are running', () => runs.length === 7)
    const stopping = stage.worker?.stop()
    await stage.flow.worker(all, { concurrency: 7, resources: { name: 'second' } })
    await stopping
    expect(await one.result()).toBe('plain')
    expect(await many.result()).toHaveLength(6)
    expect(runs.filter(({ worker }) => worker === 'first')).toHaveLength(7)
    expect(runs.filter(({ worker }) => worker === 'second')).toHaveLength(7)
    expect(runs.filter(({ kind }) => kind === 'instance').every(({ attempt }) => attempt === 1)).toBe(true)
    const errored = (await factsOf(stage.flow, one.id)).filter(({ kind }) => kind === 'attempt.ended')
    expect(errored.map(({ data }) => Reflect.get(data, 'outcome'))).toEqual(['returned'])
  })

  it('hands back what waits for a slot, too', async () => {
    const started: string[] = []
    const held = asset('held', {
      retry: { maxAttempts: 1 },
      execute: ({ resources, partition, signal }) => {
        const worker = String(Reflect.get(resources, 'name'))
        started.push(`${worker} ${partition}`)
        if (worker === 'second') return partition
        return new Promise<string>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
      },
    })
    const all = pipeline('slots', [held])
    await using stage = await openStage(server.url, all, {
      worker: { concurrency: 1, drainTimeout: 20, resources: { name: 'first' } },
    })
    const runs = await Promise.all(range(5).map((i) => stage.flow.materialize(held, { partition: String(i) })))
    await until('one runs', () => started.length === 1)
    await stage.worker?.stop()
    await stage.flow.worker(all, { resources: { name: 'second' } })
    expect(await Promise.all(runs.map((run) => run.result()))).toEqual(['0', '1', '2', '3', '4'])
    expect(started.filter((name) => name.startsWith('first'))).toHaveLength(1)
  })

  it('a worker that is stopped stops with its flow, and twice is as good as once', async () => {
    const quick = asset('quick', { execute: () => 1 })
    const all = pipeline('closes', [quick])
    await using stage = await openStage(server.url, all)
    const other = await stage.connect()
    const worker = await other.worker(all)
    await Promise.all([worker.stop(), worker.stop(), other.close(), other.close()])
    expect(worker.busy).toBe(0)
    expect(await rejection(other.materialize(quick))).toBeInstanceOf(Error)
    expect(await (await stage.flow.materialize(quick)).result()).toBe(1)
  })
})

describe('a worker', () => {
  it('puts a task of an asset that it does not have back, and one that has it runs it', async () => {
    const old = pipeline('deploys', [asset('first', { execute: () => 'old' })])
    const first = asset('first', { execute: () => 'new' })
    const second = asset('second', {
      retry: { maxAttempts: 1 },
      dependsOn: [first],
      execute: (_, deps) => `after ${deps.first}`,
    })
    const current = pipeline('deploys', [first, second])
    await using stage = await openStage(server.url, old)
    const run = await stage.flow.materialize(second)
    await until('the old worker has met it', async () => (await run.status())?.assets.second?.status === 'queued')
    await stage.flow.worker(current)
    expect(await run.result()).toMatch(/^after (old|new)$/)
    expect((await factsOf(stage.flow, run.id)).filter(({ kind }) => kind === 'attempt.ended')).toEqual([])
  })

  it('puts a task back that it would have to run in another way, such as a scatter of what it has as plain', async () => {
    const plain = pipeline('shapes', [asset('shape', { execute: () => 'plain' })])
    const shape = asset('shape', {
      retry: { maxAttempts: 1 },
      scatter: () => [1, 2],
      execute: ({ scatterKey }) => scatterKey,
    })
    const scattering = pipeline('shapes', [shape])
    await using stage = await openStage(server.url, plain)
    const run = await stage.flow.materialize(shape)
    await until('the old worker has met it', async () => (await run.status())?.assets.shape?.status === 'queued')
    await stage.flow.worker(scattering)
    expect(await run.result()).toEqual([
      { key: 1, value: 1 },
      { key: 2, value: 2 },
    ])
  })

  it('drops a task that it returns again and again when its run is cancelled', async () => {
    const old = pipeline('circles', [asset('first', { execute: () => 1 })])
    const second = asset('second', { execute: () => 1 })
    const current = pipeline('circles', [second])
    await using stage = await openStage(server.url, old)
    const run = await stage.flow.materialize(second, { pipeline: current })
    await until('it is queued', async () => (await run.status())?.assets.second?.status === 'queued')
    await run.cancel()
    await rejection(run.result())
    const { connect: connectNats } = await import('@nats-io/transport-node')
    const { jetstreamManager } = await import('@nats-io/jetstream')
    const nc = await connectNats({ servers: server.url })
    const jsm = await jetstreamManager(nc)
    await until('WORK is empty', async () => (await jsm.streams.info(`${stage.namespace}_WORK_0`)).state.messages === 0)
    await nc.close()
  })

  it('a worker runs what has priority 0 before what has 3, when both are queued', async () => {
    const order: number[] = []
    const low = asset('low', { priority: 3, execute: () => order.push(3) })
    const mid = asset('mid', { execute: () => order.push(1) })
    const high = asset('high', { priority: 0, execute: () => order.push(0) })
    const all = pipeline('priorities', [low, mid, high])
    await using stage = await openStage(server.url, all, { worker: false })
    const runs = []
    for (const each of [low, mid, high]) for (let i = 0; i < 5; i++) runs.push(await stage.flow.materialize(each))
    await until('all are queued', async () => {
      const views = await stage.flow.runs()
      return views.length === 15 && views.every(({ assets, target }) => assets[target]?.status === 'queued')
    })
    await stage.flow.worker(all, { concurrency: 1 })
    await Promise.all(runs.map((run) => run.result()))
    expect(order).toEqual([...Array(5).fill(0), ...Array(5).fill(1), ...Array(5).fill(3)])
  })

  it('a worker serves only the queues of its options', async () => {
    const where: string[] = []
    const note = ({ asset: name, resources }: { asset: string; resources: object }) =>
      where.push(`${name} on ${Reflect.get(resources, 'name')}`)
    const light = asset('light', { execute: note })
    const heavy = asset('heavy', { queue: 'gpu', dependsOn: [light], execute: note })
    const all = pipeline('queues', [light, heavy])
    await using stage = await openStage(server.url, all, {
      worker: { queues: ['default'], resources: { name: 'small' } },
    })
    const run = await stage.flow.materialize(heavy)
    await until('the heavy one is queued', async () => (await run.status())?.assets.heavy?.status === 'queued')
    await stage.flow.worker(all, { queues: ['gpu'], resources: { name: 'large' } })
    await run.result()
    expect(where).toEqual(['light on small', 'heavy on large'])
    const error = await rejection(stage.flow.worker(all, { queues: ['cpu'] }))
    expect(error).toMatchObject({ code: 'invalid' })
    expect(error.message).toContain('no asset of its pipelines is on queue cpu')
    const none = await rejection(stage.flow.worker(all, { queues: [] }))
    expect(none.message).toBe('worker: queues is empty: name one at least, or leave it out for all')
  })

  it.each([1, 3, 8])(
    'runs at most as many pieces of code at a time as its concurrency says: %i',
    async (concurrency) => {
      let running = 0
      let most = 0
      const full = Promise.withResolvers<void>()
      const piece = async () => {
        running += 1
        most = Math.max(most, running)
        if (most >= concurrency) full.resolve()
        await full.promise
        await new Promise((resolve) => setTimeout(resolve, 5))
        running -= 1
        return 1
      }
      const plain = asset('plain', { execute: piece })
      const many = asset('many', { scatter: () => range(40), execute: piece })
      const others = asset('others', { priority: 2, scatter: () => range(40), execute: piece })
      const all = asset('all', { dependsOn: [plain, many, others], execute: () => 1 })
      await using stage = await openStage(server.url, pipeline('busy', [plain, many, others, all]), {
        worker: { concurrency },
      })
      await (await stage.flow.materialize(all)).result()
      expect(most).toBe(concurrency)
    },
  )

  it('a worker gives user code its resources, its partition, and an idempotency key that is the same for every attempt', async () => {
    const seen: string[] = []
    const flaky = asset('flaky', {
      retry: { maxAttempts: 2, backoff: '10ms' },
      execute: ({ resources, partition, idempotencyKey, runId, asset: name, attempt, log }) => {
        log.info(`attempt ${attempt}`)
        seen.push(idempotencyKey)
        if (attempt === 1) throw new Error('not yet')
        return { resources: { ...resources }, partition, run: runId, name }
      },
    })
    await using stage = await openStage(server.url, pipeline('context', [flaky]), {
      worker: { resources: { db: 'pool' } },
    })
    const run = await stage.flow.materialize(flaky, { partition: 'p' })
    expect(await run.result()).toEqual({ resources: { db: 'pool' }, partition: 'p', run: run.id, name: 'flaky' })
    expect(new Set(seen).size).toBe(1)
    expect(stage.lines).toEqual(['attempt 1', 'attempt 2'])
  })
})

it('a slot is for code: while an outcome is stored, other code has it, of a chain, too', async () => {
  let [running, most] = [0, 0]
  const code = async () => {
    running += 1
    most = Math.max(most, running)
    await new Promise((resolve) => setImmediate(resolve))
    running -= 1
  }
  const first = asset('first', { execute: code })
  const second = asset('second', { dependsOn: [first], execute: code })
  const all = pipeline('seats', [first, second])
  const began: string[] = []
  let beside = 0
  const starts = (event: unknown): void => void began.push(String(Reflect.get(Object(event), 'run')))
  // Its outcome is on the log.
  const stops = (event: unknown): void => {
    if (began.at(-1) !== Reflect.get(Object(event), 'run')) beside += 1
  }
  subscribe('flowstone:materialization.start', starts)
  subscribe('flowstone:materialization.stop', stops)
  try {
    await using stage = await openStage(server.url, all, { worker: false })
    const runs = await Promise.all(range(20).map(() => stage.flow.materialize(second)))
    await stage.flow.worker(all, { concurrency: 1 })
    await Promise.all(runs.map((run) => run.result()))
  } finally {
    unsubscribe('flowstone:materialization.start', starts)
    unsubscribe('flowstone:materialization.stop', stops)
  }
  expect([most, began.length]).toEqual([1, 40])
  expect(beside).toBeGreaterThan(0)
})

it('a worker that drains says so while its code runs', async () => {
  const release = Promise.withResolvers<void>()
  const begun = Promise.withResolvers<void>()
  const held = asset('held', {
    execute: async () => {
      begun.resolve()
      await release.promise
    },
  })
  await using stage = await openStage(server.url, pipeline('drains', [held]))
  const run = await stage.flow.materialize(held)
  await begun.promise
  await using other = await stage.connect()
  expect(await other.inspect.workers()).toMatchObject([{ state: 'answers' }])
  const stopped = stage.worker?.stop()
  await until('it drains', async () => (await other.inspect.workers())[0]?.state === 'draining')
  release.resolve()
  await stopped
  await run.result()
})
