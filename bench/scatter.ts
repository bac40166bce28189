/**
 * `scatter`: no-op instances with about 100 B in and out, from `materialize` to `result()`, against
 * the raw ceiling at 50 instances a message. Then the memory of the same in a process of its own.
 */
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { asset, type EngineOptions, type Flow, pipeline } from '../src/index.ts'
import { type Bench, type Job, type Pair, repeated } from './bench.ts'
import type { Figure } from './figures.ts'
import { instanceKey, instanceValue } from './payload.ts'
import { rawScatter } from './raw-scatter.ts'
import { SMALL_HEAP, withEngine, withRaw } from './rig.ts'
import type { MemoryReport } from './scatter-memory.ts'
import { median } from './stats.ts'

export const scatter: Bench = {
  about: 'scatter of no-op instances: instances/s beside the raw ceiling at 50 per message; peak memory',
  sizes: [10_000, 100_000],
  async run(job) {
    const figures: Figure[] = []
    for (const n of job.sizes) figures.push(await speed(job, n))
    figures.push(...(await memory(job)))
    return figures
  },
}

async function speed(job: Job, n: number): Promise<Figure> {
  const { rig, fsync, say } = job
  const raws: number[] = []
  const engines: number[] = []
  await repeated(job, async ({ measured, label }) => {
    const { raw, value: engine } = await scatterPair(rig.url, n)
    const perSecond = (value: number): string => `${Math.round(value).toLocaleString('en-US')}/s`
    say(`scatter n=${n} fsync=${fsync} ${label}: raw ${perSecond(raw)}, engine ${perSecond(engine)}`)
    if (!measured) return
    raws.push(raw)
    engines.push(engine)
  })
  const value = median(engines)
  const raw = median(raws)
  return { bench: 'scatter', n, fsync, value, unit: 'instances/s', raw, ratio: value / raw }
}

/** Instances a second: one repeat of raw and engine. */
export async function scatterPair(url: string, n: number): Promise<Pair> {
  const rawMs = await withRaw(url, (connection, topology) => rawScatter(connection, topology, n))
  return { raw: n / (rawMs / 1000), value: n / ((await engineScatter(url, n)) / 1000) }
}

/** Milliseconds from `materialize` to the value. */
export async function engineScatter(url: string, n: number, engine: EngineOptions = {}): Promise<number> {
  const keys = Array.from({ length: n }, (_, i) => instanceKey(i))
  const noop = asset('noop', {
    scatter: () => keys,
    execute: (ctx) => instanceValue(ctx.index),
    async gather(results) {
      let count = 0
      for await (const _ of results) count += 1
      return count
    },
  })
  const measured = async (flow: Flow): Promise<number> => {
    const startedMs = performance.now()
    const run = await flow.materialize(noop)
    const count = await run.result()
    const tookMs = performance.now() - startedMs
    if (count !== n) throw new Error(`the gather counted ${count} of ${n} results`)
    return tookMs
  }
  return withEngine(url, pipeline('bench', [noop]), measured, [{}], {}, engine)
}

async function memory({ rig, fsync, sizes, say }: Job): Promise<Figure[]> {
  const figures: Figure[] = []
  const heaps: { n: number; mb: number }[] = []
  const add = (n: number, value: number, unit: string): void => {
    figures.push({ bench: 'scatter', n, fsync, value, unit, raw: null, ratio: null })
  }
  for (const n of sizes) {
    const report = await memoryOf(rig.url, n)
    say(
      `scatter n=${n} fsync=${fsync} memory: peak RSS ${report.peakRssMb.toFixed(0)} MB, live heap ${report.liveHeapMb.toFixed(1)} MB`,
    )
    add(n, report.peakRssMb, 'MB (peak RSS)')
    add(n, report.liveHeapMb, 'MB (peak live heap)')
    heaps.push({ n, mb: report.liveHeapMb })
  }
  const [first, last] = [heaps[0], heaps.at(-1)]
  if (first && last && first !== last) add(last.n, last.mb - first.mb, `MB (live heap growth since n=${first.n})`)
  return figures
}

/**
 * A process of its own for each size: what an earlier one took from the system would hide what this
 * one takes.
 */
async function memoryOf(url: string, n: number): Promise<MemoryReport> {
  const script = fileURLToPath(new URL('scatter-memory.ts', import.meta.url))
  const { stdout } = await promisify(execFile)(process.execPath, [...SMALL_HEAP, '--expose-gc', script, url, String(n)])
  const report: unknown = JSON.parse(stdout)
  if (typeof report !== 'object' || report === null) throw new Error(`no memory report: ${stdout}`)
  return { peakRssMb: Number(Reflect.get(report, 'peakRssMb')), liveHeapMb: Number(Reflect.get(report, 'liveHeapMb')) }
}
