import { describe, expect, it } from 'vitest'
import { asset, InvalidError, pipeline } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })

const HALF = 'a\ud800'
const gates = { secrets: [{ id: 'k1', secret: 'x'.repeat(40) }], baseUrl: 'http://127.0.0.1:9' }

describe('half a surrogate pair', () => {
  it('half a surrogate pair is refused at every door, with the place, and nothing is stored of it', async () => {
    const up = asset('up', { execute: () => 1 })
    await using stage = await openStage(server.url, pipeline('p', [up]), { gates })
    const { flow } = stage
    const run = await flow.materialize(up)
    await run.result()
    const id = `${run.id}.up.a1n1`
    const scatter = `${run.id}.up`
    const doors: [string, () => Promise<unknown>][] = [
      ['materialize: partition', () => flow.materialize(up, { partition: HALF })],
      ['materialize: key', () => flow.materialize(up, { key: HALF })],
      ['run.cancel: reason', () => run.cancel(HALF)],
      ['scatter.cancel: reason', () => flow.scatter.cancel(scatter, HALF)],
      ['scatter.pause: reason', () => flow.scatter.pause(scatter, HALF)],
      ['gates.cancel: reason', () => flow.gates.cancel(id, HALF)],
      ['by', () => flow.gates.extend(id, '1h', { by: HALF })],
      ['idempotencyKey', () => flow.gates.signalByCorrelationKey('x', 1, { idempotencyKey: HALF })],
      ['correlation key', () => flow.gates.signalByCorrelationKey(HALF, 1, { keepFor: '1h' })],
      ['correlation key', () => flow.gates.getByCorrelationKey(HALF)],
      ['bucket', () => flow.limiter.check(HALF, [1, 'hour'])],
      ['bucket', () => flow.limiter.acquireSlot(HALF, 1)],
    ]
    for (const [place, door] of doors) {
      const error = await rejection(door())
      expect(error, place).toBeInstanceOf(InvalidError)
      expect(error.message).toMatch(new RegExp(`^${place} has half a surrogate pair`))
    }
    await until('the state has the one run', async () => (await flow.runs()).length === 1)
  })

  it('half a surrogate pair is refused in what an asset gives: values, keys, gates', async () => {
    const once = { retry: { maxAttempts: 1 } } as const
    const value = asset('value', { ...once, execute: () => ({ list: [HALF] }) })
    const key = asset('key', { ...once, scatter: () => [{ id: HALF }], execute: () => 1 })
    const metadata = asset('metadata', { ...once, execute: (ctx) => ctx.signalGate({ metadata: { title: HALF } }) })
    const token = asset('token', { ...once, execute: (ctx) => ctx.signalGate({ correlationKey: HALF }) })
    const bucket = asset('bucket', {
      ...once,
      scatter: () => [1],
      scatterOptions: { ...once, rateLimit: { limit: 5, per: 'second', bucket: () => HALF } },
      execute: () => 1,
    })
    await using stage = await openStage(server.url, pipeline('p', [value, key, metadata, token, bucket]), { gates })
    const places: [Parameters<typeof stage.flow.materialize<unknown>>[0], string][] = [
      [value, 'value.list[0] has half a surrogate pair'],
      [key, 'key[0].id has half a surrogate pair'],
      [metadata, 'gate: metadata.title has half a surrogate pair'],
      [token, 'gate: correlationKey has half a surrogate pair'],
      [bucket, 'bucket has half a surrogate pair'],
    ]
    for (const [one, message] of places) {
      const run = await stage.flow.materialize<unknown>(one)
      expect((await rejection(run.result())).message).toContain(message)
    }
    expect(() => asset('b', { execute: () => 1, slots: { bucket: HALF, max: 1 } })).toThrow('half a surrogate pair')
  })
})
