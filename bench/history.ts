/**
 * `history`: what a history of n runs costs that are sealed already. It is made up, so that any
 * size can be measured. Rows: the rate of keyed runs of one asset by 200 callers, each of which is
 * looked for in the history first; the start of an engine; the first page of `runs()`; the result
 * of a run in the history; and the memory of the server beside that of an empty namespace.
 */
import { connect } from '../src/index.ts'
import { Connection } from '../src/log/connection.ts'
import { ensureTopology } from '../streams/topology.ts'
import type { Bench, Job } from './bench.ts'
import type { Child } from './child.ts'
import { type Figure, rowsOf } from './figures.ts'
import { makeUpHistory } from './made-up-history.ts'
import { rssOf } from './processes.ts'
import { withNamespace } from './rig.ts'
import { byCallers, withChildren } from './runs.ts'
import { median } from './stats.ts'
import { first } from './three-assets.ts'

const CALLERS = 200
const RUNS = 3000
const READS = 20

export const history: Bench = {
  about: 'a history of n runs: rate of keyed runs, start, first page, result of an old run, memory',
  sizes: [1, 1_000_000],
  async run(job) {
    const measured = async (children: readonly Child[]): Promise<Figure[]> => {
      const figures: Figure[] = []
      for (const n of job.sizes) figures.push(...(await measure(job, children, n)))
      return figures
    }
    return await withChildren(job.rig.url, measured)
  },
}

async function measure({ rig, fsync, say }: Job, children: readonly Child[], n: number): Promise<Figure[]> {
  return await withNamespace(rig.url, async (namespace) => {
    const before = rssOf(rig.serverPid)
    const connection = await Connection.open({ servers: rig.url })
    const startedMs = performance.now()
    const topology = await ensureTopology(connection.nc, { namespace })
    const known = await makeUpHistory(connection, topology, n)
    await connection.close()
    say(`history of ${n} runs is made up in ${Math.round((performance.now() - startedMs) / 1000)} s`)
    const starts: number[] = []
    for (const child of children) {
      const beganMs = performance.now()
      child.say(namespace)
      await child.line()
      starts.push(performance.now() - beganMs)
    }
    try {
      await using flow = await connect({ servers: rig.url, namespace })
      const row = rowsOf({ bench: 'history', n, fsync })
      const filled = rssOf(rig.serverPid)
      let key = 0
      const { perSecond } = await byCallers(CALLERS, RUNS, async () => {
        await (await flow.materialize(first, { key: `key ${key++}` })).result()
      })
      say(`history of ${n} runs: ${Math.round(perSecond)} keyed runs/s`)
      return [
        row('keyed runs/s', perSecond),
        row('ms until the engine is active', starts[0] ?? 0),
        row('ms for the first page of runs() (p50)', await msOf(async () => flow.runs())),
        row('ms for the same of a target (p50)', await msOf(async () => flow.runs({ target: 'three/third' }))),
        row('ms for the view of a run in it (p50)', await msOf(async () => flow.run(known).view())),
        row('B of the server for each run in it', Math.max(0, filled - before) / n),
      ]
    } finally {
      for (const child of children) {
        child.say('')
        await child.line()
      }
    }
  })
}

async function msOf(read: () => Promise<unknown>): Promise<number> {
  const times: number[] = []
  for (let i = 0; i < READS; i++) {
    const startedMs = performance.now()
    await read()
    times.push(performance.now() - startedMs)
  }
  return median(times)
}
