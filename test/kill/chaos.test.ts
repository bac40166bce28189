/**
 * Everything at once: every kind of scatter and gate in one run, a scatter whose time is over and one that is redriven beside it, while a seeded schedule kills, stops and
 * restarts engines, workers and the server, and pauses scatters. What is checked at the end holds for every seed. `CHAOS_SEEDS=17,18 npx vitest run test/kill/chaos.test.ts` plays
 * those; `CHAOS_MS` is how long it is wild, `CHAOS_PARTITIONS=1,3` the partitions of the log.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { jetstreamManager } from '@nats-io/jetstream'
import { describe, expect, test } from 'vitest'
import type { HistoryEntry, Run } from '../../src/index.ts'
import { keyOn } from '../gate/kit.ts'
import { collect } from '../kit/collect.ts'
import { rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { type Answer, Outside } from './outside.ts'
import {
  BATCHED,
  chaos,
  GATED,
  gated,
  hurried,
  LIMITED,
  last,
  limited,
  MAX_CONCURRENT,
  PER_SECOND,
  POISON,
  POISONED,
  poisoned,
  READ,
  REDRIVEN,
  read,
  redriven,
  SLOTS,
  wallMs,
  wayOf,
} from './programs/chaos.ts'
import { type Child, type Rig, startRig } from './rig.ts'

const SEEDS = (process.env.CHAOS_SEEDS ?? '3').split(',').map(Number)
const PARTITIONS = (process.env.CHAOS_PARTITIONS ?? '1,3').split(',').map(Number)
const WILD_MS = Number(process.env.CHAOS_MS ?? 5000)
const WORKERS = 3
const ENGINES = 2
const ACK_WAIT_MS = 1500
const CHAOS_ENV = { KILL_CHAOS: '1', FLOWSTONE_GATE_SECRETS: `k1:${'s'.repeat(32)}` }

function mulberry32(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}

/** Keeps so many processes alive: what a supervisor does. */
class Pool {
  readonly alive = new Set<Child>()
  /** When a process stood still, or went: what it did around then proves nothing. */
  readonly troubled = new Map<number, number>()
  readonly #start: () => Promise<Child>
  #over = false
  #keepers: Promise<void>[] = []

  constructor(count: number, start: () => Promise<Child>) {
    this.#start = start
    this.#keepers = Array.from({ length: count }, () => this.#keep())
  }

  async #keep(): Promise<void> {
    while (!this.#over) {
      // The server may be away just now.
      const child = await this.#start().catch(() => undefined)
      if (!child) continue
      this.alive.add(child)
      await child.ended
      this.alive.delete(child)
      this.trouble(child)
    }
  }

  trouble(child: Child): void {
    if (!this.troubled.has(child.pid)) this.troubled.set(child.pid, wallMs())
  }

  pick(random: () => number): Child | undefined {
    return [...this.alive][Math.floor(random() * this.alive.size)]
  }

  async stop(): Promise<void> {
    this.#over = true
    await Promise.all([...this.alive].map((child) => child.stop()))
    await Promise.all(this.#keepers)
  }
}

interface Wild {
  readonly log: string[]
  /** Times [from, to] in which there was no server, and a little after. */
  readonly away: [number, number][]
  /** Kills and stops of workers: each may cost attempts of what they held. */
  losses: number
}

