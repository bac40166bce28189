import { join } from 'node:path'
import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats } from '@nats-io/transport-node'
import { expect, it } from 'vitest'
import { Appender } from '../../src/log/appender.ts'
import { Connection } from '../../src/log/connection.ts'
import { ERR, publish } from '../../src/log/nats.ts'
import { startCluster } from '../../src/server/index.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { suspend } from '../kit/suspend.ts'
import { until } from '../kit/until.ts'

const payload = new Uint8Array([1])

it('in a cluster, an append that is refused because of one still on its way is no conflict, and gets the place', async () => {
  using scratch = scratchFolder()
  await using cluster = await startCluster({ dir: join(scratch.path, 'cluster') })
  const admin = await connectNats({ servers: [...cluster.urls] })
  const jsm = await jetstreamManager(admin)
  const config = { name: 'S', subjects: ['s.>'], num_replicas: 3, allow_atomic: true, allow_direct: true }
  await jsm.streams.add(config)
  await until('all replicas are there', async () =>
    ((await jsm.streams.info('S')).cluster?.replicas ?? []).every(({ current }) => current),
  )
  const { cluster: placed } = await jsm.streams.info('S')
  await admin.close()
  // Nodes are named n1, n2, n3.
  const at = Number(placed?.leader?.slice(1)) - 1
  const followers = cluster.nodes.filter((_, i) => i !== at)
  const connections = await Promise.all([0, 1].map(() => Connection.open({ servers: cluster.urls[at] ?? '' })))
  const [first, second] = connections.map((connection) => new Appender(connection, 'S'))

  await suspend(followers.map(({ pid }) => pid))
  try {
    // Stored only if nothing stands on s.end; and on its way for as long as the others stand still.
    const more = first?.append(
      { subject: 's.more', payload, expect: { seq: 0 } },
      { subject: 's.timer', payload, expect: { seq: 0, subject: 's.end' } },
    )
    // Never stored: the sequence is wrong. But the answer is another one while something is on its
    // way there.
    const probe = async (): Promise<number | undefined> => {
      const wrong = { subject: 's.probe', payload, expect: { seq: 99, subject: 's.more' } }
      const { nc } = connections[1] ?? {}
      return nc && (await publish(nc, wrong, undefined, 2000)).error?.errCode
    }
    await until('it is on its way', async () => (await probe()) === ERR.wrongLastSequenceConstant)
    const end = second?.append({ subject: 's.end', payload, expect: { seq: 0 } })
    const ended = Promise.allSettled([end])
    // Asked later over the same connection, so the end was refused by now.
    await probe()
    for (const { pid } of followers) process.kill(pid, 'SIGCONT')
    await more
    expect(await ended).toEqual([{ status: 'fulfilled', value: { seq: 3 } }])
  } finally {
    for (const { pid } of followers) process.kill(pid, 'SIGCONT')
    await Promise.all(connections.map((connection) => connection.close()))
  }
})
