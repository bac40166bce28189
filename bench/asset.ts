/**
 * `asset`: a plain asset that does nothing, one after the other, from the call of `materialize` to
 * the value, in plain publishes.
 */
import { asset as declareAsset, pipeline } from '../src/index.ts'
import { type Bench, type Job, repeated } from './bench.ts'
import type { Figure } from './figures.ts'
import { instanceValue } from './payload.ts'
import { rawPublishes } from './raw-publish.ts'
import { withEngine, withRaw } from './rig.ts'
import { median, quantile } from './stats.ts'

export const asset: Bench = {
  about: 'plain asset, request to result: p50 and p99, in plain publishes',
  sizes: [500],
  async run(job) {
    const figures: Figure[] = []
    for (const n of job.sizes) figures.push(...(await latency(job, n)))
    return figures
  },
}

async function latency(job: Job, n: number): Promise<Figure[]> {
  const { rig, fsync, repeats, say } = job
  const each = Math.ceil(n / repeats)
  const raws: number[] = []
  const engines: number[] = []
  await repeated(job, async ({ measured, label }) => {
    const raw = await withRaw(rig.url, (connection, topology) => rawPublishes(connection, topology, each))
    const engine = await engineAssets(rig.url, each)
    const ms = (values: number[]): string => `${median(values).toFixed(2)} ms`
    say(`asset n=${n} fsync=${fsync} ${label}: publish ${ms(raw)}, engine ${ms(engine)} (p50)`)
    if (!measured) return
    raws.push(...raw)
    engines.push(...engine)
  })
  const raw = median(raws)
  return [0.5, 0.99].map((q) => {
    const value = quantile(engines, q)
    return {
      bench: 'asset',
      n,
      fsync,
      value,
      unit: `ms (p${q * 100}; ratio in plain publishes, p50)`,
      raw,
      ratio: value / raw,
    }
  })
}

async function engineAssets(url: string, n: number): Promise<number[]> {
  const plain = declareAsset('plain', { execute: () => instanceValue(1) })
  return withEngine(url, pipeline('bench', [plain]), async (flow) => {
    const times: number[] = []
    for (let i = 0; i < n; i++) {
      const startedMs = performance.now()
      const run = await flow.materialize(plain)
      await run.result()
      times.push(performance.now() - startedMs)
    }
    return times
  })
}
