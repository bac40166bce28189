/**
 * `logs`: what `ctx.log` costs, with a line for each instance or run and without, in turn: `raw` is
 * the one without. Scatters of instances that do nothing, and of those that compute for a moment,
 * as those of users do; short runs of one asset. Of scatters a worker keeps all lines here, however
 * many they are, but in the last case, which has the limit that a worker has by default.
 *
 * Short runs take turns in one engine: a few seconds with lines, and as many without. From one
 * engine to the next their rate differs by more than what lines cost.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { type AnyAsset, asset, type Flow, pipeline, type WorkerOptions } from '../src/index.ts'
import { type Bench, type Job, repeated } from './bench.ts'
import type { Figure } from './figures.ts'
import { instanceKey, instanceValue } from './payload.ts'
import { cpuMsOf } from './processes.ts'
import { type Rig, withEngine } from './rig.ts'
import { median } from './stats.ts'

/** Short runs in flight, and how many instances weigh as much as one. */
const IN_FLIGHT = 50
const INSTANCES_A_RUN = 50
/** Turns of a repeat, half of them with lines. */
const TURNS = 8
/** Processor time of an instance that computes, and how many that do nothing weigh as much. */
const WORK_MS = 0.2
const INSTANCES_A_WORK = 10
const LAST_LINES_MS = 600
const ALL: WorkerOptions = { logs: { maxPerSecond: Number.POSITIVE_INFINITY } }

export const logs: Bench = {
  about: 'scatters, and short runs, with a line of ctx.log for each instance or run, beside none',
  sizes: [100_000],
  async run(job) {
    const figures: Figure[] = []
    const steps = stepsOf(WORK_MS)
    for (const n of job.sizes) {
      const some = Math.ceil(n / INSTANCES_A_WORK)
      const runs = Math.ceil(n / INSTANCES_A_RUN)
      const cases: Case[] = [
        { n, unit: 'instance', measure: (rig, lines) => scatterOf(rig, n, 0, lines, ALL) },
        {
          n: some,
          unit: `instance of ${WORK_MS} ms`,
          measure: (rig, lines) => scatterOf(rig, some, steps, lines, ALL),
        },
        { n, unit: 'instance, limited', measure: (rig, lines) => scatterOf(rig, n, 0, lines, {}) },
      ]
      for (const one of cases) figures.push(...(await compared(job, one)))
      figures.push(...(await runsInTurns(job, runs)))
    }
    return figures
  },
}

interface Case {
  readonly n: number
  readonly unit: string
  measure(rig: Rig, lines: boolean): Promise<Spent>
}

interface Spent {
  readonly ms: number
  /** Of a processor: this process and the server. */
  readonly cpuMs: number
}

interface Measured {
  readonly perSecond: number
  /** Of this process and the server, in microseconds for each. */
  readonly cpu: number
}

interface Both {
  readonly on: Measured
  readonly off: Measured
}

async function compared(job: Job, { n, unit, measure }: Case): Promise<Figure[]> {
  const { rig } = job
  const measured: Both[] = []
  const one = async (lines: boolean): Promise<Measured> => {
    return each(await measure(rig, lines), n)
  }
  let turn = 0
  await repeated(job, async ({ measured: counts, label }) => {
    // Each comes first as often as the other: what follows finds the server warmer.
    const isFirst = turn++ % 2 === 0
    const first = await one(isFirst)
    const second = await one(!isFirst)
    const [on, off] = isFirst ? [first, second] : [second, first]
    sayBoth(job, n, unit, label, { on, off })
    if (counts) measured.push({ on, off })
  })
  return figuresOf(job, n, unit, measured)
}

function each({ ms, cpuMs }: Spent, n: number): Measured {
  return { perSecond: n / (ms / 1000), cpu: (cpuMs * 1000) / n }
}

function sayBoth({ fsync, say }: Job, n: number, unit: string, label: string, { on, off }: Both): void {
  const texts = [on, off].map(({ perSecond, cpu }) => `${Math.round(perSecond)}/s, ${cpu.toFixed(1)} µs of CPU`)
  say(`logs n=${n} fsync=${fsync} ${label}: a line for each ${unit} ${texts[0]}; without ${texts[1]}`)
}

