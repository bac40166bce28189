import { describe, expect, it } from 'vitest'
import { statusOf } from '../../src/client/scatter-status.ts'
import type { SeenWorkers } from '../../src/client/seen-workers.ts'
import type { AssetSpec } from '../../streams/schemas.ts'
import { barrierOf, outcomes, type Sim, scattered, spec } from './harness.ts'

const statusNow = (sim: Sim) =>
  statusOf({
    id: 's',
    barrier: barrierOf(sim),
    spec: undefined,
    pipeline: 'p',
    version: 'v1',
    seen: undefined,
    nowMs: sim.nowMs,
  })

describe('the pace of a scatter', () => {
  it('is that of late, not that since the start, and falls to nothing at a halt', () => {
    const sim = scattered([10_000])
    let next = 0
    const end = (count: number, overMs: number): void => {
      for (let i = 0; i < count; i++, next++) {
        const id = Object.keys(barrierOf(sim).leases).find((lease) => {
          const [from = 0, to = 0] = lease.split('-').map(Number)
          return next >= from && next < to
        })
        sim.apply(outcomes(id ?? '', [[next, 'ok']]), sim.nowMs + overMs / count)
      }
    }
    // A minute at one a second, then ten seconds at 20 a second.
    end(60, 60_000)
    expect(statusNow(sim).perSecond).toBeCloseTo(1, 0)
    end(200, 10_000)
    const late = statusNow(sim)
    expect(late.perSecond).toBeGreaterThan(12)
    const left = ((late.estimatedEnd?.getTime() ?? 0) - sim.nowMs) / 1000
    expect(left).toBeGreaterThan((10_000 - 260) / 20)
    expect(left).toBeLessThan((10_000 - 260) / 12)
    sim.nowMs += 60_000
    expect(statusNow(sim).perSecond).toBeLessThan(0.2)
    expect(statusNow(sim).progress).toBe(2.6)
  })

  it('gives no end while it is paused, and never says 100 percent before all are done', () => {
    const sim = scattered([10_000])
    const barrier = barrierOf(sim)
    barrier.succeeded = 9999
    const at = { id: 's', spec: undefined, pipeline: 'p', version: 'v1', seen: undefined, nowMs: sim.nowMs + 1000 }
    expect(statusOf({ ...at, barrier }).progress).toBe(99.9)
    expect(statusOf({ ...at, barrier }).estimatedEnd).toBeInstanceOf(Date)
    expect(statusOf({ ...at, barrier: { ...barrier, paused: { sinceMs: 0 } } }).estimatedEnd).toBeUndefined()
  })
})

describe('a scatter with a rate limit', () => {
  it('waits for a busy worker where the limit has room, and else for the limit', () => {
    const barrier = barrierOf(scattered([10_000]))
    const scatter = { rateLimit: { limit: 10, periodMs: 1000, shape: 'window', bucket: 'shop' } }
    const asset = { ...spec('many', { shape: 's' }), scatter } as unknown as AssetSpec
    const worker = { worker: 'w', queues: ['default'], shapes: ['s'], slots: 4, free: 0, running: [], oldest: [] }
    const waitingFor = (hasRoom: boolean, free = 0): readonly string[] => {
      const seen = { workers: [{ ...worker, free }], others: new Map(), hasRoom } as unknown as SeenWorkers
      const at = { id: 's', barrier, spec: asset, pipeline: 'p', version: 'v1', nowMs: 0 }
      return statusOf({ ...at, seen }).waitingFor
    }
    expect(waitingFor(true)).toContainEqual(
      expect.stringMatching(/^a slot: \d+ leased instances wait; slots: 4, of 1 worker$/),
    )
    expect(waitingFor(false)).toContainEqual(expect.stringMatching(/^its rate limit: 10 in 1000 ms, bucket shop; /))
    expect(waitingFor(true, 1)).toContainEqual(expect.stringMatching(/^its rate limit: /))
  })
})
