import { equal } from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { asset, connect, pipeline, RunFailedError } from '../../../src/index.ts'

let isUp = false
const rates = asset('rates', {
  execute: (ctx) => (isUp ? [1.1] : ctx.fail('the rate service is down')),
})
const report = asset('report', {
  dependsOn: [rates],
  execute: (_ctx, { rates }) => `${rates.length} rates`,
})

const flow = await connect()
await flow.engine()
await flow.worker(pipeline('shop', [rates, report]))
const key = randomUUID()
let failedAt: string | undefined
// #region failed
const run = await flow.materialize(report, { key })
try {
  console.log(await run.result())
} catch (error) {
  if (!(error instanceof RunFailedError)) throw error
  console.log(error.code, error.asset, error.runId) // terminal rates 0-k3f…
  failedAt = error.asset
}
// #endregion
equal(failedAt, 'rates')
isUp = true
// #region retry
const again = await flow.materialize(report, { key, onFailed: 'retry' })
console.log(await again.result()) // 1 rates
// #endregion
equal(await again.result(), '1 rates')
await flow.close()
