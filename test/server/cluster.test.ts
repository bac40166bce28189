import { jetstream, jetstreamManager } from '@nats-io/jetstream'
import { connect } from '@nats-io/transport-node'
import { expect, it } from 'vitest'
import { startCluster } from '../../src/server/index.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { until } from '../kit/until.ts'

it('a cluster of three keeps a replicated stream going without one of its nodes, which can come back', async () => {
  using scratch = scratchFolder()
  await using cluster = await startCluster({ dir: scratch.path })
  expect(cluster.urls).toHaveLength(3)
  const connection = await connect({ servers: cluster.urls.slice(1) })
  const manager = await jetstreamManager(connection)
  const js = jetstream(connection)
  await manager.streams.add({ name: 'things', subjects: ['things'], num_replicas: 3 })
  await js.publish('things', 'one')

  await cluster.nodes[0]?.kill()
  // Until another leader is elected, publishing fails.
  await until('publishing works again', () =>
    js.publish('things', 'two', { msgID: 'two', timeout: 500 }).then(
      () => true,
      () => false,
    ),
  )
  const restarted = await cluster.restart(0)
  expect(restarted.url).toBe(cluster.urls[0])
  await until('the node has caught up', async () => {
    const { cluster: state } = await manager.streams.info('things')
    return state?.replicas?.every((replica) => replica.current && !replica.offline) === true
  })
  expect((await manager.streams.info('things')).state.messages).toBe(2)
  await connection.close()
})

it.each([0, 2, 11])('a cluster of %i is refused', async (nodes) => {
  await expect(startCluster({ nodes })).rejects.toMatchObject({ code: 'invalid' })
})
