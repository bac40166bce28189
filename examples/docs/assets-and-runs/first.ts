import { asset, connect, pipeline } from '../../../src/index.ts'

const orders = asset('orders', {
  execute: () => [
    { id: 1, euros: 20 },
    { id: 2, euros: 22 },
  ],
})

const revenue = asset('revenue', {
  dependsOn: [orders],
  execute: (_ctx, { orders }) => orders.reduce((sum, { euros }) => sum + euros, 0),
})

const shop = pipeline('shop', [orders, revenue])

const flow = await connect()
await flow.engine()
await flow.worker(shop)
const run = await flow.materialize(revenue, { partition: '2026-11-23' })
console.log(await run.result())
await flow.close()

// prints: 42
