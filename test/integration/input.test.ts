import { connect as connectNats } from '@nats-io/transport-node'
import { describe, expect, expectTypeOf, it } from 'vitest'
import { z } from 'zod'
import { asset, InvalidError, input, pipeline } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer()

/** order (input) → lines → invoice, counting how often each was made. */
function orders(upstream?: 'all' | 'stale' | 'missing' | 'none') {
  const made = { lines: 0, invoice: 0 }
  const order = input('order', z.object({ id: z.string(), total: z.number(), currency: z.string().default('CHF') }))
  const rate = input('rate', z.number().default(2))
  const lines = asset('lines', {
    dependsOn: [order],
    execute: (_, deps) => {
      made.lines += 1
      return [`${deps.order.id} ${deps.order.currency}`]
    },
  })
  const invoice = asset('invoice', {
    dependsOn: [order, lines, rate],
    execute: (_, deps) => {
      made.invoice += 1
      return { id: deps.order.id, total: deps.order.total * deps.rate, lines: [...deps.lines] }
    },
  })
  const all = pipeline('orders', [order, rate, lines, invoice], upstream ? { upstream } : {})
  return { made, order, lines, invoice, orders: all }
}

const one = { id: 'o-1', total: 12.5 }
const two = { id: 'o-2', total: 3 }

describe('a run with input', () => {
  it('makes its assets of what it was given, by its type, with defaults, and shows it', async () => {
    const { invoice, orders: all } = orders()
    await using stage = await openStage(server.url, all)
    const run = await stage.flow.materialize(invoice, { input: { order: one }, tags: { tenant: 'a' } })
    const value = await run.result()
    expectTypeOf(value).toEqualTypeOf<{ id: string; total: number; lines: string[] }>()
    expect(value).toEqual({ id: 'o-1', total: 25, lines: ['o-1 CHF'] })
    expect(await stage.flow.run(run.id).input()).toEqual({ order: one, rate: 2 })
    await until('the run is folded', async () => (await run.view())?.assets.order?.status === 'given')
    expect((await run.view())?.tags).toEqual({ tenant: 'a' })
    // @ts-expect-error: total must be a number
    await rejection(stage.flow.materialize(invoice, { input: { order: { id: 'x', total: 'y' } } }))
  })

  it('large input is kept in the object store', async () => {
    const text = input('text', z.string())
    const length = asset('length', { dependsOn: [text], execute: (_, deps) => deps.text.length })
    await using stage = await openStage(server.url, pipeline('texts', [text, length]))
    const run = await stage.flow.materialize(length, { input: { text: 'x'.repeat(3_000_000) } })
    expect(await run.result()).toBe(3_000_000)
    expect(String((await run.input()).text)).toHaveLength(3_000_000)
  })

  it('is refused before it exists, with the place of what is wrong', async () => {
    const { invoice, lines, orders: all } = orders()
    await using stage = await openStage(server.url, all)
    const refusal = async (given: unknown, target = invoice): Promise<string> =>
      (await rejection(stage.flow.materialize(target, { input: given as { order: typeof one } }))).message
    expect(await refusal(undefined)).toMatch(/^materialize: input: order is missing, and invoice needs it/)
    expect(await refusal({ order: { id: 'x' } })).toMatch(/^materialize: input\.order\.total: /)
    expect(await refusal({ order: one, ordr: 1 })).toMatch(/there is no input ordr; did you mean order\?/)
    expect(await refusal({ order: one, lines: [] })).toMatch(/there is no input lines/)
    expect(await refusal([one])).toMatch(/input must be an object/)
    expect(await refusal({ order: one, rate: 1 }, lines as never)).toMatch(/there is no input rate/)
    expect(await stage.flow.runs()).toEqual([])
  })

  it.each(['all', 'stale', 'missing', 'none'] as const)(
    'never sees the values of another order with upstream %s',
    async (upstream) => {
      const { invoice, lines, orders: all } = orders()
      await using stage = await openStage(server.url, all)
      const make = async (order: typeof one) => {
        if (upstream === 'none') await (await stage.flow.materialize(lines, { input: { order } })).result()
        return await (await stage.flow.materialize(invoice, { input: { order }, upstream })).result()
      }
      for (const order of [one, two, one, two])
        expect(await make(order)).toMatchObject({ id: order.id, lines: [`${order.id} CHF`] })
      if (upstream !== 'none') {
        const runs = await Promise.all(
          Array.from({ length: 20 }, (_, i) =>
            stage.flow.materialize(invoice, { input: { order: { id: `o-${i}`, total: i } }, upstream }),
          ),
        )
        const values = await Promise.all(runs.map((run) => run.result()))
        expect(values.map(({ lines }) => lines)).toEqual(values.map((_, i) => [`o-${i} CHF`]))
      } else {
        const run = await stage.flow.materialize(invoice, { input: { order: one }, upstream })
        await rejection(run.result())
      }
    },
  )

  it('can be asked for by name, and by a message of another language', async () => {
    const { orders: all } = orders()
    await using stage = await openStage(server.url, all)
    const { flow } = stage
    expect(await (await flow.request('orders/invoice', { input: { order: one } })).result()).toMatchObject({
      total: 25,
    })
    const wrong = await rejection(flow.request('orders/invoice', { input: { order: { id: 1 } } }))
    expect(wrong).toBeInstanceOf(InvalidError)
    expect(wrong.message).toMatch(/^request: input\.order: .*id/)
    const nc = await connectNats({ servers: server.url })
    const send = (body: unknown): void => nc.publish(`${stage.namespace}.trigger.orders.invoice`, JSON.stringify(body))
    send({ key: 'from-outside', input: { order: two }, tags: { from: 'x' } })
    send({ input: { order: { id: 'x', total: 'no' } } })
    send({ input: { other: 1, order: two } })
    send({})
    await nc.drain()
    await until('three are refused', async () => (await flow.triggers.refused({ limit: 10 })).length === 3)
    expect((await flow.triggers.refused({ limit: 10 })).map(({ reason }) => reason).toSorted()).toEqual([
      expect.stringMatching(/^input\.order: .* total$/),
      expect.stringMatching(/^input: order is missing, and invoice needs it/),
      expect.stringMatching(/^input: there is no input other/),
    ])
    const runOfTag = async () => (await flow.runs()).find(({ tags }) => tags?.from === 'x')
    await until('the run is listed', async () => (await runOfTag()) !== undefined)
    expect(await flow.run((await runOfTag())?.id ?? '').result()).toMatchObject({ id: 'o-2', total: 6 })
  })
})

