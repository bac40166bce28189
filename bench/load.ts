/**
 * `load`: how long a small run (three assets) and a signal (gate signalled to run finished) take
 * while nothing else happens, and while a scatter of n runs. All share a pipeline, a queue and one
 * worker. Engine and worker have a process each. The ratio is the factor: under load beside idle.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { connect as connectNats } from '@nats-io/transport-node'
import { connect, type Flow } from '../src/index.ts'
import type { Bench, Job } from './bench.ts'
import { startChild } from './child.ts'
import type { Figure } from './figures.ts'
import { LOAD_SETTINGS, many, small, waits } from './load-pipeline.ts'
import { withNamespace } from './rig.ts'
import { median, quantile } from './stats.ts'

const WARM_UP = 20
const SAMPLES = 100
const LOOK_MS = 2
/** Shown one by one. */
const SLOWEST = 3

export const load: Bench = {
  about: 'time of a small run and of a signal, idle (raw) and while a scatter of n runs',
  sizes: [1_000_000],
  async run(job) {
    const figures: Figure[] = []
    for (const n of job.sizes) figures.push(...(await measure(job, n)))
    return figures
  },
}

interface Times {
  readonly runs: { readonly id: string; readonly callMs: number; readonly endMs: number }[]
  readonly signals: number[]
}

async function measure(job: Job, n: number): Promise<Figure[]> {
  const { rig, fsync } = job
  const children = ['engine-child.ts', 'load-worker-child.ts'].map((program) => startChild(program, rig.url))
  const everyone = async (line: string): Promise<void> => {
    for (const child of children) {
      child.say(line)
      await child.line()
    }
  }
  try {
    return await withNamespace(rig.url, async (namespace) => {
      await everyone(namespace)
      await using tasks = await listenForTasks(rig.url, namespace)
      await using flow = await connect({ ...LOAD_SETTINGS, servers: rig.url, namespace })
      const samples = Math.min(n, SAMPLES)
      await sample(flow, () => count(Math.min(n, WARM_UP)))
      const idle = await sample(flow, () => count(samples))
      await sayTimes(job, flow, tasks, 'idle', idle)
      const { busy, perSecond } = await underLoad(flow, n)
      await sayTimes(job, flow, tasks, `beside a scatter of ${n}`, busy)
      await everyone('')
      const common = { bench: 'load', n, fsync }
      const factors = (unit: string, values: number[], raws: number[]): Figure[] =>
        [0.5, 0.99].map((q) => {
          const [value, raw] = [quantile(values, q), quantile(raws, q)]
          return { ...common, value, unit: `ms ${unit} (p${q * 100}; raw: idle)`, raw, ratio: value / raw }
        })
      return [
        ...factors('small run', busy.runs.map(durationOf), idle.runs.map(durationOf)),
        ...factors('signal to finished', busy.signals, idle.signals),
        { ...common, value: perSecond, unit: 'instances/s meanwhile', raw: null, ratio: null },
      ]
    })
  } finally {
    for (const child of children) await child.end()
  }
}

interface Tasks extends AsyncDisposable {
  /** When the engine sent the first task of a run. What follows is the worker's time. */
  readonly sentMs: ReadonlyMap<string, number>
}

async function listenForTasks(url: string, namespace: string): Promise<Tasks> {
  const nc = await connectNats({ servers: url })
  const sentMs = new Map<string, number>()
  // What is published to a stream is a plain message, too.
  nc.subscribe(`${namespace}.work.>`, {
    callback: (_, { headers }) => {
      const run = headers?.get('Fs-Task').split('.')[0] ?? ''
      if (!sentMs.has(run)) sentMs.set(run, exactNow())
    },
  })
  return { sentMs, [Symbol.asyncDispose]: () => nc.close() }
}

/** Says yes so many times. */
function count(times: number): () => boolean {
  let left = times
  return () => left-- > 0
}

