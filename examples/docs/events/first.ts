import { connect as connectNats } from '@nats-io/transport-node'
import { z } from 'zod'
import { asset, connect, input, pipeline, subscription } from '../../../src/index.ts'

const order = input('order', z.object({ id: z.string(), total: z.number() }))

const invoice = asset('invoice', {
  dependsOn: [order],
  execute: (_ctx, { order }) => `invoice of ${order.id}: ${order.total}`,
})

const onOrder = subscription('order-created', {
  from: { subject: 'orders.created' },
  run: invoice,
  key: (message) => message.json().id,
})

const orders = pipeline('orders', [order, invoice], { subscriptions: [onOrder] })

const flow = await connect()
await flow.engine()
await flow.worker(orders)

// Whoever publishes needs to know nothing of FlowStone.
const nc = await connectNats({ servers: process.env.NATS_URL ?? '127.0.0.1' })
const wasKept = async () => (await flow.runs()).length > 0
while (!(await wasKept())) {
  nc.publish('orders.created', JSON.stringify({ id: 'o-1', total: 12.5 }))
  await new Promise((resolve) => setTimeout(resolve, 200))
}
for (const { id } of await flow.runs()) console.log(await flow.run(id).result())
await nc.close()
await flow.close()

// prints: invoice of o-1: 12.5
