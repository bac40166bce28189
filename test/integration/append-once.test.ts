import { join } from 'node:path'
import { jetstreamManager } from '@nats-io/jetstream'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Appender } from '../../src/log/appender.ts'
import { Connection } from '../../src/log/connection.ts'
import type { Entry } from '../../src/log/nats.ts'
import { type RunningServer, startServer } from '../../src/server/index.ts'
import { InvalidError } from '../../streams/errors.ts'
import { scratchFolder } from '../kit/scratch.ts'

const STREAM = 'facts'
const scratch = scratchFolder()
let server: RunningServer
let connection: Connection
let appender: Appender

beforeAll(async () => {
  server = await startServer({ dir: join(scratch.path, 'nats') })
  connection = await Connection.open({ servers: server.url })
  const jsm = await jetstreamManager(connection.nc)
  await jsm.streams.add({ name: STREAM, subjects: ['facts.>'], allow_atomic: true, allow_direct: true })
  appender = new Appender(connection, STREAM)
})

afterAll(async () => {
  await connection.close()
  await server.stop()
  scratch[Symbol.dispose]()
})

function first(name: string): Entry {
  return { subject: `facts.${name}`, payload: Buffer.from(name), expect: { seq: 0 } }
}

async function countOf(name: string): Promise<number> {
  const jsm = await jetstreamManager(connection.nc)
  const { state } = await jsm.streams.info(STREAM, { subjects_filter: `facts.${name}` })
  return state.subjects?.[`facts.${name}`] ?? 0
}

test('appendOnce answers stored the first time and exists the second time', async () => {
  expect(await appender.appendOnce(first('one'))).toBe('stored')
  expect(await appender.appendOnce(first('one'))).toBe('exists')
  expect(await countOf('one')).toBe(1)
})

test('appendOnce answers stored to one of two callers at the same time', async () => {
  const answers = await Promise.all([appender.appendOnce(first('race')), appender.appendOnce(first('race'))])
  expect(answers.toSorted()).toEqual(['exists', 'stored'])
  expect(await countOf('race')).toBe(1)
})

test('appendOnce stores nothing of a batch when one of its entries exists', async () => {
  await appender.append(first('there'))
  expect(await appender.appendOnce(first('new'), first('there'))).toBe('exists')
  expect(await countOf('new')).toBe(0)
})

test('appendOnce throws errors that are not conflicts', async () => {
  const payload = new Uint8Array(connection.maxPayload + 1)
  await expect(appender.appendOnce({ ...first('large'), payload })).rejects.toThrow(InvalidError)
})
