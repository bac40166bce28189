import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { asset, connect, type Flow, input, pipeline } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage, rejection, type Stage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })

/** order → bill; bill and work (a scatter over 0 … 5) → report. */
const state = { broken: new Set<string>(), ran: [] as string[] }
const ran = (name: string): void => {
  state.ran.push(name)
  if (state.broken.has(name)) throw new Error(`broken ${name}`)
}
const retry = { maxAttempts: 1 }
const order = input('order', z.object({ id: z.string() }))
const bill = asset('bill', {
  retry,
  dependsOn: [order],
  execute: (_ctx, { order }) => {
    ran('bill')
    return `bill of ${order.id}`
  },
})
const work = asset('work', {
  retry,
  scatter: () => [0, 1, 2, 3, 4, 5],
  scatterOptions: { retry, failureMode: 'partial', failureThreshold: { count: 0 }, maxConcurrent: 1 },
  execute: ({ scatterKey }) => {
    ran(`work ${scatterKey}`)
    return scatterKey * 10
  },
  gather: async (results) => {
    const list: string[] = []
    for await (const result of results) list.push(result.status === 'ok' ? `${result.value}` : result.status)
    return list.join(' ')
  },
})
const report = asset('report', {
  retry,
  dependsOn: [bill, work],
  execute: (_ctx, { bill, work }) => {
    ran('report')
    return `${bill}: ${work}`
  },
})
const shop = pipeline('shop', [order, bill, work, report])
const WHOLE = '0 10 20 30 40 50'

let stage: Stage
let flow: Flow
beforeAll(async () => {
  stage = await openStage(server.url, shop, { shards: 2 })
  flow = stage.flow
})
afterAll(async () => {
  await stage[Symbol.asyncDispose]()
})

/** Starts a run while these are broken, and waits for its end. */
async function failedRun(...broken: string[]) {
  state.broken = new Set(broken)
  const run = await flow.materialize(report, { partition: 'a', tags: { tenant: 't' }, input: { order: { id: 'o-1' } } })
  await rejection(run.result())
  state.broken = new Set()
  state.ran = []
  return run
}

/** Of a run that has ended on the log, once the state shows that. */
async function endedView(of: Flow, id: string) {
  await until('the state shows the end', async () => (await of.run(id).view())?.finishedAt !== undefined)
  return await of.run(id).view()
}

