/**
 * `gates`: signal gates created and answered by 64 callers, beside the same appends with nothing
 * around them. It also measures the time from a signal to the asset's next line of code, in plain
 * publishes, and the cost of gates that only wait. The engine has a process of its own, as where
 * gates are answered over HTTP. Worker and callers are in this one.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { gateTimer } from '../projections/gate/gate.ts'
import { resolveEntry } from '../src/gates/entries.ts'
import { asset, type Flow, pipeline } from '../src/index.ts'
import { Appender } from '../src/log/appender.ts'
import { factEntry, timerEntry } from '../src/log/entries.ts'
import { assetName, runId } from '../streams/ids.ts'
import { type Bench, type Job, type Pair, repeated } from './bench.ts'
import { type Child, startChild } from './child.ts'
import type { Figure } from './figures.ts'
import { cpuMsOf, rssOf } from './processes.ts'
import { rawPublishes } from './raw-publish.ts'
import { type Rig, withEngineApart, withRaw } from './rig.ts'
import { median, quantile } from './stats.ts'

const CALLERS = 64
const RESUMES = 200
const WAITING = 100_000
const IDLE_MS = 30_000
const SETTINGS = { gates: { secrets: [{ id: 'bench', secret: 'b'.repeat(32) }] } }

export const gates: Bench = {
  about:
    'signal gates: created and signalled by 64 callers, signal to resumed; and (as many as n, at least 10,000: ten times n) waiting',
  sizes: [10_000],
  async run(job) {
    const figures: Figure[] = []
    const engine = startChild('engine-child.ts', job.rig.url)
    try {
      for (const n of job.sizes) {
        figures.push(...(await speeds(job, engine, n)), ...(await latency(job, engine, Math.min(RESUMES, n))))
        if (n * 10 >= WAITING) figures.push(...(await waiting(job, engine, n * 10)))
      }
    } finally {
      await engine.end()
    }
    return figures
  },
}

/**
 * `count` calls by as many callers as there are, each going on when its call is answered. Returns
 * calls a second.
 */
async function byCallers(count: number, call: (i: number) => Promise<void>): Promise<number> {
  let next = 0
  const startedMs = performance.now()
  await Promise.all(
    Array.from({ length: CALLERS }, async () => {
      while (next < count) await call(next++)
    }),
  )
  return count / ((performance.now() - startedMs) / 1000)
}

interface Opened {
  readonly tokens: string[]
  readonly perSecond: number
}

/** An asset that opens `count` gates and waits at one more. */
async function opened(flow: Flow, count: number): Promise<Opened> {
  const run = await flow.materialize(opens, { partition: String(count), upstream: 'all' })
  return await new Promise<Opened>((resolve, reject) => {
    onOpened = resolve
    run.result().catch(reject)
  })
}

let onOpened: ((opened: Opened) => void) | undefined
const opens = asset('opens', {
  retry: { maxAttempts: 1 },
  execute: async (ctx) => {
    const tokens: string[] = []
    const perSecond = await byCallers(Number(ctx.partition), async () => {
      tokens.push((await ctx.openGate({ timeout: '1d', metadata: { job: 'bench' } })).token)
    })
    onOpened?.({ tokens, perSecond })
    // Not waited for, gates would end with their execution; so this one goes on.
    await new Promise<void>((resolve) => ctx.signal.addEventListener('abort', () => resolve()))
    return 0
  },
})
const opening = pipeline('gates', [opens])

async function speeds(job: Job, engine: Child, n: number): Promise<Figure[]> {
  const { rig, fsync, say } = job
  const found = {
    created: [] as number[],
    rawCreated: [] as number[],
    signals: [] as number[],
    rawSignals: [] as number[],
  }
  await repeated(job, async ({ measured, label }) => {
    const { created, signals } = await gatePairs(rig.url, engine, n)
    const text = ({ raw, value }: Pair): string => `${Math.round(value)}/s (raw ${Math.round(raw)}/s)`
    say(`gates n=${n} fsync=${fsync} ${label}: created ${text(created)}, signalled ${text(signals)}`)
    if (!measured) return
    found.created.push(created.value)
    found.signals.push(signals.value)
    found.rawCreated.push(created.raw)
    found.rawSignals.push(signals.raw)
  })
  const figure = (values: number[], raws: number[], unit: string): Figure => {
    const value = median(values)
    const raw = median(raws)
    return { bench: 'gates', n, fsync, value, unit, raw, ratio: value / raw }
  }
  return [
    figure(found.created, found.rawCreated, 'gates created/s'),
    figure(found.signals, found.rawSignals, 'signals accepted/s'),
  ]
}

/** Gates created and signals accepted a second: one repeat of raw and engine. */
export async function gatePairs(url: string, engine: Child, n: number): Promise<{ created: Pair; signals: Pair }> {
  const raw = await rawSpeeds(url, n)
  const use = async (flow: Flow) => {
    const { tokens, perSecond } = await opened(flow, n)
    const signals = await byCallers(n, async (i) => {
      await flow.gates.signal(tokens[i] ?? '', { answer: i })
    })
    return { created: perSecond, signals }
  }
  const ours = await withEngineApart(url, engine, opening, use, [{ drainTimeout: 100 }], SETTINGS)
  return {
    created: { raw: raw.created, value: ours.created },
    signals: { raw: raw.signals, value: ours.signals },
  }
}

