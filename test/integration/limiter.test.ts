import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { connect, type Flow, RateLimitedError, type RateOption, TELEMETRY_CHANNELS } from '../../src/index.ts'
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

async function sleep(ms: number): Promise<void> {
  const endMs = performance.now() + ms
  await until(`${ms} ms are over`, () => performance.now() >= endMs, ms + 5000)
}

describe('check', () => {
  it('lets the whole limit through, and then says to the millisecond when there is room', async () => {
    const rate: RateOption = { limit: 5, per: '400ms' }
    for (let i = 0; i < 5; i++) expect(await flow.limiter.check('api', rate)).toEqual({ allowed: true })
    const firstMs = performance.now()
    const refused = await flow.limiter.check('api', rate)
    if (refused.allowed) throw new Error('six of five')
    expect(refused.waitMs).toBeGreaterThan(200)
    expect(refused.waitMs).toBeLessThanOrEqual(401)
    await sleep(refused.waitMs)
    expect(performance.now() - firstMs).toBeLessThan(refused.waitMs + 50)
    expect(await flow.limiter.check('api', rate)).toEqual({ allowed: true })
  })

  it('check takes nothing when it peeks', async () => {
    for (let i = 0; i < 5; i++) expect(await flow.limiter.peek('peeked', [1, 'hour'])).toEqual({ allowed: true })
    expect(await flow.limiter.check('peeked', [1, 'hour'])).toEqual({ allowed: true })
    expect(await flow.limiter.peek('peeked', [1, 'hour'])).toMatchObject({ allowed: false })
  })

  it('check takes several tokens at once, or none', async () => {
    expect(await flow.limiter.check('several', [10, 'day'], { n: 8 })).toEqual({ allowed: true })
    expect(await flow.limiter.check('several', [10, 'day'], { n: 3 })).toMatchObject({ allowed: false })
    expect(await flow.limiter.check('several', [10, 'day'], { n: 2 })).toEqual({ allowed: true })
  })

  it('defect 6: two processes share one limit, they do not get one each; and waits are not rounded up to seconds', async () => {
    const rate: RateOption = [20, 'minute']
    const answers = await Promise.all(
      Array.from({ length: 60 }, (_, i) => (i % 2 ? flow : other).limiter.check('shared', rate)),
    )
    expect(answers.filter(({ allowed }) => allowed)).toHaveLength(20)
    const waits = answers.flatMap((answer) => (answer.allowed ? [] : [answer.waitMs]))
    expect(waits.some((waitMs) => waitMs % 1000 !== 0)).toBe(true)
    for (const waitMs of waits) expect(waitMs).toBeLessThanOrEqual(60_010)
  })

  it('check gives out exactly its limit when many want it at the same time, and one of them goes away meanwhile', async () => {
    const third = await connect({ servers: server.url, namespace })
    const rate: RateOption = [600, 'hour']
    let allowed = 0
    const caller = async (of: Flow, times: number): Promise<void> => {
      for (let i = 0; i < times; i++) if ((await of.limiter.check('crowded', rate)).allowed) allowed += 1
    }
    const crowd = (of: Flow, times: number): Promise<void>[] => Array.from({ length: 10 }, () => caller(of, times))
    const leaving = Promise.all(crowd(third, 10)).then(() => third.close())
    await Promise.all([...crowd(flow, 50), ...crowd(other, 50), leaving])
    expect(allowed).toBe(600)
    expect((await flow.limiter.status('crowded')).rate).toMatchObject({ count: 600, remaining: 0 })
  })

  it('check is not led astray by the clocks of its processes, however wrong they are', async () => {
    const realNow = Date.now.bind(Date)
    const allowed: boolean[] = []
    for (const offMs of [0, 600_000, -600_000, 3_600_000]) {
      vi.spyOn(Date, 'now').mockImplementation(() => realNow() + offMs)
      const fresh = await connect({ servers: server.url, namespace })
      for (let i = 0; i < 3; i++) allowed.push((await fresh.limiter.check('clocks', [5, 'minute'])).allowed)
      await fresh.close()
      vi.restoreAllMocks()
    }
    expect(allowed.filter(Boolean)).toHaveLength(5)
  })

  it('check refuses nonsense, by name', async () => {
    const { limiter } = flow
    const zero = await rejection(limiter.check('b', [0, 'second']))
    expect(zero).toMatchObject({
      code: 'invalid',
      message: expect.stringContaining('rate: limit must be a whole number'),
    })
    expect((await rejection(limiter.check('', [1, 'second']))).message).toContain('bucket must be text')
    expect((await rejection(limiter.check('b', [1, 'second'], { n: 2 }))).message).toContain(
      'n must be a whole number from 1 to 1',
    )
    const wrong = { limit: 5, per: 'fortnight' }
    // @ts-expect-error no such period
    expect((await rejection(limiter.check('b', wrong))).message).toContain('per must be second, minute, hour, day')
    const both = { limit: 5, per: 'second', shape: 'window', burst: 2 } as const
    expect((await rejection(limiter.check('b', both))).message).toContain('burst goes with shape smooth')
  })

  it('check does not mix shapes on one bucket', async () => {
    await flow.limiter.check('shape', [5, 'minute'])
    const error = await rejection(other.limiter.check('shape', { limit: 5, per: 'minute', shape: 'smooth' }))
    expect(error).toMatchObject({ code: 'conflict', message: expect.stringContaining("say shape: 'window'") })
    await flow.limiter.reset('shape')
    expect(await other.limiter.check('shape', { limit: 5, per: 'minute', shape: 'smooth' })).toEqual({ allowed: true })
  })

  it('check starts anew after it was idle: the cell is gone then', async () => {
    const rate: RateOption = { limit: 1, per: '100ms' }
    await flow.limiter.check('idle', rate)
    expect((await flow.limiter.status('idle')).rate?.count).toBeDefined()
    await until('the cell has expired', async () => (await flow.limiter.status('idle')).rate === undefined)
    expect(await flow.limiter.check('idle', rate)).toEqual({ allowed: true })
    expect(await other.limiter.check('idle', rate)).toMatchObject({ allowed: false })
  })
})

