import { connect as connectNats } from '@nats-io/transport-node'
import { expect, it } from 'vitest'
import { Connection } from '../../src/log/connection.ts'
import { Liveness, workersSeen } from '../../src/worker/control/liveness.ts'
import { namesOf } from '../../streams/subjects.ts'
import { bareNats } from '../kit/bare-nats.ts'
import { listeningLogger } from '../kit/stage.ts'

it('an answer about tasks that cannot be read is passed over, and does not end what is read of the connection', async () => {
  await using server = await bareNats()
  const other = await connectNats({ servers: server.url })
  const names = namesOf('ns')
  other.subscribe(names.holders('p'), {
    callback: (_, message) => {
      message.respond('[[[[')
      message.respond(JSON.stringify({ worker: 'other', holds: ['0.1'], ended: ['0.2'] }))
    },
  })
  await other.flush()
  const connection = await Connection.open({ servers: server.url }, listeningLogger())
  const liveness = new Liveness(connection, names, { id: 'own', pipelines: ['p'], ackWaitMs: 500, isHeld: () => false })
  const heard = await liveness.ask('p', ['0.1', '0.2'], new Set(['other']))
  expect([[...heard.alive], [...heard.held], [...heard.ended]]).toEqual([['other'], ['0.1'], ['0.2']])
  await connection.nc.flush()
  expect(connection.status.badMessages).toBe(1)
  await connection.close()
  await other.close()
})

it('a worker is seen also beside a name that no worker wrote', async () => {
  const names = namesOf('ns')
  const at = (id: string, text: string) => ({
    ...{ subject: names.kvSubject(names.controlBucket, `worker.${id}`), payload: Buffer.from(text), timeMs: 5 },
    ...{ seq: 1, headers: new Map() },
  })
  const messages = [at('odd', '[[[['), at('own', '{"pipelines":["p"],"beatMs":1000}'), at('gone', '')]
  const connection = { read: async () => messages } as unknown as Connection
  expect(await workersSeen(connection, names)).toEqual([{ id: 'own', seenMs: 5, beatMs: 1000, pipelines: ['p'] }])
})
