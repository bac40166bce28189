/**
 * Everything at once: every kind of scatter and gate in one run, scatters that end early and are
 * redriven, runs that build on one another, and triggers. Meanwhile processes are killed, stopped,
 * drained and cut off. The server restarts, the state is rebuilt, and buckets are deleted. All of
 * it is drawn from a seed. What is checked at the end holds for every seed. Every third seed is
 * gentle: it takes no work from a worker, so no attempt may be lost. `CHAOS_SEEDS=17,100..199 npx
 * vitest run test/kill/chaos.test.ts` plays those; `CHAOS_MS` is how long it is wild,
 * `CHAOS_SHARDS=1,3` the shards of the log, of which each seed takes one; `CHAOS_WITHOUT='delete
 * work,pause'` leaves faults out.
 */
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { Run } from '../../src/index.ts'
import { keyOn } from '../gates/kit.ts'
import { collect } from '../kit/collect.ts'
import { rejection } from '../kit/stage.ts'
import {
  againAfterEnd,
  begunIn,
  begunPaused,
  begunTooOften,
  expectNothingLeft,
  expectRedriven,
  expectTruth,
  expectValues,
  factsOnLog,
  lostIn,
  mostAtATime,
  mostWithin,
  stretches,
  unanswered,
} from './chaos/checks.ts'
import { goWild, surely, WITHOUT, type Wild } from './chaos/faults.ts'
import { Patience } from './chaos/patience.ts'
import { Pool } from './chaos/pool.ts'
import { type Random, seeded, seedsIn } from './chaos/random.ts'
import { request } from './chaos/requests.ts'
import { Outside } from './outside.ts'
import {
  chaos,
  GATED,
  gated,
  gentleLast,
  hurried,
  LIMITED,
  last,
  limited,
  MAX_CONCURRENT,
  PER_SECOND,
  POISONED,
  poisoned,
  READ,
  read,
  redriven,
  SLOTS,
} from './programs/chaos.ts'
import { type Rig, startRig } from './rig.ts'

const SEEDS = seedsIn(process.env.CHAOS_SEEDS ?? '302')
const SHARDS = (process.env.CHAOS_SHARDS ?? '1,3').split(',').map(Number)
const WILD_MS = Number(process.env.CHAOS_MS ?? 4500)
const WORKERS = 2
const ENGINES = 2
const CHAOS_ENV = { KILL_CHAOS: '1', FLOWSTONE_GATE_SECRETS: `k1:${'s'.repeat(32)}` }
/** Half of what a process does here is to load its code. */
const QUICK_START = { NODE_COMPILE_CACHE: join(tmpdir(), 'flowstone-chaos-cache') }

/** A scatter whose every second instance was cancelled, and what its redrive made of it. */
async function redrive(
  rig: Rig,
  first: Run<[number, string][]>,
  random: Random,
  patience: Patience,
): Promise<{ outsides: Outside[]; runs: Run[]; values: [number, string][][] }> {
  const outside = new Outside(rig.flow, first, random, { cancelsOdd: true })
  const outsides = [outside]
  try {
    const values = [await first.result({ signal: patience.signal })]
    await outside.stop()
    const second = (await surely(() => rig.flow.scatter.redrive(`${first.id}.${redriven.name}`))) as typeof first
    outsides.push(new Outside(rig.flow, second, random))
    values.push(await second.result({ signal: patience.signal }))
    return { outsides, runs: [first, second], values }
  } finally {
    await Promise.all(outsides.map((one) => one.stop()))
  }
}

