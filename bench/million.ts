/**
 * `million`: a million no-op instances with about 100 B in and out, in a process of its own. It
 * measures the speed beside the raw ceiling at 50 a message. It also measures the peak memory of
 * engine, worker and client together, with Node's defaults, and what log and state bucket hold for
 * each instance. It is measured once: it is long, and its figures hardly vary.
 */
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { Bench, Job } from './bench.ts'
import type { Figure } from './figures.ts'
import type { MillionReport } from './million-run.ts'
import { rawScatter } from './raw-scatter.ts'
import { withRaw } from './rig.ts'

export const million: Bench = {
  about: 'scatter of a million no-op instances: instances/s, peak memory, bytes of log and state for each',
  sizes: [1_000_000],
  async run(job) {
    const figures: Figure[] = []
    for (const n of job.sizes) figures.push(...(await measure(job, n)))
    return figures
  },
}

async function measure({ rig, fsync, say }: Job, n: number): Promise<Figure[]> {
  const raw = n / ((await withRaw(rig.url, (connection, topology) => rawScatter(connection, topology, n))) / 1000)
  const { tookMs, peakRssMb, logBytes, stateBytes } = await reportOf(rig.url, n)
  const value = n / (tookMs / 1000)
  say(
    `million n=${n} fsync=${fsync}: raw ${Math.round(raw)}/s, engine ${Math.round(value)}/s, peak RSS ${Math.round(peakRssMb)} MB`,
  )
  const figure = (figured: number, unit: string): Figure => {
    return { bench: 'million', n, fsync, value: figured, unit, raw: null, ratio: null }
  }
  return [
    { ...figure(value, 'instances/s'), raw, ratio: value / raw },
    figure(peakRssMb, 'MB (peak RSS of engine, worker and client)'),
    figure(logBytes / n, 'B of log an instance'),
    figure(stateBytes / n, 'B of state an instance'),
  ]
}

async function reportOf(url: string, n: number): Promise<MillionReport> {
  const script = fileURLToPath(new URL('million-run.ts', import.meta.url))
  const { stdout } = await promisify(execFile)(process.execPath, [script, url, String(n)])
  const report: unknown = JSON.parse(stdout)
  if (typeof report !== 'object' || report === null) throw new Error(`no report: ${stdout}`)
  const field = (name: keyof MillionReport): number => Number(Reflect.get(report, name))
  return {
    tookMs: field('tookMs'),
    peakRssMb: field('peakRssMb'),
    logBytes: field('logBytes'),
    stateBytes: field('stateBytes'),
  }
}
