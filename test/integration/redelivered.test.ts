/** A task that is delivered again: only one whose worker is gone has lost an attempt. */
import { jetstreamManager } from '@nats-io/jetstream'
import { createInbox, type Msg } from '@nats-io/nats-core'
import { connect as connectNats, type NatsConnection } from '@nats-io/transport-node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { asset, pipeline } from '../../src/index.ts'
import { ensureTaskConsumer } from '../../streams/consumers.ts'
import { namesOf } from '../../streams/subjects.ts'
import { useServer } from '../kit/fixture.ts'
import { factsOf, openStage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { within } from '../kit/within.ts'

const server = useServer({ syncInterval: 'default' })
let nc: NatsConnection
beforeAll(async () => {
  nc = await connectNats({ servers: server.url })
})
afterAll(async () => {
  await nc.close()
})

const once = { retry: { maxAttempts: 1 } } as const
const limit = () => ({ signal: within(20_000) })

/**
 * Has the next task of a queue delivered, and does with it what a worker would not: `answer`, or
 * nothing.
 */
async function deliver(namespace: string, name: string, answer: string | undefined, queue = 'default'): Promise<void> {
  const names = namesOf(namespace)
  const at = { shard: 0, pipeline: name, queue, priority: 1 }
  const consumer = await ensureTaskConsumer(await jetstreamManager(nc), names, at, { ackWaitMs: 1000 })
  const subject = `$JS.API.CONSUMER.MSG.NEXT.${names.work(0)}.${consumer}`
  const inbox = createInbox()
  const came = Promise.withResolvers<Msg>()
  const subscription = nc.subscribe(inbox, { max: 1, callback: (_, message) => came.resolve(message) })
  nc.publish(subject, JSON.stringify({ batch: 1, expires: 5e9 }), { reply: inbox })
  const message = await came.promise
  subscription.unsubscribe()
  if (!message.reply) throw new Error('nothing was delivered')
  if (answer !== undefined) nc.publish(message.reply, answer)
  await nc.flush()
}

describe('a task that is delivered a second time', () => {
  const one = asset('one', { ...once, execute: () => 1 })
  const many = asset('many', { ...once, scatter: () => [1, 2, 3], execute: ({ scatterKey }) => scatterKey })

  it.each<[string, string | undefined]>([
    ['was handed back', '-NAK'],
    ['was received by nobody', undefined],
  ])('because it %s costs no attempt, with one attempt in all', async (_, answer) => {
    await using stage = await openStage(server.url, pipeline('back', [one, many]), { worker: false })
    for (const target of [one, many] as const) {
      const run = await stage.flow.materialize<unknown>(target)
      await deliver(stage.namespace, 'back', answer)
      const other = await stage.connect()
      const worker = await other.worker(pipeline('back', [one, many]), { ackWait: '1s' })
      await run.result(limit())
      const kinds = (await factsOf(stage.flow, run.id)).map(({ kind }) => kind)
      expect(kinds).not.toContain('attempt.ended')
      expect(kinds).not.toContain('lease.lost')
      expect(kinds).not.toContain('lease.returned')
      await worker.stop()
    }
  })

  it('as a lease of a scatter that was handed back costs none of its instances an attempt', async () => {
    const spread = asset('spread', {
      ...once,
      scatter: () => [1, 2, 3],
      scatterOptions: { queue: 'instances' },
      execute: ({ scatterKey }) => scatterKey,
    })
    const shard = pipeline('lease', [spread])
    await using stage = await openStage(server.url, shard, { worker: { queues: ['default'] } })
    const run = await stage.flow.materialize(spread)
    await deliver(stage.namespace, 'lease', '-NAK', 'instances')
    const other = await stage.connect()
    await other.worker(shard, { ackWait: '1s' })
    await run.result(limit())
    const kinds = (await factsOf(stage.flow, run.id)).map(({ kind }) => kind)
    expect(kinds.filter((kind) => kind.startsWith('lease.'))).toEqual([])
  })

  it('while the worker that has it lives is left to that one, and runs once', async () => {
    const end = Promise.withResolvers<void>()
    let begun = 0
    const slow = asset('slow', {
      ...once,
      execute: async () => {
        begun += 1
        await end.promise
        return begun
      },
    })
    await using stage = await openStage(server.url, pipeline('alive', [slow]), { worker: { ackWait: '1s' } })
    const other = await stage.connect()
    await other.worker(pipeline('alive', [slow]), { ackWait: '1s' })
    let naks = 0
    const signs = nc.subscribe(`$JS.ACK.${stage.namespace}_WORK_0.>`, {
      callback: (_, message) => {
        if (message.string() !== '+WPI' || naks > 2) return
        naks += 1
        nc.publish(message.subject, '-NAK')
      },
    })
    const run = await stage.flow.materialize(slow)
    await until('it was delivered again, three times', () => naks > 2)
    await until('it is at work', () => begun === 1)
    end.resolve()
    expect(await run.result(limit())).toBe(1)
    signs.unsubscribe()
    expect((await factsOf(stage.flow, run.id)).map(({ kind }) => kind)).not.toContain('attempt.ended')
  })

  it('because its worker was cut off counts as lost, and a worker that ended in order leaves no name', async () => {
    await using stage = await openStage(server.url, pipeline('gone', [one]), { worker: false })
    const names = namesOf(stage.namespace)
    const jsm = await jetstreamManager(nc)
    const leftNames = async (): Promise<number> => {
      const filter = names.kvSubject(names.controlBucket, 'worker.*')
      const message = await jsm.streams.getMessage(names.kvStream(names.controlBucket), { last_by_subj: filter })
      return message && message.data.length > 0 ? 1 : 0
    }
    const other = await stage.connect()
    const worker = await other.worker(pipeline('gone', [one]), { ackWait: '1s' })
    expect(await leftNames()).toBe(1)
    await worker.stop()
    expect(await leftNames()).toBe(0)
  })
})
