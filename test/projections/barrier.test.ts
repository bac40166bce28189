import { describe, expect, it } from 'vitest'
import { LEASE_SIZE_START } from '../../projections/scatter/barrier.ts'
import { isDone, isFailed, markDone, newSegment, SEGMENT_INSTANCES, segmentOf } from '../../projections/scatter/bits.ts'
import { CHUNKS_PER_LIST, OPEN_MIN } from '../../projections/scatter/feed.ts'
import { WINDOW_MAX } from '../../projections/scatter/lease.ts'
import { LEASE_SIZE_MAX, leaseId, parseLeaseId } from '../../projections/scatter/lease-id.ts'
import { stateKey } from '../../projections/state.ts'
import {
  type Answer,
  barrierOf,
  cancel,
  handBack,
  keyChunk,
  leasesOn,
  materialized,
  outcomes,
  plainScatter,
  RUN,
  type Sim,
  scattered,
  scatterRun,
  scatterStarted,
  sized,
  spec,
  split,
  workOff,
} from './harness.ts'

const closedOf = (sim: Sim) => sim.facts('scatter.closed').map(({ data }) => data)

const all = (from: number, to: number, answer: Answer = 'ok') =>
  Array.from({ length: to - from }, (_, k) => [from + k, answer] as const)

describe('the size of a scatter', () => {
  it('may be 0: an empty scatter closes at once as completed, and its gather follows', () => {
    const sim = scattered([])
    expect(closedOf(sim)).toEqual([{ run: RUN, asset: 's', status: 'completed', total: 0, succeeded: 0, failed: 0 }])
    expect([...sim.work.values()].map(({ task }) => task.kind)).toEqual(['scatter', 'gather'])
  })

  it('may be 1', () => {
    const sim = scattered([1])
    expect(closedOf(sim)).toEqual([])
    sim.apply(outcomes('0-1-1', [[0, 'ok']]))
    expect(closedOf(sim)).toMatchObject([{ status: 'completed', total: 1, succeeded: 1 }])
  })

  it('is not known before it is sized: all that is stored may be done and the barrier stays open', () => {
    const sim = scatterRun()
    sim.apply(scatterStarted())
    sim.apply(keyChunk(0, 3))
    sim.apply(outcomes('0-3-1', all(0, 3)))
    expect(barrierOf(sim)).toMatchObject({ status: 'open', succeeded: 3, stored: 3 })
    sim.apply(sized(3))
    expect(barrierOf(sim).status).toBe('completed')
  })

  it('must be what is stored: a total that contradicts it fails the scatter with the reason, and does not leave it open', () => {
    for (const total of [2, 4]) {
      const sim = scatterRun()
      sim.apply(scatterStarted())
      sim.apply(keyChunk(0, 3))
      sim.apply(sized(total))
      expect(closedOf(sim)).toMatchObject([{ status: 'failed', error: { code: 'keys_changed' } }])
      expect(closedOf(sim)[0]?.error?.message).toContain(`${total}`)
    }
  })

  it('does not grow after it is sized, nor by a key chunk that leaves a gap', () => {
    const sim = scatterRun()
    sim.apply(scatterStarted())
    sim.apply(keyChunk(5, 2))
    expect(barrierOf(sim).stored).toBe(0)
    sim.apply(keyChunk(0, 2))
    sim.apply(sized(2))
    sim.apply(keyChunk(2, 2))
    expect(barrierOf(sim)).toMatchObject({ stored: 2, total: 2 })
  })

  it('may span several key chunks and segments, and no lease crosses a key chunk', () => {
    const sim = scattered([3, 1, 20_000, 20_000, 20_000, 10_000])
    const last = 70_003
    const cuts: { from: number; to: number; keyChunk: number }[] = []
    workOff(sim, (index, task) => {
      if (index === task.from) cuts.push({ from: task.from, to: task.to, keyChunk: task.keyChunk })
      return 'ok'
    })
    expect(barrierOf(sim)).toMatchObject({ status: 'completed', succeeded: last + 1, total: last + 1 })
    const starts = [0, 3, 4, 20_004, 40_004, 60_004, last + 1]
    for (const cut of cuts) {
      const end = starts[starts.indexOf(cut.keyChunk) + 1] ?? 0
      expect(cut.from >= cut.keyChunk && cut.to <= end && cut.to - cut.from <= LEASE_SIZE_MAX).toBe(true)
    }
    expect(segmentOf(last)).toBe(1)
    for (const index of [0, SEGMENT_INSTANCES - 1, SEGMENT_INSTANCES, last]) {
      const segment = sim.docs.peek(stateKey.segment(RUN, 's', segmentOf(index)))
      expect(segment && isDone(segment, index)).toBe(true)
    }
  })

  it('may come in more key chunks than one document holds', () => {
    const count = 2 * CHUNKS_PER_LIST + 3
    const sim = scattered(Array.from({ length: count }, () => 1))
    workOff(sim, () => 'ok')
    expect(barrierOf(sim)).toMatchObject({ status: 'completed', succeeded: count })
  })
})

