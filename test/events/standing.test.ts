import { expect, it } from 'vitest'
import { z } from 'zod'
import { asset, type EventMessage, input, pipeline, subscription } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { Publisher } from './kit.ts'

const server = useServer()
const gates = { secrets: [{ id: 'k1', secret: 's'.repeat(32) }] }

it('a list of subscriptions says how far each has read, what waits, and what is open', async () => {
  await using publisher = await Publisher.connect(server.url)
  await publisher.stream('STANDING', ['standing.>'])
  const order = input('order', z.object({ id: z.string() }))
  const held = asset('held', { dependsOn: [order], execute: (ctx) => ctx.signalGate() })
  const orders = input('orders', z.array(z.object({ id: z.string() })))
  const counted = asset('counted', { dependsOn: [orders], execute: (_, deps) => deps.orders.length })
  const one = subscription('one', { from: { stream: 'STANDING', subject: 'standing.one' }, run: held, maxOpen: 2 })
  const batched = subscription('batched', {
    from: { stream: 'STANDING', subject: 'standing.batched' },
    run: counted,
    batch: { key: (message: EventMessage) => message.json<{ id: string }>().id, maxItems: 10, maxWait: '1h' },
  })
  const missing = subscription('missing', { from: { stream: 'NOT_THERE' }, run: held })
  const all = pipeline('shop', [order, held, orders, counted], { subscriptions: [one, batched, missing] })
  await using stage = await openStage(server.url, all, { gates, shards: 2 })
  const { events } = stage.flow
  const of = async (name: string) => (await events.list()).find(({ subscription }) => subscription === name)
  for (const id of ['a', 'a', 'b']) publisher.send('standing.batched', { id })
  publisher.send('standing.one', 'no json')
  for (let i = 0; i < 5; i++) publisher.send('standing.one', { id: `o${i}` })
  await until('two are open, and three wait', async () => {
    const found = await of('one')
    return found?.open === 2 && found.waiting === 3 && found.refused === 1
  })
  expect(await of('one')).toMatchObject({
    name: 'shop/one',
    target: 'held',
    stream: 'STANDING',
    state: 'reading',
    reader: stage.worker?.id,
    takenTo: 6,
    last: 9,
    maxOpen: 2,
    taken: 2,
    groups: { count: 0, messages: 0, next: undefined },
  })
  await until('the groups are there', async () => (await of('batched'))?.groups.count === 2)
  const { groups, ...rest } = (await of('batched')) ?? {}
  expect(groups).toMatchObject({ count: 2, messages: 3, next: expect.any(Date) })
  expect(rest).toMatchObject({ takenTo: 3, waiting: 0, open: 0, refused: 0 })
  expect(await of('missing')).toMatchObject({ state: 'no_stream', takenTo: 0, last: undefined, waiting: undefined })
  await stage.worker?.stop()
  expect(await of('one')).toMatchObject({ state: 'idle', waiting: 3 })
  await stage.flow.register(pipeline('shop', [order, held, orders, counted], { subscriptions: [batched] }))
  expect((await events.list()).map(({ name }) => name)).toEqual(['shop/batched'])
  expect(await events.list({ removed: true })).toMatchObject([
    { name: 'shop/batched' },
    { name: 'shop/one', state: 'removed', takenTo: 6, taken: 2, open: 2 },
  ])
})
