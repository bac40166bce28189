import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { asset, pipeline, TELEMETRY_CHANNELS } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { within } from '../kit/within.ts'

const NAMES = TELEMETRY_CHANNELS.filter((name) => name.startsWith('flowstone:scatter.'))
const heard: { name: string; event: Record<string, unknown> }[] = []
const listen = (event: unknown, name: string | symbol) =>
  heard.push({ name: String(name).replace('flowstone:scatter.', ''), event: event as Record<string, unknown> })
const server = useServer({ syncInterval: 'default' })
beforeAll(async () => {
  for (const name of NAMES) subscribe(name, listen)
})
beforeEach(() => {
  heard.length = 0
})
afterAll(async () => {
  for (const name of NAMES) unsubscribe(name, listen)
})

const limit = () => ({ signal: within(20_000) })
const whole = () => heard.filter(({ name }) => !name.startsWith('instance'))
const of = (name: string) => heard.flatMap((each) => (each.name === name ? [each.event] : []))

describe('telemetry of a scatter', () => {
  it('telemetry of a scatter reports its start, each instance, its end, and that its gather is due', async () => {
    const work = asset('work', {
      scatterOptions: { failureMode: 'partial', failureThreshold: 1, retry: { maxAttempts: 2, backoff: '10ms' } },
      scatter: () => ['a', 'b', 'c'],
      execute: ({ scatterKey, attempt }) => {
        if (scatterKey === 'c' || (scatterKey === 'b' && attempt === 1)) throw new Error(`broken at ${scatterKey}`)
        return scatterKey
      },
    })
    await using stage = await openStage(server.url, pipeline('told', [work]))
    const run = await stage.flow.materialize(work)
    await run.result(limit())
    const base = { engine: stage.engine?.id, run: run.id, asset: 'work' }
    const end = { ...base, total: 3, succeeded: 2, failed: 1, durationMs: expect.any(Number) }
    expect(whole()).toEqual([
      { name: 'start', event: base },
      { name: 'complete', event: end },
      { name: 'gather_ready', event: end },
    ])
    const one = { worker: stage.worker?.id, run: run.id, asset: 'work', durationMs: expect.any(Number) }
    expect(of('instance_complete')).toEqual([
      { ...one, index: 0, key: 'a', attempt: 1 },
      { ...one, index: 1, key: 'b', attempt: 2 },
    ])
    const failure = { ...one, outcome: 'error', error: expect.any(Error) }
    expect(of('instance_fail').toSorted((x, y) => Number(x.attempt) - Number(y.attempt))).toEqual([
      { ...failure, index: 1, key: 'b', attempt: 1, isLast: false },
      { ...failure, index: 2, key: 'c', attempt: 1, isLast: false },
      { ...failure, index: 2, key: 'c', attempt: 2, isLast: true },
    ])
  })

  it('telemetry of a scatter tells that it failed, and why', async () => {
    const work = asset('work', {
      retry: { maxAttempts: 1 },
      scatter: () => [1, 2, 3],
      execute: ({ scatterKey }) => {
        if (scatterKey === 2) throw new Error('broken')
        return scatterKey
      },
    })
    await using stage = await openStage(server.url, pipeline('failing', [work]))
    const run = await stage.flow.materialize(work)
    await rejection(run.result(limit()))
    const error = { code: 'error', message: expect.stringContaining('broken') }
    expect(whole()).toMatchObject([
      { name: 'start' },
      { name: 'failed', event: { engine: stage.engine?.id, run: run.id, asset: 'work', failed: 1, error } },
    ])
  })

  it('telemetry of a scatter tells that it was cancelled', async () => {
    const work = asset('work', {
      scatter: () => [1, 2, 3],
      execute: ({ signal }) =>
        new Promise<number>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
    })
    await using stage = await openStage(server.url, pipeline('cancelled', [work]))
    const run = await stage.flow.materialize(work)
    await until('it has started', () => of('start').length === 1)
    await stage.flow.scatter.cancel(`${run.id}.work`)
    await rejection(run.result(limit()))
    expect(whole()).toMatchObject([
      { name: 'start' },
      { name: 'cancel', event: { run: run.id, asset: 'work', total: 3, succeeded: 0, failed: 0 } },
    ])
  })
})
