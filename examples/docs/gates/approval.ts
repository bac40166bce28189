import { asset, connect, type Decision, pipeline } from '../../../src/index.ts'

const report = asset('report', { execute: () => 'All figures are in.' })

const published = asset('published', {
  dependsOn: [report],
  execute: (ctx, { report }) =>
    ctx.approval({ message: 'Publish the report?', context: { report }, timeout: '24h' }),
  onSignal: (ctx, { approved, by }: Decision) =>
    approved ? `published by ${by}` : ctx.fail('rejected'),
  onTimeout: (ctx) => ctx.fail('nobody answered'),
})

const flow = await connect() // with FLOWSTONE_GATE_SECRETS in the environment
await flow.engine()
await flow.worker(pipeline('news', [report, published]))
const run = await flow.materialize(published)

for await (const { run: now } of run.watch()) {
  const gate = now.assets.published?.gate // set while it waits
  if (gate)
    await flow.gates.signalById(gate, { approved: true, by: 'ann' }, { idempotencyKey: 'click 1' })
}
console.log(await run.result())
await flow.close()

// prints: published by ann
