import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { asset, connect, type Flow, pipeline } from '../../src/index.ts'
import { type RunningServer, startServer } from '../../src/server/index.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { listeningLogger, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { busy } from '../kit/within.ts'

let scratch: ReturnType<typeof scratchFolder>
let server: RunningServer
let flow: Flow

beforeEach(async () => {
  scratch = scratchFolder()
  server = await startServer({ dir: join(scratch.path, 'nats'), syncInterval: 'default' })
  flow = await connect({ servers: server.url, namespace: 'outage', logger: listeningLogger() })
})
afterEach(async () => {
  await flow.close()
  await server.stop()
  scratch[Symbol.dispose]()
})

async function back(): Promise<void> {
  const { dir, port } = server
  server = await startServer({ dir, port, syncInterval: 'default' })
}

describe('while NATS is away', () => {
  it('a call waits no longer than maxWait, and then says what is wrong, or goes on, as its option says', async () => {
    const { limiter } = flow
    await limiter.check('api', [5, 'minute'])
    await server.kill()
    const startedMs = performance.now()
    const [closed, slot, open, run] = await Promise.all([
      rejection(limiter.check('api', [5, 'minute'], { maxWait: '600ms' })),
      rejection(limiter.acquireSlot('gpu', 4, { maxWait: '600ms' })),
      limiter.check('api', [5, 'minute'], { maxWait: '600ms', onUnreachable: 'open' }),
      limiter.withLimit('api', [5, 'minute'], () => 'ran', { maxWait: '600ms', onUnreachable: 'open' }),
    ])
    const tookMs = performance.now() - startedMs
    expect(closed).toMatchObject({ code: 'unreachable', message: expect.stringContaining("onUnreachable: 'open'") })
    expect(slot).toMatchObject({ code: 'unreachable', message: expect.stringContaining('slots of gpu') })
    expect([open, run]).toEqual([{ allowed: true }, 'ran'])
    expect(tookMs).toBeGreaterThanOrEqual(590)
    expect(tookMs).toBeLessThan(8000 * busy())
  })

  it('a call that can wait is served when it is back, and the limit knows what was granted before', async () => {
    const { limiter } = flow
    for (let i = 0; i < 3; i++) await limiter.check('api', [5, 'hour'])
    await server.kill()
    const waiting = [1, 2, 3].map(() => limiter.check('api', [5, 'hour'], { maxWait: '20s' }))
    await back()
    const answers = await Promise.all(waiting)
    expect(answers.filter(({ allowed }) => allowed)).toHaveLength(2)
  })

  it('who was promised a time is let through at that time', async () => {
    const { limiter } = flow
    const rate = { limit: 1, per: '1500ms' } as const
    await limiter.take('promised', rate)
    const startedMs = performance.now()
    let promisedMs = 0
    const waits = limiter.take('promised', rate, {
      onWait: (waitMs) => {
        promisedMs = performance.now() + waitMs
      },
    })
    await until('it is promised', () => promisedMs > 0)
    await server.kill()
    await waits
    expect(performance.now()).toBeGreaterThanOrEqual(promisedMs - 1)
    expect(performance.now() - startedMs).toBeLessThan(15_000 * busy())
  })

  it('a slot is lost for its holder before its lease has ended for the others', async () => {
    const { limiter } = flow
    const slot = await limiter.acquireSlot('gpu', 1, { lease: '3s' })
    if (slot === 'at_capacity') throw new Error('no slot')
    await server.kill()
    const killedMs = performance.now()
    await until('it is lost', () => slot.signal.aborted)
    // The last renewal was up to a third of the lease before.
    expect(performance.now() - killedMs).toBeLessThan(3000)
    expect(slot.isHeld).toBe(false)
    expect(slot.signal.reason).toMatchObject({ code: 'slot_lost' })
    await back()
    expect(await limiter.withSlot('gpu', 1, ({ fence }) => fence)).toBeGreaterThan(slot.fence)
  })
})

describe('a result that was made with a slot', () => {
  it('a result that was made with a slot is not held back while NATS is away, and the slot is given back when it is there again', async () => {
    const { limiter } = flow
    let lastMs = 0
    const result = await limiter.withSlot(
      'gpu',
      1,
      async () => {
        await server.kill()
        lastMs = performance.now()
        return 'made'
      },
      { lease: '30s' },
    )
    expect(result).toBe('made')
    expect(performance.now() - lastMs).toBeLessThan(10_000 * busy())
    await back()
    expect(await limiter.withSlot('gpu', 1, () => 'free', { maxWait: '10s' })).toBe('free')
  })
})

describe('a scatter with a rate limit', () => {
  it('a scatter with a rate limit goes on after an outage without a burst, and every instance runs once', async () => {
    const starts: number[] = []
    const attempts: number[] = []
    const paced = asset('paced', {
      scatterOptions: { rateLimit: [40, 'second'] },
      scatter: () => Array.from({ length: 100 }, (_, i) => i),
      execute: ({ index, attempt }) => {
        starts.push(performance.now())
        attempts.push(attempt)
        return index
      },
    })
    await flow.engine()
    await flow.worker(pipeline('paced', [paced]))
    const run = await flow.materialize(paced)
    await until('some have run', () => starts.length >= 20)
    await server.kill()
    await back()
    expect(await run.result()).toHaveLength(100)
    expect(starts).toHaveLength(100)
    expect(new Set(attempts)).toEqual(new Set([1]))
    const most = Math.max(...starts.map((from) => starts.filter((time) => time >= from && time < from + 500).length))
    // One each 25 ms, and up to 100 ms late.
    expect(most).toBeLessThanOrEqual(21 + 4)
  })
})
