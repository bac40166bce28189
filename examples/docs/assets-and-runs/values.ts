import { deepEqual } from 'node:assert/strict'
import { asset, connect, pipeline } from '../../../src/index.ts'

const orders = asset('orders', { execute: () => [22, 20] })
// #region copy
const sorted = asset('sorted', {
  dependsOn: [orders],
  execute: (_ctx, { orders }) => orders.toSorted(), // orders.sort() would throw: it is read-only
})
// #endregion

const flow = await connect()
await flow.engine()
await flow.worker(pipeline('shop', [orders, sorted]))
deepEqual(await (await flow.materialize(sorted)).result(), [20, 22])
await flow.close()
