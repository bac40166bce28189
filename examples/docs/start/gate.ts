import { setTimeout as sleep } from 'node:timers/promises'
import { asset, type Decision, pipeline } from '../../../src/index.ts'

const orders = asset('orders', {
  execute: () => Array.from({ length: 20 }, (_, i) => ({ id: i + 1, euros: 10 * (i + 1) })),
})

const invoices = asset('invoices', {
  dependsOn: [orders],
  scatter: ({ orders }) => orders, // one instance for each order
  scatterOptions: { maxConcurrent: 5, retry: { maxAttempts: 3 } },
  execute: async ({ scatterKey }) => {
    await sleep(1000) // in place of slow work
    return scatterKey.euros * 1.2
  },
  gather: async (results) => {
    let total = 0
    for await (const result of results) if (result.status === 'ok') total += result.value
    return total
  },
})

const report = asset('report', {
  dependsOn: [invoices],
  execute: (_ctx, { invoices }) => `invoices of ${invoices} euros`,
})

// #region gate
const published = asset('published', {
  dependsOn: [report],
  execute: (ctx, { report }) => ctx.approval({ message: `Publish ${report}?`, timeout: '24h' }),
  onSignal: (ctx, decision: Decision) =>
    decision.approved ? `published, says ${decision.by}` : ctx.fail('rejected'),
})

export default pipeline('shop', [orders, invoices, report, published])
// #endregion

// answers: { "approved": true, "by": "ann" }
// prints: "published, says ann"
