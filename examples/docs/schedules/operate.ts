import { asset, connect, pipeline, schedule } from '../../../src/index.ts'

const report = asset('report', { execute: ({ partition }) => partition })
const nightly = schedule('nightly', {
  cron: '30 2 * * *',
  timeZone: 'Europe/Zurich',
  run: report,
  partition: (at) => at.toISOString(),
})

const flow = await connect()
await flow.engine()
await flow.worker(pipeline('sales', [report], { schedules: [nightly] }))

const next = await flow.schedules.preview('sales/nightly', 10)
console.log(next.length)

await flow.schedules.pause('sales/nightly', 'the warehouse moves')
const [view] = await flow.schedules.list()
console.log(view?.state, view?.pausedBecause)
await flow.schedules.resume('sales/nightly')

const days = { from: '2026-03-28T00:00:00Z', to: '2026-03-30T00:00:00Z' }
const at = await flow.schedules.backfill('sales/nightly', days)
console.log(at.map((one) => one.toISOString()).join(' '))
await flow.close()

// prints: 10
// prints: paused the warehouse moves
// prints: 2026-03-28T01:30:00.000Z 2026-03-29T01:00:00.000Z
