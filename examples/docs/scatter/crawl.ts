import { asset, connect, pipeline } from '../../../src/index.ts'

const pages = asset('pages', { execute: () => ['/a', '/b', '/c'] })

const sizes = asset('sizes', {
  dependsOn: [pages],
  scatter: ({ pages }) => pages.map((path) => ({ path })), // the keys: one instance for each
  execute: ({ scatterKey }) => scatterKey.path.length, // for each key, on any worker
  gather: async (results) => {
    let sum = 0
    for await (const { value } of results) sum += value // in the order of the keys
    return sum
  },
  scatterOptions: { maxConcurrent: 20, timeout: '30s', retry: { maxAttempts: 5 } },
})

const flow = await connect()
await flow.engine()
await flow.worker(pipeline('site', [pages, sizes]))
const run = await flow.materialize(sizes)
console.log(await run.result())
await flow.close()

// prints: 6