describe('defects of the original', () => {
  it('2: an instance that completes twice counts once', () => {
    const sim = scattered([3])
    const first = outcomes('0-3-1', [[0, 'ok']])
    for (let i = 0; i < 3; i++) sim.apply(first)
    expect(barrierOf(sim)).toMatchObject({ status: 'open', succeeded: 1, failed: 0 })
    sim.apply(
      outcomes('0-3-1', [
        [1, 'ok'],
        [1, 'ok'],
      ]),
    )
    expect(barrierOf(sim)).toMatchObject({ status: 'open', succeeded: 2 })
    sim.apply(outcomes('0-3-1', [[2, 'ok']]))
    expect(closedOf(sim)).toHaveLength(1)
  })

  it('2: an instance that fails and then succeeds is one success and no failure', () => {
    const sim = scattered([2])
    sim.apply(
      outcomes('0-2-1', [
        [0, 'error'],
        [1, 'ok'],
      ]),
    )
    expect(barrierOf(sim)).toMatchObject({ status: 'open', succeeded: 1, failed: 0 })
    sim.apply(outcomes('0-1-2', [[0, 'ok']]))
    expect(closedOf(sim)).toMatchObject([{ status: 'completed', succeeded: 2, failed: 0 }])
  })

  it('3: an attempt that failed is no failed instance while attempts are left', () => {
    const sim = scattered([1], { retry: { maxAttempts: 3, backoffMinMs: 1000, backoffMaxMs: 60_000 } })
    sim.apply(outcomes('0-1-1', [[0, 'error']]))
    sim.apply(outcomes('0-1-2', [[0, 'error']]))
    expect(barrierOf(sim)).toMatchObject({ status: 'open', failed: 0 })
    expect(leasesOn(sim).at(-1)).toMatchObject({ lease: '0-1-3', attempt: 3, maxAttempts: 3 })
    sim.apply(outcomes('0-1-3', [[0, 'error']]))
    expect(closedOf(sim)).toMatchObject([{ status: 'failed', failed: 1, error: { code: 'boom' } }])
  })

  it('10: a cancel does not turn what never ran into failures, nor a success into anything else', () => {
    const sim = scattered([4])
    sim.apply(outcomes('0-4-1', [[0, 'ok']]))
    sim.apply(cancel())
    sim.apply(outcomes('0-4-1', all(0, 4)))
    expect(closedOf(sim)).toEqual([{ run: RUN, asset: 's', status: 'cancelled', total: 4, succeeded: 1, failed: 0 }])
    expect(barrierOf(sim)).toMatchObject({ status: 'cancelled', succeeded: 1, failed: 0 })
  })

  it('11: the document of a barrier does not grow with its instances', () => {
    const bytes = (keyChunks: number[]): number => {
      const sim = scattered(keyChunks)
      sim.apply(outcomes(leasesOn(sim)[0]?.lease ?? '', [[0, 'ok']]))
      return JSON.stringify(barrierOf(sim)).length
    }
    const thousand = bytes([2_000])
    const many = bytes(Array.from({ length: 20 }, () => 20_000))
    expect(many).toBeLessThan(thousand * 1.3)
  })
})

