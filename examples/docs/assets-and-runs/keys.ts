import { equal } from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { asset, connect, pipeline } from '../../../src/index.ts'

const report = asset('report', { execute: (ctx) => `report of ${ctx.partition}` })

const flow = await connect()
await flow.engine()
await flow.worker(pipeline('shop', [report]))
const date = randomUUID()
// #region key
const first = await flow.materialize(report, { partition: date, key: `nightly-${date}` })
const second = await flow.materialize(report, { partition: date, key: `nightly-${date}` })
console.log(first.isNew, second.isNew) // true false
console.log(first.id === second.id) // true
// #endregion
equal(first.isNew && !second.isNew && first.id === second.id, true)
await second.result()
await flow.close()
