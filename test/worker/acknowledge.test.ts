import { connect as connectNats } from '@nats-io/transport-node'
import { expect, it } from 'vitest'
import { Connection } from '../../src/log/connection.ts'
import { acknowledge } from '../../src/worker/pull/acknowledge.ts'
import { bareNats } from '../kit/bare-nats.ts'
import { until } from '../kit/until.ts'

it('an acknowledgement of a limited queue is repeated until it is confirmed, and another one is not', async () => {
  await using server = await bareNats()
  const leader = await connectNats({ servers: server.url })
  const connection = await Connection.open({ servers: server.url })
  const heard: string[] = []
  const deaf = new Map([['limited', 2]])

  // Nobody listens yet: the consumer has no leader.
  acknowledge(connection, 'ack.early', { isLimited: true })
  await connection.nc.flush()
  leader.subscribe('ack.*', {
    callback: (_, message) => {
      const name = message.subject.slice('ack.'.length)
      heard.push(name)
      const left = deaf.get(name) ?? 0
      deaf.set(name, left - 1)
      if (left <= 0) message.respond()
    },
  })
  await leader.flush()
  await until('the early one is repeated', () => heard.includes('early'))
  acknowledge(connection, 'ack.limited', { isLimited: true })
  acknowledge(connection, 'ack.shared', { isLimited: false })
  const times = (name: string): number => heard.filter((one) => one === name).length
  await until('it is repeated', () => times('limited') >= 3)
  expect(times('shared')).toBe(1)
  await connection.close()
  await leader.close()
})
