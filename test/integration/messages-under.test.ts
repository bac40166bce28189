import { jetstream, jetstreamManager } from '@nats-io/jetstream'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { Connection } from '../../src/log/connection.ts'
import { messagesUnder } from '../../src/log/messages-under.ts'
import { directSince } from '../../src/log/nats.ts'
import { useServer } from '../kit/fixture.ts'

const COUNT = 5000
const server = useServer({ syncInterval: 'default' })
let connection: Connection

beforeAll(async () => {
  connection = await Connection.open({ servers: server.url })
  const jsm = await jetstreamManager(connection.nc)
  await jsm.streams.add({ name: 'under', subjects: ['under.>'], allow_direct: true })
  const js = jetstream(connection.nc)
  await Promise.all(Array.from({ length: COUNT }, (_, i) => js.publish(`under.${i % 2 === 1 ? 'even' : 'odd'}`)))
})
afterAll(() => connection.close())

const read = (from?: number | Date) => messagesUnder(connection, 'under', ['under.even'], from)

async function seqsOf(reading: ReturnType<typeof read>): Promise<number[]> {
  const seqs: number[] = []
  for await (const { seq } of reading) seqs.push(seq)
  return seqs
}

it('all under a subject are read in order, from where one says', async () => {
  expect(await seqsOf(read(101))).toEqual(Array.from({ length: (COUNT - 100) / 2 }, (_, i) => 102 + 2 * i))
})

it('a time before all is before the first message, and one after all behind the last', async () => {
  const since = (at: string) => directSince(connection.nc, 'under', new Date(at), 'under.even', 2000)
  const early = ['-000001-12-31T23:00:00Z', '0000-01-01T00:00:00Z', '1600-01-01T00:00:00Z', '1970-01-01T00:00:00Z']
  for (const at of early) expect((await since(at))?.seq, at).toBe(2)
  for (const at of ['2262-12-31T00:00:00Z', '9999-12-31T00:00:00Z', '+010000-01-01T00:00:00Z'])
    expect(await since(at), at).toBeUndefined()
  for (const at of early) {
    const reading = read(new Date(at))
    expect((await reading.next()).value?.seq, at).toBe(2)
    await reading.return(undefined)
  }
})

it('the reading ends where the rest is purged meanwhile', async () => {
  const reading = read()
  expect((await reading.next()).value?.seq).toBe(2)
  await (await jetstreamManager(connection.nc)).streams.purge('under', { filter: 'under.even' })
  const rest = await seqsOf(reading)
  // What the server had sent by then: as much as the reader holds, and asks for ahead.
  expect(rest.length).toBeLessThan(COUNT / 2 - 1)
  expect(await seqsOf(read())).toEqual([])
})
