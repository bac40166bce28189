/**
 * Events: a service publishes orders to a stream, some of them twice and some that are wrong. Each
 * order starts one run, which makes its invoice. Another service hears when an invoice is done. The
 * two services speak plain NATS and know nothing of FlowStone.
 *
 *     npm run example:orders
 */
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { jetstream, jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats } from '@nats-io/transport-node'
import { z } from 'zod'
import { asset, connect, input, pipeline, subscription } from '../src/index.ts'
import { startServer } from '../src/server/index.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const { values: args } = parseArgs({
  options: {
    dir: { type: 'string', default: `${ROOT}.flowstone/orders` },
    orders: { type: 'string', default: '200' },
    json: { type: 'boolean', default: false },
  },
})
const ORDERS = Number(args.orders)
const NAMESPACE = 'shop'

const order = input('order', z.object({ id: z.string(), euros: z.number() }))
const tax = asset('tax', { dependsOn: [order], execute: (_ctx, { order }) => Math.round(order.euros * 7.7) / 100 })
const invoice = asset('invoice', {
  dependsOn: [order, tax],
  execute: (_ctx, { order, tax }) => ({ order: order.id, euros: order.euros + tax }),
})
const onOrder = subscription('order-created', {
  from: { stream: 'ORDERS', subject: 'orders.created' },
  run: invoice,
  key: (message) => message.json().id,
})
const orders = pipeline('orders', [order, tax, invoice], { subscriptions: [onOrder] })

/** The shop: it sends every fourth order twice, and every tenth without its price. */
async function publishOrders(url: string): Promise<number> {
  const nc = await connectNats({ servers: url })
  const js = jetstream(nc)
  let sent = 0
  const send = async (body: object): Promise<void> => {
    await js.publish('orders.created', JSON.stringify(body))
    sent += 1
  }
  for (let i = 0; i < ORDERS; i++) {
    const id = `o-${i}`
    const body = i % 10 === 9 ? { id } : { id, euros: i + 10 }
    await send(body)
    if (i % 4 === 0) await send(body)
  }
  await nc.close()
  return sent
}

/** The mailer: it hears of each run that has ended, with the id of its order. */
async function hearOfInvoices(url: string, count: number): Promise<string[]> {
  const nc = await connectNats({ servers: url })
  const jsm = await jetstreamManager(nc)
  const { name } = await jsm.consumers.add(`${NAMESPACE}_FEED`, {
    durable_name: 'mailer',
    filter_subject: `${NAMESPACE}.feed.run.finished`,
  })
  const consumer = await jetstream(nc).consumers.get(`${NAMESPACE}_FEED`, name)
  const heard: string[] = []
  for await (const message of await consumer.consume()) {
    const { key, status } = message.json<{ key: string; status: string }>()
    if (status === 'succeeded') heard.push(key)
    message.ack()
    if (heard.length === count) break
  }
  await jsm.consumers.delete(`${NAMESPACE}_FEED`, name)
  await nc.close()
  return heard
}

const server = await startServer({ dir: args.dir })
const flow = await connect({ servers: server.url, namespace: NAMESPACE })
await flow.engine()

const nc = await connectNats({ servers: server.url })
const jsm = await jetstreamManager(nc)
// What an earlier run of this example left has been dealt with.
await jsm.streams.delete('ORDERS').catch(() => false)
await jsm.streams.add({ name: 'ORDERS', subjects: ['orders.>'] })
await nc.close()
await flow.worker(orders)

const good = Array.from({ length: ORDERS }, (_, i) => i).filter((i) => i % 10 !== 9)
const [published, heard] = await Promise.all([publishOrders(server.url), hearOfInvoices(server.url, good.length)])
const refused = await flow.events.refused({ subscription: 'orders/order-created', limit: 10_000 })
const report = {
  published,
  heard: heard.length,
  orders: new Set(heard).size,
  refused: refused.length,
  reason: refused[0]?.reason ?? '',
}
if (args.json) console.log(JSON.stringify(report))
else {
  console.log(`${report.published} messages of ${ORDERS} orders were published`)
  console.log(`${report.heard} invoices were made, of ${report.orders} orders`)
  console.log(`${report.refused} messages were refused, such as: ${report.reason}`)
}
await flow.close()
await server.stop()
