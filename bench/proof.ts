/**
 * `proof`: the scatter of the bench of that name by an engine that proves its log, beside the same
 * by one that does not. They alternate, and the other one begins each time.
 */
import { type Bench, type Job, repeated } from './bench.ts'
import type { Figure } from './figures.ts'
import { engineScatter } from './scatter.ts'
import { median } from './stats.ts'

export const proof: Bench = {
  about: 'a scatter of n no-op instances with the proof, beside the same without it',
  sizes: [200_000],
  async run(job) {
    const figures: Figure[] = []
    for (const n of job.sizes) figures.push(await measure(job, n))
    return figures
  },
}

async function measure(job: Job, n: number): Promise<Figure> {
  const { rig, fsync, say } = job
  const rates = { on: [] as number[], off: [] as number[] }
  let turn = 0
  await repeated(job, async ({ measured, label }) => {
    for (const way of turn++ % 2 === 0 ? (['on', 'off'] as const) : (['off', 'on'] as const)) {
      const perSecond = n / ((await engineScatter(rig.url, n, { proof: way === 'on' })) / 1000)
      say(`proof n=${n} fsync=${fsync} ${label}: ${way}, ${Math.round(perSecond)}/s`)
      if (measured) rates[way].push(perSecond)
    }
  })
  const [value, raw] = [median(rates.on), median(rates.off)]
  return { bench: 'proof', n, fsync, value, unit: 'instances/s with the proof', raw, ratio: value / raw }
}
