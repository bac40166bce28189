import { deepEqual } from 'node:assert/strict'
import { z } from 'zod'
import { asset, connect, input, pipeline } from '../../../src/index.ts'

// #region child
const order = input('order', z.object({ id: z.string(), total: z.number() }))
const invoice = asset('invoice', {
  dependsOn: [order],
  execute: (_ctx, { order }) => `${order.id}: ${order.total.toFixed(2)}`,
})
const shop = pipeline('shop', [order, invoice])

const invoices = asset('invoices', {
  scatter: () => [
    { id: 'o-1', total: 12.5 },
    { id: 'o-2', total: 20 },
  ],
  execute: (ctx) => ctx.run(invoice, { input: { order: ctx.scatterKey } }),
  onRun: (_ctx, { run, value }) => ({ run, text: value }),
})
const month = pipeline('month', [invoices])
// #endregion

const flow = await connect()
await flow.engine()
await flow.worker([shop, month], { concurrency: 1 })
const run = await flow.materialize(invoices)
const made = await run.result()
deepEqual(
  made.map(({ value }) => value.text),
  ['o-1: 12.50', 'o-2: 20.00'],
)
await flow.close()
