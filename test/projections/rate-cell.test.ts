import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  counted,
  decodeRateCell,
  earliest,
  emptyCell,
  encodeRateCell,
  lifeMs,
  type Rate,
  type RateCell,
  settled,
} from '../../projections/limits/rate-cell.ts'
import { type Answer, type Ask, round } from '../../projections/limits/rate-round.ts'
import { runs } from '../kit/runs.ts'

const PLAYED = runs(300)
const START_MS = 1_790_000_000_000

/**
 * The server and its clock, and processes that know a lower bound of it, each behind by another
 * lag; a plain list of what was granted when.
 */
class World {
  nowMs = START_MS
  #stored: { payload: Uint8Array; atMs: number } | undefined
  #writes = 0
  readonly grants: { atMs: number; n: number }[] = []
  bytes = 0

  read(rate: Rate): RateCell {
    if (!this.#stored) return emptyCell(rate)
    const cell = decodeRateCell(this.#stored.payload)
    if (!cell) throw new Error('no cell')
    return settled(cell, this.#stored.atMs)
  }

  /**
   * One update by a process whose lower bound lags behind; the message takes a while to be stored.
   */
  ask(rate: Rate, asks: readonly Ask[], lagMs: number, onTheWayMs: number): readonly Answer[] {
    const boundMs = this.nowMs - lagMs
    const { cell, answers, changed } = round(this.read(rate), rate, asks, boundMs, `w${this.#writes++}`)
    this.nowMs += onTheWayMs
    if (changed) {
      const payload = encodeRateCell(cell)
      this.bytes = Math.max(this.bytes, payload.length)
      this.#stored = { payload, atMs: this.nowMs }
    }
    answers.forEach((answer, i) => {
      const ask = asks[i]
      if (!ask) return
      if (ask.kind === 'give back') this.#forget(ask)
      else if (answer.is === 'granted' && ask.kind !== 'peek') this.grants.push({ atMs: this.nowMs, n: ask.n })
      else if (answer.is === 'reserved') this.grants.push({ atMs: answer.atMs, n: ask.n })
    })
    return answers
  }

  #forget({ atMs, n }: { atMs: number; n: number }): void {
    const at = this.grants.findIndex((grant) => grant.atMs === atMs && grant.n === n)
    if (at >= 0) this.grants.splice(at, 1)
  }

  /** Most tokens in any stretch of a period, its end left out. */
  most(periodMs: number): number {
    const sorted = this.grants.toSorted((a, b) => a.atMs - b.atMs)
    let most = 0
    let sum = 0
    let first = 0
    for (const { atMs, n } of sorted) {
      sum += n
      for (let oldest = sorted[first]; oldest && oldest.atMs <= atMs - periodMs; oldest = sorted[++first])
        sum -= oldest.n
      most = Math.max(most, sum)
    }
    return most
  }
}

const window = (limit: number, periodMs: number): Rate => ({ shape: 'window', limit, periodMs, burst: limit })
const smooth = (limit: number, periodMs: number, burst: number): Rate => ({ shape: 'smooth', limit, periodMs, burst })

const step = fc.record({
  asks: fc.array(
    fc.record({
      kind: fc.constantFrom('check' as const, 'check' as const, 'wait' as const, 'peek' as const, 'give back' as const),
      n: fc.oneof({ weight: 4, arbitrary: fc.constant(1) }, { weight: 1, arbitrary: fc.integer({ min: 1, max: 400 }) }),
      pick: fc.nat({ max: 100 }),
    }),
    { minLength: 1, maxLength: 8 },
  ),
  lagMs: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 2000 })),
  onTheWayMs: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 5 }), fc.integer({ min: 0, max: 3000 })),
  pauseMs: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 300 }), fc.integer({ min: 0, max: 20_000 })),
})

function play(rate: Rate, steps: (typeof step extends fc.Arbitrary<infer S> ? S : never)[]): World {
  const world = new World()
  const most = rate.shape === 'smooth' ? rate.burst : rate.limit
  const reserved: { atMs: number; n: number }[] = []
  for (const { asks, lagMs, onTheWayMs, pauseMs } of steps) {
    const list = asks.flatMap(({ kind, n, pick }): Ask[] => {
      const tokens = Math.min(n, most)
      if (kind === 'wait') return [{ kind, n: tokens, maxWaitMs: 25_000 }]
      if (kind !== 'give back') return [{ kind, n: tokens }]
      const [back] = reserved.splice(pick % Math.max(1, reserved.length), 1)
      // Only what is not used yet can be given back.
      return back && back.atMs > world.nowMs ? [{ kind, ...back }] : []
    })
    const answers = world.ask(rate, list, lagMs, onTheWayMs)
    answers.forEach((answer, i) => {
      const ask = list[i]
      if (answer.is === 'reserved' && ask) reserved.push({ atMs: answer.atMs, n: ask.n })
    })
    world.nowMs += pauseMs
  }
  return world
}

