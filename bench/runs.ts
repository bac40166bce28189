/**
 * `runs`: runs of three plain assets in a row by n callers, from the call of `materialize` to the
 * value. With one caller it measures the time of a run, with more the runs a second. Engine, worker
 * and callers have a process each.
 *
 * Raw is what a run writes, with nothing in between: the same facts, the task and one document, by
 * as many callers, each message when the one before is stored. It reads nothing and acknowledges
 * nothing.
 */
import { attemptEffect } from '../projections/tasks.ts'
import { connect } from '../src/index.ts'
import { Appender } from '../src/log/appender.ts'
import type { Connection } from '../src/log/connection.ts'
import { factEntry, taskEntry } from '../src/log/entries.ts'
import { encodeJson } from '../streams/codec.ts'
import { type RunId, runId } from '../streams/ids.ts'
import type { Topology } from '../streams/topology.ts'
import { type Bench, type Job, type Pair, repeated } from './bench.ts'
import { type Child, startChild } from './child.ts'
import type { Figure } from './figures.ts'
import { finished, materialized, requested } from './made-up-runs.ts'
import { withNamespace, withRaw } from './rig.ts'
import { median } from './stats.ts'
import { third, threeAssets } from './three-assets.ts'

/** Runs of a repeat for each caller, and of all. */
const RUNS_EACH = 60
const RUNS_MAX = 1200

export const runs: Bench = {
  about: 'runs of three plain assets by n callers: time of a run (n = 1), runs a second',
  sizes: [1, 50, 200],
  async run(job) {
    return await withChildren(job.rig.url, async (children) => {
      const figures: Figure[] = []
      for (const n of job.sizes) figures.push(await measure(job, children, n))
      return figures
    })
  },
}

/** An engine and a worker in processes of their own. */
export async function withChildren<T>(
  url: string,
  use: (children: readonly Child[]) => Promise<T>,
  engine = 'engine-child.ts',
): Promise<T> {
  const children = [engine, 'worker-child.ts'].map((program) => startChild(program, url))
  try {
    return await use(children)
  } finally {
    for (const child of children) await child.end()
  }
}

export interface Speed {
  readonly perSecond: number
  /** Median, in milliseconds. */
  readonly ms: number
}

async function measure(job: Job, children: readonly Child[], n: number): Promise<Figure> {
  const { rig, fsync, say } = job
  const ours: number[] = []
  const raws: number[] = []
  const of = ({ perSecond, ms }: Speed): number => (n === 1 ? ms : perSecond)
  await repeated(job, async ({ measured, label }) => {
    // Node compiles what has run some hundred times.
    const all = measured ? Math.min(RUNS_MAX, n * RUNS_EACH) : RUNS_MAX
    const raw = await rawRuns(rig.url, n, all)
    const engine = await engineRuns(rig.url, children, n, all)
    const text = ({ perSecond, ms }: Speed): string => `${Math.round(perSecond)}/s, ${ms.toFixed(1)} ms`
    say(`runs n=${n} fsync=${fsync} ${label}: ${text(engine)} (raw ${text(raw)})`)
    if (!measured) return
    ours.push(of(engine))
    raws.push(of(raw))
  })
  const value = median(ours)
  const raw = median(raws)
  return { bench: 'runs', n, fsync, value, unit: n === 1 ? 'ms (p50)' : 'runs/s', raw, ratio: value / raw }
}

/** Runs a second by `n` callers, of `all` runs: one repeat of raw and engine. */
export async function runsPair(url: string, children: readonly Child[], n: number, all: number): Promise<Pair> {
  const raw = await rawRuns(url, n, all)
  const engine = await engineRuns(url, children, n, all)
  return { raw: raw.perSecond, value: engine.perSecond }
}

export async function rawRuns(url: string, n: number, all: number): Promise<Speed> {
  return await withRaw(url, (connection, topology) => byCallers(n, all, rawRun(connection, topology)))
}

export async function engineRuns(url: string, children: readonly Child[], n: number, all: number): Promise<Speed> {
  return await withNamespace(url, (namespace) => runsIn(url, namespace, children, n, all))
}

async function runsIn(
  url: string,
  namespace: string,
  children: readonly Child[],
  n: number,
  all: number,
): Promise<Speed> {
  const everyone = async (line: string): Promise<void> => {
    for (const child of children) {
      child.say(line)
      await child.line()
    }
  }
  await everyone(namespace)
  try {
    await using flow = await connect({ servers: url, namespace })
    return await byCallers(n, all, async () => {
      await (await flow.materialize(third)).result()
    })
  } finally {
    await everyone('')
  }
}

/** Each caller begins the next run when the one before has ended. The first fifth only warms up. */
export async function byCallers(n: number, all: number, run: () => Promise<void>): Promise<Speed> {
  const warm = Math.floor(all / 5)
  const ends: number[] = []
  const times: number[] = []
  let begun = 0
  await Promise.all(
    Array.from({ length: n }, async () => {
      while (begun < all) {
        begun += 1
        const startedMs = performance.now()
        await run()
        ends.push(performance.now())
        times.push(performance.now() - startedMs)
      }
    }),
  )
  const [fromMs = 0, toMs = 0] = [ends[warm], ends.at(-1)]
  return { perSecond: (all - warm - 1) / ((toMs - fromMs) / 1000), ms: median(times.slice(warm)) }
}

function rawRun(connection: Connection, { names }: Topology): () => Promise<void> {
  // One for each process that writes.
  const [client, engine, worker] = [0, 1, 2].map(() => new Appender(connection, names.log(0)))
  const work = new Appender(connection, names.work(0))
  const bucket = names.stateBucket(0)
  const state = new Appender(connection, names.kvStream(bucket))
  const { spec } = threeAssets
  const [head] = spec.assets
  if (!client || !engine || !worker || !head) throw new Error('three appenders, and an asset')
  let count = 0
  return async () => {
    const run = runId(0, `raw${count++}`)
    const document = { ...documentOf(run), version: spec.version }
    await client.append(factEntry(names, 0, requested(run, spec.version)))
    const task = attemptEffect(document, spec, head, { status: 'queued', phase: 'execute', attempt: 1, failures: 0 })
    if (task.do === 'task') await work.append(taskEntry(names, 0, task, Date.now()))
    let seq = 0
    for (const { name } of spec.assets) ({ seq } = await worker.append(factEntry(names, 0, materialized(run, name))))
    await engine.append(factEntry(names, 0, finished(run, seq)))
    state
      .append({ subject: names.kvSubject(bucket, `run.${run}`), payload: encodeJson(document) })
      .catch(() => undefined)
  }
}

function documentOf(id: RunId) {
  const asset = { status: 'materialized', phase: 'execute', attempt: 1, failures: 0, hash: 'f'.repeat(16) } as const
  const assets = Object.fromEntries(threeAssets.spec.assets.map(({ name }) => [name, { ...asset }]))
  const common = { id, seq: 1, pipeline: 'three', target: 'third', upstream: 'all', status: 'running' } as const
  return { ...common, requestedMs: 0, assets }
}
