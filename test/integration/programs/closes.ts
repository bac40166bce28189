/** A process that does a little of everything, and then closes (`close`), or waits for a signal (`signal`). Tells what it has done, one word a line. */
import { asset, connect, pipeline } from '../../../src/index.ts'

const [servers = '', namespace = '', how = ''] = process.argv.slice(2)
const flow = await connect({ servers, namespace })
const list = asset('list', {
  scatter: () => [1, 2, 3],
  execute: ({ index }) => index,
  scatterOptions: { maxConcurrent: 2, rateLimit: [100, 'second'], slots: { bucket: 'some', max: 2 } },
})
await flow.engine()
await flow.worker(pipeline('ends', [list]), { handleSignals: how === 'signal' })
const run = await flow.materialize(list)
for await (const _ of run.watch()) break
await run.result()
await flow.limiter.take('rate', [5, 'second'])
await flow.limiter.withSlot('slot', 1, () => 1, { lease: '30s' })
const held = await flow.limiter.takeSlot('held', 1, { lease: '30s' })
console.log('ready')
if (how === 'close') {
  await flow.close()
  console.log(`closed ${held.isHeld}`)
}
