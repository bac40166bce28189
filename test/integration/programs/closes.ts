/**
 * A process that does a little of everything, and then closes (`close`), or waits for a signal
 * (`signal`). Tells what it has done, one word a line.
 */
import { asset, connect, pipeline } from '../../../src/index.ts'

const [servers = '', namespace = '', how = ''] = process.argv.slice(2)
const flow = await connect({ servers, namespace })
const list = asset('list', {
  scatter: () => [1, 2, 3],
  execute: ({ index }) => index,
  scatterOptions: { maxConcurrent: 2, rateLimit: [100, 'second'], slots: { bucket: 'some', max: 2 } },
})
// Code that never comes to an end, nor heeds its signal, under time limits that are far away.
let begun = 0
const never = (): Promise<never> => {
  begun += 1
  return new Promise(() => undefined)
}
const hung = [
  asset('plain', { timeout: '1h', execute: never }),
  asset('many', { scatter: () => [1, 2], execute: never, scatterOptions: { timeout: '1h' } }),
  asset('limited', { scatter: () => [1], execute: never, scatterOptions: { slots: { bucket: 'hung', max: 1 } } }),
  asset('keys', {
    timeout: '1h',
    scatter: async function* () {
      yield 1
      await never()
    },
    execute: () => 1,
  }),
  asset('gathers', { timeout: '1h', scatter: () => [1], execute: () => 1, gather: never }),
]
await flow.engine()
await flow.worker(pipeline('ends', [list, ...hung]), { handleSignals: how === 'signal', drainTimeout: '300ms' })
for (const one of hung) await flow.materialize(one)
const run = await flow.materialize(list)
for await (const _ of run.watch()) break
await run.result()
await flow.limiter.take('rate', [5, 'second'])
await flow.limiter.withSlot('slot', 1, () => 1, { lease: '30s' })
const held = await flow.limiter.takeSlot('held', 1, { lease: '30s' })
while (begun < hung.length + 1) await new Promise((resolve) => setTimeout(resolve, 5))
console.log('ready')
if (how === 'close') {
  await flow.close()
  console.log(`closed ${held.isHeld}`)
}