async function goWild(
  rig: Rig,
  run: Run,
  pools: { workers: Pool; engines: Pool },
  random: () => number,
): Promise<Wild> {
  const wild: Wild = { log: [], away: [], losses: 0 }
  const beganMs = wallMs()
  const waking: Promise<unknown>[] = []
  const stop = (pool: Pool, forMs: number): void => {
    const child = pool.pick(random)
    if (!child) return
    pool.trouble(child)
    child.signal('SIGSTOP')
    waking.push(sleep(forMs).then(() => child.signal('SIGCONT')))
  }
  let restarts = 0
  while (wallMs() - beganMs < WILD_MS) {
    await sleep(150 + random() * 650)
    const dice = random()
    const forMs = 200 + random() * 2600
    const what =
      dice < 0.2
        ? 'kill worker'
        : dice < 0.38
          ? 'stop worker'
          : dice < 0.52
            ? 'kill engine'
            : dice < 0.64
              ? 'stop engine'
              : dice < 0.74
                ? 'restart server'
                : 'pause'
    wild.log.push(`${Math.round(wallMs() - beganMs)} ${what} ${Math.round(forMs)}`)
    switch (what) {
      case 'kill worker':
        wild.losses += 1
        pools.workers.pick(random)?.signal('SIGKILL')
        break
      case 'stop worker':
        wild.losses += 1
        stop(pools.workers, forMs)
        break
      case 'kill engine':
        pools.engines.pick(random)?.signal('SIGKILL')
        break
      case 'stop engine':
        stop(pools.engines, forMs)
        break
      case 'restart server': {
        if (restarts++ >= 2) break
        const fromMs = wallMs()
        await rig.killServer()
        await sleep(forMs / 4)
        await rig.startServer()
        wild.away.push([fromMs - ACK_WAIT_MS, wallMs() + 2 * ACK_WAIT_MS])
        break
      }
      default: {
        const name = [read, limited, gated, poisoned][Math.floor(random() * 4)]?.name ?? ''
        const id = `${run.id}.${name}`
        waking.push(
          rig.flow.scatter
            .pause(id, 'chaos')
            .then(() => sleep(forMs))
            .catch(() => undefined)
            .then(() => surely(() => rig.flow.scatter.resume(id))),
        )
      }
    }
  }
  await Promise.all(waking)
  return wild
}

/** The server may be away for a moment; a scatter that has not begun cannot be resumed, and need not. */
async function surely<T>(act: () => Promise<T>): Promise<T | undefined> {
  for (;;) {
    try {
      return await act()
    } catch (error) {
      if (String(error).includes('no scatter')) return undefined
      await sleep(100)
    }
  }
}

interface Stretch {
  readonly pid: number
  readonly index: number
  readonly fromMs: number
  readonly toMs: number
}

/** When instances of `limited` ran in processes that were well, while there was a server. */
function stretches(lines: readonly string[], troubled: ReadonlyMap<number, number>, away: Wild['away']): Stretch[] {
  const begun = new Map<string, number>()
  const found: Stretch[] = []
  for (const line of lines) {
    const [sign, pid, index, ms] = line.split(' ')
    const key = `${pid} ${index}`
    if (sign === '+') begun.set(key, Number(ms))
    else if (sign === '-') {
      const fromMs = begun.get(key) ?? 0
      const toMs = Number(ms)
      const isWell = toMs < (troubled.get(Number(pid)) ?? Number.POSITIVE_INFINITY)
      if (isWell && !away.some(([from, to]) => toMs > from && fromMs < to))
        found.push({ pid: Number(pid), index: Number(index), fromMs, toMs })
    }
  }
  return found
}

function mostAtATime(found: readonly Stretch[]): number {
  return Math.max(
    0,
    ...found.map(({ fromMs }) => found.filter((one) => one.fromMs <= fromMs && one.toMs > fromMs).length),
  )
}

function mostWithin(ms: number, found: readonly Stretch[]): number {
  return Math.max(
    0,
    ...found.map(({ fromMs }) => found.filter((one) => one.fromMs >= fromMs && one.fromMs < fromMs + ms).length),
  )
}

function expectTruth(answers: readonly Answer[], facts: readonly HistoryEntry[]): void {
  const ends = new Map<string, { outcome: string; reason?: string }>()
  for (const { kind, ids, data } of facts) {
    if (kind !== 'gate.resolved' || !('outcome' in data)) continue
    const id = `${ids.run}.${ids.asset}.${ids.gate}`
    expect(ends.has(id), `${id} ended twice`).toBe(false)
    ends.set(id, { outcome: String(data.outcome) })
  }
  const accepted = new Map<string, string>()
  for (const { gate, value, told } of answers) {
    const outcome = ends.get(gate)?.outcome
    const wanted = {
      accepted: 'signaled',
      repeated: 'signaled',
      already_signaled: 'signaled',
      expired: 'timed_out',
      cancelled: 'cancelled',
    }[told]
    expect(outcome, `${gate} told ${told}`).toBe(wanted)
    if (told !== 'accepted' && told !== 'repeated') continue
    expect(accepted.get(gate) ?? value, `${gate} took two`).toBe(value)
    accepted.set(gate, value)
  }
}

