/**
 * `limited`: a scatter with `maxConcurrent: 50` and instances that wait 5 ms, from
 * `materialize` to `result()`. The ceiling is 50 / 5 ms = 10,000 a second, or what 50 loops that
 * wait 5 ms reach in this process with nothing in between, whichever is lower.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { asset, pipeline } from '../src/index.ts'
import { type Bench, type Job, repeated } from './bench.ts'
import type { Figure } from './figures.ts'
import { instanceKey, instanceValue } from './payload.ts'
import { withEngine } from './rig.ts'
import { median } from './stats.ts'

const MAX_CONCURRENT = 50
const INSTANCE_MS = 5
const CEILING = (MAX_CONCURRENT * 1000) / INSTANCE_MS

export const limitedQueues: Bench = {
  about: `scatter with maxConcurrent ${MAX_CONCURRENT} of instances of ${INSTANCE_MS} ms: instances/s beside as many bare loops`,
  sizes: [30_000],
  async run(job) {
    const figures: Figure[] = []
    for (const n of job.sizes) figures.push(await speed(job, n))
    return figures
  },
}

async function speed(job: Job, n: number): Promise<Figure> {
  const { rig, fsync, say } = job
  const raws: number[] = []
  const engines: number[] = []
  await repeated(job, async ({ measured, label }) => {
    const raw = Math.min(CEILING, n / ((await bareLoops(n)) / 1000))
    const engine = n / ((await engineScatter(rig.url, n)) / 1000)
    say(`limited n=${n} fsync=${fsync} ${label}: raw ${Math.round(raw)}/s, engine ${Math.round(engine)}/s`)
    if (!measured) return
    raws.push(raw)
    engines.push(engine)
  })
  const value = median(engines)
  const raw = median(raws)
  return { bench: 'limited', n, fsync, value, unit: 'instances/s', raw, ratio: value / raw }
}

async function bareLoops(n: number): Promise<number> {
  const startedMs = performance.now()
  let begun = 0
  const loop = async (): Promise<void> => {
    while (begun < n) {
      begun += 1
      await sleep(INSTANCE_MS)
    }
  }
  await Promise.all(Array.from({ length: MAX_CONCURRENT }, loop))
  return performance.now() - startedMs
}

async function engineScatter(url: string, n: number): Promise<number> {
  let running = 0
  let most = 0
  const waiting = asset('waiting', {
    *scatter() {
      for (let i = 0; i < n; i++) yield instanceKey(i)
    },
    scatterOptions: { maxConcurrent: MAX_CONCURRENT },
    execute: async ({ index }) => {
      running += 1
      most = Math.max(most, running)
      await sleep(INSTANCE_MS)
      running -= 1
      return instanceValue(index)
    },
    async gather(results) {
      let count = 0
      for await (const _ of results) count += 1
      return count
    },
  })
  return withEngine(
    url,
    pipeline('bench', [waiting]),
    async (flow) => {
      const startedMs = performance.now()
      const count = await (await flow.materialize(waiting)).result()
      const tookMs = performance.now() - startedMs
      if (count !== n) throw new Error(`the gather counted ${count} of ${n} results`)
      if (most > MAX_CONCURRENT) throw new Error(`${most} instances ran at a time, ${MAX_CONCURRENT} are allowed`)
      return tookMs
    },
    [{ concurrency: MAX_CONCURRENT }],
  )
}