describe('failures', () => {
  it('a terminal error fails an instance at once, and all_or_nothing the scatter, with the cause', () => {
    const sim = scattered([3])
    sim.apply(outcomes('0-3-1', [[1, 'terminal']]))
    expect(closedOf(sim)).toMatchObject([{ status: 'failed', succeeded: 0, failed: 1, error: { code: 'boom' } }])
    expect(closedOf(sim)[0]?.error?.message).toMatch(/all_or_nothing: boom/)
  })

  it('handing back costs no attempt', () => {
    const sim = scattered([1], { retry: { maxAttempts: 1, backoffMinMs: 0, backoffMaxMs: 0 } })
    sim.apply(split('0-1-1', 'returned'))
    sim.apply(outcomes('0-1-2', [[0, 'returned']]))
    expect(leasesOn(sim).at(-1)).toMatchObject({ lease: '0-1-3', attempt: 1 })
  })

  it('what is handed back because a limit has no room for it is leased again when it may have, and costs no attempt', () => {
    const sim = scattered([2], { retry: { maxAttempts: 1, backoffMinMs: 0, backoffMaxMs: 0 } })
    const back = outcomes('0-2-1', [
      [0, 'ok'],
      [1, 'returned'],
    ])
    for (const [, error] of back.data.errors ?? []) error.retryAfterMs = 700
    const nowMs = sim.nowMs
    sim.apply(back)
    expect(leasesOn(sim).at(-1)).toMatchObject({ lease: '1-2-2', attempt: 1 })
    expect(barrierOf(sim)?.leases['1-2-2']?.dueMs).toBe(nowMs + 700)
    sim.apply(outcomes('1-2-2', [[1, 'ok']]))
    expect(closedOf(sim)).toMatchObject([{ status: 'completed', succeeded: 2, failed: 0 }])
  })

  it('what a rate limit had no room for comes again one behind the other, a little faster than the limit', () => {
    const rateLimit = { shape: 'smooth', limit: 4, periodMs: 1000, burst: 1 } as const
    const scatter = { ...plainScatter, rateLimit }
    const sim = scattered([4], { scatter })
    const back = outcomes(
      '0-4-1',
      [0, 1, 2, 3].map((index) => [index, 'returned']),
    )
    for (const [, error] of back.data.errors ?? []) error.retryAfterMs = 3000
    const nowMs = sim.nowMs
    sim.apply(back)
    const dues = [0, 1, 2, 3].map((i) => barrierOf(sim).leases[leaseId(i, i + 1, 2)]?.dueMs)
    expect(dues).toEqual([3000, 3200, 3400, 3600].map((ms) => nowMs + ms))
  })

  it('an instance that kills its worker fails alone, after maxAttempts, and its neighbours succeed', () => {
    const sim = scattered([8])
    const [wide] = leasesOn(sim)
    expect(wide).toMatchObject({ lease: '0-8-1', attempt: 1 })
    sim.apply(split('0-8-1', 'lost'))
    const singles = leasesOn(sim).slice(1)
    expect(singles.map(({ lease }) => lease)).toEqual(Array.from({ length: 8 }, (_, i) => leaseId(i, i + 1, 2)))
    for (const task of singles) {
      if (task.from === 5) sim.apply(split(task.lease, 'lost'))
      else sim.apply(outcomes(task.lease, [[task.from, 'ok']]))
    }
    expect(barrierOf(sim)).toMatchObject({ status: 'open', succeeded: 7, failed: 0 })
    expect(leasesOn(sim).at(-1)).toMatchObject({ lease: '5-6-3', attempt: 3 })
    sim.apply(split('5-6-3', 'lost'))
    expect(closedOf(sim)).toMatchObject([{ status: 'failed', succeeded: 7, failed: 1, error: { code: 'worker_lost' } }])
    const segment = sim.docs.peek(stateKey.segment(RUN, 's', 0)) ?? newSegment()
    expect(Array.from({ length: 8 }, (_, i) => isFailed(segment, i)).indexOf(true)).toBe(5)
  })

  it('what a lost lease had reported stays, and is not run again', () => {
    const sim = scattered([4])
    sim.apply(
      outcomes('0-4-1', [
        [0, 'ok'],
        [2, 'error'],
      ]),
    )
    sim.apply(split('0-4-1', 'lost'))
    const next = leasesOn(sim).filter(({ ordinal }) => ordinal > 1)
    expect(next.map(({ lease, attempt }) => [lease, attempt])).toEqual([
      ['2-3-2', 2],
      ['1-2-2', 2],
      ['3-4-2', 2],
    ])
  })

  it('a late outcome of a lost lease counts when it is a success, and not when it is an error', () => {
    const sim = scattered([2])
    sim.apply(split('0-2-1', 'lost'))
    sim.apply(
      outcomes('0-2-1', [
        [0, 'ok'],
        [1, 'terminal'],
      ]),
    )
    expect(barrierOf(sim)).toMatchObject({ status: 'open', succeeded: 1, failed: 0 })
    sim.apply(outcomes('0-1-2', [[0, 'error']]))
    expect(barrierOf(sim)).toMatchObject({ succeeded: 1, failed: 0 })
    sim.apply(outcomes('1-2-2', [[1, 'ok']]))
    expect(closedOf(sim)).toMatchObject([{ status: 'completed', succeeded: 2 }])
  })

  it('an error that names its own delay is retried then, and one of 0 at once', () => {
    const sim = scattered([2], { retry: { maxAttempts: 5, backoffMinMs: 1000, backoffMaxMs: 1000 } })
    sim.apply(
      outcomes('0-2-1', [
        [0, 'now'],
        [1, 'error'],
      ]),
    )
    const [first, second] = [...sim.work.values()].slice(-2)
    expect(first?.dueMs).toBeUndefined()
    expect(second?.dueMs).toBeGreaterThan(sim.nowMs + 749)
    expect(second?.dueMs).toBeLessThanOrEqual(sim.nowMs + 1000)
    expect(barrierOf(sim).delayed).toBe(1)
  })
})

