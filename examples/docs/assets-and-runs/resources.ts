import { equal } from 'node:assert/strict'
import { asset, connect, pipeline } from '../../../src/index.ts'

class Database {
  count(_table: string): Promise<number> {
    return Promise.resolve(2)
  }
}
// #region resources
const orders = asset('orders', {
  execute: async ({ resources, log, partition }) => {
    const { db } = resources as { db: Database }
    const count = await db.count('orders')
    log.info('counted', { partition, count })
    return count
  },
})

const flow = await connect({ logger: console })
await flow.worker(pipeline('shop', [orders]), { resources: { db: new Database() } })
// #endregion
await flow.engine()
equal(await (await flow.materialize(orders)).result(), 2)
await flow.close()
