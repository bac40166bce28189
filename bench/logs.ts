/**
 * `logs`: what `ctx.log` costs. A scatter of no-op instances that log nothing, and the same with a
 * line an instance, in turn: `raw` is the one without lines. The same of short runs of one asset.
 */
import { type Asset, asset, type Flow, pipeline } from '../src/index.ts'
import { type Bench, type Job, repeated } from './bench.ts'
import type { Figure } from './figures.ts'
import { instanceKey, instanceValue } from './payload.ts'
import { withEngine } from './rig.ts'
import { median } from './stats.ts'

/** Short runs in flight, and how many instances weigh as much as one. */
const IN_FLIGHT = 50
const INSTANCES_A_RUN = 50

export const logs: Bench = {
  about: 'a scatter, and short runs, with a line of ctx.log for each instance or run, beside none',
  sizes: [100_000],
  async run(job) {
    const figures: Figure[] = []
    for (const n of job.sizes) {
      figures.push(await compared(job, n, 'instances/s with a line each', (url, lines) => scatterOf(url, n, lines)))
      const runs = Math.ceil(n / INSTANCES_A_RUN)
      figures.push(await compared(job, runs, 'runs/s with a line each', (url, lines) => runsOf(url, runs, lines)))
    }
    return figures
  },
}

async function compared(
  job: Job,
  n: number,
  unit: string,
  measure: (url: string, lines: boolean) => Promise<number>,
): Promise<Figure> {
  const { rig, fsync, say } = job
  const without: number[] = []
  const ratios: number[] = []
  const rates: number[] = []
  await repeated(job, async ({ measured, label }) => {
    // Each comes first as often as the other: what follows finds the server warmer.
    const isFirst = without.length % 2 === 0
    const first = n / ((await measure(rig.url, isFirst)) / 1000)
    const second = n / ((await measure(rig.url, !isFirst)) / 1000)
    const [on, off] = isFirst ? [first, second] : [second, first]
    say(`logs n=${n} fsync=${fsync} ${label}: ${unit} ${Math.round(on)}, without ${Math.round(off)}`)
    if (!measured) return
    without.push(off)
    rates.push(on)
    ratios.push(on / off)
  })
  return { bench: 'logs', n, fsync, value: median(rates), unit, raw: median(without), ratio: median(ratios) }
}

async function scatterOf(url: string, n: number, lines: boolean): Promise<number> {
  const keys = Array.from({ length: n }, (_, i) => instanceKey(i))
  const noop = asset('noop', {
    scatter: () => keys,
    execute: (ctx) => {
      if (lines) ctx.log.info('instance is done', { bytes: 100 })
      return instanceValue(ctx.index)
    },
    async gather(results) {
      let count = 0
      for await (const _ of results) count += 1
      return count
    },
  })
  return await withEngine(url, pipeline('bench', [noop]), async (flow) => await timed(flow, noop))
}

async function timed(flow: Flow, target: Asset<string, number>): Promise<number> {
  const startedMs = performance.now()
  await (await flow.materialize(target)).result()
  return performance.now() - startedMs
}

async function runsOf(url: string, n: number, lines: boolean): Promise<number> {
  const one = asset('one', {
    execute: (ctx) => {
      if (lines) ctx.log.info('run is done', { bytes: 100 })
      return instanceValue(1)
    },
  })
  return await withEngine(url, pipeline('bench', [one]), async (flow) => {
    await (await flow.materialize(one)).result()
    const startedMs = performance.now()
    let next = 0
    const client = async (): Promise<void> => {
      while (next < n) {
        next += 1
        await (await flow.materialize(one)).result()
      }
    }
    await Promise.all(Array.from({ length: IN_FLIGHT }, client))
    return performance.now() - startedMs
  })
}
