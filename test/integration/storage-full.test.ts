import { jetstream, jetstreamManager, StorageType } from '@nats-io/jetstream'
import { connect as connectNats, type NatsConnection } from '@nats-io/transport-node'
import { expect, it } from 'vitest'
import { z } from 'zod'
import { asset, connect, input, pipeline, subscription } from '../../src/index.ts'
import { Appender } from '../../src/log/appender.ts'
import { Connection } from '../../src/log/connection.ts'
import { rawNats } from '../kit/raw-nats.ts'
import { factsOf, freshNamespace, listeningLogger, openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

/** Another stream takes all the room there is; returns what makes room again. */
async function fill(nc: NatsConnection): Promise<() => Promise<void>> {
  const jsm = await jetstreamManager(nc)
  const js = jetstream(nc)
  await jsm.streams.add({ name: 'FILL', subjects: ['fill'] })
  for (const size of [500_000, 5000, 100, 1]) {
    for (let full = false; !full; ) {
      full = await js.publish('fill', new Uint8Array(size)).then(
        () => false,
        () => true,
      )
    }
  }
  return async () => void (await jsm.streams.delete('FILL'))
}

it('storage that is full is said while work waits for it, costs no attempt, and work goes on when there is room', async () => {
  await using server = await rawNats({ jetstream: { max_file_store: 30 * 1024 * 1024 } })
  const release = Promise.withResolvers<void>()
  const executions = { small: 0, large: 0 }
  const small = asset('small', {
    retry: { maxAttempts: 1 },
    execute: async () => {
      executions.small += 1
      await release.promise
      return 'v'
    },
  })
  const large = asset('large', {
    retry: { maxAttempts: 1 },
    execute: async () => {
      executions.large += 1
      await release.promise
      return new Uint8Array(300_000).map((_, i) => (i * i) % 251)
    },
  })
  await using stage = await openStage(server.url, pipeline('p', [small, large]))
  const runs = [await stage.flow.materialize(small), await stage.flow.materialize(large)]
  await until('both run', () => executions.small + executions.large === 2)
  const nc = await connectNats({ servers: server.url })
  const empty = await fill(nc)
  release.resolve()
  const said = () => stage.lines.filter((line) => /JetStream storage is full/.test(line))
  await until('it is said', () => said().length > 0)
  await until('the log is among them', () => said().some((line) => line.includes(`${stage.namespace}_LOG_0: `)))
  expect(said()[0]).toMatch(/: insufficient resources; limit: max_file_store/)
  await expect(stage.flow.ready()).rejects.toMatchObject({
    code: 'unavailable',
    message: expect.stringMatching(/full/),
  })

  let requests = 0
  nc.subscribe('$JS.API.>', {
    callback: () => {
      requests += 1
    },
  })
  const namespace = freshNamespace()
  const newcomer = await connect({ servers: server.url, namespace, logger: listeningLogger() })
  const refused = await rejection(newcomer.setup())
  await newcomer.close()
  expect(refused).toMatchObject({ code: 'storage_full', message: expect.stringMatching(/storage is full/) })
  expect(requests).toBeLessThan(200)

  const { limiter } = stage.flow
  for (const asking of [
    limiter.take('l', [5, 'second'], { maxWait: '500ms' }),
    limiter.takeSlot('s', 1, { maxWait: '500ms' }),
  ])
    expect((await rejection(asking)).message).toContain('JetStream storage is full')

  const asked = stage.flow.materialize(small, { upstream: 'all' })
  await empty()
  expect(await runs[0]?.result()).toBe('v')
  expect((await runs[1]?.result()) as Uint8Array).toHaveLength(300_000)
  expect(await (await asked).result()).toBe('v')
  expect(executions).toEqual({ small: 2, large: 1 })
  for (const run of runs) {
    const kinds = (await factsOf(stage.flow, run.id)).map(({ kind }) => kind)
    expect(kinds).not.toContain('attempt.ended')
  }
  await until('room is said', () => stage.lines.some((line) => /stores messages of .* again/.test(line)))
  await nc.close()
})

it('an append that has waited for room for long enough says that nothing was stored; a patient one waits on', async () => {
  await using server = await rawNats()
  const nc = await connectNats({ servers: server.url })
  const jsm = await jetstreamManager(nc)
  await jsm.streams.add({ name: 'S', subjects: ['s.>'], max_bytes: 2000, discard: 'new' as never, allow_atomic: true })
  const logger = listeningLogger()
  const connection = await Connection.open({ servers: server.url }, logger)
  const payload = new Uint8Array(900)
  const entries = [1, 2, 3].map((i) => ({ subject: `s.${i}`, payload, expect: { seq: 0 } }))
  const patient = new Appender(connection, 'S', { fullGiveUpMs: Number.POSITIVE_INFINITY, giveUpMs: 5000 })
  const waiting = patient.append(...entries)
  const refused = await rejection(new Appender(connection, 'S', { giveUpMs: 300 }).append(...entries))
  expect(refused).toMatchObject({ code: 'storage_full', message: expect.stringMatching(/nothing was stored/) })
  expect(logger.lines).toContainEqual(expect.stringMatching(/storage is full \(S: .*max_bytes/))
  await jsm.streams.update('S', { max_bytes: 1_000_000 })
  expect((await waiting).seq).toBe(3)
  expect(connection.status.full).toEqual([])
  await connection.close()
  await nc.close()
})

it('batches that others leave open hold nobody up for good', async () => {
  await using server = await rawNats()
  const nc = await connectNats({ servers: server.url })
  const { headers } = await import('@nats-io/nats-core')
  const jsm = await jetstreamManager(nc)
  await jsm.streams.add({ name: 'S', subjects: ['s.>'], allow_atomic: true })
  const connection = await Connection.open({ servers: server.url }, listeningLogger())
  for (let i = 0; i < 50; i++) {
    const h = headers()
    h.set('Nats-Batch-Id', `left-open-${i}`)
    h.set('Nats-Batch-Sequence', '1')
    nc.publish('s.other', '{}', { headers: h })
  }
  await nc.flush()
  const appender = new Appender(connection, 'S')
  const payload = new Uint8Array(10)
  // Single messages need no batch, however many they are: each is sent by itself.
  const alone = new Set<string>()
  nc.subscribe('s.a.*', {
    callback: (_, { subject, headers: sent }) => {
      if (!sent?.has('Nats-Batch-Id')) alone.add(subject)
    },
  })
  await nc.flush()
  await Promise.all(
    Array.from({ length: 100 }, (_, i) => appender.append({ subject: `s.a.${i}`, payload, expect: { seq: 0 } })),
  )
  await until('each was sent by itself', () => alone.size === 100)
  // What must be stored together waits until the server lets go of one of the others (10 s).
  await appender.append(
    { subject: 's.b.1', payload, expect: { seq: 0 } },
    { subject: 's.b.2', payload, expect: { seq: 0 } },
  )
  await connection.close()
  await nc.close()
})

it('a worker whose subscription waits for room stops all the same', async () => {
  await using server = await rawNats({ jetstream: { max_file_store: 30 * 1024 * 1024 } })
  const nc = await connectNats({ servers: server.url })
  const jsm = await jetstreamManager(nc)
  await jsm.streams.add({ name: 'ORDERS', subjects: ['orders'], storage: StorageType.Memory })
  const order = input('order', z.object({ id: z.string() }))
  let read = 0
  const invoice = asset('invoice', { dependsOn: [order], execute: () => 1 })
  const on = subscription('on', {
    from: { stream: 'ORDERS' },
    run: invoice,
    key: (message) => {
      read += 1
      return message.json<{ id: string }>().id
    },
  })
  const shop = pipeline('shop', [order, invoice], { subscriptions: [on] })
  await using stage = await openStage(server.url, shop, { worker: { drainTimeout: '200ms' } })
  nc.publish('orders', '{"id":"first"}')
  await until('the first one is taken', async () => (await stage.flow.runs()).length === 1)
  const empty = await fill(nc)
  nc.publish('orders', '{"id":"second"}')
  await until('the second one is read', () => read >= 2)
  await until('its reader waits for room', () => stage.flow.connection.full.length > 0)
  let stopped = false
  void stage.worker?.stop().then(() => {
    stopped = true
  })
  await until('it is stopped', () => stopped, 30_000)
  await empty()
  await nc.close()
})

it('an engine that has no room for its checkpoint stops all the same, and the next one goes on', async () => {
  await using server = await rawNats()
  const one = asset('one', { execute: () => 1 })
  await using stage = await openStage(server.url, pipeline('p', [one]))
  const { flow, namespace } = stage
  const nc = await connectNats({ servers: server.url })
  const jsm = await jetstreamManager(nc)
  const state = `KV_${namespace}_state_0`
  await jsm.streams.update(state, { max_bytes: 1 })
  const run = await flow.materialize(one)
  await until('it has ended on the log', async () => {
    const subjects_filter = `${namespace}.log.0.run.${run.id}.finished`
    return (await jsm.streams.info(`${namespace}_LOG_0`, { subjects_filter })).state.subjects !== undefined
  })
  let stopped = false
  void stage.engine?.stop().then(() => {
    stopped = true
  })
  await until('it is stopped', () => stopped)
  await jsm.streams.update(state, { max_bytes: -1 })
  await (await flow.engine()).active
  expect(await run.result()).toBe(1)
  await nc.close()
})