async function play(rig: Rig, seed: number, shards: number): Promise<void> {
  const gentle = seed % 3 === 0
  const random = seeded(seed)
  const ackWaitMs = gentle ? 5000 : 2000
  const on = (shard: number, name: string): string => keyOn(shard % shards, shards, `${name}-${seed}`)
  const run = await rig.materialize<Record<string, unknown>>(gentle ? gentleLast : last, on(0, 'last'), chaos)
  const inTime = await rig.materialize<unknown>(hurried, on(1, 'hurried'), chaos)
  const toRedrive = await rig.materialize<[number, string][]>(redriven, on(2, 'redriven'), chaos)
  const requests = await request(rig, on, random, gentle)
  // Before any engine was there.
  if (random() < 0.25 && !WITHOUT.has('early rebuild')) await rig.flow.rebuild()
  const settings = { concurrency: 8, ackWaitMs, reconcileMs: 1500 }
  const engines = new Pool(ENGINES, rig, 'engine', settings, QUICK_START)
  const workers = new Pool(WORKERS, rig, 'worker', settings, { ...CHAOS_ENV, ...QUICK_START })
  using patience = new Patience(rig, shards)
  const outside = new Outside(rig.flow, run, seeded(seed + 1))
  const redriving = redrive(rig, toRedrive, seeded(seed + 2), patience)
  redriving.catch(() => undefined)
  const going = requests.go(patience)
  going.catch(() => undefined)
  let wild: Wild | undefined
  try {
    const pausable = [
      ...[read, limited, gated, ...(gentle ? [] : [poisoned])].map(({ name }) => ({ run, asset: name })),
      ...requests.firsts,
    ]
    await Promise.all([engines.ready, workers.ready])
    wild = await goWild({ rig, shards, ackWaitMs, workers, engines, pausable }, random, gentle, WILD_MS)
    const value = await run.result({ signal: patience.signal })
    await outside.stop()
    expectValues(value, wild.losses, gentle)
    expect(await rejection(inTime.result({ signal: patience.signal }))).toMatchObject({ code: 'timeout' })
    const again = await redriving
    expectRedriven(again.values)
    const asked = await going
    expect(asked.troubles).toEqual([])
    const runs = [run, inTime, ...again.runs, ...asked.runs]
    await expectNothingLeft(rig, runs, shards)
    for (const one of [outside, ...again.outsides]) {
      expect(one.troubles).toEqual([])
      expectTruth(one.answers, await collect(rig.flow.history(one.run.id)))
    }
    const history = await collect(rig.flow.history(run.id))
    for (const [name, total] of [
      ['read', READ],
      ['limited', LIMITED],
      ['gated', GATED],
      ...(gentle ? [] : [['poisoned', POISONED] as const]),
    ] as const) {
      const barrier = await rig.barrier(run, name)
      expect((barrier?.succeeded ?? 0) + (barrier?.failed ?? 0), name).toBe(total)
      expect(history.filter(({ kind, ids }) => kind === 'scatter.closed' && ids.asset === name)).toHaveLength(1)
    }
    const found = stretches(rig.noted(), workers.troubled, wild.away)
    expect(mostAtATime(found)).toBeLessThanOrEqual(Math.min(SLOTS, MAX_CONCURRENT))
    // Notes are written a moment after the grant: half of the period is long enough to show a limit
    // that is not kept.
    expect(mostWithin(500, found)).toBeLessThanOrEqual(PER_SECOND)
    await Promise.all([engines.stop(), workers.stop()])
    const facts = await factsOnLog(rig, shards)
    const begun = begunIn(rig.noted())
    const isWell = (pid: number, atMs: number): boolean =>
      atMs < (workers.troubled.get(pid) ?? Number.POSITIVE_INFINITY)
    expect([...wild.troubles, ...engines.troubles, ...workers.troubles]).toEqual([])
    expect(unanswered(facts, asked.triggers)).toEqual([])
    expect(againAfterEnd(facts, begun, isWell)).toEqual([])
    expect(begunPaused(wild, begun, isWell)).toEqual([])
    if (gentle) {
      expect(lostIn(facts)).toEqual([])
      expect(begunTooOften(facts, begun)).toEqual([])
    }
    await rig.expectStateIsFold()
  } catch (error) {
    console.error(`seed ${seed}, log in ${shards}\n${wild?.log.join('\n')}`)
    for (const one of await rig.flow.runs({ open: true }).catch(() => []))
      console.error(`open: ${one.id} ${one.target} ${one.status} ${JSON.stringify(one.assets)}`)
    await Promise.all(
      [gated, limited, read, poisoned].map(async ({ name }) =>
        console.error(name, JSON.stringify(await rig.barrier(run, name).catch(String))),
      ),
    )
    throw error
  } finally {
    await Promise.all([outside.stop(), engines.stop(), workers.stop()])
  }
}

describe.each(SEEDS.map((seed) => ({ seed, shards: SHARDS[seed % SHARDS.length] ?? 1 })))(
  'everything at once, seed $seed, log in $shards',
  ({ seed, shards }) => {
    it('ends, and every count, value and answer is right', { timeout: 300_000 }, async () => {
      await using rig = await startRig({ shards, killsServer: true })
      await play(rig, seed, shards)
    })
  },
)
