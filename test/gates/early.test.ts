import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { type AddressInfo, connect as connectTcp, createServer } from 'node:net'
import { connect as connectNats } from '@nats-io/transport-node'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { keepEarly } from '../../src/gates/early.ts'
import { gateSettings } from '../../src/gates/settings.ts'
import { hashOfCorrelationKey, hashOfToken } from '../../src/gates/token.ts'
import { asset, connect, type Flow, pipeline, SignalRejectedError } from '../../src/index.ts'
import { Appender } from '../../src/log/appender.ts'
import { Connection } from '../../src/log/connection.ts'
import { factEntry } from '../../src/log/entries.ts'
import { ensureTaskConsumer } from '../../streams/consumers.ts'
import type { DraftOf, FactDraft } from '../../streams/facts.ts'
import { assetName, parseRunId } from '../../streams/ids.ts'
import { jetstream, jetstreamManager } from '../../streams/jetstream.ts'
import { namesOf } from '../../streams/subjects.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { GATES, gateOf, untilSuspended } from './kit.ts'

const server = useServer({ syncInterval: 'default' })

async function reason(signalling: Promise<unknown>): Promise<string> {
  const error = await rejection(signalling)
  if (!(error instanceof SignalRejectedError)) throw error
  return error.reason
}

const named = asset('named', {
  execute: (ctx) =>
    ctx.signalGate({ correlationKey: ctx.partition ?? '', payloadSchema: z.object({ n: z.number() }), timeout: '1h' }),
  onSignal: (_, payload: { n: number }) => payload.n,
})
const COUNT = 400
const early = pipeline('early', [named])
const signalled = async (flow: Flow, base: string, n: number, key?: string): Promise<unknown> =>
  await flow.gates.signalByCorrelationKey(
    base,
    { n },
    { keepFor: '1m', ...(key === undefined ? {} : { idempotencyKey: key }) },
  )

