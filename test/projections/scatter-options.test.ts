import { describe, expect, it } from 'vitest'
import { AGAIN_MAX } from '../../projections/scatter/feed.ts'
import type { AssetSpec } from '../../streams/schemas.ts'
import {
  type Answer,
  barrierOf,
  keyChunk,
  leasesOn,
  outcomes,
  plainScatter,
  RETRY,
  RUN,
  type Sim,
  scattered,
  scatterRun,
  scatterStarted,
  sized,
  spec,
  timerFired,
  workOff,
} from './harness.ts'

const closedOf = (sim: Sim) => sim.facts('scatter.closed').map(({ data }) => data)
const all = (from: number, to: number, answer: Answer = 'ok') =>
  Array.from({ length: to - from }, (_, k) => [from + k, answer] as const)
const scatterOf = (options: Partial<NonNullable<AssetSpec['scatter']>>): Partial<AssetSpec> => ({
  scatter: { ...plainScatter, ...options },
})
const partial = (threshold: { fraction: number } | { count: number }) =>
  scatterOf({ failureMode: 'partial', threshold })

/**
 * Answers instances one by one, in the order of their leases: `answer` says how. Returns after
 * which of them the scatter was closed.
 */
function oneByOne(sim: Sim, answer: (index: number) => Answer): number | undefined {
  for (let n = 0; ; ) {
    const [lease] = leasesOn(sim)
    if (!lease) return undefined
    sim.work.delete(lease.id)
    for (let index = lease.from; index < lease.to; index++) {
      sim.apply(outcomes(lease.lease, [[index, answer(index)]]))
      n += 1
      if (closedOf(sim).length > 0) return n
    }
  }
}

describe('failureThreshold', () => {
  it.each<[string, { fraction: number } | { count: number }, number, number]>([
    ['{ count: 0 }', { count: 0 }, 10, 1],
    ['{ count: 3 }', { count: 3 }, 10, 4],
    ['0', { fraction: 0 }, 10, 1],
    ['0.3', { fraction: 0.3 }, 10, 4],
    ['0.25, of which 2.5 is no whole number,', { fraction: 0.25 }, 10, 3],
    // 0.07 * 100 is 7.000000000000001, and 0.29 * 100 is 28.999999999999996.
    ['0.07 of a hundred, whatever the doubles say,', { fraction: 0.07 }, 100, 8],
    ['0.29 of a hundred, whatever the doubles say,', { fraction: 0.29 }, 100, 30],
  ])('%s fails the scatter at exactly the failure that passes it, and not before', (_, threshold, total, passing) => {
    const sim = scattered([total], partial(threshold))
    expect(oneByOne(sim, () => 'terminal')).toBe(passing)
    expect(closedOf(sim)).toMatchObject([
      { status: 'failed', total, failed: passing, succeeded: 0, error: { code: 'threshold_passed' } },
    ])
    expect(closedOf(sim)[0]?.error?.message).toMatch(new RegExp(`^${passing} instances? failed, .*: boom$`))
  })

  it.each<[string, { fraction: number } | { count: number }]>([
    ['{ count: 3 }', { count: 3 }],
    ['0.3', { fraction: 0.3 }],
  ])('%s just reached is a partial failure, known at the last instance, and the gather follows', (_, threshold) => {
    const sim = scattered([10], partial(threshold))
    expect(oneByOne(sim, (index) => (index < 3 ? 'terminal' : 'ok'))).toBe(10)
    expect(closedOf(sim)).toEqual([
      { run: RUN, asset: 's', status: 'partial_failure', total: 10, succeeded: 7, failed: 3 },
    ])
    expect([...sim.work.values()].map(({ task }) => task.kind)).toContain('gather')
  })

  it('1 lets all of them fail', () => {
    const sim = scattered([5], partial({ fraction: 1 }))
    expect(oneByOne(sim, () => 'terminal')).toBe(5)
    expect(closedOf(sim)).toMatchObject([{ status: 'partial_failure', failed: 5, succeeded: 0 }])
  })

  it('with no failure at all is completed', () => {
    const sim = scattered([5], partial({ fraction: 1 }))
    oneByOne(sim, () => 'ok')
    expect(closedOf(sim)).toMatchObject([{ status: 'completed', failed: 0, succeeded: 5 }])
  })

  it('as a fraction is looked at only when the total is known, and then at once', () => {
    const sim = scatterRun(partial({ fraction: 0.5 }))
    sim.apply(scatterStarted())
    sim.apply(keyChunk(0, 8))
    oneByOne(sim, () => 'terminal')
    // All of the 8 that there are have failed: but 8 more may come.
    expect(barrierOf(sim)).toMatchObject({ status: 'open', failed: 8 })
    expect(closedOf(sim)).toEqual([])
    sim.apply(keyChunk(8, 7))
    expect(closedOf(sim)).toEqual([])
    sim.apply(sized(15))
    expect(closedOf(sim)).toMatchObject([{ status: 'failed', total: 15, error: { code: 'threshold_passed' } }])
  })

  it('as a count is looked at before the total is known', () => {
    const sim = scatterRun(partial({ count: 1 }))
    sim.apply(scatterStarted())
    sim.apply(keyChunk(0, 8))
    expect(oneByOne(sim, () => 'terminal')).toBe(2)
    expect(closedOf(sim)[0]).toMatchObject({ status: 'failed', failed: 2 })
    expect(closedOf(sim)[0]).not.toHaveProperty('total')
  })

  it('counts no attempt, only instances that failed for good', () => {
    const sim = scattered([4], partial({ count: 1 }))
    const tries = new Map<number, number>()
    workOff(sim, (index, task) => {
      tries.set(index, task.attempt)
      return index === 0 || task.attempt < RETRY.maxAttempts ? 'error' : 'ok'
    })
    expect(closedOf(sim)).toMatchObject([{ status: 'partial_failure', succeeded: 3, failed: 1 }])
    expect([...tries.values()]).toEqual([3, 3, 3, 3])
  })
})

