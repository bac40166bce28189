import { deepEqual } from 'node:assert/strict'
import { asset, connect, type MaterializeOptions, pipeline } from '../../../src/index.ts'

const made: string[] = []
const orders = asset('orders', {
  execute: (ctx) => {
    made.push(`orders ${ctx.partition}`)
    return [20, 22]
  },
})
const revenue = asset('revenue', {
  dependsOn: [orders],
  execute: (ctx, { orders }) => {
    made.push(`revenue ${ctx.partition}`)
    return orders.reduce((sum, euros) => sum + euros, 0)
  },
})

const flow = await connect()
await flow.engine()
await flow.worker(pipeline('shop', [orders, revenue]))
const day = new Date().toISOString()
const nextDay = `${day}-next`
// #region upstream
const make = async (options: MaterializeOptions) =>
  (await flow.materialize(revenue, options)).result()

await make({ partition: day }) // makes orders and revenue
await make({ partition: day }) // makes both again
await make({ partition: day, upstream: 'missing' }) // makes revenue, of the stored orders
await make({ partition: nextDay }) // makes both: another partition
// #endregion
await flow.close()
deepEqual(made, [
  ...[`orders ${day}`, `revenue ${day}`, `orders ${day}`, `revenue ${day}`, `revenue ${day}`],
  ...[`orders ${nextDay}`, `revenue ${nextDay}`],
])
