import { asset, pipeline, type WorkerConfig } from '../../../src/index.ts'

class Database {
  count(_table: string): Promise<number> {
    return Promise.resolve(2)
  }
}
// #region worker
export const worker: WorkerConfig = {
  resources: { db: new Database() },
  logger: console,
  concurrency: 4,
}

const orders = asset('orders', {
  execute: ({ resources }) => (resources as { db: Database }).db.count('orders'),
})
export default pipeline('shop', [orders])
// #endregion
// prints: 2