describe('leases', () => {
  it('are ignored where they are none, or lie outside of what was leased', () => {
    const sim = scattered([2])
    for (const lease of [
      '',
      'x',
      '0-2',
      '2-0-1',
      '0-0-1',
      '0-2-0',
      '-1-2-1',
      '0.5-2-1',
      '0-2-1-7',
      '0-Infinity-1',
      `0-${LEASE_SIZE_MAX + 1}-1`,
    ]) {
      expect(parseLeaseId(lease), lease).toBeUndefined()
    }
    sim.apply(outcomes('x-y-1', all(0, 2)))
    sim.apply(outcomes('0-1-1', [[1, 'ok']]))
    sim.apply(
      outcomes('0-900-1', [
        [2, 'ok'],
        [899, 'ok'],
      ]),
    )
    expect(barrierOf(sim)).toMatchObject({ succeeded: 0, failed: 0 })
  })

  it('come first in first out, small at first and large when they come back quickly', () => {
    const sim = scattered([20_000, 20_000])
    const sizes: number[] = []
    workOff(sim, (index, task) => {
      if (index === task.from) sizes.push(task.to - task.from)
      return 'ok'
    })
    expect(sizes[0]).toBe(LEASE_SIZE_START)
    // workOff says an instance takes 1 ms, so a lease of 80 is what takes 80 ms.
    expect(Math.max(...sizes.slice(OPEN_MIN / 8))).toBe(80)
    expect(sizes.at(-1)).toBeLessThanOrEqual(10)
  })

  it.each([1, 16, 100, LEASE_SIZE_START])('of a scatter of %i instances are one at first', (count) => {
    expect(leasesOn(scattered([count])).map(({ from, to }) => [from, to])).toEqual([[0, count]])
  })

  it('of a small scatter whose worker returns what it has not begun are shared', () => {
    const sim = scattered([100])
    sim.apply(handBack('0-100-1', 10))
    const back = leasesOn(sim).filter(({ from }) => from >= 10)
    expect(back.length).toBeGreaterThan(3)
    expect(back.reduce((sum, { from, to }) => sum + to - from, 0)).toBe(90)
  })

  it('are of one instance where instances are slow', () => {
    const sim = scattered([1000])
    const task = leasesOn(sim)[0]
    sim.nowMs += 20_000
    sim.apply(outcomes(task?.lease ?? '', all(0, LEASE_SIZE_START), { heldMs: LEASE_SIZE_START * 1000 }))
    expect(barrierOf(sim).leaseSize).toBe(1)
    const next = leasesOn(sim).at(-1)
    expect((next?.to ?? 0) - (next?.from ?? 0)).toBe(1)
  })

  it('stay large when one is handed back after its first instance, because its worker was held up', () => {
    const sim = scattered([20_000, 20_000])
    while (barrierOf(sim).leaseSize < 800)
      for (const { from, to, lease } of leasesOn(sim))
        sim.apply(outcomes(lease, all(from, to), { heldMs: (to - from) / 10 }))
    const size = barrierOf(sim).leaseSize
    const large = leasesOn(sim).find(({ from, to }) => to - from > size / 2)
    sim.apply(handBack(large?.lease ?? '', (large?.from ?? 0) + 1, 200))
    expect(barrierOf(sim).leaseSize).toBeGreaterThan(size / 2)
  })

  it('are never more than the window at a time, and the window never more than its bound', () => {
    const sim = scattered([1_500, 500])
    let most = 0
    workOff(sim, () => {
      const barrier = barrierOf(sim)
      // Many instances are out from the start.
      const window = Math.max(barrier.window, OPEN_MIN / LEASE_SIZE_START)
      most = Math.max(most, Object.keys(barrier.leases).length - window)
      expect(barrier.window).toBeLessThanOrEqual(WINDOW_MAX)
      return 'ok'
    })
    expect(most).toBeLessThanOrEqual(0)
  })

  it('of a barrier whose run ended are not fed', () => {
    const sim = scatterRun()
    sim.apply(scatterStarted())
    sim.apply(cancel())
    sim.apply(keyChunk(0, 10))
    sim.apply(sized(10))
    expect(leasesOn(sim)).toEqual([])
    expect(barrierOf(sim).status).toBe('cancelled')
  })

  it('are cut the same by an engine that has just started, also over many small key chunks', () => {
    // Nothing more is fed while one lease fills the window; when that opens, a whole window is fed
    // in one step, over more key chunks than needs() loads.
    const sim = scatterRun()
    sim.apply(scatterStarted())
    narrow(sim)
    const keyChunks = 3 * CHUNKS_PER_LIST
    for (let i = 0; i < keyChunks; i++) sim.apply(keyChunk(i, 1))
    expect(barrierOf(sim)).toMatchObject({ fedTo: 1, stored: keyChunks })
    const barrier = barrierOf(sim)
    barrier.window = WINDOW_MAX
    sim.docs.put(stateKey.barrier(RUN, 's'), barrier)
    sim.rebase()
    sim.apply(outcomes('0-1-1', [[0, 'ok']]))
    expect(barrierOf(sim).fedTo).toBeGreaterThan(CHUNKS_PER_LIST)
    // Throws where it decides something else than before.
    sim.crash(0, false)
    sim.settle()
  })
})

