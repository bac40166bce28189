/**
 * `start`: how long an engine needs from its start to its first decision, where n facts are in the
 * history and some runs are open. It has a process of its own, which has done nothing before. The
 * decision is the task of a run that was asked for while no engine was there. Rows: the times, and
 * how many messages the engine has read: they must not grow with n.
 */
import { connect } from '../src/index.ts'
import { Connection } from '../src/log/connection.ts'
import { ensureTopology } from '../streams/topology.ts'
import type { Bench, Job } from './bench.ts'
import { startChild } from './child.ts'
import type { Figure } from './figures.ts'
import { makeUpHistory } from './made-up-history.ts'
import { FACTS_EACH } from './made-up-runs.ts'
import { withNamespace } from './rig.ts'
import { median } from './stats.ts'
import { third, threeAssets } from './three-assets.ts'

/** Nobody works on them. */
const OPEN = 10
const STARTS = 3
/** What an engine reads a little later counts, too. */
export const WINDOW_MS = 2000

/** What `start-child.ts` says. */
export interface Started {
  readonly activeMs: number
  readonly decidedMs: number
  /** Messages until the decision. */
  readonly read: number
  readonly readInWindow: number
}

export const start: Bench = {
  about: 'an engine where n facts are in the history: time to its first decision, messages it reads',
  sizes: [10, 1_000_000],
  async run(job) {
    const figures: Figure[] = []
    for (const n of job.sizes) figures.push(...(await measure(job, n)))
    return figures
  },
}

async function measure({ rig, fsync, repeats, say }: Job, n: number): Promise<Figure[]> {
  return await withNamespace(rig.url, async (namespace) => {
    const connection = await Connection.open({ servers: rig.url })
    const topology = await ensureTopology(connection.nc, { namespace })
    await makeUpHistory(connection, topology, Math.ceil(n / FACTS_EACH))
    await using flow = await connect({ servers: rig.url, namespace })
    await flow.register(threeAssets)
    const tasks = connection.nc.subscribe(`${namespace}.work.0.>`, { max: OPEN })
    for (let i = 0; i < OPEN; i++) await flow.materialize(third)
    const engine = await flow.engine()
    for await (const _ of tasks) if (tasks.getProcessed() === OPEN) break
    await engine.stop()
    await connection.close()
    const all: Started[] = []
    for (let i = 0; i < Math.min(repeats, STARTS); i++) {
      const { id: run } = await flow.materialize(third)
      const child = startChild('start-child.ts', JSON.stringify({ url: rig.url, namespace, run }))
      all.push(JSON.parse(await child.line()))
      await child.end()
    }
    const row = (unit: string, of: (started: Started) => number): Figure => {
      return { bench: 'start', n, fsync, value: median(all.map(of)), unit, raw: null, ratio: null }
    }
    const rows = [
      row('ms until the engine is active (p50)', ({ activeMs }) => activeMs),
      row('ms until its first decision (p50)', ({ decidedMs }) => decidedMs),
      row('messages read until then (p50)', ({ read }) => read),
      row(`messages read in ${WINDOW_MS / 1000} s (p50)`, ({ readInWindow }) => readInWindow),
    ]
    say(`start: ${n} facts, ${rows.map(({ value, unit }) => `${Math.round(value)} ${unit}`).join(', ')}`)
    return rows
  })
}
