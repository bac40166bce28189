// #region program
import { asset, pipeline } from '../../../src/index.ts'

const orders = asset('orders', {
  execute: () => Array.from({ length: 20 }, (_, i) => ({ id: i + 1, euros: 10 * (i + 1) })),
})

const report = asset('report', {
  dependsOn: [orders],
  execute: (_ctx, { orders }) => `${orders.length} orders`,
})

export default pipeline('shop', [orders, report])
// #endregion

// prints: "20 orders"