describe('upstream stale', () => {
  function chain(codeVersion: string, source: () => number, volatile = false) {
    const made: string[] = []
    const a = asset('a', {
      volatile,
      execute: () => {
        made.push('a')
        return source()
      },
    })
    const b = asset('b', {
      dependsOn: [a],
      codeVersion,
      execute: (_, deps) => {
        made.push('b')
        return deps.a > 5
      },
    })
    const c = asset('c', {
      dependsOn: [b],
      execute: (_, deps) => {
        made.push('c')
        return deps.b
      },
    })
    const d = asset('d', {
      dependsOn: [c],
      execute: (_, deps) => {
        made.push('d')
        return deps.c
      },
    })
    return { made, d, chain: pipeline('chain', [a, b, c, d], { upstream: 'stale' }) }
  }

  it('takes what is current, makes what is not, and says which and why', async () => {
    const first = chain('1', () => 1)
    await using stage = await openStage(server.url, first.chain)
    const origin = await stage.flow.materialize(first.d)
    await origin.result()
    expect(first.made).toEqual(['a', 'b', 'c', 'd'])
    const run = await stage.flow.materialize(first.d)
    await run.result()
    expect(first.made).toEqual(['a', 'b', 'c', 'd', 'd'])
    await until('the run has ended', async () => (await run.view())?.finishedAt !== undefined)
    expect((await run.view())?.assets.c).toMatchObject({ status: 'reused', reused: { run: origin.id, why: 'current' } })

    const second = chain('2', () => 1)
    await stage.flow.worker(second.chain)
    await (await stage.flow.materialize(second.d)).result()
    expect(second.made).toEqual(['b', 'd'])
  })

  it('makes again what is volatile, and goes no further where it brings the same', async () => {
    let value = 1
    const { made, d, chain: all } = chain('1', () => value, true)
    await using stage = await openStage(server.url, all)
    const make = async (): Promise<string> => {
      made.length = 0
      await (await stage.flow.materialize(d)).result()
      return made.join('')
    }
    expect(await make()).toBe('abcd')
    expect(await make()).toBe('ad')
    value = 2
    expect(await make()).toBe('abd')
    value = 9
    expect(await make()).toBe('abcd')
  })
})

describe('values', () => {
  it('the newest of a partition, that of a run, and the partitions there are', async () => {
    const day = asset('day', { execute: ({ partition, runId }) => `${partition} ${runId}` })
    await using stage = await openStage(server.url, pipeline('days', [day]), { shards: 2 })
    const { flow } = stage
    expect(await flow.value(day)).toBeUndefined()
    const runs = []
    for (const partition of ['mon', 'tue', 'mon']) {
      const run = await flow.materialize(day, { partition })
      await run.result()
      runs.push(run.id)
    }
    expect(await flow.value(day, { partition: 'mon' })).toMatchObject({ value: `mon ${runs[2]}`, run: runs[2] })
    expect(await flow.value('days/day', { partition: 'mon', run: runs[0] ?? '' })).toMatchObject({
      value: `mon ${runs[0]}`,
    })
    expect(await flow.partitions(day)).toEqual(['mon', 'tue'])
  })

  it('that of a run is none of another pipeline, though one of the same name was reused', async () => {
    const made = (of: string) => {
      const day = asset('day', { execute: () => of })
      const week = asset('week', { dependsOn: [day], execute: (_, deps) => `a week of ${deps.day}` })
      return { day, week, all: pipeline(of, [day, week]) }
    }
    const [mine, theirs] = [made('mine'), made('theirs')]
    await using stage = await openStage(server.url, [mine.all, theirs.all])
    const { flow } = stage
    await (await flow.materialize(theirs.day)).result()
    const run = await flow.materialize(theirs.week, { upstream: 'missing' })
    expect(await run.result()).toBe('a week of theirs')
    expect(await flow.value('theirs/day', { run: run.id })).toMatchObject({ value: 'theirs' })
    expect(await flow.value('theirs/week', { run: run.id })).toMatchObject({ value: 'a week of theirs' })
    for (const name of ['day', 'week']) expect(await flow.value(`mine/${name}`, { run: run.id })).toBeUndefined()
    expect(await flow.value('mine/day', { run: '999-of-no-shard' })).toBeUndefined()
  })
})
