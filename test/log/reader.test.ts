import { jetstreamManager } from '@nats-io/jetstream'
import { expect, it, vi } from 'vitest'
import { Connection } from '../../src/log/connection.ts'
import { Reader } from '../../src/log/reader.ts'
import { useServer } from '../kit/fixture.ts'

const server = useServer({ syncInterval: 'default' })
const STREAM = 'READ'

it('a stream whose answer about its end comes behind later messages is not taken for another one', async () => {
  const connection = await Connection.open({ servers: server.url })
  const other = await Connection.open({ servers: server.url })
  const { nc } = connection
  const jsm = await jetstreamManager(nc)
  await jsm.streams.add({ name: STREAM, subjects: ['read.>'] })
  const asked = Promise.withResolvers<void>()
  const released = Promise.withResolvers<void>()
  const reader = new Reader(connection, STREAM, 1)
  const seqs = async (): Promise<number[]> => (await reader.take(10)).map(({ seq }) => seq)
  await nc.request('read.it', 'first')
  expect(await seqs()).toEqual([1])
  const publish = nc.publish.bind(nc)
  vi.spyOn(nc, 'publish').mockImplementation((subject, payload, options) => {
    const reply = options?.reply
    if (reply === undefined || !subject.endsWith(`STREAM.INFO.${STREAM}`)) return publish(subject, payload, options)
    void other.nc.request(subject, payload).then(async ({ data }) => {
      asked.resolve()
      await released.promise
      publish(reply, data)
    })
  })
  try {
    await asked.promise
    for (let i = 0; i < 3; i++) await nc.request('read.it', 'late')
    const read: number[] = []
    while (read.length < 3) read.push(...(await seqs()))
    expect(read).toEqual([2, 3, 4])
    released.resolve()
    await nc.request('read.it', 'later')
    expect(await seqs()).toEqual([5])
  } finally {
    released.resolve()
    reader.stop()
    vi.restoreAllMocks()
    await connection.close()
    await other.close()
  }
})

it('a stream that is made anew behind its reader is another one', async () => {
  const connection = await Connection.open({ servers: server.url })
  const { nc } = connection
  const jsm = await jetstreamManager(nc)
  const stream = { name: 'AGAIN', subjects: ['again.>'] }
  await jsm.streams.add(stream)
  await nc.request('again.it', 'one')
  const reader = new Reader(connection, stream.name, 1)
  try {
    expect(await reader.take(10)).toHaveLength(1)
    await jsm.streams.delete(stream.name)
    await jsm.streams.add(stream)
    await expect(reader.take(10)).rejects.toMatchObject({ code: 'log_changed' })
  } finally {
    reader.stop()
    await connection.close()
  }
})

it('reading up to a position ends where what is left of the stream has gone', async () => {
  const connection = await Connection.open({ servers: server.url })
  const { nc } = connection
  const jsm = await jetstreamManager(nc)
  await jsm.streams.add({ name: 'GAPS', subjects: ['gaps.>'] })
  for (let i = 0; i < 4; i++) await nc.request('gaps.it', 'one')
  for (const seq of [1, 4]) await jsm.streams.deleteMessage('GAPS', seq)
  const reader = new Reader(connection, 'GAPS', 1)
  try {
    const read: number[] = []
    for (;;) {
      const messages = await reader.take(10, 4)
      if (messages.length === 0) break
      read.push(...messages.map(({ seq }) => seq))
    }
    expect(read).toEqual([2, 3])
    expect(await reader.take(10, 3)).toEqual([])
  } finally {
    reader.stop()
    await connection.close()
  }
})
