import { deepEqual } from 'node:assert/strict'
import { z } from 'zod'
import { asset, connect, input, pipeline } from '../../../src/index.ts'

// #region input
const order = input('order', z.object({ id: z.string(), total: z.number() }))

const invoice = asset('invoice', {
  dependsOn: [order],
  execute: (_ctx, { order }) => `${order.id}: ${order.total.toFixed(2)}`,
})
const orders = pipeline('orders', [order, invoice])
// #endregion

const flow = await connect()
await flow.engine()
await flow.worker(orders)
// #region input

const run = await flow.materialize(invoice, { input: { order: { id: 'o-1', total: 12.5 } } })
await run.result() // 'o-1: 12.50'
// #endregion
deepEqual(await run.result(), 'o-1: 12.50')
deepEqual(await flow.run(run.id).input(), { order: { id: 'o-1', total: 12.5 } })
await flow.close()
