import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { asset, type Flow, InvalidError, input, pipeline, type Run } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage, rejection, type Stage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })

/** Runs that end when they are let go, and say how many were active at a time. */
const work = { atWork: 0, most: 0, order: [] as string[], waits: new Map<string, () => void>(), hold: true }
const order = input('order', z.object({ customer: z.string(), n: z.int() }))
const job = asset('job', {
  dependsOn: [order],
  execute: async ({ runId, signal }, { order }) => {
    work.atWork += 1
    work.most = Math.max(work.most, work.atWork)
    work.order.push(`${order.customer}${order.n}`)
    if (work.hold)
      await new Promise<void>((resolve) => {
        work.waits.set(runId, resolve)
        signal.addEventListener('abort', () => resolve())
      })
    work.atWork -= 1
    return order.n
  },
})
const jobs = pipeline('jobs', [order, job], { concurrency: { limit: 1, key: { input: 'order.customer' } } })

let stage: Stage
let flow: Flow
beforeAll(async () => {
  stage = await openStage(server.url, jobs, { shards: 3, worker: { concurrency: 20 } })
  flow = stage.flow
})
afterAll(async () => {
  await stage[Symbol.asyncDispose]()
})

let asked = 0
async function start(customer: string, options: object = {}): Promise<Run<number>> {
  asked += 1
  return await flow.materialize(job, { input: { order: { customer, n: asked } }, ...options })
}
const begins = (run: Run) => until(`run ${run.id} is active`, () => work.waits.has(run.id))
const end = (run: Run) => work.waits.get(run.id)?.()

describe('runs of a concurrency key', () => {
  it('wait for their turn, say for whom and at which place, and start in order', async () => {
    const [first, second, third] = [await start('a'), await start('a'), await start('a')]
    const other = await start('b')
    await Promise.all([begins(first), begins(other)])
    await until('the third one waits', async () => (await third.view())?.status === 'queued')
    const status = await third.status()
    expect(status?.concurrency).toEqual({ key: 'a', limit: 1, onConflict: 'queue' })
    expect(status?.waitingFor).toEqual([
      `its turn under concurrency key "a", limit 1: active ${first.id}; place 2 of 2`,
    ])
    end(first)
    await begins(second)
    expect(work.waits.has(third.id)).toBe(false)
    end(second)
    await begins(third)
    for (const run of [third, other]) end(run)
    await Promise.all([first, second, third, other].map((run) => run.result()))
  })

  it('that wait are cancelled, and run out of time, without being run', async () => {
    const first = await start('c')
    await begins(first)
    const [waiting, late] = [await start('c'), await start('c', { timeout: '200ms' })]
    await waiting.cancel()
    expect(await rejection(waiting.result())).toMatchObject({ code: 'cancelled' })
    expect(await rejection(late.result())).toMatchObject({ code: 'timeout' })
    const last = await start('c')
    end(first)
    await begins(last)
    end(last)
    await last.result()
    expect([work.waits.has(waiting.id), work.waits.has(late.id)]).toEqual([false, false])
  })

  it('are skipped or take the place of the active one, where they say so', async () => {
    const concurrency = { key: 'mine', limit: 1 } as const
    const first = await start('x', { concurrency })
    await begins(first)
    const skipped = await start('y', { concurrency: { ...concurrency, onConflict: 'skip' } })
    expect(await rejection(skipped.result())).toMatchObject({
      code: 'run_skipped',
      message: expect.stringContaining(first.id),
    })
    const next = await start('z', { concurrency: { ...concurrency, onConflict: 'cancel_running' } })
    expect(await rejection(first.result())).toMatchObject({ code: 'cancelled' })
    await begins(next)
    end(next)
    await next.result()
    const again = await flow.retry(skipped.id)
    await begins(again)
    expect((await again.view())?.concurrency?.key).toBe('mine')
    end(again)
    await again.result()
  })

  it('are asked for by a key of their own, and by a trigger, as any other', async () => {
    const first = await start('k', { key: 'once' })
    await begins(first)
    const same = await flow.materialize(job, { input: { order: { customer: 'k', n: asked } }, key: 'once' })
    expect([same.id, same.isNew]).toEqual([first.id, false])
    expect(await rejection(start('l', { key: 'once' }))).toMatchObject({ code: 'conflict' })
    const seen = work.order.length
    await stage.flow.request('jobs/job', { input: { order: { customer: 'k', n: -1 } } })
    end(first)
    await until('the second one is active', () => work.order.length > seen)
    expect(work.order.at(-1)).toBe('k-1')
    for (const resolve of work.waits.values()) resolve()
  })

  it('are many, and never more than the limit active', async () => {
    work.hold = false
    Object.assign(work, { most: 0, order: [] })
    const concurrency = { key: 'many', limit: 3 }
    const all = await Promise.all(Array.from({ length: 60 }, () => start('m', { concurrency })))
    await Promise.all(all.map((run) => run.result()))
    expect(work.most).toBeLessThanOrEqual(3)
    expect(work.order).toHaveLength(60)
    work.hold = true
  })
})

it('a wrong concurrency is named', async () => {
  const of = (concurrency: object) => () => pipeline('p', [order, job], { concurrency } as never)
  expect(of({ limit: 0 })).toThrow('pipeline p: concurrency.limit must be a whole number from 1 to 1000, got 0')
  expect(of({ limit: 1, key: 'x' })).toThrow("concurrency.key must be 'partition'")
  expect(of({ limit: 1, key: { input: 'ordr.id' } })).toThrow('there is no input ordr')
  expect(of({ limit: 1, onConflict: 'wait' })).toThrow('onConflict must be queue, skip or cancel_running')
  expect(of({ limits: 1 })).toThrow(InvalidError)
  expect(await rejection(start('a', { concurrency: { limit: 1, key: 7 } }))).toMatchObject({ code: 'invalid' })
})
