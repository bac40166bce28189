/**
 * How one point of each curve is measured, in a process of its own (`point.ts`). A work returns
 * rates, times, and the peak memory of all Node processes that took part.
 */
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { jetstreamManager } from '@nats-io/jetstream'
import { type AnyAsset, connect, type Flow } from '../../src/index.ts'
import { Connection } from '../../src/log/connection.ts'
import { ensureTopology } from '../../streams/topology.ts'
import { type Child, startChild } from '../child.ts'
import { fillLog } from '../made-up-runs.ts'
import { peakRssOf } from '../processes.ts'
import { withEngine, withEngineApart, withNamespace } from '../rig.ts'
import { engineRuns, withChildren } from '../runs.ts'
import { median } from '../stats.ts'
import { third, threeAssets } from '../three-assets.ts'
import { curvesPipeline, failures, heavy, held, noop, waiting } from './pipeline.ts'

export type Values = Readonly<Record<string, number>>
export type Work = (url: string, x: number) => Promise<Values>

/** After that no further repeat begins. */
const ENOUGH_MS = 15_000
/** What takes longer needs no warm-up: it is mostly warm. */
const LONG_MS = 5_000
const REPEATS = 5

/** Median of some repeats, after one to warm up. */
async function repeated(measure: () => Promise<number>): Promise<number> {
  const startedMs = performance.now()
  const sinceMs = (): number => performance.now() - startedMs
  const first = await measure()
  if (sinceMs() > LONG_MS) return first
  const values: number[] = []
  while (values.length < REPEATS && sinceMs() < ENOUGH_MS) values.push(await measure())
  return median(values.length > 0 ? values : [first])
}

/** Instances a second. The first part of the partition is their number. */
async function rateOf(flow: Flow, target: AnyAsset, partition: string): Promise<number> {
  const n = Number.parseInt(partition, 10)
  const startedMs = performance.now()
  const count = await (await flow.materialize(target, { partition })).result()
  const perSecond = n / ((performance.now() - startedMs) / 1000)
  if (count !== n) throw new Error(`the gather counted ${count} of ${n} results`)
  return perSecond
}

/** Peak memory of this process and its children, in megabytes. They must still run. */
function nodeMb(children: readonly Child[] = []): number {
  return [process, ...children].reduce((sum, { pid }) => sum + peakRssOf(pid), 0) / 1e6
}

const size: Work = (url, x) =>
  withEngine(url, curvesPipeline, async (flow) => {
    const rate = await repeated(() => rateOf(flow, noop, `${x}`))
    return { rate, nodeMb: nodeMb() }
  })

const PAYLOAD_TOTAL = 64_000_000

const payload: Work = (url, x) =>
  withEngine(url, curvesPipeline, async (flow) => {
    const n = Math.min(20_000, Math.max(200, Math.round(PAYLOAD_TOTAL / x)))
    const rate = await repeated(() => rateOf(flow, heavy, `${n}x${x}`))
    return { rate, mbPerSecond: (rate * x) / 1e6, nodeMb: nodeMb() }
  })

/** Slots of a worker, by default. */
const SLOTS = 10

const workers: Work = async (url, x) => {
  const children = ['engine-child.ts', ...Array.from({ length: x }, () => 'curves/worker-child.ts')].map((program) =>
    startChild(program, url),
  )
  try {
    return await withNamespace(url, async (namespace) => {
      await everyone(children, namespace)
      await using flow = await connect({ servers: url, namespace })
      const rate = await repeated(() => rateOf(flow, noop, '50000'))
      const waits = await repeated(() => rateOf(flow, waiting, `${x * SLOTS * 500}`))
      await everyone(children, '')
      return { rate, waits, nodeMb: nodeMb(children) }
    })
  } finally {
    for (const child of children) await child.end()
  }
}

async function everyone(children: readonly Child[], line: string): Promise<void> {
  for (const child of children) {
    child.say(line)
    await child.line()
  }
}

const OPENERS = 64

const barriers: Work = async (url, x) => {
  const engine = startChild('engine-child.ts', url)
  try {
    return await withEngineApart(url, engine, curvesPipeline, async (flow) => {
      const failed = new EventTarget()
      failures.onOne = () => void failed.dispatchEvent(new Event('one'))
      const startedMs = performance.now()
      await inParallel(x, OPENERS, async (i) => void (await flow.materialize(held, { partition: `${i}` })))
      while (failures.count < x) await once(failed, 'one')
      const opened = x / ((performance.now() - startedMs) / 1000)
      // The engine has caught up with all of them when it has done this.
      await rateOf(flow, noop, '10')
      const rate = await repeated(() => rateOf(flow, noop, '10000'))
      return { rate, opened, nodeMb: nodeMb([engine]) }
    })
  } finally {
    await engine.end()
  }
}

