/**
 * The bounds of limits and slots, proved on histories. Several processes, whose clocks are minutes
 * apart, write down what they were granted and what they used. Meanwhile some of them are killed,
 * others stopped, and the server is killed and started again.
 */
import { expect, it } from 'vitest'
import { hostMs } from '../kit/host-clock.ts'
import { until } from '../kit/until.ts'
import { fencesOutOfOrder, worstOverlap, worstStretch } from './history.ts'
import type { LimitsWork } from './programs/limits-work.ts'
import { sharing } from './programs/pipelines.ts'
import { type Child, type Rig, startRig } from './rig.ts'

const SKEWS_MS = [0, 180_000, -180_000, 3_600_000, -3_600_000, 600_000, -600_000, 0]

async function team(rig: Rig, count: number, works: readonly LimitsWork[]): Promise<Child[]> {
  const skewMs = (i: number): number => SKEWS_MS[i % SKEWS_MS.length] ?? 0
  return await Promise.all(
    Array.from({ length: count }, (_, i) =>
      rig.start('limits', { work: works.map((work) => ({ ...work, skewMs: skewMs(i) })) }),
    ),
  )
}

const grantsOf = (team: readonly Child[], of: string) =>
  team.flatMap((child) =>
    child
      .of('grant')
      .filter(({ bucket }) => bucket === of)
      .map(({ fromMs, toMs, toldMs, n }) => ({
        fromMs: Number(fromMs),
        toMs: Number(toMs),
        toldMs: Number(toldMs),
        n: Number(n),
      })),
  )

const failuresOf = (team: readonly Child[]) => team.flatMap((child) => child.of('failed').map(({ message }) => message))

/** Who did something last: it is in the middle of it. */
function busiest(team: readonly Child[]): Child | undefined {
  const lastMs = (child: Child): number => Number(child.told.at(-1)?.toMs ?? 0)
  return team.filter(({ isAlive }) => isAlive).toSorted((a, b) => lastMs(b) - lastMs(a))[0]
}

/** What each fault does to a team, that goes on taking meanwhile. */
type Fault = (rig: Rig, team: readonly Child[], some: (n: number) => Promise<void>) => Promise<void>
const FAULTS: Readonly<Record<string, Fault>> = {
  'two processes are killed': async (_, team, some) => {
    await busiest(team)?.kill()
    await some(40)
    await busiest(team)?.kill()
  },
  'two processes are stopped for longer than their leases, and go on': async (_, team, some) => {
    const stopped: Child[] = []
    for (let i = 0; i < 2; i++) {
      const one = busiest(team.filter((child) => !stopped.includes(child)))
      one?.signal('SIGSTOP')
      if (one) stopped.push(one)
      await some(10)
    }
    const sinceMs = performance.now()
    await until('their leases are over', () => performance.now() - sinceMs > 1500)
    for (const one of stopped) {
      await some(20)
      one.signal('SIGCONT')
    }
  },
  'the server is killed and started again, twice': async (rig, _, some) => {
    await rig.killServer()
    await rig.startServer()
    await some(60)
    await rig.killServer()
    await rig.startServer()
  },
}

/** Rates by bucket, and the most that may be granted in a period. */
const RATES = [
  { kind: 'take', bucket: 'window', rate: { limit: 20, per: '400ms' }, periodMs: 400, most: 20 },
  { kind: 'check', bucket: 'large-window', rate: { limit: 200, per: '2s' }, periodMs: 2000, most: 200 },
  { kind: 'take', bucket: 'smooth', rate: { limit: 50, per: 'second', burst: 5 }, periodMs: 1000, most: 54 },
] as const
const SLOTS = { kind: 'slots', bucket: 'slots', max: 3, leaseMs: 1000, callers: 2 } as const
const PROCESSES = 6

it.each(Object.entries(FAULTS))('while %s, no rate is passed, and no slot is used twice', async (_, fault) => {
  await using rig = await startRig({ killsServer: true })
  const rates = RATES.map(({ kind, bucket, rate }) => ({ kind, bucket, rate, callers: 4 }))
  const all = await team(rig, PROCESSES, [...rates, SLOTS])
  const taken = () =>
    all.flatMap((child) =>
      child.of('taken').map(({ askedMs, toldMs, fence }) => ({
        askedMs: Number(askedMs),
        toldMs: Number(toldMs),
        fence: Number(fence),
      })),
    )
  const counts = (): number[] => [...RATES.map(({ bucket }) => grantsOf(all, bucket).length), taken().length]
  const some = async (n: number): Promise<void> => {
    const before = counts()
    await until(`${n} more of each`, () => counts().every((count, i) => count >= (before[i] ?? 0) + n))
  }
  await some(40)
  await fault(rig, all, some)
  await some(60)
  expect(failuresOf(all)).toEqual([])
  for (const { bucket, rate, periodMs, most } of RATES) {
    const history = grantsOf(all, bucket)
    // No wait ends before its time.
    expect(history.filter(({ fromMs, toldMs }) => toldMs < fromMs)).toEqual([])
    const worst = worstStretch(history, periodMs)
    expect(worst).toBeLessThanOrEqual(most)
    // It was near the bound: it would have been passed if it could be.
    expect(worst).toBeGreaterThanOrEqual(rate.limit * 0.5)
  }
  const uses = new Map<number, { fromMs: number; toMs: number; weight: number }>()
  for (const child of all)
    for (const { fence, fromMs, toMs, weight } of child.of('use'))
      uses.set(Number(fence), { fromMs: Number(fromMs), toMs: Number(toMs), weight: Number(weight) })
  expect(worstOverlap([...uses.values()])).toBe(SLOTS.max)
  expect(fencesOutOfOrder(taken())).toEqual([])
  expect(new Set(taken().map(({ fence }) => fence)).size).toBe(taken().length)
})

it('a scatter with slots and a rate keeps to both when a worker is killed, and all of it is done', async () => {
  await using rig = await startRig({ killsServer: true })
  const [victim] = await Promise.all([rig.start('worker'), rig.start('worker'), rig.start('worker'), rig.engine()])
  const run = await rig.materialize(sharing)
  const begun = (): string[] => rig.noted().filter((line) => line.startsWith('begin'))
  await until('some have run', () => begun().length >= 60)
  await victim.kill()
  const killedMs = hostMs()
  await rig.expectWhole(run, 'sharing', 300)
  const times = (what: string): Map<string, number> =>
    new Map(
      rig
        .noted()
        .map((line) => line.split(' '))
        .flatMap(([word, id, ms]) => (word === what && id !== undefined ? [[id, Number(ms)]] : [])),
    )
  const ends = times('end')
  const begins = [...times('begin')]
  // What did not end ended with its process.
  const uses = begins.map(([id, fromMs]) => ({ fromMs, toMs: ends.get(id) ?? killedMs, weight: 1 }))
  expect(worstOverlap(uses)).toBe(3)
  // One each 10 ms, and up to half a second late, as code begins on a busy machine. Without the
  // limit it would be nearly three times as many.
  const starts = begins.map(([, ms]) => ({ fromMs: ms, toMs: ms, n: 1 }))
  expect(worstStretch(starts, 1000)).toBeLessThanOrEqual(101 + 50)
  await until('its slots are free', async () => (await rig.flow.limiter.status('sharing')).slots?.count === 0)
})
