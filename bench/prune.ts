/**
 * `prune`: scatters while an engine prunes n runs, beside scatters of the same engine while it
 * prunes nothing. They alternate with the asking, and the median of each counts. The engine is in a
 * process of its own. Runs are made up, of three assets each.
 */
import { asset, connect, pipeline } from '../src/index.ts'
import { Connection } from '../src/log/connection.ts'
import { ensureTopology } from '../streams/topology.ts'
import type { Bench, Job } from './bench.ts'
import type { Child } from './child.ts'
import type { Figure } from './figures.ts'
import { makeUpPacks } from './made-up-packs.ts'
import { withNamespace } from './rig.ts'
import { withChildren } from './runs.ts'
import { median } from './stats.ts'

const INSTANCES = 20_000
const WARM_UPS = 2
const LEAST = 5

const noop = asset('noop', {
  scatter: () => Array.from({ length: INSTANCES }, (_, i) => i),
  execute: (ctx) => ctx.index,
  gather: () => INSTANCES,
})

export const prune: Bench = {
  about: 'scatters while n runs are pruned, beside those while nothing is; runs pruned a second',
  sizes: [100_000],
  async run(job) {
    const figures: Figure[] = []
    for (const n of job.sizes)
      figures.push(
        ...(await withChildren(job.rig.url, async ([engine]) => (engine ? await measure(job, engine, n) : []))),
      )
    return figures
  },
}

async function measure({ rig, fsync, say }: Job, engine: Child, n: number): Promise<Figure[]> {
  return await withNamespace(rig.url, async (namespace) => {
    const connection = await Connection.open({ servers: rig.url })
    const madeMs = performance.now()
    await makeUpPacks(connection, await ensureTopology(connection.nc, { namespace }), n)
    await connection.close()
    say(`prune n=${n}: the runs are made up in ${seconds(madeMs)} s`)
    engine.say(namespace)
    await engine.line()
    try {
      await using flow = await connect({ servers: rig.url, namespace })
      await flow.worker(pipeline('bench', [noop]))
      const scatter = async (): Promise<number> => {
        const startedMs = performance.now()
        await (await flow.materialize(noop)).result()
        return INSTANCES / ((performance.now() - startedMs) / 1000)
      }
      for (let i = 0; i < WARM_UPS; i++) await scatter()
      const idle: number[] = []
      for (let i = 0; i < LEAST; i++) idle.push(await scatter())
      const startedMs = performance.now()
      let tookMs = 0
      const pruning = flow.retention.prune({ olderThan: '1s', pipeline: 'three', timeout: '1d' }).then(({ runs }) => {
        tookMs = performance.now() - startedMs
        if (runs !== n) throw new Error(`${runs} of ${n} runs were pruned`)
      })
      const busy: number[] = []
      while (tookMs === 0) busy.push(await scatter())
      await pruning
      for (let i = 0; i < LEAST; i++) idle.push(await scatter())
      const [value, raw] = [median(busy), median(idle)]
      say(`prune n=${n}: pruned in ${Math.round(tookMs / 1000)} s`)
      say(`prune n=${n}: ${Math.round(value)} instances/s beside ${Math.round(raw)}, over ${busy.length} scatters`)
      const row = { bench: 'prune', n, fsync }
      return [
        { ...row, value, unit: 'instances/s while pruning', raw, ratio: value / raw },
        { ...row, value: n / (tookMs / 1000), unit: 'runs pruned/s', raw: null, ratio: null },
      ]
    } finally {
      engine.say('')
      await engine.line()
    }
  })
}

function seconds(sinceMs: number): number {
  return Math.round((performance.now() - sinceMs) / 1000)
}
