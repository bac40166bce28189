import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats } from '@nats-io/transport-node'
import { describe, expect, it } from 'vitest'
import { asset, type Flow, pipeline, SignalRejectedError } from '../../src/index.ts'
import { namesOf } from '../../streams/subjects.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage, rejection } from '../kit/stage.ts'
import { GATES, gateOf } from './kit.ts'

const server = useServer({ syncInterval: 'default' })

const NAME = 'invoice/17'
const paid = asset('paid', {
  execute: (ctx) => ctx.signalGate({ correlationKey: NAME, timeout: '1h' }),
  onSignal: (_, payload) => payload,
})
const deliveries = pipeline('deliveries', [paid])

async function opened(flow: Flow, partition: string): Promise<{ id: string; value: () => Promise<unknown> }> {
  const run = await flow.materialize(paid, { partition, upstream: 'all' })
  const gate = await gateOf(flow, run.id)
  return { id: gate.id, value: () => run.result() }
}

const send = (flow: Flow, idempotencyKey: string, amount = 100) =>
  flow.gates.signalByCorrelationKey(NAME, { amount }, { idempotencyKey })

describe.each([1, 3])('a delivery that is sent again, with %i shards of the log', (shards) => {
  it('answers no second gate of the same name', async () => {
    await using stage = await openStage(server.url, deliveries, { gates: GATES, shards })
    const { flow } = stage
    const one = await opened(flow, 'a')
    expect(await send(flow, 'delivery-1')).toMatchObject({ gate: one.id, repeated: false })
    const two = await opened(flow, 'b')
    expect(await send(flow, 'delivery-1')).toMatchObject({ gate: one.id, repeated: true })
    expect((await flow.gates.get(two.id))?.status).toBe('waiting')
    expect(await send(flow, 'delivery-2', 200)).toMatchObject({ gate: two.id, repeated: false })
    expect([await one.value(), await two.value()]).toEqual([{ amount: 100 }, { amount: 200 }])
  })

  it('answers one gate when many tries come at once, while gates are opened', async () => {
    await using stage = await openStage(server.url, deliveries, { gates: GATES, shards })
    const { flow } = stage
    const other = await stage.connect({ gates: GATES })
    const first = await opened(flow, 'a')
    const tries = Array.from({ length: 10 }, (_, n) => send(n % 2 ? flow : other, 'at once'))
    const more = await Promise.all(['b', 'c', 'd'].map((partition) => opened(flow, partition)))
    const answers = await Promise.all([...tries, ...Array.from({ length: 10 }, () => send(other, 'at once'))])
    expect(new Set(answers.map(({ gate }) => gate)).size).toBe(1)
    expect(answers.filter(({ repeated }) => !repeated)).toHaveLength(1)
    const ended = await Promise.all([first, ...more].map(({ id }) => flow.gates.get(id)))
    expect(ended.filter((gate) => gate?.status === 'signaled')).toHaveLength(1)
  })
})

describe('a delivery', () => {
  it('a delivery is known again when many gates of the name came after the one that it answered', async () => {
    await using stage = await openStage(server.url, deliveries, { gates: GATES })
    const { flow } = stage
    const first = await opened(flow, 'first')
    await send(flow, 'old')
    for (let n = 0; n < 12; n++) {
      const { id } = await opened(flow, `later ${n}`)
      await flow.gates.signalById(id, n)
    }
    const last = await opened(flow, 'last')
    expect(await send(flow, 'old')).toMatchObject({ gate: first.id, repeated: true })
    expect((await flow.gates.get(last.id))?.status).toBe('waiting')
  })

  it('a delivery is known again by the gate that it answered, where the record of deliveries was lost', async () => {
    await using stage = await openStage(server.url, deliveries, { gates: GATES })
    const { flow } = stage
    const one = await opened(flow, 'a')
    await send(flow, 'recorded')
    const names = namesOf(stage.namespace)
    const nc = await connectNats({ servers: server.url })
    const filter = names.kvSubject(names.controlBucket, 'delivery.>')
    const { purged } = await (await jetstreamManager(nc)).streams.purge(names.kvStream(names.controlBucket), { filter })
    await nc.close()
    expect(purged).toBe(1)
    const two = await opened(flow, 'b')
    expect(await send(flow, 'recorded')).toMatchObject({ gate: one.id, repeated: true })
    expect((await flow.gates.get(two.id))?.status).toBe('waiting')
  })

  it('a delivery that was kept before its gate was opened answers that gate only', async () => {
    await using stage = await openStage(server.url, deliveries, { gates: GATES })
    const { flow } = stage
    const early = () =>
      flow.gates.signalByCorrelationKey(NAME, { amount: 1 }, { idempotencyKey: 'early', keepFor: '1h' })
    await early()
    const one = await opened(flow, 'a')
    expect(await one.value()).toEqual({ amount: 1 })
    for (let n = 0; n < 10; n++) await flow.gates.signalById((await opened(flow, `between ${n}`)).id, n)
    const two = await opened(flow, 'b')
    expect(await early()).toMatchObject({ gate: one.id, repeated: true })
    expect((await flow.gates.get(two.id))?.status).toBe('waiting')
  })

  it('a delivery that was decided for a gate which then ended otherwise answers the next one that waits', async () => {
    await using stage = await openStage(server.url, deliveries, { gates: GATES })
    const { flow } = stage
    const one = await opened(flow, 'a')
    await flow.gates.cancel(one.id)
    const error = await rejection(send(flow, 'late'))
    expect(error).toBeInstanceOf(SignalRejectedError)
    expect(error).toMatchObject({ reason: 'cancelled' })
    const two = await opened(flow, 'b')
    expect(await send(flow, 'late')).toMatchObject({ gate: two.id, repeated: false })
  })

  it.each(['', 'x'.repeat(1025), 5, null])('with the key %j is refused', async (key) => {
    await using stage = await openStage(server.url, deliveries, { gates: GATES, worker: false, engine: false })
    const options = JSON.parse(JSON.stringify({ idempotencyKey: key }))
    await expect(stage.flow.gates.signalByCorrelationKey(NAME, 1, options)).rejects.toThrow(
      'idempotencyKey must be text',
    )
  })
})