async function underLoad(flow: Flow, n: number): Promise<{ busy: Times; perSecond: number }> {
  const startedMs = performance.now()
  const run = await flow.materialize(many, { partition: String(n) })
  let tookMs = 0
  const ended = run.result().then((found) => {
    tookMs = performance.now() - startedMs
    if (found !== n) throw new Error(`the gather counted ${found} of ${n} results`)
  })
  // It rejects where it is awaited, below.
  ended.catch(() => undefined)
  let isFirst = true
  const busy = await sample(flow, () => () => {
    const goesOn = isFirst || tookMs === 0
    isFirst = false
    return goesOn
  })
  await ended
  return { busy, perSecond: n / (tookMs / 1000) }
}

/** A small run and a signal in turn, one after the other. */
async function sample(flow: Flow, asking: () => () => boolean): Promise<Times> {
  const goesOn = asking()
  const times: Times = { runs: [], signals: [] }
  while (goesOn()) {
    const callMs = exactNow()
    const run = await flow.materialize(small, { upstream: 'all' })
    await run.result()
    times.runs.push({ id: run.id, callMs, endMs: exactNow() })
    times.signals.push(await signal(flow))
  }
  return times
}

/** Comparable with the server's clock, as it is the same machine's. */
function exactNow(): number {
  return performance.timeOrigin + performance.now()
}

function durationOf({ callMs, endMs }: Times['runs'][number]): number {
  return endMs - callMs
}

let signals = 0
async function signal(flow: Flow): Promise<number> {
  const key = `signal-${signals++}`
  const run = await flow.materialize(waits, { partition: key })
  // A signal before the engine knows that the asset is suspended would have to wait for that.
  while ((await run.view())?.assets.waits?.status !== 'suspended') await sleep(LOOK_MS)
  const startedMs = performance.now()
  await flow.gates.signalByCorrelationKey(key, { answer: 1 })
  await run.result()
  return performance.now() - startedMs
}

/** Says also where the time of small runs goes, by their task and the times of their facts. */
async function sayTimes({ say }: Job, flow: Flow, tasks: Tasks, when: string, { runs, signals }: Times): Promise<void> {
  const stages = new Map<string, number[]>()
  for (const run of runs.slice(-SAMPLES))
    for (const [stage, ms] of await stagesOf(flow, tasks, run)) stages.set(stage, [...(stages.get(stage) ?? []), ms])
  const shares = [...stages].map(([stage, ms]) => `${stage} +${median(ms).toFixed(1)}`)
  const p = (ms: readonly number[]): string => `${median(ms).toFixed(1)} / ${quantile(ms, 0.99).toFixed(1)} ms`
  say(`load ${when}, p50 / p99 of ${runs.length}: small run ${p(runs.map(durationOf))}, signal ${p(signals)}`)
  say(`load ${when}: ms of a small run: ${shares.join(', ')} (p50)`)
  for (const run of runs.toSorted((a, b) => durationOf(b) - durationOf(a)).slice(0, SLOWEST)) {
    const begunMs = Math.round(run.callMs - (runs[0]?.callMs ?? 0))
    const place = `${runs.indexOf(run) + 1} of ${runs.length} (after ${begunMs} ms), ${Math.round(durationOf(run))} ms`
    const parts = (await stagesOf(flow, tasks, run)).map(([stage, ms]) => `${stage} +${Math.round(ms)}`)
    say(`load ${when}: slow small run ${place}: ${parts.join(', ')}`)
  }
}

/** How long each stage of a run took, by the timestamps of its facts. */
async function stagesOf(
  flow: Flow,
  { sentMs }: Tasks,
  { id, callMs, endMs }: Times['runs'][number],
): Promise<[string, number][]> {
  const stages: [string, number][] = []
  let beforeMs = callMs
  let values = 0
  const add = (stage: string, ms: number): void => {
    stages.push([stage, Math.max(0, ms - beforeMs)])
    beforeMs = ms
  }
  for await (const { kind, at } of flow.history(id)) {
    if (kind === 'run.requested') {
      add('request stored', at.getTime())
      add('task sent', sentMs.get(id) ?? beforeMs)
    }
    if (kind === 'asset.materialized') add(`value ${++values} stored`, at.getTime())
    if (kind === 'run.finished') add('end stored', at.getTime())
  }
  add('caller knows', endMs)
  return stages
}
