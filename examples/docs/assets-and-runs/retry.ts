import { equal } from 'node:assert/strict'
import { asset, connect, pipeline } from '../../../src/index.ts'

let isDown = true
let fetched = 0
const rates = asset('rates', {
  execute: () => {
    fetched += 1
    return [1, 2]
  },
})
const report = asset('report', {
  dependsOn: [rates],
  retry: { maxAttempts: 1 },
  execute: (_ctx, { rates }) => {
    if (isDown) throw new Error('the printer is down')
    return `${rates.length} rates`
  },
})

const flow = await connect()
await flow.engine()
await flow.worker(pipeline('shop', [rates, report]))
const run = await flow.materialize(report)
await run.result().catch(() => undefined)
isDown = false
// #region retry
const again = await flow.retry(run.id) // takes the rates of the first run
console.log(await again.result()) // 2 rates

const anew = await flow.retry(again.id, { from: rates }) // makes them again, and the report
console.log(await anew.result()) // 2 rates
// #endregion
equal(fetched, 2)
await flow.close()