describe('withLimit', () => {
  it('withLimit runs each when it is its turn, in the order of their asking, over processes', async () => {
    const rate: RateOption = { limit: 2, per: '100ms' }
    const order: number[] = []
    const startedMs = performance.now()
    const running: Promise<number>[] = []
    for (let i = 0; i < 9; i++) {
      const process = i % 2 ? flow : other
      running.push(process.limiter.withLimit('turns', rate, () => order.push(i)))
      // Asked for one after the other, so that there is an order to be kept.
      await process.limiter.peek('turns', rate)
    }
    await Promise.all(running)
    expect(order).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8])
    // Two at once, and two more every 100 ms.
    expect(performance.now() - startedMs).toBeGreaterThanOrEqual(400)
    expect(performance.now() - startedMs).toBeLessThan(1500 * busy())
  })

  it('paces a smooth rate, also when many ask at once', async () => {
    const times: number[] = []
    const rate: RateOption = { limit: 50, per: 'second', shape: 'smooth' }
    await Promise.all(
      Array.from({ length: 10 }, () => flow.limiter.withLimit('paced', rate, () => times.push(performance.now()))),
    )
    const gaps = times.slice(1).map((time, i) => time - (times[i] ?? 0))
    expect(Math.max(...gaps)).toBeLessThan(200 * busy())
    expect((times.at(-1) ?? 0) - (times[0] ?? 0)).toBeGreaterThan(9 * 20 - 5)
  })

  it('withLimit fails at once when its turn cannot come in time, and says when it would', async () => {
    await flow.limiter.check('full', [1, 'minute'])
    const startedMs = performance.now()
    const error = await rejection(flow.limiter.withLimit('full', [1, 'minute'], () => 1, { maxWait: '30s' }))
    if (!(error instanceof RateLimitedError)) throw error
    expect(error.code).toBe('rate_limited')
    expect(error.retryAfterMs).toBeGreaterThan(50_000)
    expect(error.retryAfterMs).toBeLessThanOrEqual(60_010)
    expect(performance.now() - startedMs).toBeLessThan(5000 * busy())
  })

  it('withLimit gives its place back when its signal is aborted', async () => {
    const rate: RateOption = { limit: 1, per: '10s' }
    await flow.limiter.check('aborted', rate)
    const abort = new AbortController()
    const waiting = rejection(flow.limiter.take('aborted', rate, { signal: abort.signal }))
    await until('it waits', async () => (await flow.limiter.status('aborted')).rate?.waiting === 1)
    abort.abort(new Error('enough'))
    expect((await waiting).message).toBe('enough')
    await until('its place is free', async () => (await flow.limiter.status('aborted')).rate?.waiting === 0)
    const next = await other.limiter.check('aborted', rate)
    expect(next.allowed ? 0 : next.waitMs).toBeLessThan(10_010)
  })

  it('withLimit gives its place back when its onWait throws, or its flow is closed', async () => {
    const rate: RateOption = { limit: 1, per: '29s' }
    await flow.limiter.take('left', rate)
    const third = await connect({ servers: server.url, namespace })
    const onWait = (): never => {
      throw new Error('no time')
    }
    expect((await rejection(third.limiter.take('left', rate, { onWait }))).message).toBe('no time')
    const waits = async (count: number): Promise<boolean> => (await flow.limiter.status('left')).rate?.waiting === count
    await until('it is given back', () => waits(0), 20_000)
    const waiting = rejection(third.limiter.take('left', rate))
    await until('it waits', () => waits(1))
    await third.close()
    expect(await waiting).toMatchObject({ code: 'closed' })
    await until('it is given back at the close', () => waits(0), 20_000)
    // Its question may be on its way at the close, or its answer.
    for (const turns of [0, 1, 2, 4, 8, 16]) {
      const other = await connect({ servers: server.url, namespace })
      await other.limiter.peek('left', rate)
      const asking = rejection(other.limiter.take('left', rate))
      for (let i = 0; i < turns; i++) await nextTurn()
      await other.close()
      expect(await asking).toMatchObject({ code: 'closed' })
    }
    await until('all are given back', () => waits(0), 20_000)
  })

  it('withLimit takes its tokens also when its function throws', async () => {
    const rate: RateOption = [1, 'hour']
    const error = await rejection(flow.limiter.withLimit('throws', rate, () => Promise.reject(new Error('no luck'))))
    expect(error.message).toBe('no luck')
    expect(await flow.limiter.check('throws', rate)).toMatchObject({ allowed: false })
  })

  it('withLimit waits longer than a place can be reserved ahead', async () => {
    const rate: RateOption = { limit: 1, per: '31s' }
    await flow.limiter.check('far', rate)
    await flow.limiter.take('far', rate, { maxWait: '1ms' }).catch(() => undefined)
    const abort = new AbortController()
    const first = rejection(flow.limiter.take('far', rate, { signal: abort.signal }))
    const status = await flow.limiter.status('far')
    // Its turn is 31 s away, so nothing is reserved yet: what dies with its process is little.
    expect(status.rate).toMatchObject({ count: 1, waiting: 0 })
    abort.abort(new Error('enough'))
    await first
  })
})