const scatters: Work = (url, x) =>
  withEngine(url, curvesPipeline, async (flow) => {
    const all = async (): Promise<number> => {
      const startedMs = performance.now()
      await inParallel(x, x, async (i) => void (await rateOf(flow, noop, `100.${i}`)))
      return (x * 100) / ((performance.now() - startedMs) / 1000)
    }
    const rate = await repeated(all)
    return { rate, nodeMb: nodeMb() }
  })

const SMALL_RUNS = 60

const log: Work = async (url, x) => {
  const [engine, worker] = ['engine-child.ts', 'worker-child.ts'].map((program) => startChild(program, url))
  if (!engine || !worker) throw new Error('two processes')
  try {
    return await withNamespace(url, async (namespace) => {
      const connection = await Connection.open({ servers: url })
      const topology = await ensureTopology(connection.nc, { namespace })
      await using flow = await connect({ servers: url, namespace })
      await flow.register(threeAssets)
      await fillLog(connection, topology, x)
      await connection.close()
      // The time to start Node is not the engine's.
      await everyone([engine, worker], '')
      const { facts, durationMs } = await flow.rebuild()
      if (facts < x) throw new Error(`the rebuild folded ${facts} facts of ${x}`)
      const startedMs = performance.now()
      await everyone([engine], namespace)
      const startMs = performance.now() - startedMs
      await everyone([worker], namespace)
      const { names } = topology
      await rests(url, names.feed)
      if (x >= MANY_MARKERS) await rests(url, names.kvStream(names.stateBucket(0)), MARKERS_MS)
      const times: number[] = []
      for (let i = 0; i < SMALL_RUNS; i++) {
        const beforeMs = performance.now()
        await (await flow.materialize(third, { upstream: 'all' })).result()
        times.push(performance.now() - beforeMs)
      }
      await everyone([worker, engine], '')
      // This process has filled the log and folded it, which engines do not do every day.
      return { startMs, rebuildMs: durationMs, runMs: median(times), nodeMb: peakRssOf(engine.pid) / 1e6 }
    })
  } finally {
    await worker.end()
    await engine.end()
  }
}

/** The server removes markers of deleted documents a minute later. */
const MARKERS_MS = 61_000
/** Of fewer facts the server removes all markers within a second. */
const MANY_MARKERS = 1000

/**
 * Waits until a stream takes nothing and loses nothing. The log was filled and folded at once. So
 * at first the engine has all of it to copy to the feed. A minute later the server has many markers
 * to remove, of documents that came and went. `quietMs`: its last message is to be as old as that.
 */
async function rests(url: string, stream: string, quietMs = 0): Promise<void> {
  const connection = await Connection.open({ servers: url })
  const jsm = await jetstreamManager(connection.nc)
  let before = ''
  for (;;) {
    const { last_seq, last_ts, messages } = (await jsm.streams.info(stream)).state
    const now = `${last_seq} ${messages}`
    if (now === before && Date.now() - Date.parse(last_ts) > quietMs) break
    before = now
    await sleep(1000)
  }
  await connection.close()
}

/** Runs of a repeat: enough to be steady, and few enough to end. */
export function runsOf(callers: number): number {
  return Math.min(4_000, Math.max(100, callers * 10))
}

const callers: Work = (url, x) =>
  withChildren(url, async (children) => {
    const { perSecond, ms } = await engineRuns(url, children, x, runsOf(x))
    return { rate: perSecond, runMs: ms, nodeMb: nodeMb(children) }
  })

/** Calls with 0 … count - 1, so many at a time. */
async function inParallel(count: number, atATime: number, call: (i: number) => Promise<void>): Promise<void> {
  let next = 0
  await Promise.all(
    Array.from({ length: Math.min(count, atATime) }, async () => {
      while (next < count) await call(next++)
    }),
  )
}

export const WORKS = { size, payload, workers, barriers, scatters, log, callers } satisfies Record<string, Work>
export type CurveName = keyof typeof WORKS
