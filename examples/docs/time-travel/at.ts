import { equal } from 'node:assert/strict'
import { setTimeout as sleep } from 'node:timers/promises'
import { asset, connect, pipeline } from '../../../src/index.ts'

let count = 0
const report = asset('report', { execute: () => ++count })

const flow = await connect({ namespace: 'docs_time_travel' })
await flow.engine()
await flow.worker(pipeline('sales', [report]))
await (await flow.materialize(report)).result()
const before = new Date()
// Times of facts are whole milliseconds.
await sleep(5)
await (await flow.materialize(report)).result()
// #region at
const then = flow.at(before)
console.log(await then.value('sales/report')) // { value: 1, run: '0-…', at: … }
console.log((await then.gates.waiting()).length, 'gates were waiting')
for (const run of await then.runs()) console.log(run.id, run.status)

const changed = await flow.diff(before)
for (const { id, before, after } of changed.runs) console.log(id, before, '->', after)
// #endregion
equal((await then.value(report))?.value, 1)
equal(changed.runs.length, 1)
await flow.close()
