import { equal } from 'node:assert/strict'
import { asset, connect, pipeline } from '../../../src/index.ts'

const load = asset('load', {
  retry: { maxAttempts: 1 },
  execute: () => {
    throw new Error('no such table')
  },
})
const report = asset('report', { dependsOn: [load], execute: () => 1 })

const flow = await connect()
await flow.engine()
await flow.worker(pipeline('sales', [load, report]))
const run = await flow.materialize(report)
await run.result().catch(() => undefined)
// #region why
const { verdict, chain, state } = await flow.why(run.id)
console.log(verdict.text) // Run 0-… failed, because load failed: no such table.
for (const { text, fact } of chain) console.log(fact.seq, fact.at, fact.kind, text)
for (const { text } of state) console.log('just now:', text) // nothing: it has ended

const skipped = await flow.why({ run: run.id, asset: 'report' })
console.log(skipped.status, skipped.chain.length)
// #endregion
equal(skipped.status, 'skipped')
equal(state.length, 0)
await flow.close()