describe('a window', () => {
  const rates = fc.record({
    limit: fc.constantFrom(1, 2, 7, 60, 160, 161, 500, 20_000),
    periodMs: fc.constantFrom(10, 100, 1000, 60_000),
  })

  it('never has more than the limit in any stretch of a period, whatever callers ask, reserve and give back, and however far behind their clocks are', () => {
    fc.assert(
      fc.property(rates, fc.array(step, { maxLength: 60, size: 'max' }), ({ limit, periodMs }, steps) => {
        expect(play(window(limit, periodMs), steps).most(periodMs)).toBeLessThanOrEqual(limit)
      }),
      PLAYED,
    )
  })

  it('is not starved: what a plain list of grants has room for is granted, a hundredth of the period later at the most', () => {
    fc.assert(
      fc.property(rates, fc.array(step, { maxLength: 40, size: 'max' }), ({ limit, periodMs }, steps) => {
        // Without reservations: those may stand in the way of who comes later.
        const checks = steps.map((each) => ({
          ...each,
          asks: each.asks.map((ask) => ({ ...ask, kind: 'check' as const })),
        }))
        const rate = window(limit, periodMs)
        const world = play(rate, checks)
        const grainMs = limit <= 160 ? 1 : Math.max(1, Math.ceil(periodMs / 100))
        const used = world.grants
          .filter(({ atMs }) => atMs > world.nowMs - periodMs - grainMs)
          .reduce((sum, { n }) => sum + n, 0)
        if (used >= limit) return
        expect(world.ask(rate, [{ kind: 'check', n: limit - used }], 0, 0)).toEqual([{ is: 'granted' }])
      }),
      PLAYED,
    )
  })

  it('grants its whole limit at once when idle, and the next token exactly a period after the first', () => {
    const rate = window(60, 60_000)
    const world = new World()
    expect(world.ask(rate, [{ kind: 'check', n: 60 }], 0, 0)).toEqual([{ is: 'granted' }])
    world.nowMs += 59_999
    expect(world.ask(rate, [{ kind: 'check', n: 1 }], 0, 0)).toEqual([{ is: 'refused', waitMs: 1 }])
    world.nowMs += 1
    expect(world.ask(rate, [{ kind: 'check', n: 1 }], 0, 0)).toEqual([{ is: 'granted' }])
  })

  it('answers in order: nobody who asks later is granted before who waits already', () => {
    fc.assert(
      fc.property(rates, fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 2, maxLength: 60 }), (wanted, ns) => {
        const rate = window(wanted.limit, wanted.periodMs)
        const world = new World()
        const times: number[] = []
        for (const n of ns) {
          const tokens = Math.min(n, rate.limit)
          let [answer] = world.ask(rate, [{ kind: 'wait', n: tokens, maxWaitMs: 1e9 }], 0, 0)
          // Too far off: it asks again at the time given, before anybody else here.
          while (answer?.is === 'far') {
            world.nowMs += answer.waitMs
            ;[answer] = world.ask(rate, [{ kind: 'wait', n: tokens, maxWaitMs: 1e9 }], 0, 0)
          }
          times.push(answer?.is === 'reserved' ? answer.atMs : world.nowMs)
        }
        expect(times).toEqual(times.toSorted((a, b) => a - b))
      }),
    )
  })

  it('keeps its bound for a caller whose limit or period is another one', () => {
    const fast = window(10, 1000)
    const slow = window(60, 60_000)
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.boolean(), fc.integer({ min: 0, max: 3000 })), { maxLength: 80 }), (steps) => {
        const world = new World()
        for (const [isSlow, pauseMs] of steps) {
          const before = world.grants.length
          world.ask(isSlow ? slow : fast, [{ kind: 'check', n: 1 }], 0, 1)
          const rate = isSlow ? slow : fast
          const used = world.grants.filter(({ atMs }) => atMs > world.nowMs - rate.periodMs).length
          if (world.grants.length > before) expect(used).toBeLessThanOrEqual(rate.limit)
          world.nowMs += pauseMs
        }
        expect(world.most(1000)).toBeLessThanOrEqual(60)
      }),
    )
  })

  it('has a cell under 1 KiB, with any limit and period, and the same after encoding and decoding', () => {
    const day = 86_400_000
    for (const limit of [1, 60, 160, 161, 5000, 10_000_000]) {
      for (const periodMs of [1000, 60_000, day, 30 * day, 365 * day]) {
        const rate = window(limit, periodMs)
        const world = new World()
        for (let i = 0; i < 400; i++) {
          world.ask(rate, [{ kind: 'wait', n: Math.ceil(limit / 399), maxWaitMs: 1e9 }], 0, 0)
          world.nowMs += Math.ceil(periodMs / 401)
        }
        expect(world.bytes, `${limit} in ${periodMs} ms`).toBeLessThan(1024)
        expect(world.bytes).toBeGreaterThan(20)
        const cell = world.read(rate)
        expect(decodeRateCell(encodeRateCell(cell))).toEqual(cell)
      }
    }
  })

  it('stays small however many wait', () => {
    const rate = window(10, 1000)
    const world = new World()
    for (let i = 0; i < 290; i++)
      expect(world.ask(rate, [{ kind: 'wait', n: 1, maxWaitMs: 60_000 }], 0, 0)[0]?.is).toMatch(/granted|reserved/)
    expect(world.bytes).toBeLessThan(300)
    expect(world.most(1000)).toBe(10)
    expect(counted(world.read(rate), world.nowMs).waiting).toBeGreaterThan(0)
  })

  it('is idle and forgotten only after all that it knows of is past', () => {
    const rate = window(1, 1000)
    const world = new World()
    world.ask(rate, [{ kind: 'check', n: 1 }], 0, 0)
    world.ask(rate, [{ kind: 'wait', n: 1, maxWaitMs: 5000 }], 0, 0)
    // The reservation is a second ahead, and counts for a second after that.
    expect(lifeMs(world.read(rate), world.nowMs)).toBe(2000)
  })
})

