/** Waiting is never silent: the status says why an asset waits. */
import { describe, expect, it } from 'vitest'
import { asset, type Flow, pipeline, type RateOption, type Run } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })

const gates = { secrets: [{ id: 'k1', secret: 'x'.repeat(40) }] }

/** Waits until the status of an asset says so. */
async function says(run: Run, name: string, why: RegExp): Promise<void> {
  let last: unknown
  await until(
    `${name} waits for ${why}`,
    async () => {
      last = (await run.status())?.assets[name]?.waitingFor
      return Array.isArray(last) && last.some((reason) => why.test(reason))
    },
    10_000,
  ).catch((error: unknown) => {
    throw new Error(`it says ${JSON.stringify(last)}`, { cause: error })
  })
}

/** Code that runs until it is let go. */
function held(): { readonly execute: () => Promise<string>; readonly letGo: () => void; readonly begun: () => number } {
  const { promise, resolve } = Promise.withResolvers<void>()
  let count = 0
  return {
    execute: async () => {
      count += 1
      await promise
      return 'done'
    },
    letGo: resolve,
    begun: () => count,
  }
}

describe('the status of a plain asset says that it waits for', () => {
  it('an engine, before one has seen the run, and after it has gone', async () => {
    const code = held()
    const slow = asset('slow', { execute: code.execute })
    const shard = pipeline('p', [slow])
    await using stage = await openStage(server.url, shard, { engine: false })
    const run = await stage.flow.materialize(slow)
    const reasons = [expect.stringMatching(/^an engine: none is active; start one with flowstone engine/)]
    expect(await run.status()).toMatchObject({ status: 'requested', waitingFor: reasons, assets: {} })
    const engine = await stage.flow.engine()
    await until('it runs', () => code.begun() === 1)
    expect((await run.status())?.waitingFor).toEqual([])
    await engine.stop()
    expect((await run.status())?.waitingFor).toEqual(reasons)
    code.letGo()
    await stage.flow.engine()
    expect(await run.result()).toBe('done')
    expect((await run.status())?.waitingFor).toEqual([])
  })

  it('a worker, one of its queue, or one with its version', async () => {
    const report = asset('report', { queue: 'big', execute: () => 1 })
    const other = asset('other', { execute: () => 1 })
    const v1 = pipeline('p', [report, other])
    await using stage = await openStage(server.url, v1, { worker: false })
    const { flow } = stage
    const run = await flow.materialize(report)
    await says(run, 'report', /^a worker: none of pipeline p answers; start one with flowstone worker FILE/)
    const small = await flow.worker(v1, { queues: ['default'] })
    await says(run, 'report', /^a worker: none answers that serves queue p\/big; 1 answer, for default$/)
    await small.stop()
    const base = asset('base', { execute: () => 1 })
    const v2 = pipeline('p', [base, asset('report', { queue: 'big', dependsOn: [base], execute: () => 1 })])
    await flow.worker(v2)
    const [a, b] = [v1.spec.version, v2.spec.version]
    const seen = `version ${a} of pipeline p, which report was planned for; seen: version ${b} \\(dependsOn \\(nothing → base\\)\\)`
    await says(run, 'report', new RegExp(`^a worker with ${seen}`))
    const v3 = pipeline('p', [base])
    await flow.worker(v3)
    await says(run, 'report', new RegExp(`version ${v3.spec.version} \\(it has no report\\)`))
    await flow.worker(v1)
    expect(await run.result()).toBe(1)
  })

  it('its dependencies, a gate, or a retry', async () => {
    const approved = asset('approved', { execute: (ctx) => ctx.approval({ message: 'ok?', timeout: '1h' }) })
    const flaky = asset('flaky', {
      retry: { backoff: '1h' },
      execute: () => {
        throw new Error('no luck')
      },
    })
    const last = asset('last', { dependsOn: [approved, flaky], execute: () => 1 })
    await using stage = await openStage(server.url, pipeline('p', [approved, flaky, last]), { gates })
    const run = await stage.flow.materialize(last)
    await says(run, 'approved', /^a signal: at gate \S+\.approved\.\S+ until \d{4}-\d\d-\d\dT/)
    await says(run, 'flaky', /^a retry delay: attempt 2 at \d{4}-\S+; the last one failed: no luck$/)
    await says(run, 'last', /^its dependencies: approved \(suspended\), flaky \(queued\)$/)
    await run.cancel()
  })

  it('a slot, and who holds it', async () => {
    const code = held()
    const a = asset('a', { slots: { bucket: 'gpu', max: 1 }, execute: code.execute })
    await using stage = await openStage(server.url, pipeline('p', [a]))
    const first = await stage.flow.materialize(a)
    await until('the first one runs', () => code.begun() === 1)
    const second = await stage.flow.materialize(a)
    await says(
      second,
      'a',
      new RegExp(`^a slot of gpu: 1 of 1 are taken, by ${first.id}\\.a \\(for \\d+ s\\); waiting: 1$`),
    )
    expect((await first.status())?.assets.a?.waitingFor).toEqual([])
    code.letGo()
    expect(await Promise.all([first.result(), second.result()])).toEqual(['done', 'done'])
  })

  it('room in a worker', async () => {
    const code = held()
    const a = asset('a', { execute: code.execute })
    await using stage = await openStage(server.url, pipeline('p', [a]), { worker: { concurrency: 1 } })
    const runs = [await stage.flow.materialize(a), await stage.flow.materialize(a), await stage.flow.materialize(a)]
    await until('one runs', () => code.begun() === 1)
    const waits = async (): Promise<string[]> =>
      (await Promise.all(runs.map((run) => run.status()))).flatMap((view) => view?.assets.a?.waitingFor ?? [])
    await until('the others say so', async () => (await waits()).length === 2)
    for (const why of await waits())
      expect(why).toMatch(
        /^room in (a worker: .*; slots: 1, of 1 worker, and all are taken|\S+, which runs 1 piece of code at a time)$/,
      )
    code.letGo()
    await Promise.all(runs.map((run) => run.result()))
  })

  it('what its scatter waits for', async () => {
    const s = asset('s', { scatter: () => [1, 2, 3], execute: () => 1, scatterOptions: { queue: 'nobody' } })
    await using stage = await openStage(server.url, pipeline('p', [s]), { worker: { queues: ['default'] } })
    const run = await stage.flow.materialize(s)
    await says(run, 's', /^a worker: none answers that serves queue p\/nobody/)
    await stage.flow.scatter.pause(`${run.id}.s`, 'lunch')
    await says(run, 's', /^somebody to resume it: paused since .* \(lunch\)$/)
    await run.cancel()
  })
})

