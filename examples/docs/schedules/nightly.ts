import { asset, connect, pipeline, schedule } from '../../../src/index.ts'

const report = asset('report', {
  execute: ({ partition }) => `report of ${partition}`,
})

const nightly = schedule('nightly', {
  cron: '0 2 * * *',
  timeZone: 'Europe/Zurich',
  run: report,
  partition: (at) => at.toISOString().slice(0, 10),
  catchUp: { within: '6h' },
})

const sales = pipeline('sales', [report], { schedules: [nightly] })

const flow = await connect()
await flow.engine()
await flow.worker(sales)
const run = await flow.schedules.trigger('sales/nightly')
console.log(await run.result())
await flow.close()

// prints: report of …