describe('the batch strategy', () => {
  const batch = scatterOf({ strategy: 'batch' })

  it('retries nothing before the first pass is over, and then all together', () => {
    const sim = scattered([500], batch)
    const order: { index: number; attempt: number; dueMs: number | undefined }[] = []
    workOff(sim, (index, task) => {
      order.push({ index, attempt: task.attempt, dueMs: sim.nowMs })
      return index % 7 === 0 && task.attempt === 1 ? 'error' : 'ok'
    })
    expect(closedOf(sim)).toMatchObject([{ status: 'completed', total: 500, succeeded: 500, failed: 0 }])
    const second = order.findIndex(({ attempt }) => attempt === 2)
    expect(second).toBe(500)
    const again = order.slice(second)
    expect(again.every(({ attempt }) => attempt === 2)).toBe(true)
    expect(again.map(({ index }) => index).toSorted((a, b) => a - b)).toEqual(
      Array.from({ length: 72 }, (_, k) => 7 * k),
    )
    // One wait for all of them.
    expect(new Set(again.map(({ dueMs }) => dueMs)).size).toBe(1)
  })

  it('waits for the total, and for the last lease that is out', () => {
    const sim = scatterRun(batch)
    sim.apply(scatterStarted())
    sim.apply(keyChunk(0, 4))
    const leases = leasesOn(sim)
    expect(leases.map(({ lease }) => lease)).toEqual(['0-4-1'])
    sim.work.clear()
    sim.apply(
      outcomes('0-4-1', [
        [0, 'error'],
        [1, 'error'],
        [2, 'ok'],
      ]),
    )
    expect(leasesOn(sim)).toEqual([])
    sim.apply(sized(4))
    expect(leasesOn(sim)).toEqual([])
    sim.apply(outcomes('0-4-1', [[3, 'ok']]))
    expect(leasesOn(sim).map(({ lease, attempt }) => [lease, attempt])).toEqual([
      ['0-1-2', 2],
      ['1-2-2', 2],
    ])
  })

  it('fails an instance when its attempts are used up, pass after pass', () => {
    const sim = scattered([6], scatterOf({ strategy: 'batch', failureMode: 'partial', threshold: { count: 2 } }))
    const passes: number[][] = [[], [], []]
    workOff(sim, (index, task) => {
      passes[task.attempt - 1]?.push(index)
      return index < 2 ? 'error' : index === 2 && task.attempt === 1 ? 'error' : 'ok'
    })
    expect(passes).toEqual([
      [0, 1, 2, 3, 4, 5],
      [0, 1, 2],
      [0, 1],
    ])
    expect(closedOf(sim)).toMatchObject([{ status: 'partial_failure', succeeded: 4, failed: 2 }])
  })

  it('retries at once what a worker handed back: that is no failure', () => {
    const sim = scattered([3], batch)
    sim.work.clear()
    sim.apply(outcomes('0-3-1', [[0, 'returned']]))
    expect(leasesOn(sim).map(({ lease, attempt }) => [lease, attempt])).toEqual([['0-1-2', 1]])
  })
})

