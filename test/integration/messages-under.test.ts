import { jetstream, jetstreamManager } from '@nats-io/jetstream'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { Connection } from '../../src/log/connection.ts'
import { messagesUnder } from '../../src/log/messages-under.ts'
import { useServer } from '../kit/fixture.ts'

const COUNT = 1400
const server = useServer()
let connection: Connection

beforeAll(async () => {
  connection = await Connection.open({ servers: server.url })
  const jsm = await jetstreamManager(connection.nc)
  await jsm.streams.add({ name: 'under', subjects: ['under.>'] })
  const js = jetstream(connection.nc)
  await Promise.all(Array.from({ length: COUNT }, (_, i) => js.publish(`under.${i % 2 === 1 ? 'even' : 'odd'}`)))
})
afterAll(() => connection.close())

const read = (from?: number) => messagesUnder(connection, 'under', ['under.even'], from)

async function seqsOf(reading: ReturnType<typeof read>): Promise<number[]> {
  const seqs: number[] = []
  for await (const { seq } of reading) seqs.push(seq)
  return seqs
}

it('all under a subject are read in order, from where one says', async () => {
  expect(await seqsOf(read(101))).toEqual(Array.from({ length: (COUNT - 100) / 2 }, (_, i) => 102 + 2 * i))
})

it('the reading ends where the rest is purged meanwhile', async () => {
  const reading = read()
  expect((await reading.next()).value?.seq).toBe(2)
  await (await jetstreamManager(connection.nc)).streams.purge('under', { filter: 'under.even' })
  const rest = await seqsOf(reading)
  // What the server had sent by then: 500 ahead at most, and the next ones when half are read.
  expect(rest.length).toBeLessThan(COUNT / 2 - 1)
  expect(await seqsOf(read())).toEqual([])
})
