import { asset, connect, pipeline } from '../../../src/index.ts'

const invoice = asset('invoice', { retention: { keepLast: 10 }, execute: () => 'an invoice' })
const orders = pipeline('orders', [invoice], {
  retention: { runs: '90d', failed: '180d', perAsset: { keepLast: 100 } },
})

const flow = await connect()
await flow.worker(orders)
// Of pipelines that do not say it, runs are kept for a year.
await flow.engine({ retention: { runs: '365d' } })

const { runs } = await flow.retention.prune({ olderThan: '30d', pipeline: 'orders', dryRun: true })
console.log(`${runs} runs would go`)
await flow.close()

// prints: 0 runs would go
