import { connect as connectNats } from '@nats-io/transport-node'
import { afterEach, expect, it, vi } from 'vitest'
import { Connection } from '../../src/log/connection.ts'
import { Liveness, workersSeen } from '../../src/worker/control/liveness.ts'
import { namesOf } from '../../streams/subjects.ts'
import { bareNats } from '../kit/bare-nats.ts'
import { listeningLogger } from '../kit/stage.ts'

afterEach(() => void vi.useRealTimers())

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

it('an answer that came while this process was held up is heard, however late it is read', async () => {
  vi.useFakeTimers()
  let onAnswer: ((error: null, message: unknown) => void) | undefined
  const nc = {
    ...{ options: {}, publish: () => undefined },
    subscribe: (_: string, { callback }: { callback: typeof onAnswer }) => {
      onAnswer = callback
      return { unsubscribe: () => undefined }
    },
    // What the server sent before its answer to this is read before it.
    flush: async () => {
      const data = Buffer.from(JSON.stringify({ worker: 'other', holds: ['0.1'], ended: [] }))
      onAnswer?.(null, { data })
    },
  }
  const connection = { nc, isClosed: false, read: (ask: (of: unknown) => unknown) => ask(nc) } as unknown as Connection
  const options = { id: 'own', pipelines: ['p'], ackWaitMs: 500, isHeld: () => false }
  const asking = new Liveness(connection, namesOf('ns'), options).ask('p', ['0.1'], new Set(['other']))
  await vi.advanceTimersByTimeAsync(1000)
  expect([...(await asking).held]).toEqual(['0.1'])
})

it('where nobody is expected to answer nobody is asked, and what this worker has stored counts', async () => {
  const nc = { publish: () => expect.unreachable('nobody is asked') }
  const connection = { nc } as unknown as Connection
  const options = { id: 'own', pipelines: ['p'], ackWaitMs: 500, isHeld: () => true }
  const liveness = new Liveness(connection, namesOf('ns'), options)
  liveness.ended('0.1')
  const { alive, held, ended } = await liveness.ask('p', ['0.1', '0.2'], new Set())
  expect([[...alive], [...held], [...ended]]).toEqual([[], [], ['0.1']])
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
