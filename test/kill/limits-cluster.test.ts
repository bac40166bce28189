import { join } from 'node:path'
import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats } from '@nats-io/transport-node'
import { expect, it } from 'vitest'
import { connect, type Flow } from '../../src/index.ts'
import { startCluster } from '../../src/server/index.ts'
import { namesOf } from '../../streams/subjects.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { until } from '../kit/until.ts'
import { type Grant, worstStretch } from './history.ts'

const NAMESPACE = 'cluster'
const RATE = { limit: 20, per: '500ms' } as const

it('a limit is kept while the server that leads its bucket is killed, and its callers hear nothing of it', async () => {
  using scratch = scratchFolder()
  await using cluster = await startCluster({ dir: join(scratch.path, 'cluster') })
  const flows: Flow[] = []
  // One after the other: the first one makes the streams.
  for (const url of cluster.urls) {
    const servers = [url, ...cluster.urls]
    const flow = await connect({ servers, namespace: NAMESPACE, replicas: 3 })
    await flow.setup()
    flows.push(flow)
  }
  const nc = await connectNats({ servers: [...cluster.urls] })
  const { limitsBucket, kvStream } = namesOf(NAMESPACE)
  const info = await (await jetstreamManager(nc)).streams.info(kvStream(limitsBucket))
  await nc.close()
  // Nodes are named n1, n2, n3.
  const leader = cluster.nodes[Number(info.cluster?.leader?.slice(1)) - 1]
  if (!leader) throw new Error(`no node ${info.cluster?.leader}`)

  const grants: Grant[] = []
  let over = false
  const loop = async ({ limiter }: Flow): Promise<void> => {
    while (!over) {
      const fromMs = performance.now()
      const answer = await limiter.check('b', RATE, { maxWait: '30s' })
      if (answer.allowed) grants.push({ fromMs, toMs: performance.now(), n: 1 })
      else await new Promise((resolve) => setTimeout(resolve, answer.waitMs))
    }
  }
  const loops = Promise.all(flows.flatMap((flow) => [loop(flow), loop(flow), loop(flow)]))
  const more = async (n: number): Promise<void> => {
    const before = grants.length
    await until(`${n} more grants`, () => grants.length >= before + n)
  }
  await more(60)
  await leader.kill()
  const killedMs = performance.now()
  await more(60)
  over = true
  await loops
  const worst = worstStretch(grants, 500)
  expect(worst).toBeLessThanOrEqual(20)
  expect(worst).toBeGreaterThanOrEqual(10)
  const back = grants.find(({ fromMs }) => fromMs > killedMs)?.toMs ?? Number.NaN
  console.info(
    `${grants.length} grants, at most ${worst} of 20; the next ${Math.round(back - killedMs)} ms after the kill`,
  )
  await Promise.all(flows.map((flow) => flow.close()))
})