/** Lets one lease be out at a time. */
function narrow(sim: Sim): void {
  const barrier = barrierOf(sim)
  barrier.window = 1
  barrier.leaseSize = LEASE_SIZE_MAX
  sim.docs.put(stateKey.barrier(RUN, 's'), barrier)
}

describe('instances that a worker hands back unbegun, because its lease takes too long,', () => {
  it('are leased again as new ones are, with no attempt counted, and the worker goes on with the rest', () => {
    const sim = scattered([100])
    const [first] = leasesOn(sim)
    const lease = first?.lease ?? ''
    const to = first?.to ?? 0
    sim.apply(handBack(lease, 10, 100))
    const next = leasesOn(sim).filter(({ ordinal }) => ordinal === 2)
    // 10 in 100 ms: they are slow, and leases are cut for that.
    expect(next[0]).toMatchObject({ from: 10, attempt: 1 })
    for (const { from, to: end } of next) expect(end - from).toBeLessThanOrEqual(8)
    expect(next.at(-1)?.to).toBe(to)
    expect(barrierOf(sim).leases[lease]).toMatchObject({ left: 10, to: 10 })
    sim.apply(outcomes(lease, all(0, 10)))
    expect(barrierOf(sim).leases[lease]).toBeUndefined()
    workOff(sim, () => 'ok')
    expect(closedOf(sim)).toMatchObject([{ status: 'completed', succeeded: 100 }])
  })

  it('are run by one worker only when that one dies: what it kept goes on alone', () => {
    const sim = scattered([8])
    sim.apply(handBack('0-8-1', 3))
    sim.apply(split('0-8-1', 'lost'))
    const next = leasesOn(sim).filter(({ ordinal }) => ordinal > 1)
    expect(
      next.flatMap(({ from, to, attempt }) => Array.from({ length: to - from }, (_, k) => [from + k, attempt])),
    ).toEqual([...[3, 4, 5, 6, 7].map((index) => [index, 1]), ...[0, 1, 2].map((index) => [index, 2])])
  })

  it('count once when they were run after all', () => {
    const sim = scattered([8])
    sim.apply(handBack('0-8-1', 3))
    sim.apply(outcomes('0-8-1', all(0, 8)))
    expect(closedOf(sim)).toMatchObject([{ status: 'completed', succeeded: 8 }])
    workOff(sim, () => 'ok')
    expect(closedOf(sim)).toHaveLength(1)
  })

  it('make room for others, also when there are none: what is kept in a long lease fills no place in the window', () => {
    const sim = scattered([20_000])
    const out = leasesOn(sim)
    expect(barrierOf(sim).fedTo).toBe(out.at(-1)?.to)
    for (const { lease, to } of out) sim.apply(handBack(lease, to, 500))
    const more = leasesOn(sim).slice(out.length)
    expect(more.length).toBeGreaterThanOrEqual(out.length)
    expect(barrierOf(sim)).toMatchObject({ saturated: out.length, requeued: [] })
    for (const { lease, from, to } of out) sim.apply(outcomes(lease, all(from, to), { heldMs: 1000 }))
    expect(barrierOf(sim).saturated).toBe(0)
  })

  it('may be all of a lease whose worker has no room', () => {
    const sim = scattered([8])
    sim.apply(handBack('0-8-1', 0))
    expect(barrierOf(sim).leases['0-8-1']).toBeUndefined()
    workOff(sim, () => 'ok')
    expect(closedOf(sim)).toMatchObject([{ status: 'completed', succeeded: 8 }])
  })
})

