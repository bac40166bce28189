/**
 * `prune`: scatters while an engine prunes n runs, beside as many of another engine that prunes
 * nothing, in turn. The engine is in a process of its own. Runs are made up, of three assets each.
 * It ends before all are pruned: an engine rests most of the time.
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
const WARM_UPS = 20
/** First an engine looks through all runs. */
const SCATTERS = 150

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
    for (const n of job.sizes) figures.push(...(await compared(job, n)))
    return figures
  },
}

async function compared(job: Job, n: number): Promise<Figure[]> {
  const busy: number[] = []
  const idle: number[] = []
  const pruned: number[] = []
  // The one without comes first, and last.
  for (let i = 0; i <= 2 * job.repeats; i++) {
    const isPruning = i % 2 === 1
    const { scatters, runs, ms } = await withChildren(job.rig.url, async ([engine]) => {
      if (!engine) throw new Error('there is no engine')
      return await measure(job, engine, n, isPruning)
    })
    const text = isPruning ? `while ${runs} runs were pruned in ${Math.round(ms / 1000)} s` : 'while nothing was pruned'
    job.say(`prune n=${n}: ${Math.round(median(scatters))} instances/s over ${scatters.length} scatters, ${text}`)
    if (isPruning) pruned.push(runs / (ms / 1000))
    const to = isPruning ? busy : idle
    to.push(median(scatters))
  }
  const [value, raw] = [median(busy), median(idle)]
  const row = { bench: 'prune', n, fsync: job.fsync }
  return [
    { ...row, value, unit: 'instances/s while pruning', raw, ratio: value / raw },
    { ...row, value: median(pruned), unit: 'runs pruned/s', raw: null, ratio: null },
  ]
}

interface Measured {
  /** Instances a second of each. */
  readonly scatters: number[]
  /** Pruned meanwhile. */
  readonly runs: number
  readonly ms: number
}

async function measure({ rig }: Job, engine: Child, n: number, isPruning: boolean): Promise<Measured> {
  return await withNamespace(rig.url, async (namespace) => {
    const connection = await Connection.open({ servers: rig.url })
    await makeUpPacks(connection, await ensureTopology(connection.nc, { namespace }), n)
    await connection.close()
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
      const startedMs = performance.now()
      // It ends with the engine, at the latest.
      if (isPruning) flow.retention.prune({ olderThan: '1s', pipeline: 'three', timeout: '1d' }).catch(() => undefined)
      const scatters: number[] = []
      let runs = 0
      while (scatters.length < SCATTERS || (isPruning && runs === 0)) {
        scatters.push(await scatter())
        const records = await flow.retention.records({ limit: 1000 })
        runs = records.reduce((sum, record) => sum + record.runs, 0)
      }
      return { scatters, runs, ms: performance.now() - startedMs }
    } finally {
      engine.say('')
      await engine.line()
    }
  })
}
