import { equal } from 'node:assert/strict'
import { asset } from '../../../src/index.ts'
import {
  readCsv,
  readParquet,
  readPostgres,
  readS3Objects,
  s3Object,
} from '../../../src/items/index.ts'

const connectionString = 'postgres://127.0.0.1/shop'
// #region readers
const orders = asset('orders', {
  scatter: () =>
    readCsv(s3Object({ bucket: 'in', key: 'orders.csv.gz' })).map(({ id }) => ({ id: Number(id) })),
  execute: ({ scatterKey }) => scatterKey.id,
})

const trips = asset('trips', {
  scatter: () => readParquet('/data/trips.parquet', { columns: ['id', 'from', 'to'] }),
  execute: ({ scatterKey }) => scatterKey.id,
})

const users = asset('users', {
  scatter: () =>
    readPostgres({
      query: 'SELECT id, email FROM users WHERE active',
      key: 'id',
      connectionString,
    }),
  execute: ({ scatterKey }) => scatterKey.email,
})

const invoices = asset('invoices', {
  scatter: () => readS3Objects({ bucket: 'invoices', prefix: '2026/' }),
  execute: ({ scatterKey }) => scatterKey.size,
})
// #endregion
equal(
  [orders, trips, users, invoices].every(({ definition }) => definition.scatter !== undefined),
  true,
)