describe('a signal by correlation key that comes before its gate', () => {
  it('a signal by correlation key that comes before its gate is refused, unless whoever signals asks that it is kept', async () => {
    await using stage = await openStage(server.url, early, { gates: GATES })
    const told: unknown[] = []
    const listen = (event: unknown): void => void told.push(event)
    subscribe('flowstone:gate.signal', listen)
    expect(await reason(stage.flow.gates.signalByCorrelationKey('nobody', { n: 1 }))).toBe('not_found')
    expect(await signalled(stage.flow, 'kept', 1)).toEqual({ status: 'accepted', gate: '', repeated: false })
    const run = await stage.flow.materialize(named, { partition: 'kept' })
    expect(await run.result()).toBe(1)
    const { id } = await gateOf(stage.flow, run.id)
    expect(told).toContainEqual({ gate: id, run: run.id, asset: 'named', waitedMs: 0 })
    for (const keepFor of ['25h', 0] as const)
      await expect(stage.flow.gates.signalByCorrelationKey('kept too', 1, { keepFor })).rejects.toThrow(
        /keepFor must be/,
      )
    expect(await reason(stage.flow.gates.signalByCorrelationKey('large', 'x'.repeat(70_000), { keepFor: '1m' }))).toBe(
      'invalid_payload',
    )
    unsubscribe('flowstone:gate.signal', listen)
  })

  it('a signal by correlation key that comes before its gate counts once: a second one is refused, the same one again is accepted again, and the next gate of that name waits', async () => {
    await using stage = await openStage(server.url, early, { gates: GATES })
    const { flow } = stage
    await signalled(flow, 'once', 1, 'first')
    expect(await signalled(flow, 'once', 1, 'first')).toMatchObject({ repeated: true })
    expect(await reason(signalled(flow, 'once', 2, 'second'))).toBe('already_signaled')
    expect(await (await flow.materialize(named, { partition: 'once' })).result()).toBe(1)
    expect(await flow.gates.signalByCorrelationKey('once', { n: 1 }, { idempotencyKey: 'first' })).toMatchObject({
      repeated: true,
    })
    const next = await flow.materialize(named, { partition: 'once', upstream: 'all', key: 'again' })
    const gate = await gateOf(flow, next.id)
    expect(gate.status).toBe('waiting')
    await flow.gates.signalById(gate.id, { n: 3 })
    expect(await next.result()).toBe(3)
  })

  it('an early signal by correlation key that the gate does not take is dropped, and the gate waits on', async () => {
    await using stage = await openStage(server.url, early, { gates: GATES })
    await stage.flow.gates.signalByCorrelationKey('wrong', { n: 'no number' }, { keepFor: '1m' })
    const run = await stage.flow.materialize(named, { partition: 'wrong' })
    const gate = await gateOf(stage.flow, run.id)
    expect(gate.status).toBe('waiting')
    await stage.flow.gates.signalByCorrelationKey('wrong', { n: 5 })
    expect(await run.result()).toBe(5)
  })

  it('a signal by correlation key that comes before its gate is never lost, however the two meet', {
    timeout: 180_000,
  }, async () => {
    await using stage = await openStage(server.url, early, { gates: GATES, worker: { concurrency: 20 } })
    const other = await stage.connect({ gates: GATES })
    const results = await Promise.all(
      Array.from({ length: COUNT }, async (_, n) => {
        const partition = `meets-${n}`
        const starting = stage.flow.materialize(named, { partition })
        // From before the request to after the gate is there, as chance has it.
        const signalling =
          n % 2 === 0 ? signalled(other, partition, n) : starting.then(() => signalled(other, partition, n))
        // That its own word was first, whoever carried it to the gate, is no refusal.
        expect(await signalling).toMatchObject({ status: 'accepted', repeated: false })
        return await (await starting).result()
      }),
    )
    expect(results).toEqual(Array.from({ length: COUNT }, (_, n) => n))
    // None is left for a later gate of the same name.
    const left = await stage.flow.materialize(named, { partition: 'meets-0', key: 'later' })
    const gate = await gateOf(stage.flow, left.id)
    await until('it waits', async () => (await left.status())?.assets.named?.status === 'suspended')
    expect((await stage.flow.gates.get(gate.id))?.status).toBe('waiting')
  })

  it('a signal by correlation key that comes before its gate answers one gate, also of two that open at the same time', {
    timeout: 180_000,
  }, async () => {
    await using stage = await openStage(server.url, early, { gates: GATES, worker: { concurrency: 40 } })
    const { flow } = stage
    const names = Array.from({ length: 20 }, (_, n) => `twins-${n}`)
    await Promise.all(names.map((name) => signalled(flow, name, 1)))
    const runs = names.flatMap((partition) => [1, 2].map((key) => ({ partition, key: `${partition} ${key}` })))
    const started = await Promise.all(runs.map((options) => flow.materialize(named, { ...options, upstream: 'all' })))
    const gates = await Promise.all(started.map(({ id }) => gateOf(flow, id)))
    const isAnswered = async (id: string): Promise<boolean> => (await flow.gates.get(id))?.status === 'signaled'
    const answered = async (): Promise<boolean[]> => await Promise.all(gates.map(({ id }) => isAnswered(id)))
    await until('each is taken', async () => (await answered()).filter(Boolean).length >= names.length)
    // Those that wait have looked for a signal, too.
    await until('nothing runs', () => stage.worker?.busy === 0)
    expect((await answered()).filter(Boolean)).toHaveLength(names.length)
  })

  it.each([
    ['openGate', ''],
    ['signalGate', ''],
    ['signalGate', ', and no engine has read that it waits'],
  ] as const)(
    'a signal by correlation key that comes before its gate is found when the worker that called %s died before it looked%s',
    async (call, when) => {
      const lost = asset('lost', {
        execute: async (ctx) =>
          call === 'signalGate'
            ? ctx.signalGate({ correlationKey: 'lost' })
            : (await ctx.openGate({ correlationKey: 'lost' })).wait(),
        onSignal: (_, payload: { n: number }) => payload.n,
      })
      const alone = pipeline('alone', [lost])
      await using stage = await openStage(server.url, alone, { gates: GATES, worker: false })
      const { flow, namespace } = stage
      const isFolded = when === ''
      const names = namesOf(namespace)
      const connection = await Connection.open({ servers: server.url })
      const jsm = await jetstreamManager(connection.nc)
      const at = { shard: 0, pipeline: 'alone', queue: 'default', priority: 1 }
      const durable = await ensureTaskConsumer(jsm, names, at, { ackWaitMs: 500 })
      await signalled(flow, 'lost', 7)
      const { id: run } = await flow.materialize(lost)
      const { keys } = gateSettings(GATES)
      const ids = { run: parseRunId(run).id, asset: assetName('lost'), gate: 'a1n1' }
      const correlationHash = hashOfCorrelationKey('lost')
      const opened: DraftOf<'gate.created'>['data'] = {
        kind: 'signal',
        attempt: 1,
        worker: 'dead',
        retriesMs: [],
        afterRetries: 'fail',
        keyId: 'k1',
        tokenHash: hashOfToken(keys.sign(`${run}.lost.a1n1`, 'k1')),
        correlationHash,
      }
      const facts: FactDraft[] = [
        { name: 'gate.created', ids, data: opened },
        { name: 'gate.correlated', ids: { hash: correlationHash }, data: ids },
      ]
      if (call === 'signalGate')
        facts.push({
          name: 'asset.suspended',
          ids: { run: ids.run, asset: ids.asset, pipeline: 'alone', attempt: '1' },
          data: { gate: 'a1n1', worker: 'dead' },
        })
      // The dead worker: it has the task, and has stored all this.
      const task = await (await jetstream(connection.nc).consumers.get(names.work(0), durable)).next()
      expect(task?.info.deliveryCount).toBe(1)
      if (!isFolded) {
        await stage.engine?.stop()
        const name = names.kvSubject(names.controlBucket, 'worker.dead')
        await jetstream(connection.nc).publish(name, JSON.stringify({ pipelines: ['alone'], beatMs: 1000 }))
      }
      const log = new Appender(connection, names.log(0))
      await log.append(...facts.map((fact) => factEntry(names, 0, fact)))
      if (call === 'signalGate' && isFolded) await untilSuspended(flow, run, 'lost')
      await flow.worker(alone, { ackWait: '500ms' })
      if (!isFolded) {
        const ends = names.fact(0, `asset.alone.lost.${run}.attempt_ended.1`)
        await until('it is taken for lost', async () => {
          const { state } = await jsm.streams.info(names.log(0), { subjects_filter: ends })
          return state.subjects?.[ends] === 1
        })
        await flow.engine()
      }
      await until('it is answered', async () => (await gateOf(flow, run)).status === 'signaled', 20_000)
      expect(await flow.run(run).result()).toBe(7)
      await connection.close()
    },
  )

  it('a signal by correlation key that comes before its gate is kept also when the one before expires as it is stored', async () => {
    await using stage = await openStage(server.url, early, { gates: GATES, worker: false })
    const { namespace } = stage
    const names = namesOf(namespace)
    const connection = await Connection.open({ servers: server.url })
    const jsm = await jetstreamManager(connection.nc)
    const signal = (idempotency: string) => ({ payload: { json: 1 }, idempotency })
    expect(await keepEarly({ connection, names }, 'expires', signal('first'), 60_000)).toBe(false)
    const bucket = names.kvStream(names.controlBucket)
    const filter = names.kvSubject(names.controlBucket, 'early.expires')
    let reads = 0
    const read: Connection['read'] = async (ask) => {
      reads += 1
      // It was refused because of the first signal, and looks what there is.
      if (reads === 3) await jsm.streams.purge(bucket, { filter })
      return await connection.read(ask)
    }
    const late = { nc: connection.nc, read } as Connection
    expect(await keepEarly({ connection: late, names }, 'expires', signal('second'), 60_000)).toBe(false)
    expect(reads).toBe(4)
    await expect(keepEarly({ connection, names }, 'expires', signal('third'), 60_000)).rejects.toThrow(
      /is kept already/,
    )
    await connection.close()
  })

  it('a signal by correlation key that comes before its gate is not kept when it is refused after all', async () => {
    await using stage = await openStage(server.url, early, { gates: GATES, worker: { concurrency: 20 } })
    const { flow, namespace } = stage
    // From its first question about what is kept on, the signaller is held up.
    const held: (() => void)[] = []
    let isHeld = false
    const proxy = createServer((near) => {
      const far = connectTcp(Number(new URL(server.url).port), '127.0.0.1')
      far.pipe(near)
      near.on('data', (data) => {
        const asks = data.includes(`STREAM.INFO.KV_${namespace}_control`)
        if (isHeld && (asks || held.length > 0)) held.push(() => far.write(data))
        else far.write(data)
      })
      for (const socket of [near, far]) socket.on('error', () => undefined)
      near.on('close', () => far.destroy())
    })
    await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve))
    const { port } = proxy.address() as AddressInfo
    const other = await connect({ servers: `nats://127.0.0.1:${port}`, namespace, gates: GATES })
    isHeld = true
    const signalling = reason(signalled(other, 'refused', 1))
    await until('it is held up', () => held.length > 0)
    const first = await flow.materialize(named, { partition: 'refused' })
    await flow.gates.signalById((await gateOf(flow, first.id)).id, { n: 2 })
    expect(await first.result()).toBe(2)
    isHeld = false
    for (const send of held) send()
    expect(await signalling).toBe('already_signaled')
    const next = await flow.materialize(named, { partition: 'refused', upstream: 'all', key: 'next' })
    const gate = await gateOf(flow, next.id)
    await until('it has looked', () => stage.worker?.busy === 0)
    expect((await flow.gates.get(gate.id))?.status).toBe('waiting')
    await other.close()
    proxy.close()
  })
})

