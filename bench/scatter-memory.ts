/**
 * Memory of one scatter of n: engine, worker and client in this process. Started by `scatter.ts`:
 * `node --expose-gc scatter-memory.ts URL N`.
 *
 * Two runs: one left alone, for the peak RSS that the system saw, and one with garbage collections
 * at intervals, for what is truly held. Keys come from a generator, because a list that user code
 * keeps would be counted as ours.
 */
import { pathToFileURL } from 'node:url'
import { asset, pipeline } from '../src/index.ts'
import { instanceKey, instanceValue } from './payload.ts'
import { withEngine } from './rig.ts'

export interface MemoryReport {
  readonly peakRssMb: number
  /** Most heap and array buffers in use right after a garbage collection while the scatter ran. */
  readonly liveHeapMb: number
}

const LOOK_MS = 50
const MB = 1024 * 1024

async function report(url: string, n: number): Promise<MemoryReport> {
  const noop = asset('noop', {
    *scatter() {
      for (let i = 0; i < n; i++) yield instanceKey(i)
    },
    execute: (ctx) => instanceValue(ctx.index),
    async gather(results) {
      let count = 0
      for await (const _ of results) {
        // Every other await of the loop is answered from memory: without this pause no timer would
        // get a turn.
        if (++count % 1000 === 0) await new Promise((resolve) => setImmediate(resolve))
      }
      return count
    },
  })
  return withEngine(url, pipeline('bench', [noop]), async (flow) => {
    await (await flow.materialize(noop)).result()
    // The system's own count of the process so far, in KiB.
    const peakRssMb = process.resourceUsage().maxRSS / 1024

    let live = 0
    const look = (): void => {
      globalThis.gc?.()
      const { heapUsed, arrayBuffers } = process.memoryUsage()
      live = Math.max(live, heapUsed + arrayBuffers)
    }
    const looking = setInterval(look, LOOK_MS)
    try {
      await (await flow.materialize(noop)).result()
      look()
    } finally {
      clearInterval(looking)
    }
    return { peakRssMb, liveHeapMb: live / MB }
  })
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  if (!globalThis.gc) throw new Error('run this with --expose-gc')
  const [url = '', n = ''] = process.argv.slice(2)
  console.log(JSON.stringify(await report(url, Number(n))))
}
