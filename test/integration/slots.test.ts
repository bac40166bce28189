import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { connect, type Flow, RateLimitedError, type Slot, type SlotsStatus } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { freshNamespace, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { busy } from '../kit/within.ts'

const server = useServer({ syncInterval: 'default' })
let flow: Flow
let other: Flow
const namespace = freshNamespace()
beforeAll(async () => {
  flow = await connect({ servers: server.url, namespace })
  other = await connect({ servers: server.url, namespace })
})
afterAll(async () => {
  await Promise.all([flow.close(), other.close()])
})

async function acquire(of: Flow, ...[bucket, max, options]: Parameters<Flow['limiter']['acquireSlot']>): Promise<Slot> {
  const slot = await of.limiter.acquireSlot(bucket, max, options)
  if (slot === 'at_capacity') throw new Error(`no slot of ${bucket}`)
  return slot
}

function latch(): { open: () => void; opened: Promise<void> } {
  let open = (): void => undefined
  const opened = new Promise<void>((resolve) => {
    open = resolve
  })
  return { open, opened }
}

describe('acquireSlot', () => {
  it('acquireSlot gives max slots over all processes, and fences that grow', async () => {
    const a = await acquire(flow, 'gpu', 2)
    const b = await acquire(other, 'gpu', 2)
    expect(await flow.limiter.acquireSlot('gpu', 2)).toBe('at_capacity')
    expect(b.fence).toBeGreaterThan(a.fence)
    await other.limiter.releaseSlot(b)
    const c = await acquire(flow, 'gpu', 2)
    expect(c.fence).toBeGreaterThan(b.fence)
    expect(a.isHeld && c.isHeld).toBe(true)
    await Promise.all([a.release(), c.release()])
    expect(a.isHeld).toBe(false)
  })

  it('defect 7: a slot has an owner and a deadline, and whoever releases releases its own', async () => {
    const a = await acquire(flow, 'owned', 1, { lease: '500ms' })
    await a.release()
    const b = await acquire(other, 'owned', 1)
    // Again, and too late: it must not free what is another's by now.
    await a.release()
    expect(await flow.limiter.acquireSlot('owned', 1)).toBe('at_capacity')
    await b.release()
    const status = await flow.limiter.status('owned')
    expect(status.slots).toMatchObject({ count: 0, holders: [] })
  })

  it('acquireSlot counts weights, and follows another max', async () => {
    const heavy = await acquire(flow, 'weights', 4, { weight: 3 })
    expect(await other.limiter.acquireSlot('weights', 4, { weight: 2 })).toBe('at_capacity')
    const light = await acquire(other, 'weights', 4)
    expect((await flow.limiter.status('weights')).slots).toMatchObject({
      limit: 4,
      count: 4,
      remaining: 0,
      utilization: 1,
      waiting: 0,
      holders: [
        { slot: heavy.id, weight: 3, fence: heavy.fence, ageMs: expect.any(Number) },
        { slot: light.id, weight: 1, fence: light.fence },
      ],
    })
    await heavy.release()
    expect(await other.limiter.acquireSlot('weights', 1)).toBe('at_capacity')
    await light.release()
    await (await acquire(other, 'weights', 1)).release()
  })

  it('renews a slot for as long as it is held, longer than its lease', async () => {
    const slot = await acquire(flow, 'renewed', 1, { lease: '500ms' })
    const sinceMs = performance.now()
    await until('its lease would be over twice', () => performance.now() - sinceMs > 1100)
    expect(slot.isHeld).toBe(true)
    expect(slot.signal.aborted).toBe(false)
    expect(await other.limiter.acquireSlot('renewed', 1)).toBe('at_capacity')
    await slot.release()
  })

  it('acquireSlot has the slots of a process that closes at once', async () => {
    const third = await connect({ servers: server.url, namespace })
    await acquire(third, 'closed', 1)
    await third.close()
    await (await acquire(flow, 'closed', 1)).release()
  })

  it('acquireSlot refuses nonsense, by name', async () => {
    const { limiter } = flow
    expect((await rejection(limiter.acquireSlot('b', 0))).message).toContain('max must be a whole number from 1')
    expect((await rejection(limiter.acquireSlot('b', 2, { weight: 3 }))).message).toContain(
      'weight must be a whole number from 1 to 2',
    )
    expect((await rejection(limiter.acquireSlot('b', 2, { lease: '10ms' }))).message).toContain(
      'lease must be at least 500 ms',
    )
  })
})

describe('withSlot', () => {
  it('withSlot runs at most max at a time over processes, all of them in the end, and each wakes soon after a slot came free', async () => {
    let running = 0
    let most = 0
    const startedMs = performance.now()
    const work = async (): Promise<void> => {
      running += 1
      most = Math.max(most, running)
      const sinceMs = performance.now()
      await until('20 ms are over', () => performance.now() - sinceMs >= 20)
      running -= 1
    }
    await Promise.all(Array.from({ length: 40 }, (_, i) => (i % 2 ? flow : other).limiter.withSlot('pool', 4, work)))
    expect(most).toBe(4)
    // Ten rounds of 20 ms; waiters that looked only now and then would take many times that.
    expect(performance.now() - startedMs).toBeLessThan(8000 * busy())
    expect((await flow.limiter.status('pool')).slots).toMatchObject({ count: 0, waiting: 0 })
  })

  it('withSlot gives the slot back when its function throws', async () => {
    expect(await rejection(flow.limiter.withSlot('thrown', 1, () => Promise.reject(new Error('oh'))))).toMatchObject({
      message: 'oh',
    })
    const sync = flow.limiter.withSlot('thrown', 1, () => {
      throw new Error('at once')
    })
    expect((await rejection(sync)).message).toBe('at once')
    expect(await other.limiter.withSlot('thrown', 1, (slot) => slot.weight)).toBe(1)
  })

  it('withSlot tells how many wait, and gives up after maxWait, leaving no trace in the queue', async () => {
    const gate = latch()
    const holds = flow.limiter.withSlot('busy', 1, () => gate.opened)
    await until('it is held', async () => (await flow.limiter.status('busy')).slots?.count === 1)
    const waiting = [flow, other, other].map((each) =>
      rejection(each.limiter.withSlot('busy', 1, () => 1, { maxWait: '400ms', by: 'a test' })),
    )
    let queue: SlotsStatus['queue'] = []
    await until('three wait', async () => {
      const { slots } = await flow.limiter.status('busy')
      queue = slots?.queue ?? []
      return slots?.waiting === 3
    })
    expect(queue.flatMap(({ by }) => by)).toEqual(['a test', 'a test', 'a test'])
    for (const error of await Promise.all(waiting)) {
      expect(error).toBeInstanceOf(RateLimitedError)
      expect(error.message).toContain('no slot of busy (1 of 1) came free within 400 ms')
    }
    await until('none waits', async () => (await flow.limiter.status('busy')).slots?.waiting === 0)
    gate.open()
    await holds
  })

  it('withSlot ends its wait when its flow is closed, however long it would wait', async () => {
    const third = await connect({ servers: server.url, namespace })
    await using _held = await acquire(flow, 'closing', 1)
    const waiting = rejection(third.limiter.withSlot('closing', 1, () => 1, { maxWait: Number.POSITIVE_INFINITY }))
    await until('it waits', async () => (await flow.limiter.status('closing')).slots?.waiting === 1)
    const waitsMs = performance.now()
    await until('it rests until something happens', () => performance.now() - waitsMs > 1000)
    await third.close()
    expect(await waiting).toMatchObject({ code: 'closed' })
  })

  it('withSlot ends its wait when its signal is aborted, and aborts what runs', async () => {
    const abort = new AbortController()
    let seen: unknown
    const work = (_: Slot, signal: AbortSignal): Promise<void> =>
      new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => {
          seen = signal.reason
          reject(signal.reason)
        })
      })
    const runs = rejection(flow.limiter.withSlot('signal', 1, work, { signal: abort.signal }))
    await until('it runs', async () => (await flow.limiter.status('signal')).slots?.count === 1)
    const waits = rejection(other.limiter.withSlot('signal', 1, () => 1, { signal: abort.signal }))
    const reason = new Error('enough')
    abort.abort(reason)
    expect(await runs).toBe(reason)
    expect(await waits).toBe(reason)
    expect(seen).toBe(reason)
    await until('it is free', async () => (await flow.limiter.status('signal')).slots?.count === 0)
  })

  it('aborts its function when the slot was lost', async () => {
    const lost = flow.limiter.withSlot('reset', 1, () => new Promise(() => undefined), { lease: '600ms' })
    await until('it is held', async () => (await flow.limiter.status('reset')).slots?.count === 1)
    await other.limiter.reset('reset')
    expect(await rejection(lost)).toMatchObject({ code: 'slot_lost' })
    expect(await other.limiter.withSlot('reset', 1, () => 'free')).toBe('free')
  })

  it('withSlot serves a large weight although small ones keep coming', async () => {
    let stop = false
    const small = async (of: Flow): Promise<void> => {
      while (!stop) await of.limiter.withSlot('mixed', 3, () => new Promise((done) => setTimeout(done, 5)))
    }
    const loops = [small(flow), small(other), small(flow), small(other)]
    await until('it is busy', async () => ((await flow.limiter.status('mixed')).slots?.count ?? 0) > 0)
    expect(await other.limiter.withSlot('mixed', 3, (slot) => slot.weight, { weight: 3, maxWait: '10s' })).toBe(3)
    stop = true
    await Promise.all(loops)
  })
})
