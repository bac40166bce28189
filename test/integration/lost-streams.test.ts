import { jetstreamManager } from '@nats-io/jetstream'
import { headers } from '@nats-io/nats-core'
import { connect as connectNats } from '@nats-io/transport-node'
import { describe, expect, it } from 'vitest'
import { asset, pipeline } from '../../src/index.ts'
import { deleteStream } from '../kit/engine.ts'
import { useServer } from '../kit/fixture.ts'
import { freshNamespace, openStage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { within } from '../kit/within.ts'

const server = useServer({ syncInterval: 'default' })

const signal = (): AbortSignal => within(25_000)
let release = Promise.withResolvers<void>()
const one = asset('one', { execute: () => 1 })
const slow = asset('slow', {
  execute: async () => {
    await release.promise
    return 2
  },
})
const after = asset('after', { dependsOn: [slow], execute: (_, { slow: two }) => two + 1 })
const all = pipeline('lost', [one, slow, after])

describe('under an active engine', () => {
  it('a state bucket that is deleted is made and folded again', async () => {
    release = Promise.withResolvers()
    await using stage = await openStage(server.url, all)
    const { flow, namespace } = stage
    const done = await flow.materialize(one)
    await done.result()
    const open = await flow.materialize(after)
    await until('it runs', async () => (await open.status())?.assets.slow?.status === 'running')
    await deleteStream(server.url, `KV_${namespace}_state_0`)
    await until('the state is back', async () => (await done.status())?.status === 'succeeded', 25_000)
    release.resolve()
    expect(await open.result({ signal: signal() })).toBe(3)
    expect(stage.lines.join()).toContain('the state of shard 0 was lost')
  })

  it('tasks of a WORK stream that is deleted are enqueued again', async () => {
    release = Promise.withResolvers()
    release.resolve()
    await using stage = await openStage(server.url, all, { worker: false })
    const { flow, namespace } = stage
    const run = await flow.materialize(after)
    await until('it is queued', async () => (await run.status())?.assets.slow?.status === 'queued')
    await deleteStream(server.url, `${namespace}_WORK_0`)
    await until('it is made again', () => stage.lines.some((line) => line.includes(`${namespace}_WORK_0 was gone`)))
    await flow.worker(all)
    expect(await run.result({ signal: signal() })).toBe(3)
  })

  it('buckets of control and of limits and the stream of triggers that are deleted are made again, and it works on', async () => {
    await using stage = await openStage(server.url, all, { shards: 3 })
    const { flow, namespace } = stage
    const streams = [`KV_${namespace}_control`, `KV_${namespace}_limits`, `${namespace}_TRIGGERS`]
    for (const stream of streams) await deleteStream(server.url, stream)
    await until('all are made again', () =>
      streams.every((stream) => stage.lines.some((line) => line.includes(`${stream} was gone`))),
    )
    const nc = await connectNats({ servers: server.url })
    await nc.request(`${namespace}.trigger.lost.one`, '{}', { timeout: 5000 })
    await nc.close()
    await until('the trigger started a run', async () => (await flow.runs()).length === 1, 20_000)
    const runs = await Promise.all(Array.from({ length: 9 }, () => flow.materialize(one)))
    for (const run of runs) expect(await run.result({ signal: signal() })).toBe(1)
    expect((await stage.connect()).shards).toBe(3)
    const slot = await flow.limiter.acquireSlot('s', 1)
    expect(slot).not.toBe('at_capacity')
  })
})

describe('a control bucket that is lost', () => {
  it('a control bucket that is lost does not turn three logs into one, and no run is done twice', async () => {
    const namespace = freshNamespace()
    let calls = 0
    const counted = asset('counted', { execute: () => ++calls })
    const only = pipeline('only', [counted])
    await using stage = await openStage(server.url, only, { namespace, shards: 3 })
    const runs = await Promise.all(Array.from({ length: 6 }, () => stage.flow.materialize(counted)))
    for (const run of runs) await run.result()
    await stage.engine?.stop()
    for (const bucket of ['control', 'state_0', 'state_1', 'state_2'])
      await deleteStream(server.url, `KV_${namespace}_${bucket}`)
    const other = await stage.connect()
    await (await other.engine()).active
    expect(other.shards).toBe(3)
    await until('all six are back', async () => (await other.runs()).length === 6)
    expect(await (await other.materialize(counted)).result({ signal: signal() })).toBe(7)
  })
})

describe('what stands in the claim and no engine wrote', () => {
  it.each([
    ['garbage', 'no json', '2s'],
    ['a claim without its time to live', '{"engine":"dead"}', undefined],
    ['a claim of nobody', '[]', '2s'],
  ])('(%s) is said, and keeps no engine from its work', async (_, text, ttl) => {
    const namespace = freshNamespace()
    await using stage = await openStage(server.url, all, { namespace, engine: false })
    const nc = await connectNats({ servers: server.url })
    const h = headers()
    if (ttl) h.set('Nats-TTL', '1h')
    await nc.request(`$KV.${namespace}_control.claim.0`, text, { headers: h, timeout: 5000 })
    await nc.close()
    const engine = await stage.flow.engine()
    await engine.active
    expect(await (await stage.flow.materialize(one)).result({ signal: signal() })).toBe(1)
    expect(stage.lines.join()).toContain(`key claim.0 of bucket ${namespace}_control`)
  })
})

describe('a history bucket that is lost', () => {
  it('a history that is lost is said, though a pipeline stands at the beginning of the log, until a rebuild goes on without it', async () => {
    await using stage = await openStage(server.url, all, { sealAfter: '1s', reconcileMs: 200 })
    const { flow, namespace, lines } = stage
    const history = `KV_${namespace}_history_0`
    const run = await flow.materialize(one)
    await run.result()
    const nc = await connectNats({ servers: server.url })
    const jsm = await jetstreamManager(nc)
    const onLog = async (): Promise<Record<string, number>> =>
      (await jsm.streams.info(`${namespace}_LOG_0`, { subjects_filter: `${namespace}.log.0.run.${run.id}.requested` }))
        .state.subjects ?? {}
    const again = await flow.materialize(one)
    await again.result()
    await until('the run has left the log', async () => Object.keys(await onLog()).length === 0, 60_000)
    expect((await jsm.streams.info(`${namespace}_LOG_0`)).state.first_seq).toBe(1)
    await deleteStream(server.url, history)
    await until('it is made again', () => lines.some((line) => line.includes(`${history} was gone`)), 60_000)
    // The engine that was active seals no more, and so does the next one.
    await stage.engine?.stop()
    const engine = await flow.engine({ sealAfter: '1s', reconcileMs: 200 })
    await engine.active
    await until('sealing ends', () => lines.some((line) => /not sealed: the history of shard 0 is gone/.test(line)))
    const found = async (): Promise<string[]> => (await flow.doctor()).map(({ check }) => check)
    expect(await found()).toContain('history.lost')
    expect((await flow.verify({ only: ['history'] })).findings).toMatchObject([{ kind: 'history_lost' }])
    expect(await (await flow.materialize(one)).result({ signal: signal() })).toBe(1)

    // A state that is made again would lack all that was sealed.
    expect(await flow.problems()).toEqual([])
    await engine.stop()
    await deleteStream(server.url, `KV_${namespace}_state_0`)
    const refused = await flow.engine({ sealAfter: '1s', reconcileMs: 200 })
    await expect(refused.active).rejects.toMatchObject({ code: 'history_lost' })
    expect((await flow.problems()).map(({ code }) => code)).toEqual(['history_lost'])
    await refused.stop()
    await flow.rebuild()
    await (await flow.engine({ sealAfter: '1s', reconcileMs: 200 })).active
    expect(await (await flow.materialize(one)).result({ signal: signal() })).toBe(1)
    expect(await found()).not.toContain('history.lost')
    await nc.close()
  })
})
