import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { asset, pipeline, TELEMETRY_CHANNELS, type TelemetryEvents } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

type Heard = { [N in keyof TelemetryEvents]: { name: N; event: TelemetryEvents[N] } }[keyof TelemetryEvents]

const heard: Heard[] = []
const listen = (event: unknown, name: string | symbol) => heard.push({ name, event } as Heard)
const server = useServer({ syncInterval: 'default' })
beforeAll(async () => {
  for (const name of TELEMETRY_CHANNELS) subscribe(name, listen)
})
afterAll(async () => {
  for (const name of TELEMETRY_CHANNELS) unsubscribe(name, listen)
})

const of = <N extends keyof TelemetryEvents>(name: N) =>
  heard.flatMap((each) => (each.name === name ? [each.event as TelemetryEvents[N]] : []))

describe('telemetry', () => {
  it('telemetry reports each piece of code when it starts and how long it took, or what it threw', async () => {
    const error = new Error('not yet')
    const flaky = asset('flaky', {
      retry: { maxAttempts: 2, backoff: '10ms' },
      execute: ({ attempt }) => {
        if (attempt === 1) throw error
        return 1
      },
    })
    const many = asset('many', {
      dependsOn: [flaky],
      scatter: () => [1, 2, 3],
      execute: ({ scatterKey }) => scatterKey,
    })
    await using stage = await openStage(server.url, pipeline('told', [flaky, many]))
    const run = await stage.flow.materialize(many, { partition: 'p' })
    await run.result()
    await until('the gather is told of', () =>
      of('flowstone:materialization.stop').some(({ phase }) => phase === 'gather'),
    )
    const worker = stage.worker?.id
    const base = { run: run.id, worker, partition: 'p' }
    expect(of('flowstone:materialization.start')).toMatchObject([
      { ...base, asset: 'flaky', phase: 'execute', attempt: 1 },
      { ...base, asset: 'flaky', phase: 'execute', attempt: 2 },
      { ...base, asset: 'many', phase: 'scatter', attempt: 1 },
      { ...base, asset: 'many', phase: 'gather', attempt: 2 },
    ])
    expect(of('flowstone:materialization.exception')).toMatchObject([
      { ...base, asset: 'flaky', attempt: 1, outcome: 'error', durationMs: expect.any(Number), error },
    ])
    const stops = of('flowstone:materialization.stop')
    expect(stops.map(({ asset: name, phase }) => `${name} ${phase}`)).toEqual([
      'flaky execute',
      'many scatter',
      'many gather',
    ])
    for (const { durationMs } of stops) expect(durationMs).toBeGreaterThan(0)
    const leases = of('flowstone:lease.stop')
    expect(leases.reduce((sum, { instances }) => sum + instances, 0)).toBe(3)
    for (const lease of leases)
      expect(lease).toMatchObject({ worker, run: run.id, asset: 'many', durationMs: expect.any(Number) })
    expect(new Set(of('flowstone:task.received').map(({ kind }) => kind))).toEqual(
      new Set(['execute', 'scatter', 'lease', 'gather']),
    )
  })

  it('telemetry reports when an engine is active, checkpoints, and stands by', async () => {
    heard.length = 0
    const quick = asset('quick', { execute: () => 1 })
    const stage = await openStage(server.url, pipeline('engines', [quick]))
    const engine = stage.engine?.id
    await (await stage.flow.materialize(quick)).result()
    await stage[Symbol.asyncDispose]()
    expect(of('flowstone:engine.active')).toEqual([{ engine, shard: 0, seq: 0 }])
    expect(of('flowstone:engine.standby')).toEqual([{ engine, shard: 0, reason: 'stopped' }])
    const checkpoints = of('flowstone:engine.checkpoint')
    expect(checkpoints.length).toBeGreaterThan(0)
    for (const each of checkpoints)
      expect(each).toMatchObject({ engine, shard: 0, keys: expect.any(Number), durationMs: expect.any(Number) })
    expect(checkpoints.map(({ seq }) => seq)).toEqual(checkpoints.map(({ seq }) => seq).toSorted((a, b) => a - b))
  })

  it('telemetry reports work that is handed back, and messages on the log that are no facts', async () => {
    heard.length = 0
    const waits = asset('waits', { slots: { bucket: 'taken', max: 1 }, execute: () => 1 })
    await using stage = await openStage(server.url, pipeline('handed', [waits]), { worker: { drainTimeout: '50ms' } })
    await using _slot = await stage.flow.limiter.takeSlot('taken', 1)
    const run = await stage.flow.materialize(waits)
    await until('a worker has it', () => of('flowstone:task.received').length > 0)
    await stage.worker?.stop()
    expect(of('flowstone:task.returned')).toEqual([
      {
        worker: stage.worker?.id,
        task: `${run.id}.waits.1`,
        reason: expect.stringContaining('stops'),
      },
    ])
    await run.cancel()
    expect(await rejection(run.result())).toMatchObject({ code: 'cancelled' })
    const { connect: connectNats } = await import('@nats-io/transport-node')
    const { jetstream } = await import('@nats-io/jetstream')
    const nc = await connectNats({ servers: server.url })
    const { seq } = await jetstream(nc).publish(`${stage.namespace}.log.0.nonsense`, '{}')
    await nc.close()
    await until('that is told of', () => of('flowstone:engine.bad_fact').length > 0)
    expect(of('flowstone:engine.bad_fact')).toEqual([{ shard: 0, seq, reason: 'nonsense is no fact of FlowStone' }])
  })
})
