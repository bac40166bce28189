/**
 * `cost`: what a unit of each feature writes: messages, and bytes that stay. It counts what the
 * server has stored before and after, so it is the same on any machine. A message of WORK is
 * acknowledged, which is one more write.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats } from '@nats-io/transport-node'
import { type AnyAsset, asset, type Flow, type Pipeline, pipeline } from '../src/index.ts'
import type { Bench, Job } from './bench.ts'
import type { Figure } from './figures.ts'
import { instanceKey, instanceValue } from './payload.ts'
import { withEngine } from './rig.ts'
import { third, threeAssets } from './three-assets.ts'

const QUIET_MS = 300
const LOOK_MS = 60

export const cost: Bench = {
  about: 'messages and bytes that a unit of each feature writes, one unit after the other',
  sizes: [100],
  async run(job) {
    const figures: Figure[] = []
    for (const n of job.sizes) for (const feature of features(n)) figures.push(...(await measure(job, n, feature)))
    return figures
  },
}

interface Feature {
  readonly name: string
  /** Units that `use` does. */
  readonly units: number
  readonly pipeline: Pipeline
  use(flow: Flow): Promise<void>
}

function features(n: number): Feature[] {
  const one = asset('one', { execute: () => instanceValue(1) })
  const many = asset('many', {
    scatter: () => Array.from({ length: n * 100 }, (_, i) => instanceKey(i)),
    execute: ({ index }) => instanceValue(index),
    gather: async (results) => {
      let count = 0
      for await (const _ of results) count += 1
      return count
    },
  })
  const fails = asset('fails', {
    retry: { maxAttempts: 2, backoff: '1ms..1ms' },
    execute: (ctx) => {
      if (ctx.attempt === 1) throw new Error('the first attempt fails')
      return 1
    },
  })
  const tokens: string[] = []
  const waits = asset('waits', {
    execute: async (ctx) => {
      const gate = await ctx.openGate({ timeout: '1d' })
      tokens.push(gate.token)
      return gate.wait()
    },
  })
  const child = asset('child', { execute: () => instanceValue(1) })
  const parent = asset('parent', { execute: (ctx) => ctx.run(child) })
  const oneByOne = (target: AnyAsset) => async (flow: Flow) => {
    for (let i = 0; i < n; i++) await (await flow.materialize(target)).result()
  }
  return [
    { name: 'run of one asset', units: n, pipeline: pipeline('one', [one]), use: oneByOne(one) },
    { name: 'run of three assets in a row', units: n, pipeline: threeAssets, use: oneByOne(third) },
    { name: 'retry of an asset, with its run', units: n, pipeline: pipeline('fails', [fails]), use: oneByOne(fails) },
    {
      name: 'child run, with its parent',
      units: n,
      pipeline: pipeline('parents', [child, parent]),
      use: oneByOne(parent),
    },
    {
      name: 'gate and signal, with its run',
      units: n,
      pipeline: pipeline('waits', [waits]),
      use: async (flow) => {
        for (let i = 0; i < n; i++) {
          const run = await flow.materialize(waits)
          while (tokens.length <= i) await sleep(1)
          await flow.gates.signal(tokens[i] ?? '', i)
          await run.result()
        }
      },
    },
    {
      name: `instance of a scatter of ${(n * 100).toLocaleString('en')}`,
      units: n * 100,
      pipeline: pipeline('many', [many]),
      use: async (flow) => void (await (await flow.materialize(many)).result()),
    },
  ]
}

interface Stored {
  readonly messages: number
  readonly bytes: number
}

async function measure({ rig, fsync, say }: Job, n: number, feature: Feature): Promise<Figure[]> {
  const { name, units, pipeline, use } = feature
  const nc = await connectNats({ servers: rig.url })
  const jsm = await jetstreamManager(nc)
  const stored = async (namespace: string): Promise<Map<string, Stored>> => {
    const found = new Map<string, Stored>()
    for await (const { config, state } of jsm.streams.list()) {
      const stream = config.name.split(`${namespace}_`)[1]
      if (stream !== undefined) found.set(stream, { messages: state.last_seq, bytes: state.bytes })
    }
    return found
  }
  const sum = (all: Map<string, Stored>): number =>
    [...all.values()].reduce((total, { messages }) => total + messages, 0)
  /** When the last checkpoint is written. */
  const settled = async (namespace: string): Promise<Map<string, Stored>> => {
    let found = await stored(namespace)
    for (let sinceMs = performance.now(); performance.now() - sinceMs < QUIET_MS; ) {
      await sleep(LOOK_MS)
      const now = await stored(namespace)
      // An engine renews its claim all the time.
      if (sum(now) - sum(found) > 2) sinceMs = performance.now()
      found = now
    }
    return found
  }
  try {
    return await withEngine(
      rig.url,
      pipeline,
      async (flow) => {
        const before = await settled(flow.namespace)
        await use(flow)
        const after = await settled(flow.namespace)
        const streams = ['LOG_0', 'WORK_0', 'state_0', 'FEED'] as const
        const added = streams.map((stream) => {
          const [from, to] = [before.get(stream), after.get(stream)]
          return {
            stream,
            messages: (to?.messages ?? 0) - (from?.messages ?? 0),
            bytes: (to?.bytes ?? 0) - (from?.bytes ?? 0),
          }
        })
        const each = (value: number): number => Math.round((value / units) * 1000) / 1000
        say(`cost of a ${name}: ${added.map(({ stream, messages }) => `${stream} ${each(messages)}`).join(', ')}`)
        const common = { bench: 'cost', n, fsync, raw: null, ratio: null }
        return [
          ...added.map(({ stream, messages }) => ({
            ...common,
            value: each(messages),
            unit: `messages on ${stream.replace('_0', '')}: ${name}`,
          })),
          {
            ...common,
            value: Math.round(added.reduce((total, { bytes }) => total + bytes, 0) / units),
            unit: `bytes that stay: ${name}`,
          },
        ]
      },
      [{}],
      { gates: { secrets: [{ id: 'bench', secret: 'b'.repeat(32) }] } },
    )
  } finally {
    await nc.close()
  }
}
