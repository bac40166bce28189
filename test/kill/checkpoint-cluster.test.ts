import { join } from 'node:path'
import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats } from '@nats-io/transport-node'
import { expect, it } from 'vitest'
import { Checkpointer } from '../../src/engine/shard/checkpoint.ts'
import { Connection } from '../../src/log/connection.ts'
import { startCluster } from '../../src/server/index.ts'
import { ensureTopology } from '../../streams/topology.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { until } from '../kit/until.ts'

it('in a cluster, a checkpoint that is refused because its own first try is still on its way waits for that', async () => {
  using scratch = scratchFolder()
  await using cluster = await startCluster({ dir: join(scratch.path, 'cluster') })
  const admin = await connectNats({ servers: [...cluster.urls] })
  const { names } = await ensureTopology(admin, { namespace: 'pending', replicas: 3 })
  const jsm = await jetstreamManager(admin)
  const bucket = names.kvStream(names.stateBucket(0))
  await until('all replicas are there', async () =>
    ((await jsm.streams.info(bucket)).cluster?.replicas ?? []).every(({ current }) => current),
  )
  const { cluster: placed } = await jsm.streams.info(bucket)
  await admin.close()
  // Nodes are named n1, n2, n3.
  const at = Number(placed?.leader?.slice(1)) - 1
  const followers = cluster.nodes.filter((_, i) => i !== at)
  const connection = await Connection.open({ servers: cluster.urls[at] ?? '' })
  try {
    const checkpointer = new Checkpointer(connection, names, 0, 'engine')
    await checkpointer.takeOver()
    for (const { pid } of followers) process.kill(pid, 'SIGSTOP')
    let settled = false
    const startedMs = performance.now()
    const writing = checkpointer.write([], 7, undefined).finally(() => {
      settled = true
    })
    // The first try has no answer for 5 s; the second one is refused.
    await until('the second try was made', () => settled || performance.now() - startedMs > 5500)
    expect(settled).toBe(false)
    for (const { pid } of followers) process.kill(pid, 'SIGCONT')
    await writing
    expect(checkpointer.seq).toBe(7)
  } finally {
    for (const { pid } of followers) process.kill(pid, 'SIGCONT')
    await connection.close()
  }
}, 60_000)