function expectValues(value: Record<string, unknown>, losses: number): void {
  expect(value.batched).toBe(BATCHED)
  expect(value.read).toEqual({ count: READ, sum: (READ * (READ - 1)) / 2, inOrder: true })
  expect(value.limited).toEqual({ count: LIMITED, sum: (LIMITED * (LIMITED - 1)) / 2, inOrder: true })
  const list = value.gated as [number, string][]
  expect(list.map(([index]) => index)).toEqual(Array.from({ length: GATED }, (_, i) => i))
  for (const [index, got] of list) {
    const way = wayOf(index)
    const wanted = {
      never: ['failed gate_timeout'],
      cancel: ['failed gate_cancelled'],
      twice: [`twice ${index}`, `other ${index}`],
      chain: ['second'],
    }[way as string] ?? [`${way} ${index}`]
    expect(wanted, `instance ${index} (${way})`).toContain(got)
  }
  const others = value.poisoned as [number, string][]
  expect(others.map(([index]) => index)).toEqual(Array.from({ length: POISONED }, (_, i) => i))
  expect(others[POISON]).toEqual([POISON, 'failed worker_lost'])
  // Beside the poisonous one nobody fails; but the test kills too, and may take what runs alone.
  const failed = others.filter(([index, got]) => index !== POISON && got !== `once ${index}`)
  for (const one of failed) expect(one[1]).toBe('failed worker_lost')
  expect(failed.length).toBeLessThanOrEqual(losses)
}

/** A scatter whose every second instance was cancelled, and what its redrive made of it. */
async function redrive(
  rig: Rig,
  first: Run<[number, string][]>,
  random: () => number,
): Promise<{ outsides: Outside[]; runs: Run[]; values: [number, string][][] }> {
  const outside = new Outside(rig.flow, first, random, { cancelsOdd: true })
  const outsides = [outside]
  try {
    const values = [await first.result({ signal: AbortSignal.timeout(60_000) })]
    await outside.stop()
    const second = (await surely(() => rig.flow.scatter.redrive(`${first.id}.${redriven.name}`))) as typeof first
    outsides.push(new Outside(rig.flow, second, random))
    values.push(await second.result({ signal: AbortSignal.timeout(60_000) }))
    return { outsides, runs: [first, second], values }
  } finally {
    await Promise.all(outsides.map((one) => one.stop()))
  }
}

function expectRedriven([first, second]: readonly [number, string][][]): void {
  const all = Array.from({ length: REDRIVEN }, (_, i) => i)
  expect(first).toEqual(all.map((i) => [i, i % 2 === 0 ? `redriven ${i}` : 'failed gate_cancelled']))
  expect(second).toEqual(all.map((i) => [i, `redriven ${i}`]))
}

/** Nothing is left over: no task, no schedule, no lane, no gate. */
async function expectNothingLeft(rig: Rig, runs: readonly Run[], partitions: number): Promise<void> {
  const found: string[] = []
  for (let p = 0; p < partitions; p++) found.push(...(await leftOn(rig, runs, p)))
  expect(found).toEqual([])
}

async function leftOn(rig: Rig, runs: readonly Run[], p: number): Promise<string[]> {
  const jsm = await jetstreamManager(rig.nc)
  const left = async (): Promise<string[]> => {
    const lanes = (await collect(jsm.consumers.list(rig.names.work(p)))).filter(({ name }) => rig.names.parseLane(name))
    const work = await jsm.streams.info(rig.names.work(p), { subjects_filter: '>' })
    const log = await jsm.streams.info(rig.names.log(p), { subjects_filter: '>' })
    const all = (await Promise.all(runs.map(({ id }) => rig.flow.gates.list(id)))).flat()
    // An engine that was away while a gate timed out, and was answered, still gives it its next timer, which means nothing.
    const over = new Set(all.filter(({ status }) => status !== 'waiting').map(({ id }) => `gate.${id}.timer`))
    const isOver = (subject: string): boolean => over.has(subject.slice(subject.indexOf('.gate.') + 1))
    const gates = all.filter(({ status }) => status === 'waiting')
    const waiting = await rig.flow.gates.waiting()
    return [
      ...lanes.map(({ name }) => `lane ${name}`),
      ...Object.keys(work.state.subjects ?? {}),
      ...Object.keys(log.state.subjects ?? {}).filter((subject) => subject.endsWith('.timer') && !isOver(subject)),
      ...gates.map(({ id }) => `waits: ${id}`),
      ...waiting.map(({ id }) => `is said to wait: ${id}`),
    ]
  }
  let found: string[] = []
  await until(
    'nothing is left',
    async () => {
      found = await left()
      return found.length === 0
    },
    20_000,
  ).catch(() => undefined)
  return found
}