describe('telemetry', () => {
  it('telemetry reports checks, waits, and slots, with how long they took', async () => {
    const heard: { name: string; event: object }[] = []
    const listen = (event: unknown, name: string | symbol): void => {
      if (typeof event === 'object' && event !== null) heard.push({ name: String(name), event })
    }
    const names = TELEMETRY_CHANNELS.filter((name) => name.startsWith('flowstone:rate_limit.'))
    for (const name of names) subscribe(name, listen)
    const { limiter } = flow
    await limiter.check('told', { limit: 1, per: '200ms' })
    await limiter.check('told', { limit: 1, per: '200ms' })
    await limiter.take('told', { limit: 1, per: '200ms' })
    const fence = await limiter.withSlot('told', 2, (slot) => slot.fence, { weight: 2 })
    for (const name of names) unsubscribe(name, listen)
    const bucket = 'told'
    const durationMs = expect.any(Number)
    expect(heard.filter(({ event }) => Reflect.get(event, 'bucket') === bucket)).toEqual([
      { name: 'flowstone:rate_limit.check', event: { bucket, tokens: 1, allowed: true, durationMs } },
      {
        name: 'flowstone:rate_limit.check',
        event: { bucket, tokens: 1, allowed: false, waitMs: expect.any(Number), durationMs },
      },
      { name: 'flowstone:rate_limit.wait', event: { bucket, tokens: 1, granted: true, durationMs } },
      {
        name: 'flowstone:rate_limit.slot_acquired',
        event: { bucket, slot: expect.any(String), weight: 2, fence, durationMs },
      },
      {
        name: 'flowstone:rate_limit.slot_released',
        event: { bucket, slot: expect.any(String), weight: 2, fence, durationMs, lost: false },
      },
    ])
  })
})

describe('status, list and reset', () => {
  it('say what is taken, and forget it', async () => {
    await flow.limiter.check('tenant:ünïcode/1', [10, 'minute'], { n: 4 })
    await flow.limiter.check('tenant:2', { limit: 10, per: 'minute', burst: 4 }, { n: 3 })
    expect(await other.limiter.status('tenant:ünïcode/1')).toMatchObject({
      bucket: 'tenant:ünïcode/1',
      rate: {
        shape: 'window',
        limit: 10,
        periodMs: 60_000,
        burst: 10,
        count: 4,
        remaining: 6,
        utilization: 0.4,
        waiting: 0,
      },
    })
    expect((await other.limiter.list({ prefix: 'tenant:' })).map(({ bucket }) => bucket)).toEqual([
      'tenant:2',
      'tenant:ünïcode/1',
    ])
    expect(await other.limiter.list({ prefix: 'tenant:', limit: 1 })).toMatchObject([
      { rate: { count: 3, remaining: 1 } },
    ])
    await other.limiter.reset('tenant:2')
    expect((await flow.limiter.list({ prefix: 'tenant:' })).map(({ bucket }) => bucket)).toEqual(['tenant:ünïcode/1'])
    expect(await flow.limiter.check('tenant:2', { limit: 10, per: 'minute', burst: 4 }, { n: 4 })).toEqual({
      allowed: true,
    })
  })
})
