/**
 * `writes`: what n messages of 300 bytes cost, side by side and as one atomic batch: the time until
 * all are answered, and processor time of the server.
 */
import { randomBytes } from 'node:crypto'
import { type Entry, publish, publishBatch } from '../src/log/nats.ts'
import { type Bench, type Job, repeated } from './bench.ts'
import type { Figure } from './figures.ts'
import { cpuMsOf } from './processes.ts'
import { withRaw } from './rig.ts'
import { median } from './stats.ts'

const MESSAGES = 400
const TIMEOUT_MS = 10_000

export const writes: Bench = {
  about: 'n messages side by side, and as one atomic batch: time, and processor time of the server',
  sizes: [1, 10, 50, 200],
  async run(job) {
    const figures: Figure[] = []
    for (const n of job.sizes) figures.push(...(await measure(job, n)))
    return figures
  },
}

async function measure(job: Job, n: number): Promise<Figure[]> {
  const { fsync, say } = job
  const found = { 'side by side': [] as Cost[], 'as a batch': [] as Cost[] }
  const ways = Object.keys(found) as (keyof typeof found)[]
  await repeated(job, async ({ measured, label }) => {
    for (const way of ways) {
      const cost = await costOf(job, n, way === 'as a batch')
      say(`writes n=${n} fsync=${fsync} ${label}: ${way} ${cost.ms.toFixed(2)} ms, ${cost.cpuMs.toFixed(2)} ms CPU`)
      if (measured) found[way].push(cost)
    }
  })
  return ways.flatMap((way) => {
    const common = { bench: 'writes', n, fsync, raw: null, ratio: null }
    return [
      { ...common, value: median(found[way].map(({ ms }) => ms)), unit: `ms ${way}` },
      { ...common, value: median(found[way].map(({ cpuMs }) => cpuMs)), unit: `ms ${way} (CPU of the server)` },
    ]
  })
}

interface Cost {
  readonly ms: number
  readonly cpuMs: number
}

async function costOf({ rig }: Job, n: number, isBatch: boolean): Promise<Cost> {
  return await withRaw(rig.url, async ({ nc }, { names }) => {
    const rounds = Math.max(5, Math.ceil(MESSAGES / n))
    const times: number[] = []
    const payload = new Uint8Array(300)
    const before = cpuMsOf(rig.serverPid)
    for (let round = 0; round < rounds; round++) {
      const entries = Array.from(
        { length: n },
        (_, i): Entry => ({ subject: names.fact(0, `bench.r${round}m${i}`), payload, expect: { seq: 0 } }),
      )
      const startedMs = performance.now()
      const acks = isBatch
        ? [
            await publishBatch(
              nc,
              entries.map((entry) => ({ entry, unit: 'bench' })),
              randomBytes(9).toString('hex'),
              TIMEOUT_MS,
            ),
          ]
        : await Promise.all(entries.map((entry) => publish(nc, entry, 'bench', TIMEOUT_MS)))
      times.push(performance.now() - startedMs)
      const refused = acks.find(({ error }) => error)
      if (refused?.error) throw new Error(`a write was refused: ${refused.error.description}`)
    }
    return { ms: median(times), cpuMs: (cpuMsOf(rig.serverPid) - before) / rounds }
  })
}
