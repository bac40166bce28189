import { jetstream, jetstreamManager } from '@nats-io/jetstream'
import { connect } from '@nats-io/transport-node'
import { expect, it } from 'vitest'
import { testServer } from '../kit/server.ts'
import { until } from '../kit/until.ts'
import { compose } from './compose.ts'

/** A project of its own, so that a user's data is never touched. */
function cluster(...args: string[]): void {
  compose(['-p', 'flowstone-test', '--profile', 'cluster', ...args])
}

/** Compose services that run for the length of a test, with volumes that are deleted afterwards. */
function services(...names: string[]): Disposable {
  const down = () => cluster('down', '--volumes')
  try {
    cluster('up', '-d', '--wait', ...names)
  } catch (error) {
    down()
    throw error
  }
  return { [Symbol.dispose]: down }
}

async function storeOne(url: string, replicas: number): Promise<number> {
  const connection = await connect({ servers: url.split(','), maxReconnectAttempts: 20, reconnectTimeWait: 100 })
  try {
    const manager = await jetstreamManager(connection)
    await manager.streams.add({ name: 'things', subjects: ['things'], num_replicas: replicas })
    await jetstream(connection).publish('things', 'one more')
    return (await manager.streams.info('things')).state.messages
  } finally {
    await connection.close()
  }
}

it('docker compose up runs one node, whose data outlives the container', async () => {
  using _nats = services('nats')
  const url = 'nats://127.0.0.1:4222'
  expect(await storeOne(url, 1)).toBe(1)
  cluster('up', '-d', '--wait', '--force-recreate', 'nats')
  expect(await storeOne(url, 1)).toBe(2)
})

it('the profile `cluster` runs three nodes that replicate', async () => {
  using _nats = services('nats-1', 'nats-2', 'nats-3')
  const url = 'nats://127.0.0.1:4223,nats://127.0.0.1:4224,nats://127.0.0.1:4225'
  // Healthy means that each node is up; the first leader may take a moment longer.
  let stored = 0
  await until('a replicated stream takes a message', async () => {
    stored = await storeOne(url, 3).catch(() => 0)
    return stored > 0
  })
  cluster('kill', 'nats-1')
  await until('it goes on with two of three', async () => (await storeOne(url, 3).catch(() => 0)) > stored)
})

it('the test kit starts a server in a container', async () => {
  process.env.FLOWSTONE_TEST_NATS = 'container'
  await using server = await testServer()
  expect(await storeOne(server.url, 1)).toBe(1)
})
