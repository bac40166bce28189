/**
 * `prune`: scatters before and while an engine prunes n runs: as much work in the time of all of
 * them. Beside it, in turn, the same where nothing is pruned, because the second half is never just
 * like the first. The engine is in a process of its own. Runs are made up, of three assets each. It
 * ends before all are pruned: an engine rests most of the time.
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
const WARM_UPS = 60
/** Of each half. First an engine looks through all runs. */
const SCATTERS = 150

const noop = asset('noop', {
  scatter: () => Array.from({ length: INSTANCES }, (_, i) => i),
  execute: (ctx) => ctx.index,
  gather: () => INSTANCES,
})

export const prune: Bench = {
  about: 'scatters while n runs are pruned, beside those before; runs pruned a second',
  sizes: [100_000],
  async run(job) {
    const figures: Figure[] = []
    for (const n of job.sizes) figures.push(...(await compared(job, n)))
    return figures
  },
}

async function compared(job: Job, n: number): Promise<Figure[]> {
  const busy: Measured[] = []
  const idle: Measured[] = []
  for (let i = 0; i < 2 * job.repeats; i++) {
    const isPruning = i % 2 === 1
    const found = await withChildren(job.rig.url, async ([engine]) => {
      if (!engine) throw new Error('there is no engine')
      return await measure(job, engine, n, isPruning)
    })
    const { before, after, runs, ms } = found
    const text = isPruning ? `while ${runs} runs were pruned in ${Math.round(ms / 1000)} s` : 'while nothing was pruned'
    job.say(`prune n=${n}: ${Math.round(before)} instances/s, then ${Math.round(after)} ${text}`)
    const to = isPruning ? busy : idle
    to.push(found)
  }
  const rest = { bench: 'prune', n, fsync: job.fsync }
  const [pruning, nothing] = [busy, idle].map((all) => median(all.map(({ before, after }) => after / before)))
  return [
    {
      ...rest,
      value: median(busy.map(({ after }) => after)),
      unit: 'instances/s while pruning',
      raw: median(busy.map(({ before }) => before)),
      ratio: pruning ?? Number.NaN,
    },
    {
      ...rest,
      value: median(idle.map(({ after }) => after)),
      unit: 'instances/s, nothing to prune',
      raw: median(idle.map(({ before }) => before)),
      ratio: nothing ?? Number.NaN,
    },
    {
      ...rest,
      value: median(busy.map(({ runs, ms }) => runs / (ms / 1000))),
      unit: 'runs pruned/s',
      raw: null,
      ratio: null,
    },
  ]
}

interface Measured {
  /** Instances a second of the first half, and of the second. */
  readonly before: number
  readonly after: number
  /** Pruned in the second, and how long it took. */
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
      const half = async (scatters: number): Promise<number> => {
        const startedMs = performance.now()
        for (let i = 0; i < scatters; i++) await (await flow.materialize(noop)).result()
        return performance.now() - startedMs
      }
      const pruned = async (): Promise<number> =>
        (await flow.retention.records({ limit: 1000 })).reduce((sum, record) => sum + record.runs, 0)
      await half(WARM_UPS)
      const beforeMs = await half(SCATTERS)
      // It ends with the engine, at the latest.
      if (isPruning) flow.retention.prune({ olderThan: '1s', pipeline: 'three', timeout: '1d' }).catch(() => undefined)
      const ms = await half(SCATTERS)
      const perSecond = (halfMs: number): number => (SCATTERS * INSTANCES) / (halfMs / 1000)
      return { before: perSecond(beforeMs), after: perSecond(ms), runs: await pruned(), ms }
    } finally {
      engine.say('')
      await engine.line()
    }
  })
}