describe('a large signal on a server with small messages', () => {
  const small = useServer({ syncInterval: 'default', maxPayload: 128 * 1024 })

  it('is stored again when its gate takes it, so that its object counts as new', async () => {
    const large = asset('large', {
      execute: (ctx) => ctx.signalGate({ correlationKey: 'large', timeout: '1h' }),
      onSignal: (_, payload: string) => payload.length,
    })
    await using stage = await openStage(small.url, pipeline('large', [large]), { gates: GATES })
    const { flow, namespace } = stage
    await flow.gates.signalByCorrelationKey('large', 'x'.repeat(40_000), { keepFor: '1m' })
    const nc = await connectNats({ servers: small.url })
    const jsm = await jetstreamManager(nc)
    const seq = async () =>
      (await jsm.streams.getMessage(`OBJ_${namespace}_blobs`, { last_by_subj: `$O.${namespace}_blobs.M.>` }))?.seq ?? 0
    const before = await seq()
    expect(before).toBeGreaterThan(0)
    expect(await (await flow.materialize(large)).result()).toBe(40_000)
    expect(await seq()).toBeGreaterThan(before)
    await nc.close()
  })

  it('answers its gate once, and ends its asset, when its object is gone', async () => {
    const large = asset('large', {
      retry: { maxAttempts: 2, backoff: '10ms' },
      execute: async (ctx) => (await ctx.openGate({ correlationKey: 'gone', timeout: '1h' })).wait(),
      onSignal: (_, payload: string) => payload.length,
    })
    await using stage = await openStage(small.url, pipeline('large', [large]), { gates: GATES })
    const { flow, namespace } = stage
    await flow.gates.signalByCorrelationKey('gone', 'x'.repeat(40_000), { keepFor: '1h' })
    const nc = await connectNats({ servers: small.url })
    await (await jetstreamManager(nc)).streams.purge(`OBJ_${namespace}_blobs`)
    await nc.close()
    const run = await flow.materialize(large)
    const message = expect.stringMatching(/the payload of the signal at gate .*a1n1 cannot be read: value /)
    expect(await rejection(run.result())).toMatchObject({ code: 'missing_value', message })
    expect(await gateOf(flow, run.id)).toMatchObject({ status: 'signaled', signal: { payload: undefined } })
    // It is kept no more: the next gate of the name waits for another one.
    const next = await flow.materialize(large)
    await untilSuspended(flow, next.id, 'large')
    await flow.gates.signalByCorrelationKey('gone', 'another')
    expect(await next.result()).toBe(7)
  })
})