function figuresOf({ fsync }: Job, n: number, unit: string, measured: readonly Both[]): Figure[] {
  const common = { bench: 'logs', n, fsync }
  const figure = (of: keyof Measured, name: string): Figure => ({
    ...common,
    value: median(measured.map(({ on }) => on[of])),
    unit: name,
    raw: median(measured.map(({ off }) => off[of])),
    ratio: median(measured.map(({ on, off }) => on[of] / off[of])),
  })
  // What other processes do on the machine disturbs processor time less.
  return [figure('perSecond', `a second, a line for each ${unit}`), figure('cpu', `µs of CPU, a line for each ${unit}`)]
}

let sum = 0
function compute(steps: number): void {
  for (let i = 0; i < steps; i++) sum = (sum * 31 + i) % 1_000_003
}

/** So many steps take this long of a processor, here and now. */
function stepsOf(ms: number): number {
  const steps = 20_000_000
  compute(steps)
  const before = process.cpuUsage()
  compute(steps)
  const { user, system } = process.cpuUsage(before)
  return Math.ceil((steps * ms * 1000) / (user + system))
}

async function scatterOf(rig: Rig, n: number, steps: number, lines: boolean, worker: WorkerOptions): Promise<Spent> {
  const keys = Array.from({ length: n }, (_, i) => instanceKey(i))
  const many = asset('many', {
    scatter: () => keys,
    execute: (ctx) => {
      compute(steps)
      if (lines) ctx.log.info('instance is done', { bytes: 100 })
      return instanceValue(ctx.index)
    },
    async gather(results) {
      let count = 0
      for await (const _ of results) count += 1
      return count
    },
  })
  return await withEngine(
    rig.url,
    pipeline('bench', [many]),
    async (flow) => await spentOn(rig, () => made(flow, many)),
    [worker],
  )
}

/** Short runs in one engine: of each repeat, half with a line. */
async function runsInTurns(job: Job, n: number): Promise<Figure[]> {
  const { rig } = job
  let lines = false
  const one = asset('one', {
    execute: (ctx) => {
      if (lines) ctx.log.info('run is done', { bytes: 100 })
      return instanceValue(1)
    },
  })
  const measured: Both[] = []
  await withEngine(rig.url, pipeline('bench', [one]), async (flow) => {
    const turn = async (on: boolean, count: number): Promise<Spent> => {
      lines = on
      let next = 0
      const client = async (): Promise<void> => {
        while (next < count) {
          next += 1
          await made(flow, one)
        }
      }
      return await spentOn(rig, () => Promise.all(Array.from({ length: IN_FLIGHT }, client)))
    }
    const count = Math.ceil(n / TURNS)
    await repeated(job, async ({ measured: counts, label }) => {
      const sums = { on: { ms: 0, cpuMs: 0 }, off: { ms: 0, cpuMs: 0 } }
      for (let i = 0; i < TURNS; i++) {
        // Each comes first as often as the other.
        const on = i % 4 === 1 || i % 4 === 2
        const sum = on ? sums.on : sums.off
        const { ms, cpuMs } = await turn(on, count)
        sum.ms += ms
        sum.cpuMs += cpuMs
      }
      const half = (count * TURNS) / 2
      const both = { on: each(sums.on, half), off: each(sums.off, half) }
      sayBoth(job, n, 'run', label, both)
      if (counts) measured.push(both)
    })
  })
  return figuresOf(job, n, 'run', measured)
}

async function made(flow: Flow, target: AnyAsset): Promise<void> {
  await (await flow.materialize(target)).result()
}

async function spentOn(rig: Rig, use: () => Promise<unknown>): Promise<Spent> {
  const [startedMs, before, serverMs] = [performance.now(), process.cpuUsage(), cpuMsOf(rig.serverPid)]
  await use()
  const ms = performance.now() - startedMs
  // The last lines leave a moment later.
  await sleep(LAST_LINES_MS)
  const { user, system } = process.cpuUsage(before)
  return { ms, cpuMs: (user + system) / 1000 + cpuMsOf(rig.serverPid) - serverMs }
}