it('a scatter with a rate limit says when its next turn is', async () => {
  const s = asset('s', { scatter: () => [1, 2, 3], execute: () => 1, scatterOptions: { rateLimit: [1, '20s'] } })
  await using stage = await openStage(server.url, pipeline('p', [s]))
  const run = await stage.flow.materialize(s)
  await says(run, 's', /^its rate limit: 1 in 20000 ms; the next turn is at \d{4}-\S+; \d+ (leased )?instances wait/)
  const { waitingFor } = await stage.flow.scatter.status(`${run.id}.s`)
  expect(waitingFor.join()).toMatch(/the next turn is at \d{4}-/)
  await run.cancel()
})

it('a scatter whose code nobody has says so', async () => {
  const v1 = pipeline('p', [asset('s', { scatter: () => [1], scatterOptions: { queue: 'far' }, execute: () => 1 })])
  const v2 = pipeline('p', [
    asset('s', { scatter: () => [1], scatterOptions: { queue: 'far' }, execute: () => 1, codeVersion: '2' }),
  ])
  await using stage = await openStage(server.url, v1, { worker: { queues: ['default'] } })
  const { flow } = stage
  const [s] = v1.assets
  if (!s) throw new Error('no s')
  const run = await flow.materialize(s)
  await until('it is scattered', async () => (await run.status())?.assets.s?.status === 'scattering')
  await stage.worker?.stop()
  await flow.worker(v2)
  await says(run, 's', /^a worker with version .*seen: version .* \(codeVersion \(none → 2\)\)/)
  await run.cancel()
})

describe('the status of a rate limit', () => {
  it.each(['window', 'smooth'] as const)('shows turns that are promised: %s', async (shape) => {
    await using stage = await openStage(server.url, pipeline('p', [asset('a', { execute: () => 1 })]), {
      engine: false,
      worker: false,
    })
    const { limiter } = stage.flow
    const rate: RateOption = { limit: 1, per: '20s', shape }
    await take(stage.flow, rate)
    const stop = new AbortController()
    const waiting = take(stage.flow, rate, stop.signal).catch(() => undefined)
    await until('its turn is promised', async () => (await limiter.status('api')).rate?.waiting === 1)
    const found = (await limiter.status('api')).rate
    const [turn] = found?.reservations ?? []
    expect(found?.reservations).toHaveLength(1)
    expect(turn?.tokens).toBe(1)
    const inMs = (turn?.at.getTime() ?? 0) - Date.now()
    expect(inMs).toBeGreaterThan(10_000)
    expect(inMs).toBeLessThan(21_000)
    expect((found?.nextTurn.getTime() ?? 0) - (turn?.at.getTime() ?? 0)).toBeGreaterThan(19_000)
    stop.abort()
    await waiting
  })
})

async function take(flow: Flow, rate: RateOption, signal?: AbortSignal): Promise<void> {
  await flow.limiter.take('api', rate, { maxWait: '10m', ...(signal ? { signal } : {}) })
}
