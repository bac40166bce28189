/** A process that closes its flows while a worker and an engine of them start. */
import { asset, connect, pipeline } from '../../../src/index.ts'

const [servers = '', namespace = ''] = process.argv.slice(2)
const list = asset('list', { scatter: () => [1, 2, 3], execute: ({ index }) => index })
const ends = pipeline('ends', [list])
const silent = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined }
const ended = new Set<string>()
const first = await connect({ servers, namespace, logger: silent })
await first.setup()
await first.close()
for (const delayMs of [0, 1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96]) {
  const flow = await connect({ servers, namespace, logger: silent })
  const starting = [flow.worker(ends), flow.engine()].map((start) =>
    start.then(
      () => 'started',
      (error: { code?: string }) => String(error.code),
    ),
  )
  await new Promise((resolve) => setTimeout(resolve, delayMs))
  await flow.close()
  for (const end of await Promise.all(starting)) ended.add(end)
}
console.log(`closed ${[...ended].join(' ')}`)