describe('an instance that queues up for its next lease, while its first lease is still out,', () => {
  /**
   * Lease 0-3-1 is out and fills the window; instance 0 failed in it, was leased again, handed
   * back, and waits.
   */
  function waiting(): Sim {
    const sim = scatterRun()
    sim.apply(scatterStarted())
    narrow(sim)
    sim.apply(keyChunk(0, 3))
    sim.apply(sized(3))
    sim.apply(outcomes('0-3-1', [[0, 'now']]))
    sim.apply(split('0-1-2', 'returned'))
    expect(barrierOf(sim)).toMatchObject({
      leases: { '0-3-1': { left: 2 } },
      requeued: [{ from: 0, to: 1, ordinal: 3 }],
    })
    return sim
  }

  it('is settled by a late success, and the lease keeps the two it still has', () => {
    const sim = waiting()
    sim.apply(outcomes('0-3-1', [[0, 'ok']]))
    expect(barrierOf(sim)).toMatchObject({ succeeded: 1, leases: { '0-3-1': { left: 2 } }, requeued: [] })
  })

  it('is not failed once more by the error that comes again', () => {
    const sim = waiting()
    sim.apply(outcomes('0-3-1', [[0, 'now']]))
    expect(barrierOf(sim)).toMatchObject({
      leases: { '0-3-1': { left: 2 } },
      requeued: [{ from: 0, to: 1, failures: 1 }],
    })
    expect(leasesOn(sim).map(({ lease }) => lease)).toEqual(['0-3-1', '0-1-2'])
  })

  it('is leased once, also when the first lease is lost', () => {
    const sim = waiting()
    sim.apply(split('0-3-1', 'lost'))
    expect(barrierOf(sim)).toMatchObject({
      leases: { '0-1-3': { left: 1 } },
      requeued: [{ from: 1, to: 3, ordinal: 2 }],
    })
    for (const { id, lease } of leasesOn(sim)) if (lease === '0-3-1' || lease === '0-1-2') sim.work.delete(id)
    workOff(sim, () => 'ok')
    const again = sim.facts('scatter.outcomes').filter(({ data }) => data.at.includes(0) && !data.errors)
    expect(again.map(({ data }) => data.lease)).toEqual(['0-1-3'])
    expect(barrierOf(sim)).toMatchObject({ status: 'completed', succeeded: 3 })
  })
})