describe('flow.retry', () => {
  it('takes what was made, runs the failed instances of a scatter again, and makes the rest', async () => {
    const first = await failedRun('work 2')
    const second = await flow.retry(first.id)
    expect(second.isNew).toBe(true)
    expect(await second.result()).toBe(`bill of o-1: ${WHOLE}`)
    expect(state.ran).not.toContain('bill')
    expect(state.ran).not.toContain('work 0')
    expect(state.ran).toContain('work 2')
    const view = await endedView(flow, second.id)
    expect(view).toMatchObject({ retryOf: first.id, partition: 'a', tags: { tenant: 't' }, target: 'report' })
    expect(view?.assets.bill?.reused).toEqual({ run: first.id, why: 'earlier_run' })
    expect(await second.input()).toEqual({ order: { id: 'o-1' } })
    expect(await flow.scatter.status(`${second.id}.work`)).toMatchObject({ succeeded: state.ran.length - 1, failed: 0 })
    expect([(await flow.retry(first.id)).id, (await flow.retry(first.id)).isNew]).toEqual([second.id, false])
  })

  it('goes on with what its own failed retry has brought', async () => {
    const first = await failedRun('work 2', 'report')
    state.broken = new Set(['work 2'])
    const second = await flow.retry(first.id)
    await rejection(second.result())
    state.broken = new Set(['report'])
    const third = await flow.retry(first.id)
    expect(await rejection(third.result())).toMatchObject({ message: expect.stringContaining('broken report') })
    state.broken = new Set()
    state.ran = []
    const fourth = await flow.retry(second.id)
    expect(await fourth.result()).toBe(`bill of o-1: ${WHOLE}`)
    expect(state.ran).toEqual(['report'])
    expect(new Set([first.id, second.id, third.id, fourth.id]).size).toBe(4)
    expect((await flow.history(fourth.id).next()).value?.data).toMatchObject({ retryOf: third.id })
  })

  it('asked for by several at the same time gives one run, and refuses another request for it', async () => {
    const first = await failedRun('report')
    await stage.worker?.stop()
    try {
      const all = await Promise.all(Array.from({ length: 4 }, () => flow.retry(first.id)))
      expect(new Set(all.map(({ id }) => id)).size).toBe(1)
      expect(all.filter(({ isNew }) => isNew)).toHaveLength(1)
      const other = await rejection(flow.retry(first.id, { from: 'bill' }))
      expect(other).toMatchObject({ code: 'conflict', message: expect.stringContaining('asked for otherwise: retry') })
      expect(await rejection(flow.retry(all[0]?.id ?? ''))).toMatchObject({ code: 'not_retryable' })
      await all[0]?.cancel()
      await rejection(all[0]?.result() ?? Promise.resolve())
    } finally {
      await flow.worker(shop)
    }
    expect(await (await flow.retry(first.id)).result()).toBe(`bill of o-1: ${WHOLE}`)
    // A worker may begin the task of the cancelled one, too, before it hears of that.
    expect(new Set(state.ran)).toEqual(new Set(['report']))
  })

  it('makes a named asset again with all downstream, also of a run that succeeded, each time anew', async () => {
    const first = await flow.materialize(report, { input: { order: { id: 'o-2' } } })
    await first.result()
    expect(await rejection(flow.retry(first.id))).toMatchObject({ code: 'not_retryable' })
    state.ran = []
    const second = await flow.retry(first.id, { from: work })
    await second.result()
    expect(state.ran).toHaveLength(7)
    expect(state.ran).not.toContain('bill')
    const third = await flow.retry(first.id, { from: 'work' })
    await third.result()
    expect([third.isNew, third.id === second.id]).toEqual([true, false])
  })

  it('makes again what goes back to an input that is replaced', async () => {
    const first = await failedRun('report')
    const second = await flow.retry(first.id, { input: { order: { id: 'o-9' } } })
    expect(await second.result()).toBe(`bill of o-9: ${WHOLE}`)
    expect(state.ran).toEqual(['bill', 'report'])
  })

  it('is what the same key gives from then on', async () => {
    state.broken = new Set(['report'])
    const options = { key: 'order 7', input: { order: { id: 'o-7' } } }
    const first = await flow.materialize(report, options)
    await rejection(first.result())
    state.broken = new Set()
    const second = await flow.retry(first.id)
    await second.result()
    const same = await flow.materialize(report, options)
    expect([same.id, same.isNew]).toEqual([second.id, false])
  })

  it('names what cannot be', async () => {
    const first = await failedRun('report')
    expect(await rejection(flow.retry(first.id, { from: 'bil' }))).toMatchObject({
      code: 'invalid',
      message: expect.stringContaining('did you mean bill'),
    })
    expect(await rejection(flow.retry(first.id, { from: order }))).toMatchObject({ code: 'invalid' })
    expect(await rejection(flow.retry(first.id, { input: { order: { id: 7 } } }))).toMatchObject({ code: 'invalid' })
    expect(await rejection(flow.retry('0-gone'))).toMatchObject({ code: 'not_found' })
    expect(await rejection(flow.retry('63-gone'))).toMatchObject({ code: 'not_found' })
  })
})

describe('flow.retry after a deploy', () => {
  const base = asset('base', { execute: () => 'base' })
  const broken = asset('last', {
    retry,
    dependsOn: [base],
    execute: () => {
      throw new Error('a bug')
    },
  })
  const old = pipeline('deployed', [base, broken])

  it('runs the corrected code on the values of the earlier run', async () => {
    await using own = await openStage(server.url, old)
    const first = await own.flow.materialize(broken)
    await rejection(first.result())
    const fixed = asset('last', { retry, dependsOn: [base], codeVersion: '2', execute: (_ctx, { base }) => `${base}!` })
    await own.worker?.stop()
    await own.flow.worker(pipeline('deployed', [base, fixed]))
    const second = await own.flow.retry(first.id)
    expect(await second.result()).toBe('base!')
    expect((await endedView(own.flow, second.id))?.assets.base?.status).toBe('reused')
    await own.flow.register(pipeline('deployed', [base]))
    expect(await rejection(own.flow.retry(first.id))).toMatchObject({
      code: 'not_retryable',
      message: expect.stringContaining('has no such asset'),
    })
  })
})

it('a client without an engine hears that there is no run', async () => {
  await using other = await connect({ servers: server.url, namespace: stage.namespace })
  expect(await rejection(other.retry('0-nothing'))).toMatchObject({ code: 'not_found' })
})