describe('a smooth rate', () => {
  const rates = fc.record({
    limit: fc.constantFrom(1, 7, 60, 1000, 3000),
    periodMs: fc.constantFrom(100, 1000, 60_000),
    burst: fc.constantFrom(1, 2, 10, 60),
  })

  it('has at most limit + burst - 1 in any stretch of a period', () => {
    fc.assert(
      fc.property(rates, fc.array(step, { maxLength: 60, size: 'max' }), ({ limit, periodMs, burst }, steps) => {
        expect(play(smooth(limit, periodMs, burst), steps).most(periodMs)).toBeLessThanOrEqual(limit + burst - 1)
      }),
      PLAYED,
    )
  })

  it('spaces who waits evenly', () => {
    const rate = smooth(10, 1000, 1)
    const world = new World()
    const answers = Array.from({ length: 5 }, () => world.ask(rate, [{ kind: 'wait', n: 1, maxWaitMs: 9000 }], 0, 0)[0])
    expect(answers).toEqual([
      { is: 'granted' },
      ...[100, 200, 300, 400].map((ms) => ({ is: 'reserved', atMs: START_MS + ms })),
    ])
  })

  it('lets a burst through after a pause, and no more than that', () => {
    const rate = smooth(10, 1000, 4)
    const world = new World()
    world.nowMs += 3_600_000
    const answers = world.ask(
      rate,
      Array.from({ length: 6 }, () => ({ kind: 'check' as const, n: 1 })),
      0,
      0,
    )
    expect(answers.map(({ is }) => is)).toEqual([
      'granted',
      'granted',
      'granted',
      'granted',
      'next round',
      'next round',
    ])
    expect(world.ask(rate, [{ kind: 'check', n: 1 }], 0, 0)).toEqual([{ is: 'refused', waitMs: 100 }])
    expect(counted(world.read(rate), world.nowMs)).toEqual({ count: 4, waiting: 0 })
  })

  it('takes the latest reservation back, and no other one', () => {
    const rate = smooth(10, 1000, 1)
    const world = new World()
    for (let i = 0; i < 4; i++) world.ask(rate, [{ kind: 'wait', n: 1, maxWaitMs: 9000 }], 0, 0)
    const before = earliest(world.read(rate), rate, 1, world.nowMs)
    world.ask(rate, [{ kind: 'give back', n: 1, atMs: START_MS + 100 }], 0, 0)
    expect(earliest(world.read(rate), rate, 1, world.nowMs)).toBe(before)
    world.ask(rate, [{ kind: 'give back', n: 1, atMs: START_MS + 300 }], 0, 0)
    expect(earliest(world.read(rate), rate, 1, world.nowMs)).toBe(START_MS + 300)
  })
})
