/**
 * `events`: messages on an existing stream, each of which starts a run of three assets. Measures
 * finished runs a second, and the time from publishing a message to the end of its run. The engine
 * has a process of its own; worker and publisher are in this one.
 */
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { jetstream, jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats, type NatsConnection } from '@nats-io/transport-node'
import { z } from 'zod'
import { asset, input, pipeline, subscription } from '../src/index.ts'
import { type Bench, type Job, repeated } from './bench.ts'
import { type Child, startChild } from './child.ts'
import type { Figure } from './figures.ts'
import { rawPublishes } from './raw-publish.ts'
import { withEngineApart, withRaw } from './rig.ts'
import { median, quantile } from './stats.ts'

const STREAM = 'BENCH_ORDERS'
const SUBJECT = 'bench.orders'
const SINGLE = 200
const PAUSE_MS = 5

export const events: Bench = {
  about: 'messages of a stream that each start a run of three assets: runs a second, publish to finished',
  sizes: [5000],
  async run(job) {
    const figures: Figure[] = []
    const engine = startChild('engine-child.ts', job.rig.url)
    try {
      for (const n of job.sizes) figures.push(...(await measure(job, engine, n)))
    } finally {
      await engine.end()
    }
    return figures
  },
}

function shop() {
  const order = input('order', z.object({ id: z.number() }))
  const price = asset('price', { dependsOn: [order], execute: (_, deps) => deps.order.id * 2 })
  const tax = asset('tax', { dependsOn: [price], execute: (_, deps) => deps.price / 10 })
  const bill = asset('bill', { dependsOn: [price, tax], execute: (_, deps) => deps.price + deps.tax })
  const ordered = subscription('ordered', { from: { stream: STREAM }, run: bill })
  return pipeline('events', [order, price, tax, bill], { subscriptions: [ordered] })
}

async function measure(job: Job, engine: Child, n: number): Promise<Figure[]> {
  const { rig, fsync, repeats, say } = job
  const each = Math.ceil(Math.min(SINGLE, n) / repeats)
  const speeds: number[] = []
  const times: number[] = []
  const raws: number[] = []
  await repeated(job, async ({ measured, label }) => {
    const raw = await withRaw(rig.url, (connection, topology) => rawPublishes(connection, topology, each))
    const ours = await withEngineApart(
      rig.url,
      engine,
      shop(),
      async (flow) => await runs(rig.url, flow.namespace, n, each),
    )
    say(
      `events n=${n} fsync=${fsync} ${label}: ${Math.round(ours.perSecond)} runs/s, publish to finished ${median(ours.times).toFixed(1)} ms (p50)`,
    )
    if (!measured) return
    speeds.push(ours.perSecond)
    times.push(...ours.times)
    raws.push(...raw)
  })
  const raw = median(raws)
  const waits = [0.5, 0.99].map((q): Figure => {
    const value = quantile(times, q)
    const unit = `ms publish to finished (p${q * 100}; ratio in plain publishes, p50)`
    return { bench: 'events', n: each * repeats, fsync, value, unit, raw, ratio: value / raw }
  })
  return [
    { bench: 'events', n, fsync, value: median(speeds), unit: 'runs of three assets/s', raw: null, ratio: null },
    ...waits,
  ]
}

/** Ends are heard as they are stored: what is published to a stream is a plain message, too. */
async function runs(url: string, namespace: string, n: number, singles: number) {
  const nc = await connectNats({ servers: url })
  const jsm = await jetstreamManager(nc)
  await jsm.streams.delete(STREAM).catch(() => false)
  await jsm.streams.add({ name: STREAM, subjects: [SUBJECT] })
  const ended = new EventTarget()
  let finished = 0
  nc.subscribe(`${namespace}.log.*.run.*.finished`, {
    callback: () => {
      finished += 1
      ended.dispatchEvent(new Event('run'))
    },
  })
  const until = async (count: number): Promise<void> => {
    while (finished < count) await once(ended, 'run')
  }
  try {
    const startedMs = performance.now()
    for (let id = 0; id < n; id++) nc.publish(SUBJECT, JSON.stringify({ id }))
    await until(n)
    const perSecond = n / ((performance.now() - startedMs) / 1000)
    return { perSecond, times: await oneByOne(nc, singles, (i) => until(n + i + 1)) }
  } finally {
    await jsm.streams.delete(STREAM)
    await nc.close()
  }
}

async function oneByOne(nc: NatsConnection, count: number, ended: (i: number) => Promise<void>): Promise<number[]> {
  const times: number[] = []
  for (let i = 0; i < count; i++) {
    await sleep(PAUSE_MS)
    const startedMs = performance.now()
    await jetstream(nc).publish(SUBJECT, JSON.stringify({ id: 1_000_000 + i }))
    await ended(i)
    times.push(performance.now() - startedMs)
  }
  return times
}
