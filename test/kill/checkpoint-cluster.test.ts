import { join } from 'node:path'
import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats } from '@nats-io/transport-node'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { Checkpointer } from '../../src/engine/shard/checkpoint.ts'
import { asset, connect, pipeline } from '../../src/index.ts'
import { Connection } from '../../src/log/connection.ts'
import { type RunningCluster, startCluster } from '../../src/server/index.ts'
import { ensureTopology } from '../../streams/topology.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { suspend } from '../kit/suspend.ts'
import { until } from '../kit/until.ts'

const scratch = scratchFolder()
let cluster: RunningCluster
beforeAll(async () => {
  cluster = await startCluster({ dir: join(scratch.path, 'cluster') })
}, 180_000)
afterAll(async () => {
  await cluster[Symbol.asyncDispose]()
  scratch[Symbol.dispose]()
})

it('in a cluster, a checkpoint that is refused because its own first try is still on its way waits for that', async () => {
  const admin = await connectNats({ servers: [...cluster.urls] })
  const { names } = await ensureTopology(admin, { namespace: 'pending', replicas: 3 })
  const jsm = await jetstreamManager(admin, { checkAPI: false })
  const bucket = names.kvStream(names.stateBucket(0))
  let leader = ''
  await until('all replicas are there', async () => {
    // While it has no leader, nobody answers.
    const placed = (await jsm.streams.info(bucket).catch(() => undefined))?.cluster
    leader = placed?.leader ?? ''
    return leader !== '' && placed?.replicas?.length === 2 && placed.replicas.every(({ current }) => current)
  })
  await admin.close()
  // Nodes are named n1, n2, n3.
  const at = Number(leader.slice(1)) - 1
  const followers = cluster.nodes.filter((_, i) => i !== at)
  const connection = await Connection.open({ servers: cluster.urls[at] ?? '' })
  try {
    const checkpointer = new Checkpointer(connection, names, 0, 'engine')
    await checkpointer.takeOver()
    await suspend(followers.map(({ pid }) => pid))
    let settled = false
    const startedMs = performance.now()
    const writing = checkpointer.write([], 7, undefined).finally(() => {
      settled = true
    })
    // The first try has no answer for 5 s; the second one is refused.
    await until('the second try was made', () => settled || performance.now() - startedMs > 5500)
    // Said with what became of it, should it have ended.
    expect(settled && (await Promise.allSettled([writing]))).toBe(false)
    for (const { pid } of followers) process.kill(pid, 'SIGCONT')
    await writing
    expect(checkpointer.seq).toBe(7)
  } finally {
    for (const { pid } of followers) process.kill(pid, 'SIGCONT')
    await connection.close()
  }
})

it('in a cluster of three, runs are sealed while a server is away, and are whole in what is left', async () => {
  const made: string[] = []
  const one = asset('one', { execute: (ctx) => made.push(ctx.runId) })
  const two = asset('two', { dependsOn: [one], execute: (_ctx, deps) => deps.one > 0 })
  const servers = cluster.urls[0] ?? ''
  const flow = await connect({ servers, namespace: 'sealing', replicas: 3 })
  try {
    const engine = await flow.engine({ sealAfter: '1s' })
    await flow.worker(pipeline('p', [one, two]))
    await engine.active
    const away = cluster.nodes[2]
    if (away) process.kill(away.pid, 'SIGSTOP')
    try {
      const ids = await Promise.all(
        Array.from({ length: 5 }, async (_, i) => {
          const run = await flow.materialize(two, { key: `key ${i}`, upstream: 'all' })
          expect(await run.result()).toBe(true)
          return run.id
        }),
      )
      const admin = await connectNats({ servers })
      // The server that is away may be the one that answers for all of JetStream.
      const jsm = await jetstreamManager(admin, { checkAPI: false })
      await until('nothing but the last fact is on the log', async () => {
        // While the log has no leader, nobody answers.
        const info = await jsm.streams
          .info('sealing_LOG_0', { subjects_filter: 'sealing.log.0.*.*.>' })
          .catch(() => undefined)
        if (!info) return false
        const { state } = info
        return Object.keys(state.subjects ?? {}).filter((subject) => ids.some((id) => subject.includes(id))).length <= 1
      })
      await admin.close()
      for (const [i, id] of ids.entries()) {
        const again = await flow.materialize(two, { key: `key ${i}`, upstream: 'all' })
        expect([again.id, again.isNew]).toEqual([id, false])
        expect(await again.result()).toBe(true)
      }
      expect(made).toHaveLength(5)
    } finally {
      if (away) process.kill(away.pid, 'SIGCONT')
    }
  } finally {
    await flow.close()
  }
})
