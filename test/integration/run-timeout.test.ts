/** The time limit of a run: kept by the server, whatever its assets do. */

import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats } from '@nats-io/transport-node'
import { describe, expect, it } from 'vitest'
import { asset, InvalidError, pipeline } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { factsOf, openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })

const secrets = [{ id: 'k1', secret: 'x'.repeat(40) }]

/** What is left of timers on the log of a run. */
async function timersOf(namespace: string, run: string): Promise<number> {
  const nc = await connectNats({ servers: server.url })
  try {
    const jsm = await jetstreamManager(nc)
    const filter = `${namespace}.log.0.run.${run}.timer`
    const info = await jsm.streams.info(`${namespace}_LOG_0`, { subjects_filter: filter })
    return Object.keys(info.state.subjects ?? {}).length
  } finally {
    await nc.close()
  }
}

describe('a run with a time limit', () => {
  it('a run with a time limit fails with timeout when an asset hangs: what runs is aborted, what waits is cancelled', async () => {
    const aborted = Promise.withResolvers<unknown>()
    const hangs = asset('hangs', {
      execute: ({ signal }) => {
        signal.addEventListener('abort', () => aborted.resolve(signal.reason))
        return new Promise<number>(() => undefined)
      },
    })
    const next = asset('next', { dependsOn: [hangs], execute: () => 1 })
    await using stage = await openStage(server.url, pipeline('hanging', [hangs, next]))
    const run = await stage.flow.materialize(next, { timeout: '500ms' })
    const error = await rejection(run.result())
    expect(error.code).toBe('timeout')
    expect(error.message).toContain('the run took longer than its timeout of 500 ms')
    expect(await aborted.promise).toMatchObject({ code: 'cancelled' })
    await until('the state shows the end', async () => (await run.status())?.status === 'failed')
    const assets = (await run.status())?.assets
    expect([assets?.hangs?.status, assets?.next?.status]).toEqual(['cancelled', 'cancelled'])
    const cancelled = (await factsOf(stage.flow, run.id)).find(({ kind }) => kind === 'asset.cancelled')
    expect(cancelled?.data).toMatchObject({ reason: 'the run took longer than its timeout of 500 ms' })
  })

  it('a run with a time limit ends its gates and scatters too', async () => {
    const waits = asset('waits', { execute: ({ signalGate }) => signalGate({ timeout: '1h' }) })
    const spread = asset('spread', {
      scatter: () => [1, 2],
      execute: ({ scatterKey, signalGate }) => (scatterKey === 1 ? signalGate({ timeout: '1h' }) : 2),
    })
    const both = asset('both', { dependsOn: [waits, spread], execute: () => 1 })
    await using stage = await openStage(server.url, pipeline('gated', [waits, spread, both]), { gates: { secrets } })
    const run = await stage.flow.materialize(both, { timeout: '1s' })
    expect((await rejection(run.result())).code).toBe('timeout')
    await until('the scatter is closed', async () => {
      return (await stage.flow.scatter.status(`${run.id}.spread`)).status === 'cancelled'
    })
    await until('no gate waits', async () =>
      (await stage.flow.gates.list(run.id)).every(({ status }) => status === 'cancelled'),
    )
  })

  it('a run with a time limit that no worker and no engine takes up fails at once when an engine comes', async () => {
    const plain = asset('plain', { execute: () => 1 })
    const shard = pipeline('nobody', [plain], { timeout: '300ms' })
    await using stage = await openStage(server.url, shard, { worker: false, engine: false })
    const run = await stage.flow.materialize(plain)
    const engine = await stage.flow.engine()
    await engine.active
    expect((await rejection(run.result())).code).toBe('timeout')
  })

  it('a run with a time limit is that of its pipeline, also for a trigger, unless the request says Infinity; what ends in time leaves no timer', async () => {
    const hangs = asset('hangs', { execute: ({ partition }) => (partition ? 1 : new Promise<number>(() => undefined)) })
    const shard = pipeline('limited', [hangs], { timeout: '400ms' })
    await using stage = await openStage(server.url, shard)
    const nc = await connectNats({ servers: server.url })
    nc.publish(`${stage.namespace}.trigger.limited.hangs`, '{}')
    await nc.flush()
    await nc.close()
    await until('the triggered run has failed', async () => (await stage.flow.runs())[0]?.status === 'failed')
    const endless = await stage.flow.materialize(hangs, { timeout: Number.POSITIVE_INFINITY })
    await until('it runs', async () => (await endless.status())?.assets.hangs?.status === 'running')
    expect((await endless.status())?.deadline).toBeUndefined()
    await endless.cancel()
    const quick = await stage.flow.materialize(hangs, { partition: 'a', timeout: '1h' })
    expect(await quick.result()).toBe(1)
    expect(await timersOf(stage.namespace, quick.id)).toBe(0)
  })

  it('a run with a time limit refuses a limit that is none, or beyond a year', async () => {
    const plain = asset('plain', { execute: () => 1 })
    await using stage = await openStage(server.url, pipeline('bounds', [plain]), { worker: false, engine: false })
    for (const timeout of [0, '0s', '400d', Number.NaN, -1] as const) {
      const error = await rejection(stage.flow.materialize(plain, { timeout }))
      expect(error).toBeInstanceOf(InvalidError)
      expect(error.message).toMatch(/materialize: timeout must be/)
    }
    expect(() => pipeline('p', [plain], { timeout: '400d' })).toThrow(/pipeline p: timeout must be/)
    // @ts-expect-error An option that there is not.
    expect(() => pipeline('p', [plain], { timout: '1s' })).toThrow(/timout/)
  })
})
