/**
 * `flat`: whether anything gets slower or larger with the runs that have ended. 200 callers start
 * runs of one asset, in parts of equal size. The engine seals runs ten seconds after their end.
 *
 * Rows: the rate of each part, beside that of the first one (`raw`); then what a run that has ended
 * keeps of the server's memory and of its disk, once all that can be sealed is sealed; and how long
 * the first page of `runs()` takes.
 */
import { jetstreamManager } from '@nats-io/jetstream'
import { connect, type Flow } from '../src/index.ts'
import { Connection } from '../src/log/connection.ts'
import type { Bench, Job } from './bench.ts'
import type { Child } from './child.ts'
import { type Figure, rowsOf } from './figures.ts'
import { rssOf } from './processes.ts'
import { withNamespace } from './rig.ts'
import { byCallers, withChildren } from './runs.ts'
import { median } from './stats.ts'
import { first } from './three-assets.ts'

const CALLERS = 200
const PARTS = 6
const SEALED_WAIT_MS = 120_000
const LOOK_MS = 500
const PAGES = 20

export const flat: Bench = {
  about: 'n runs of one asset, sealed as they end: rate, memory of the server and disk for each',
  sizes: [24_000],
  async run(job) {
    const measured = async (children: readonly Child[]): Promise<Figure[]> => {
      const figures: Figure[] = []
      for (const n of job.sizes) figures.push(...(await measure(job, children, n)))
      return figures
    }
    return await withChildren(job.rig.url, measured, 'sealing-engine-child.ts')
  },
}

async function measure(job: Job, children: readonly Child[], n: number): Promise<Figure[]> {
  const { rig, fsync, say } = job
  return await withNamespace(rig.url, async (namespace) => {
    for (const child of children) {
      child.say(namespace)
      await child.line()
    }
    try {
      await using flow = await connect({ servers: rig.url, namespace })
      const rates: { runs: number; perSecond: number }[] = []
      const memory: number[] = []
      for (let part = 1; part <= PARTS; part++) {
        const each = Math.floor(n / PARTS)
        const { perSecond } = await byCallers(CALLERS, each, async () => {
          await (await flow.materialize(first)).result()
        })
        rates.push({ runs: part * each, perSecond })
        memory.push(rssOf(rig.serverPid))
        say(`flat ${part * each} runs: ${Math.round(perSecond)}/s, server ${Math.round((memory.at(-1) ?? 0) / 1e6)} MB`)
      }
      const { bytes, left } = await sealed(rig.url, namespace)
      say(`flat: ${left} messages are left on the log`)
      const row = rowsOf({ bench: 'flat', n, fsync })
      const [start = 0, half = 0] = [memory[0], memory[PARTS / 2 - 1]]
      const grown = Math.max(0, (memory.at(-1) ?? half) - half) / (n / 2)
      return [
        ...rates.map(({ runs, perSecond }) => rateOf(fsync, runs, perSecond, rates[0]?.perSecond ?? perSecond)),
        row('MB of the server after the first part', start / 1e6),
        row('MB of the server at the end', (memory.at(-1) ?? 0) / 1e6),
        row('B of the server a run, second half', grown),
        row('B on disk a run, feed aside', bytes / n),
        row('ms for the first page of runs() (p50)', await pageMs(flow)),
      ]
    } finally {
      for (const child of children) {
        child.say('')
        await child.line()
      }
    }
  })
}

function rateOf(fsync: Job['fsync'], n: number, value: number, raw: number): Figure {
  return { bench: 'flat', n, fsync, value, unit: 'runs/s', raw, ratio: value / raw }
}

/** Waits until nearly all has left the log; what all streams but the feed have then. */
async function sealed(url: string, namespace: string): Promise<{ bytes: number; left: number }> {
  const connection = await Connection.open({ servers: url })
  try {
    const jsm = await jetstreamManager(connection.nc)
    const untilMs = performance.now() + SEALED_WAIT_MS
    for (;;) {
      const left = (await jsm.streams.info(`${namespace}_LOG_0`)).state.messages
      if (left < 100 || performance.now() > untilMs) {
        let bytes = 0
        for await (const { config, state } of jsm.streams.list())
          if (config.name.includes(namespace) && !config.name.endsWith('_FEED')) bytes += state.bytes
        return { bytes, left }
      }
      await connection.ready(LOOK_MS)
    }
  } finally {
    await connection.close()
  }
}

async function pageMs(flow: Flow): Promise<number> {
  const times: number[] = []
  for (let i = 0; i < PAGES; i++) {
    const startedMs = performance.now()
    await flow.runs({ target: first })
    times.push(performance.now() - startedMs)
  }
  return median(times)
}
