/**
 * A scatter of n results of 1 KB, gathered one by one, with engine and worker in this process:
 * `node --expose-gc stream-gather.ts URL NAMESPACE N`. Prints what was most in use right after a
 * garbage collection while the gather ran, and how many results it saw.
 */
import { randomBytes } from 'node:crypto'
import { asset, connect, pipeline } from '../../../src/index.ts'

const [servers = '', namespace = '', n = ''] = process.argv.slice(2)
const count = Number(n)
const live = { before: 0, most: 0 }

function inUse(): number {
  // Twice: what the first one finds to be free of buffers is swept beside it, and counted until
  // then.
  globalThis.gc?.()
  globalThis.gc?.()
  const { heapUsed, arrayBuffers } = process.memoryUsage()
  return heapUsed + arrayBuffers
}

const kilobytes = asset('kilobytes', {
  scatterOptions: { duplicates: 'allow' },
  *scatter() {
    for (let i = 0; i < count; i++) yield i
  },
  // Random, so that compression does not make them small.
  execute: ({ index }) => ({ index, text: randomBytes(768).toString('base64') }),
  async gather(results) {
    live.before = inUse()
    let seen = 0
    for await (const { index, value } of results) {
      if (index !== seen || value.index !== seen || value.text.length !== 1024)
        throw new Error(`result ${seen} is not what its instance returned`)
      seen += 1
      if (seen % 2000 === 0) live.most = Math.max(live.most, inUse())
    }
    return seen
  },
})

await using flow = await connect({ servers, namespace })
const engine = await flow.engine()
await flow.worker(pipeline('kilobytes', [kilobytes]))
await engine.active
const seen = await (await flow.materialize(kilobytes)).result()
const mb = (bytes: number): number => Math.round(bytes / 1024 / 1024)
console.log(
  JSON.stringify({
    seen,
    before: mb(live.before),
    most: mb(live.most),
    maxRss: mb(process.resourceUsage().maxRSS * 1024),
  }),
)
