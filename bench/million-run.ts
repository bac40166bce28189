/**
 * One scatter of n no-op instances with engine, worker and client in this process, left alone.
 * Started by `million.ts`: `node million-run.ts URL N`. Keys come from a generator, because a list
 * that user code keeps would be counted as ours.
 */
import { pathToFileURL } from 'node:url'
import { jetstreamManager } from '@nats-io/jetstream'
import { asset, pipeline } from '../src/index.ts'
import { Connection } from '../src/log/connection.ts'
import { namesOf } from '../streams/subjects.ts'
import { instanceKey, instanceValue } from './payload.ts'
import { withEngine } from './rig.ts'

export interface MillionReport {
  readonly tookMs: number
  readonly peakRssMb: number
  readonly logBytes: number
  readonly stateBytes: number
}

async function report(url: string, n: number): Promise<MillionReport> {
  const noop = asset('noop', {
    *scatter() {
      for (let i = 0; i < n; i++) yield instanceKey(i)
    },
    execute: (ctx) => instanceValue(ctx.index),
    async gather(results) {
      let count = 0
      for await (const _ of results) count += 1
      return count
    },
  })
  return withEngine(url, pipeline('bench', [noop]), async (flow) => {
    const startedMs = performance.now()
    const count = await (await flow.materialize(noop)).result()
    const tookMs = performance.now() - startedMs
    if (count !== n) throw new Error(`the gather counted ${count} of ${n} results`)
    // The system's own count of the process so far, in KiB.
    const peakRssMb = process.resourceUsage().maxRSS / 1024
    const names = namesOf(flow.namespace)
    const [logBytes, stateBytes] = await storedBytes(url, [names.log(0), names.kvStream(names.stateBucket(0))])
    return { tookMs, peakRssMb, logBytes: logBytes ?? 0, stateBytes: stateBytes ?? 0 }
  })
}

async function storedBytes(url: string, streams: readonly string[]): Promise<number[]> {
  const connection = await Connection.open({ servers: url })
  try {
    const jsm = await jetstreamManager(connection.nc)
    return await Promise.all(streams.map(async (stream) => (await jsm.streams.info(stream)).state.bytes))
  } finally {
    await connection.close()
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const [url = '', n = ''] = process.argv.slice(2)
  console.log(JSON.stringify(await report(url, Number(n))))
}
