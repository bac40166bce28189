import { equal } from 'node:assert/strict'
import { z } from 'zod'
import { asset, connect, input, pipeline } from '../../../src/index.ts'

let atWork = 0
// #region concurrency
const order = input('order', z.object({ id: z.string(), customer: z.string() }))
const invoice = asset('invoice', {
  dependsOn: [order],
  execute: (_ctx, { order }) => invoiceOf(order),
})
const orders = pipeline('orders', [order, invoice], {
  concurrency: { limit: 1, key: { input: 'order.customer' } }, // one at a time for each customer
})
// #endregion
async function invoiceOf({ id }: { id: string }): Promise<string> {
  atWork += 1
  equal(atWork, 1)
  await new Promise((resolve) => setTimeout(resolve, 20))
  atWork -= 1
  return `invoice ${id}`
}

const flow = await connect()
await flow.engine()
await flow.worker(orders)
const ask = (id: string) =>
  flow.materialize(invoice, { input: { order: { id, customer: 'acme' } } })
const runs = await Promise.all(['1', '2', '3'].map(ask))
for (const run of runs) console.log(await run.result())
await flow.close()

// prints: invoice 1
// prints: invoice 2
// prints: invoice 3
