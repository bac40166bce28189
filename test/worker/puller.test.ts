import { connect as connectNats } from '@nats-io/transport-node'
import { expect, it } from 'vitest'
import { Connection } from '../../src/log/connection.ts'
import { Puller } from '../../src/worker/pull/puller.ts'
import { bareNats } from '../kit/bare-nats.ts'
import { until } from '../kit/until.ts'

it('a request for tasks that got lost is asked again within 3 s, and one that the server knows of is not', async () => {
  await using server = await bareNats()
  // Stands in for the consumer's leader: a change of leaders cannot be had at the right moment.
  const leader = await connectNats({ servers: server.url })
  const asked: { readonly atMs: number; readonly reply: string; readonly batch: number }[] = []
  leader.subscribe('$JS.API.CONSUMER.MSG.NEXT.S.C', {
    callback: (_, message) => {
      const { batch } = message.json<{ batch: number }>()
      asked.push({ atMs: performance.now(), reply: message.reply ?? '', batch })
    },
  })
  await leader.flush()
  const connection = await Connection.open({ servers: server.url })
  const on = { delivery: () => undefined, trouble: () => undefined }
  const puller = new Puller(connection, 'S', 'C', 0, on, { standing: true })
  puller.block(3)
  await until('it is asked again', () => asked.length === 2)
  const [first, second] = asked
  expect((second?.atMs ?? 0) - (first?.atMs ?? 0)).toBeLessThan(3000)
  expect(second?.batch).toBe(3)

  const { headers } = await import('@nats-io/nats-core')
  const alive = headers(100, 'Idle Heartbeat')
  const heartbeats = setInterval(() => leader.publish(second?.reply ?? '', '', { headers: alive }), 500)
  const began = performance.now()
  await until('it had time to ask again', () => performance.now() - began > 3500)
  clearInterval(heartbeats)
  expect(asked).toHaveLength(2)
  puller.stop()
  await connection.close()
  await leader.close()
})