describe('when half of very many instances fail in wide leases,', () => {
  // As many at the end fail as it takes to have more to retry than may be retried at a time.
  it.each<['individual' | 'batch', number]>([
    ['individual', 5000],
    ['batch', 8000],
  ])(
    'with strategy %s the document stays small, few are retried at a time, and in the end all are done',
    (strategy, last) => {
      const quick = 100_000
      const total = quick + last
      // The key chunks of real keys: some thousands each.
      const keyChunks = Array.from({ length: total / (last / 2) }, () => last / 2)
      const sim = scattered(keyChunks, {
        ...scatterOf({ strategy, failureMode: 'partial', threshold: { count: 0 } }),
        retry: { maxAttempts: 5, backoffMinMs: 1000, backoffMaxMs: 60_000 },
      })
      let widest = 0
      let heaviest = 0
      let largest = 0
      let againMost = 0
      let runs = 0
      let facts = 0
      for (let due = sim.due('lease'); due.length > 0; due = sim.due('lease')) {
        for (const { task } of due) {
          if (task.kind !== 'lease') continue
          sim.work.delete(task.id)
          widest = Math.max(widest, task.to - task.from)
          const answers = Array.from({ length: task.to - task.from }, (_, k) => {
            const index = task.from + k
            const fails = index >= quick && index % 2 === 1 && task.attempt === 1
            return [index, fails ? 'error' : 'ok'] as const
          })
          runs += answers.length
          // 0.01 ms an instance: leases grow as wide as they may.
          sim.apply(outcomes(task.lease, answers, { heldMs: 0.01 * answers.length }))
          // To count its members at every fact takes as long as all else.
          facts += 1
          if (facts % 8 !== 0) continue
          const barrier = barrierOf(sim)
          const again = Object.keys(barrier.retries).length
          againMost = Math.max(againMost, again)
          // To print it each time takes a minute; it is printed whenever it has more members than
          // ever before, by a hundredth.
          const members =
            again + Object.keys(barrier.leases).length + barrier.requeued.length + (barrier.deferred?.length ?? 0)
          if (members <= heaviest * 1.01) continue
          heaviest = members
          largest = Math.max(largest, JSON.stringify(barrier).length)
        }
      }
      expect(widest).toBe(1000)
      expect(largest * 1.01).toBeLessThan(600_000)
      // As many as may be, and not one more.
      expect(againMost).toBe(AGAIN_MAX)
      expect(runs).toBe(total + last / 2)
      expect(closedOf(sim)).toMatchObject([{ status: 'completed', total, succeeded: total, failed: 0 }])
    },
    30_000,
  )
})

describe('a scatter whose end is decided', () => {
  const cancel = { name: 'scatter.cancel_requested', ids: { run: RUN, asset: 's' as never }, data: {} } as const
  it.each([
    ['cancel', timerFired(1000), cancel],
    ['time limit', cancel, timerFired(1000)],
  ])('is not changed by a %s that comes before its closing fact', (_what, first, second) => {
    const sim = scattered([2])
    sim.append(first)
    sim.append(second)
    sim.fold()
    sim.checkpoint()
    const decided = { ...barrierOf(sim) }
    expect(decided.closing).toBe(true)
    expect(sim.fold()).toEqual([])
    sim.docs.assertWritten()
    expect(barrierOf(sim)).toEqual(decided)
  })
})

describe('defects of the original', () => {
  it('10: "Cancelling a scatter marks what never ran as failed": it closes as cancelled, and counts nothing as failed', () => {
    const sim = scattered([100], partial({ count: 5 }), [spec('next', { dependsOn: ['s'] })])
    const lease = leasesOn(sim)[0]?.lease ?? ''
    sim.apply(
      outcomes(lease, [
        [0, 'ok'],
        [1, 'terminal'],
        [2, 'error'],
      ]),
    )
    sim.apply({ name: 'scatter.cancel_requested', ids: { run: RUN, asset: barrierOf(sim).asset as never }, data: {} })
    expect(closedOf(sim)).toEqual([{ run: RUN, asset: 's', status: 'cancelled', total: 100, succeeded: 1, failed: 1 }])
    // What comes in late changes nothing.
    sim.apply(outcomes(lease, all(3, 6, 'terminal')))
    expect(barrierOf(sim)).toMatchObject({ status: 'cancelled', succeeded: 1, failed: 1, leases: {} })
    const run = sim.run(RUN)
    expect(run).toMatchObject({
      status: 'failed',
      assets: { s: { status: 'failed', error: { code: 'cancelled' } }, next: { status: 'skipped' } },
    })
    expect(sim.facts('scatter.closed')).toHaveLength(1)
  })

  it('10: a cancel before the total is known closes it, too, and one after the end changes nothing', () => {
    const cancel = { name: 'scatter.cancel_requested', ids: { run: RUN, asset: 's' as never }, data: {} } as const
    const early = scatterRun()
    early.apply(scatterStarted())
    early.apply(keyChunk(0, 3))
    early.apply(cancel)
    expect(closedOf(early)).toEqual([{ run: RUN, asset: 's', status: 'cancelled', succeeded: 0, failed: 0 }])
    const late = scattered([1])
    late.apply(outcomes('0-1-1', [[0, 'ok']]))
    late.apply(cancel)
    expect(closedOf(late)).toMatchObject([{ status: 'completed' }])
    expect(barrierOf(late).status).toBe('completed')
  })
})
