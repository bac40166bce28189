import { equal } from 'node:assert/strict'
import { asset, connect, pipeline } from '../../../src/index.ts'
import { itemReader } from '../../../src/items/index.ts'

interface Order {
  readonly id: number
}
const api = {
  orders: async (
    _shop: string,
    { page }: { page: number; signal: AbortSignal },
  ): Promise<Order[]> => (page > 3 ? [] : [{ id: page * 10 }, { id: page * 10 + 1 }]),
}

// #region reader
const ordersOf = (shop: string) =>
  itemReader<Order, { page: number }>({
    name: `orders of ${shop}`,
    async *read(cursor = { page: 1 }, signal) {
      for (let page = cursor.page; ; page++) {
        const items = await api.orders(shop, { page, signal })
        if (items.length === 0) return
        yield { items, cursor: { page: page + 1 } } // where to continue after them
      }
    },
  })

const shipped = asset('shipped', {
  scatter: () => ordersOf('berlin'),
  execute: ({ scatterKey }) => scatterKey.id,
})
// #endregion

const flow = await connect()
await flow.engine()
await flow.worker(pipeline('shop', [shipped]))
equal((await (await flow.materialize(shipped)).result()).length, 6)
await flow.close()
