import { equal } from 'node:assert/strict'
import { asset, connect, pipeline } from '../../../src/index.ts'

const orders = asset('orders', { execute: () => [20, 22] })
const report = asset('report', {
  dependsOn: [orders],
  execute: (_ctx, { orders }) => orders.length,
})

const flow = await connect()
await flow.engine()
await flow.worker(pipeline('shop', [orders, report]))
const run = await flow.materialize(report, { upstream: 'all' })
// #region follow
for await (const { run: now, scatters } of run.watch()) {
  for (const [name, { status }] of Object.entries(now.assets)) console.log(name, status)
  for (const { asset, succeeded, total } of scatters)
    console.log(asset, succeeded, 'of', total ?? '?')
}

const status = await run.status()
console.log(status?.waitingFor, status?.assets.report?.waitingFor) // [] []: it has ended

for await (const { at, kind, ids } of flow.history(run.id)) console.log(at, kind, ids.asset)
for (const { id, target } of await flow.runs({ open: true })) console.log(id, target)
// #endregion
equal(status?.status, 'succeeded')
await flow.close()