describe('after its end a barrier', () => {
  const rows: [string, (sim: Sim) => void][] = [
    ['outcomes', (sim) => sim.apply(outcomes('0-2-1', all(0, 2, 'terminal')))],
    ['a split', (sim) => sim.apply(split('0-2-1', 'lost'))],
    ['more items', (sim) => sim.apply(keyChunk(2, 5))],
    ['a cancel', (sim) => sim.apply(cancel())],
  ]
  it.each(rows)('is not changed by %s', (_, act) => {
    const sim = scattered([2])
    sim.apply(outcomes('0-2-1', all(0, 2)))
    expect(barrierOf(sim).status).toBe('completed')
    const before = JSON.stringify(barrierOf(sim))
    act(sim)
    expect(JSON.stringify(barrierOf(sim))).toBe(before)
    expect(closedOf(sim)).toHaveLength(1)
  })

  it('keeps nothing of what was on its way', () => {
    const sim = scattered([40])
    sim.apply(
      outcomes(leasesOn(sim)[0]?.lease ?? '', [
        [0, 'error'],
        [1, 'terminal'],
      ]),
    )
    expect(barrierOf(sim)).toMatchObject({
      status: 'failed',
      leases: {},
      requeued: [],
      retries: {},
      delayed: 0,
      workers: {},
    })
  })

  it('has its results gathered once, and the asset that depends on it made', () => {
    const sim = scattered([1], {}, [spec('t', { dependsOn: ['s'] })])
    sim.apply(outcomes('0-1-1', [[0, 'ok']]))
    expect([...sim.work.values()].filter(({ task }) => task.kind === 'gather')).toHaveLength(1)
    sim.apply(materialized('s', RUN, 2))
    // It comes with the task of the gather.
    expect(sim.run(RUN).assets.t).toMatchObject({ status: 'queued', attempt: 1, chained: 's' })
  })
})

describe('the bits of a segment', () => {
  it('are set one by one, failed ones in a second half that is there only when needed', () => {
    let segment = newSegment()
    for (const index of [0, 7, 8, 65_535]) segment = markDone(segment, index, false)
    expect(segment.length).toBe(8192)
    segment = markDone(segment, SEGMENT_INSTANCES + 9, true)
    expect(segment.length).toBe(16_384)
    const set = Array.from({ length: SEGMENT_INSTANCES }, (_, i) => i).filter((i) => isDone(segment, i))
    expect(set).toEqual([0, 7, 8, 9, 65_535])
    expect([0, 9].map((i) => isFailed(segment, i))).toEqual([false, true])
  })
})