/** The same messages, in groups as they come, and nothing else. */
async function rawSpeeds(url: string, n: number): Promise<{ created: number; signals: number }> {
  return await withRaw(url, async (connection, { names }) => {
    const log = new Appender(connection, names.log(0))
    const place = (i: number) => ({ run: runId(0, 'raw'), asset: assetName('opens'), gate: `a1n${i + 1}` })
    const dueMs = Date.now() + 86_400_000
    const hash = 'f'.repeat(64)
    const created = await byCallers(n, async (i) => {
      const data = {
        kind: 'signal',
        attempt: 1,
        worker: 'worker-0123456789',
        deadlineMs: dueMs,
        retriesMs: [] as number[],
        afterRetries: 'fail',
        metadata: { job: 'bench' },
        keyId: 'bench',
        tokenHash: hash,
      } as const
      const entry = factEntry(names, 0, { name: 'gate.created', ids: place(i), data })
      await log.append(entry, timerEntry(names, 0, gateTimer(place(i), 0), dueMs))
    })
    const signals = await byCallers(n, async (i) => {
      await log.append(resolveEntry(names, 0, place(i), { outcome: 'signaled', payload: { json: { answer: i } } }))
    })
    return { created, signals }
  })
}

async function latency(job: Job, engine: Child, count: number): Promise<Figure[]> {
  const { rig, fsync, repeats, say } = job
  const each = Math.ceil(count / repeats)
  const raws: number[] = []
  const times: number[] = []
  await repeated(job, async ({ measured, label }) => {
    const raw = await withRaw(rig.url, (connection, topology) => rawPublishes(connection, topology, each))
    const ours = await resumes(rig.url, engine, each)
    const ms = (values: number[]): string => `${median(values).toFixed(2)} ms`
    say(`gates fsync=${fsync} ${label}: publish ${ms(raw)}, signal to resumed ${ms(ours)} (p50)`)
    if (!measured) return
    raws.push(...raw)
    times.push(...ours)
  })
  const raw = median(raws)
  return [0.5, 0.99].map((q) => {
    const value = quantile(times, q)
    const unit = `ms signal to resumed (p${q * 100}; ratio in plain publishes, p50)`
    return { bench: 'gates', n: each * repeats, fsync, value, unit, raw, ratio: value / raw }
  })
}

/** From the call of `signal` to the first line of `onSignal`. */
async function resumes(url: string, engine: Child, n: number): Promise<number[]> {
  let opened = Promise.withResolvers<string>()
  let resumed = Promise.withResolvers<number>()
  const waits = asset('waits', {
    execute: async (ctx) => {
      const gate = await ctx.openGate({ timeout: '1h' })
      opened.resolve(gate.token)
      return gate.wait()
    },
    onSignal: () => {
      resumed.resolve(performance.now())
      return 0
    },
  })
  return await withEngineApart(
    url,
    engine,
    pipeline('gates', [waits]),
    async (flow) => {
      const times: number[] = []
      for (let i = 0; i < n; i++) {
        opened = Promise.withResolvers()
        resumed = Promise.withResolvers()
        const run = await flow.materialize(waits, { partition: String(i) })
        const token = await opened.promise
        // The asset is suspended when that is in the state bucket; a signal before would have to
        // wait for it.
        while ((await run.view())?.assets.waits?.status !== 'suspended') await sleep(1)
        const startedMs = performance.now()
        await flow.gates.signal(token, { answer: i })
        times.push((await resumed.promise) - startedMs)
        await run.result()
      }
      return times
    },
    [{}],
    SETTINGS,
  )
}

/**
 * Gates that wait, and nothing else: the worker in this process, the engine in its own, and the
 * server.
 */
async function waiting({ rig, fsync, say }: Job, engine: Child, n: number): Promise<Figure[]> {
  return await withEngineApart(
    rig.url,
    engine,
    opening,
    async (flow) => {
      const idle = await cost(rig, engine, IDLE_MS / 3)
      await opened(flow, n)
      // What was created is folded, and the first looks of the reconciler are over.
      await sleep(IDLE_MS / 2)
      const busy = await cost(rig, engine, IDLE_MS)
      const percent = (value: number): string => `${value.toFixed(2)} %`
      say(
        `gates fsync=${fsync}: ${n} waiting cost engine and worker ${percent(busy.ownPercent)} of a core (none ${percent(idle.ownPercent)}), the server ${percent(busy.serverPercent)} (none ${percent(idle.serverPercent)})`,
      )
      const figure = (value: number, unit: string, raw: number | null): Figure => {
        return { bench: 'gates', n, fsync, value, unit, raw, ratio: null }
      }
      return [
        figure(busy.ownPercent, '% of a core, engine and worker (raw: no gates)', idle.ownPercent),
        figure(busy.serverPercent, '% of a core, server (raw: no gates)', idle.serverPercent),
        figure(busy.ownMb, 'MB (RSS, engine and worker; raw: no gates)', idle.ownMb),
        figure(busy.serverMb, 'MB (RSS, server; raw: no gates)', idle.serverMb),
      ]
    },
    [{ drainTimeout: 100 }],
    SETTINGS,
  )
}

interface Cost {
  readonly ownPercent: number
  readonly serverPercent: number
  readonly ownMb: number
  readonly serverMb: number
}

async function cost(rig: Rig, engine: Child, ms: number): Promise<Cost> {
  const own = process.cpuUsage()
  const [engineMs, serverMs] = [cpuMsOf(engine.pid), cpuMsOf(rig.serverPid)]
  const startedMs = performance.now()
  await sleep(ms)
  const elapsedMs = performance.now() - startedMs
  const { user, system } = process.cpuUsage(own)
  return {
    ownPercent: (((user + system) / 1000 + cpuMsOf(engine.pid) - engineMs) / elapsedMs) * 100,
    serverPercent: ((cpuMsOf(rig.serverPid) - serverMs) / elapsedMs) * 100,
    ownMb: (process.memoryUsage.rss() + rssOf(engine.pid)) / 1e6,
    serverMb: rssOf(rig.serverPid) / 1e6,
  }
}
