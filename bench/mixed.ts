/**
 * `mixed`: instances of 1 ms, and among them some of 2 s, in one scatter over four workers of five
 * slots each. Ideal is what twenty slots would take that each begin the next instance the moment
 * they are free, with nothing in between.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { asset, pipeline } from '../src/index.ts'
import { type Bench, type Job, repeated } from './bench.ts'
import type { Figure } from './figures.ts'
import { instanceKey, instanceValue } from './payload.ts'
import { withEngine } from './rig.ts'
import { median } from './stats.ts'

const WORKERS = 4
const CONCURRENCY = 5
const SHORT_MS = 1
const LONG_MS = 2000
/** One in so many takes long. */
const ONE_IN = 100

export const mixed: Bench = {
  about: `scatter of instances of ${SHORT_MS} ms, one in ${ONE_IN} of ${LONG_MS} ms, over ${WORKERS} workers: time beside the ideal schedule`,
  sizes: [2_000],
  async run(job) {
    const figures: Figure[] = []
    for (const n of job.sizes) figures.push(await time(job, n))
    return figures
  },
}

function durationOf(index: number): number {
  return index % ONE_IN === ONE_IN / 2 ? LONG_MS : SHORT_MS
}

async function time(job: Job, n: number): Promise<Figure> {
  const { rig, fsync, say } = job
  const raw = idealMs(n, WORKERS * CONCURRENCY)
  const engines: number[] = []
  await repeated(job, async ({ measured, label }) => {
    const engine = await engineScatter(rig.url, n)
    say(`mixed n=${n} fsync=${fsync} ${label}: ideal ${Math.round(raw)} ms, engine ${Math.round(engine)} ms`)
    if (measured) engines.push(engine)
  })
  const value = median(engines)
  return { bench: 'mixed', n, fsync, value, unit: 'ms (ratio to the ideal schedule)', raw, ratio: value / raw }
}

/** Each slot takes the next instance when it is free. */
function idealMs(n: number, slots: number): number {
  const freeMs = Array.from({ length: slots }, () => 0)
  for (let index = 0; index < n; index++) {
    const soonest = freeMs.indexOf(Math.min(...freeMs))
    freeMs[soonest] = (freeMs[soonest] ?? 0) + durationOf(index)
  }
  return Math.max(...freeMs)
}

async function engineScatter(url: string, n: number): Promise<number> {
  const keys = Array.from({ length: n }, (_, i) => instanceKey(i))
  const uneven = asset('uneven', {
    scatter: () => keys,
    execute: async ({ index }) => {
      await sleep(durationOf(index))
      return instanceValue(index)
    },
  })
  return withEngine(
    url,
    pipeline('bench', [uneven]),
    async (flow) => {
      const startedMs = performance.now()
      const results = await (await flow.materialize(uneven)).result()
      const tookMs = performance.now() - startedMs
      if (results.length !== n) throw new Error(`${results.length} of ${n} results came`)
      return tookMs
    },
    Array.from({ length: WORKERS }, () => ({ concurrency: CONCURRENCY })),
  )
}
