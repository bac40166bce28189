import { RetentionPolicy } from '@nats-io/jetstream'
import { Kvm } from '@nats-io/kv'
import { describe, expect, expectTypeOf, it } from 'vitest'
import { z } from 'zod'
import { asset, type EventMessage, type EventSource, input, pipeline, subscription } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { freshNamespace, openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { Publisher } from './kit.ts'

const server = useServer()

const order = input('order', z.object({ id: z.string(), total: z.number() }))
const orders = input('orders', z.array(z.object({ id: z.string() })))

/** A pipeline whose runs say what they were given. */
function shop(from: EventSource, options: Partial<Parameters<typeof subscription>[1]> = {}) {
  const made: string[] = []
  const invoice = asset('invoice', {
    dependsOn: [order],
    execute: (ctx, deps) => {
      made.push(deps.order.id)
      return { id: deps.order.id, partition: ctx.partition ?? '' }
    },
  })
  const onOrder = subscription('order-created', { from, run: invoice, ...options } as Parameters<
    typeof subscription
  >[1])
  return { made, invoice, onOrder, orders: pipeline('orders', [order, invoice], { subscriptions: [onOrder] }) }
}

const sorted = (made: readonly string[]) => [...made].sort()

describe('a subscription', () => {
  it('of a stream starts a run for each message, and one for a message that comes twice', async () => {
    await using publisher = await Publisher.connect(server.url)
    await publisher.stream('ORDERS', ['orders.>'])
    publisher.send('orders.created', { id: 'early', total: 1 })
    const { made, orders: all } = shop(
      { stream: 'ORDERS', subject: 'orders.created' },
      {
        key: (message: EventMessage) => message.json().id,
        partition: (message: EventMessage) => `p-${message.json().id}`,
        tags: (message: EventMessage) => ({ seq: String(message.seq) }),
      },
    )
    await using stage = await openStage(server.url, all)
    for (const id of ['a', 'b', 'a', 'c', 'b']) publisher.send('orders.created', { id, total: 2 })
    publisher.send('orders.other', { id: 'z', total: 2 })
    await until('all have run', () => made.length >= 4)
    publisher.send('orders.created', { id: 'last', total: 3 })
    await until('the last has run', () => made.includes('last'))
    expect(sorted(made)).toEqual(['a', 'b', 'c', 'early', 'last'])
    await until('the state knows all', async () => (await stage.flow.runs()).length === 5)
    const runs = await stage.flow.runs()
    expect(runs.map(({ partition }) => partition).toSorted()).toEqual(['p-a', 'p-b', 'p-c', 'p-early', 'p-last'])
    expect(runs.find(({ partition }) => partition === 'p-b')?.tags).toEqual({ seq: '3' })
  })

  it('of a work queue takes its messages away, each when its run is on the log', async () => {
    await using publisher = await Publisher.connect(server.url)
    await publisher.stream('JOBS', ['jobs.>'], RetentionPolicy.Workqueue)
    for (let i = 0; i < 20; i++) publisher.send('jobs.new', { id: `j${i}`, total: i })
    const { made, orders: all } = shop({ stream: 'JOBS' })
    await using _ = await openStage(server.url, all)
    await until('all have run', () => made.length === 20)
    await until('none is left', async () => (await publisher.count('JOBS')) === 0)
    expect(new Set(made).size).toBe(20)
  })

  it('of a stream that keeps what somebody is interested in misses nothing while no worker runs', async () => {
    await using publisher = await Publisher.connect(server.url)
    await publisher.stream('HEARD', ['heard'], RetentionPolicy.Interest)
    const { made, orders: all } = shop({ stream: 'HEARD' })
    const namespace = freshNamespace()
    {
      await using _ = await openStage(server.url, all, { namespace })
      await until('it is heard', async () => {
        publisher.send('heard', { id: 'first', total: 1 })
        return made.length > 0
      })
    }
    const before = made.length
    publisher.send('heard', { id: 'second', total: 1 })
    await publisher.nc.flush()
    for (let round = 0; round < 2; round++) {
      await using _ = await openStage(server.url, all, { namespace })
      await until('the second has run', () => made.includes('second'))
    }
    expect(made.slice(before).filter((id) => id === 'second')).toEqual(['second'])
  })

  it('of a subject keeps what is published there in a stream of its own', async () => {
    await using publisher = await Publisher.connect(server.url)
    const { made, orders: all } = shop({ subject: 'captured.*' })
    await using stage = await openStage(server.url, all)
    const stream = `${stage.namespace}_EVENTS_orders_order-created`
    await until('the stream is made', async () => (await publisher.count(stream).catch(() => -1)) >= 0)
    publisher.send('captured.x', { id: 'x', total: 1 })
    publisher.send('captured.y', { id: 'y', total: 1 }, 'same')
    publisher.send('captured.y', { id: 'y', total: 1 }, 'same')
    await until('both have run', () => made.length === 2)
    expect(sorted(made)).toEqual(['x', 'y'])
  })

  it('of a bucket starts runs for its changes', async () => {
    await using publisher = await Publisher.connect(server.url)
    const kv = await new Kvm(publisher.nc).create('prices', { history: 5 })
    await kv.put('apple', '1')
    const { made, orders: all } = shop(
      { bucket: 'prices', start: 'new' },
      {
        input: ({ key, operation, text, bucket }: EventMessage) => ({
          order: { id: `${bucket} ${operation} ${key} ${text()}`, total: 1 },
        }),
      },
    )
    await using stage = await openStage(server.url, all)
    await until('it reads', async () => {
      await kv.put('probe', 'x')
      return made.length > 0
    })
    await kv.put('pear', '2')
    await kv.delete('pear')
    await until('it has heard', () => made.some((id) => id.includes('DEL')))
    expect(made.filter((id) => !id.includes('probe')).toSorted()).toEqual(['prices DEL pear ', 'prices PUT pear 2'])
    expect(stage.lines.filter((line) => line.includes('subscription'))).toEqual([])
  })

  it('waits while so many of its runs are open as it may have', async () => {
    await using publisher = await Publisher.connect(server.url)
    await publisher.stream('MANY', ['many'])
    const gate = Promise.withResolvers<void>()
    let running = 0
    const invoice = asset('invoice', {
      dependsOn: [order],
      execute: async (_, deps) => {
        running += 1
        await gate.promise
        return deps.order.id
      },
    })
    const limited = subscription('limited', { from: { stream: 'MANY' }, run: invoice, maxOpen: 7 })
    const all = pipeline('many', [order, invoice], { subscriptions: [limited] })
    await using stage = await openStage(server.url, all, { worker: { concurrency: 50 } })
    for (let i = 0; i < 30; i++) publisher.send('many', { id: `m${i}`, total: i })
    await until('so many run', () => running === 7)
    await until('the state knows', async () => (await stage.flow.runs()).length === 7)
    expect(running).toBe(7)
    gate.resolve()
    await until('all have run', () => running === 30)
  })

  it('runs so many at a time of a key as its concurrency says, first come first served', async () => {
    await using publisher = await Publisher.connect(server.url)
    await publisher.stream('TURNS', ['turns'])
    const active = new Map<string, number>()
    const ended: string[] = []
    let most = 0
    const invoice = asset('invoice', {
      dependsOn: [order],
      execute: async (_, deps) => {
        const [customer = ''] = deps.order.id.split('-')
        const now = (active.get(customer) ?? 0) + 1
        active.set(customer, now)
        most = Math.max(most, now)
        await new Promise((resolve) => setImmediate(resolve))
        active.set(customer, now - 1)
        ended.push(deps.order.id)
      },
    })
    const turns = subscription('turns', {
      from: { stream: 'TURNS' },
      run: invoice,
      concurrency: { key: (message) => message.json<{ id: string }>().id.split('-')[0], limit: 1 },
    })
    await using _stage = await openStage(server.url, pipeline('turns', [order, invoice], { subscriptions: [turns] }))
    for (let i = 0; i < 24; i++) publisher.send('turns', { id: `${'abc'[i % 3]}-${i}`, total: i })
    await until('all have run', () => ended.length === 24)
    expect(most).toBe(1)
    for (const customer of 'abc') {
      const numbers = ended.filter((id) => id.startsWith(customer)).map((id) => Number(id.split('-')[1]))
      expect(numbers).toEqual(numbers.toSorted((a, b) => a - b))
    }
  })

  it('says what it waits for while its stream is not there, and goes on when it is', async () => {
    const { made, orders: all } = shop({ stream: 'LATER' })
    await using stage = await openStage(server.url, all)
    await until('it says so', () =>
      stage.lines.some((line) => /order-created.* waits: there is no stream LATER/.test(line)),
    )
    await using publisher = await Publisher.connect(server.url)
    await publisher.stream('LATER', ['later'])
    publisher.send('later', { id: 'x', total: 1 })
    await until('it has run', () => made.length === 1)
  })
})

describe('a message that cannot start a run', () => {
  it('is listed with the reason, and is taken when it is tried again with other code', async () => {
    await using publisher = await Publisher.connect(server.url)
    await publisher.stream('BAD', ['bad'])
    const { made, orders: all } = shop({ stream: 'BAD' })
    const namespace = freshNamespace()
    publisher.send('bad', 'no json')
    publisher.send('bad', { id: 'a', total: 'much' }, 'm2')
    publisher.send('bad', { id: 'b', total: 1 })
    {
      await using stage = await openStage(server.url, all, { namespace })
      await until('the good one has run', () => made.includes('b'))
      await until('two are refused', async () => (await stage.flow.events.refused()).length === 2)
      expect(await stage.flow.events.refused({ subscription: 'orders/order-created' })).toMatchObject([
        { seq: 2, msgId: 'm2', stream: 'BAD', reason: expect.stringMatching(/^message: input\.order\.total: /) },
        { seq: 1, reason: expect.stringMatching(/^the body is no JSON: /) },
      ])
      expect((await rejection(stage.flow.events.retry('orders/order-created', 2))).message).toMatch(/refused again/)
      expect((await rejection(stage.flow.events.retry('orders/order-created', 3))).message).toMatch(/was not refused/)
    }
    const corrected = shop(
      { stream: 'BAD' },
      {
        input: (message: EventMessage) => ({
          order: { id: 'corrected', total: Number.parseInt(message.text(), 36) || 0 },
        }),
      },
    )
    await using stage = await openStage(server.url, corrected.orders, { namespace })
    const run = await stage.flow.events.retry('orders/order-created', 2)
    expect(await stage.flow.run(run ?? '').result()).toEqual({ id: 'corrected', partition: '' })
    expect((await stage.flow.events.refused()).map(({ seq }) => seq)).toEqual([1])
  })

  it('of a work queue is kept, large or small, and is taken when it is tried again', async () => {
    await using publisher = await Publisher.connect(server.url)
    await publisher.stream('KEPT', ['kept.*'], RetentionPolicy.Workqueue)
    const namespace = freshNamespace()
    const large = 'x'.repeat(200_000)
    publisher.send('kept.small', { id: 'a', total: 'much' }, 'm1')
    publisher.send('kept.large', { id: large, total: 'much' })
    {
      await using stage = await openStage(server.url, shop({ stream: 'KEPT' }).orders, { namespace })
      await until('both are refused', async () => (await stage.flow.events.refused()).length === 2)
      await until('the queue is empty', async () => (await publisher.count('KEPT')) === 0)
    }
    const seen: EventMessage[] = []
    const corrected = shop(
      { stream: 'KEPT' },
      {
        input: (message: EventMessage) => {
          seen.push(message)
          return { order: { id: String(message.json<{ id: string }>().id.length), total: 1 } }
        },
      },
    )
    await using stage = await openStage(server.url, corrected.orders, { namespace })
    for (const [seq, id] of [
      [1, '1'],
      [2, '200000'],
    ] as const) {
      const run = await stage.flow.events.retry('orders/order-created', seq)
      expect(await stage.flow.run(run ?? '').result()).toEqual({ id, partition: '' })
    }
    expect(seen[0]).toMatchObject({ subject: 'kept.small', id: 'm1', seq: 1, time: expect.any(Date) })
    expect(await stage.flow.events.refused()).toEqual([])
  })

  it('is refused for what a function does wrong', async () => {
    await using publisher = await Publisher.connect(server.url)
    await publisher.stream('WRONG', ['wrong.*'])
    const invoice = asset('invoice', { dependsOn: [order], execute: (_, deps) => deps.order.id })
    const wrong = subscription('wrong', {
      from: { stream: 'WRONG' },
      run: invoice,
      filter: (message) => message.subject !== 'wrong.left',
      partition: (message) => (message.subject === 'wrong.partition' ? 'x'.repeat(600) : undefined),
      key: (message) => {
        if (message.subject === 'wrong.key') throw new Error('no key')
        return undefined
      },
      input: (message) => (message.subject === 'wrong.async' ? Promise.resolve() : message.json()) as never,
    })
    await using stage = await openStage(server.url, pipeline('wrong', [order, invoice], { subscriptions: [wrong] }))
    for (const kind of ['left', 'key', 'partition', 'async', 'input']) publisher.send(`wrong.${kind}`, { other: 1 })
    publisher.send('wrong.fine', { order: { id: 'a', total: 1 } })
    await until('four are refused', async () => (await stage.flow.events.refused()).length === 4)
    expect((await stage.flow.events.refused()).map(({ reason }) => reason).reverse()).toEqual([
      'key: no key',
      'message: partition must be text of at most 512 characters',
      'input: the function returned a promise, and messages are not waited for',
      expect.stringMatching(/^message: input: there is no input other/),
    ])
    const tests = await stage.flow.events.test(wrong, { fromSeq: 1, count: 10 })
    expect(tests.map(({ outcome }) => outcome)).toEqual(['left', 'refused', 'refused', 'refused', 'refused', 'exists'])
  })
})

it('a test of a subscription says what messages would do, and starts nothing', async () => {
  await using publisher = await Publisher.connect(server.url)
  await publisher.stream('TRIED', ['tried'])
  const { onOrder, orders: all } = shop({ stream: 'TRIED' }, { key: (message: EventMessage) => message.json().id })
  await using stage = await openStage(server.url, all, { worker: false })
  for (const id of ['a', 'b', 'c']) publisher.send('tried', { id, total: 1 })
  publisher.send('tried', { id: 'd' })
  await until('all are there', async () => (await publisher.count('TRIED')) === 4)
  const tests = await stage.flow.events.test(onOrder, { fromSeq: 2, count: 2 })
  expect(tests).toMatchObject([
    { seq: 2, subject: 'tried', outcome: 'run', key: 'b', input: { order: { id: 'b', total: 1 } } },
    { seq: 3, outcome: 'run', key: 'c' },
  ])
  expect((await stage.flow.events.test(onOrder)).at(-1)).toMatchObject({ seq: 4, outcome: 'refused' })
  expect(await stage.flow.runs()).toEqual([])
})

describe('the declaration of a subscription', () => {
  const invoice = asset('invoice', { dependsOn: [order], execute: (_, deps) => deps.order.id })
  const all = asset('all', { dependsOn: [orders], execute: (_, deps) => deps.orders.length })
  const from = { stream: 'X' }

  it('has functions that know the types of messages and inputs', () => {
    subscription('s', {
      from,
      run: invoice,
      input: (message) => {
        expectTypeOf(message).toEqualTypeOf<EventMessage>()
        return { order: message.json() }
      },
    })
    // @ts-expect-error: total must be a number
    subscription('s', { from, run: invoice, input: () => ({ order: { id: 'x', total: 'y' } }) })
    const batch = { maxItems: 2, maxWait: '1s' } as const
    subscription('s', { from, run: all, batch, input: () => ({ orders: { id: 'x' } }) })
    // @ts-expect-error: a message brings one item
    subscription('s', { from, run: all, batch, input: () => ({ orders: [{ id: 'x' }] }) })
    subscription('s', { from, run: all, debounce: { wait: '1s' }, input: () => ({ orders: [{ id: 'x' }] }) })
    subscription('s', { from, run: all, debounce: { wait: '1s', take: 'all' }, input: () => ({ orders: { id: 'x' } }) })
  })

  it('names what is wrong', () => {
    const plain = asset('plain', { execute: () => 1 })
    const both = asset('both', { dependsOn: [order, orders], execute: () => 1 })
    const say = (options: object): string => {
      try {
        subscription('s', { from, run: invoice, ...options } as Parameters<typeof subscription>[1])
      } catch (error) {
        return String(error instanceof Error ? error.message : error)
      }
      return ''
    }
    expect(say({})).toBe('')
    expect(say({ run: plain })).toMatch(/plain goes back to no input/)
    expect(say({ run: both })).toMatch(/both goes back to 2 inputs \(order, orders\); say what each is given/)
    expect(say({ from: {} })).toMatch(/from must be \{ stream, subject\? \}/)
    expect(say({ from: { stream: 'a.b' } })).toMatch(/from\.stream must be the name of a stream/)
    expect(say({ from: { stream: 'A', bucket: 'b' } })).toMatch(/a stream or a bucket, not both/)
    expect(say({ from: { stream: 'A', start: 'later' } })).toMatch(/from\.start must be all or new/)
    expect(say({ from: { subject: 'a', start: 'new' } })).toMatch(/no option start/)
    expect(say({ maxOpen: 0 })).toMatch(/maxOpen must be a whole number/)
    expect(say({ key: 'id' })).toMatch(/key must be a function/)
    expect(say({ batch: { maxItems: 2 } })).toMatch(/batch\.maxWait must be milliseconds/)
    expect(say({ batch: { maxItems: 2, maxWait: '1s' }, debounce: { wait: '1s' } })).toMatch(/exclude each other/)
    expect(say({ debounce: { wait: '2s', maxWait: '1s' } })).toMatch(/debounce\.maxWait must be at least 2s/)
    expect(say({ concurrency: { limit: 0 } })).toMatch(/concurrency\.limit must be a whole number from 1/)
    expect(say({ concurrency: { limit: 1, key: 'x' } })).toMatch(/concurrency\.key must be a function/)
    expect(say({ concurrency: { limit: 1, onConflict: 'drop' } })).toMatch(/onConflict must be queue, skip or/)
    expect(say({ concurency: 1 })).toMatch(/there is no option concurency/)
    const one = subscription('s', { from, run: invoice })
    expect(() => pipeline('p', [order, invoice], { subscriptions: [one, one] })).toThrow(/two subscriptions named s/)
    expect(() => pipeline('p', [orders, all], { subscriptions: [one] })).toThrow(/runs invoice, which is not in/)
    const bare = pipeline('p', [order, invoice])
    expect(pipeline('p', [order, invoice], { subscriptions: [] }).spec).toEqual(bare.spec)
    expect(pipeline('p', [order, invoice], { subscriptions: [one] }).spec.version).not.toBe(bare.spec.version)
  })
})
