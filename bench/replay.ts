/**
 * `replay`: a log of n facts into state. `rebuild` does it when somebody asks, and an engine when
 * its state is gone. The facts are those of ended runs of three assets. Raw is a plain ordered
 * consumer that decodes each fact of the same log, and does nothing with it.
 */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { jetstreamManager } from '@nats-io/jetstream'
import { connect, type Flow } from '../src/index.ts'
import type { Connection } from '../src/log/connection.ts'
import { streamBounds } from '../src/log/nats.ts'
import type { Topology } from '../streams/topology.ts'
import type { Bench, Job } from './bench.ts'
import type { Figure } from './figures.ts'
import { fillLog } from './made-up-runs.ts'
import { rawRead } from './raw-read.ts'
import { withRaw } from './rig.ts'
import { median } from './stats.ts'
import { threeAssets } from './three-assets.ts'

/** It is long, and its figures vary less than those of what waits for others. */
const REPEATS = 2
/** As many as the callers of a busy log have open. */
const OPEN_RUNS = 200
const CHECKPOINTS = 'flowstone:engine.checkpoint'

export const replay: Bench = {
  about: 'a log of n facts into state: by rebuild, and by an engine whose state is gone',
  sizes: [30_000],
  async run(job) {
    const figures: Figure[] = []
    for (const n of job.sizes) figures.push(...(await measure(job, n)))
    return figures
  },
}

async function measure({ rig, fsync, repeats, say }: Job, n: number): Promise<Figure[]> {
  return await withRaw(rig.url, async (connection, topology) => {
    await using flow = await connect({ servers: rig.url, namespace: topology.names.ns })
    await flow.register(threeAssets)
    await fillLog(connection, topology, n, OPEN_RUNS)
    const raws: number[] = []
    const rebuilds: number[] = []
    const engines: number[] = []
    // The first one only warms up.
    for (let i = 0; i <= Math.min(repeats, REPEATS); i++) {
      const raw = await rawRead(connection, topology)
      const { facts, durationMs } = await flow.rebuild()
      if (facts < n) throw new Error(`the rebuild folded ${facts} facts of ${n}`)
      const rebuilt = facts / (durationMs / 1000)
      const started = await byEngine(flow, connection, topology)
      say(
        `replay n=${n} fsync=${fsync} ${i}: rebuild ${Math.round(rebuilt)}/s, engine ${Math.round(started)}/s (raw ${Math.round(raw)}/s)`,
      )
      if (i === 0) continue
      raws.push(raw)
      rebuilds.push(rebuilt)
      engines.push(started)
    }
    const raw = median(raws)
    const row = (unit: string, values: readonly number[]): Figure => {
      const value = median(values)
      return { bench: 'replay', n, fsync, value, unit, raw, ratio: value / raw }
    }
    return [row('facts/s by rebuild', rebuilds), row('facts/s by an engine', engines)]
  })
}

/** Facts a second, from the start of an engine to the checkpoint that stands for all of the log. */
async function byEngine(flow: Flow, { nc }: Connection, { names }: Topology): Promise<number> {
  const { last, messages } = await streamBounds(nc, names.log(0))
  const jsm = await jetstreamManager(nc)
  await jsm.streams.delete(names.kvStream(names.stateBucket(0)))
  const folded = Promise.withResolvers<void>()
  const look = (event: unknown): void => {
    if (Number(Reflect.get(Object(event), 'seq')) >= last) folded.resolve()
  }
  subscribe(CHECKPOINTS, look)
  try {
    const startedMs = performance.now()
    const engine = await flow.engine()
    await engine.active
    await folded.promise
    const perSecond = messages / ((performance.now() - startedMs) / 1000)
    await engine.stop()
    return perSecond
  } finally {
    unsubscribe(CHECKPOINTS, look)
  }
}