describe.each(SEEDS.flatMap((seed) => PARTITIONS.map((partitions) => ({ seed, partitions }))))(
  'everything at once, seed $seed, log in $partitions',
  ({ seed, partitions }) => {
    test('ends, and every count, value and answer is right', { timeout: 120_000 }, async () => {
      await using rig = await startRig({ partitions })
      const random = mulberry32(seed)
      const settings = { concurrency: 8, ackWaitMs: ACK_WAIT_MS, reconcileMs: 1500 }
      const engines = new Pool(ENGINES, () => rig.start('engine', settings))
      const workers = new Pool(WORKERS, () => rig.start('worker', settings, CHAOS_ENV))
      const on = (p: number): string => keyOn(p % partitions, partitions, `chaos-${seed}-${p}`)
      const run = await rig.materialize<Record<string, unknown>>(last, on(0), chaos)
      const inTime = await rig.materialize<unknown>(hurried, on(1), chaos)
      const outside = new Outside(rig.flow, run, mulberry32(seed + 1))
      const redriving = redrive(rig, await rig.materialize(redriven, on(2), chaos), mulberry32(seed + 2))
      redriving.catch(() => undefined)
      let wild: Wild | undefined
      try {
        wild = await goWild(rig, run, { workers, engines }, random)
        const value = await run.result({ signal: AbortSignal.timeout(60_000) })
        await outside.stop()
        expectValues(value, wild.losses)
        expect(await rejection(inTime.result({ signal: AbortSignal.timeout(60_000) }))).toMatchObject({
          code: 'timeout',
        })
        const again = await redriving
        expectRedriven(again.values)
        const runs = [run, inTime, ...again.runs]
        await expectNothingLeft(rig, runs, partitions)
        for (const one of [outside, ...again.outsides]) {
          expect(one.troubles).toEqual([])
          expectTruth(one.answers, await collect(rig.flow.history(one.run.id)))
        }
        const facts = await collect(rig.flow.history(run.id))
        for (const [name, total] of [
          ['read', READ],
          ['limited', LIMITED],
          ['gated', GATED],
          ['poisoned', POISONED],
        ] as const) {
          const barrier = await rig.barrier(run, name)
          expect((barrier?.succeeded ?? 0) + (barrier?.failed ?? 0), name).toBe(total)
          expect(facts.filter(({ kind, ids }) => kind === 'scatter.closed' && ids.asset === name)).toHaveLength(1)
        }
        const found = stretches(rig.noted(), workers.troubled, wild.away)
        expect(mostAtATime(found)).toBeLessThanOrEqual(Math.min(SLOTS, MAX_CONCURRENT))
        // Notes are written a moment after the grant: half of the period is long enough to show a limit that is not kept.
        expect(mostWithin(500, found)).toBeLessThanOrEqual(PER_SECOND)
        await Promise.all([engines.stop(), workers.stop()])
        await rig.expectStateIsFold()
      } catch (error) {
        console.error(`seed ${seed}, log in ${partitions}\n${wild?.log.join('\n')}`)
        await Promise.all(
          [gated, limited, read, poisoned].map(async ({ name }) =>
            console.error(name, JSON.stringify(await rig.barrier(run, name))),
          ),
        )
        throw error
      } finally {
        await Promise.all([outside.stop(), engines.stop(), workers.stop()])
      }
    })
  },
)
