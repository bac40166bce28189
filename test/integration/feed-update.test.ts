import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats } from '@nats-io/transport-node'
import { expect, it } from 'vitest'
import { asset, pipeline } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer()

it('the feed of an older namespace shows what is new, and nothing twice', async () => {
  const a = asset('a', { execute: () => 1 })
  await using stage = await openStage(server.url, pipeline('p', [a]), { shards: 2 })
  const { namespace, flow } = stage
  const nc = await connectNats({ servers: server.url })
  const jsm = await jetstreamManager(nc)
  const name = `${namespace}_FEED`
  const info = async () => await jsm.streams.info(name, { subjects_filter: '>' })
  const { config } = await info()
  // As it was before events and schedules were shown.
  await jsm.streams.delete(name)
  await jsm.streams.add({ ...config, sources: config.sources?.slice(0, 2) ?? [] })
  await (await flow.materialize(a)).result()
  await until('it is on the feed', async () => (await info()).state.messages === 2)
  const body = { v: 1, fact: 'schedule.missed', why: 'late', atMs: 7, lastMs: 7, count: 1 }
  nc.publish(`${namespace}.log.0.schedule.p.s.at.7.missed`, JSON.stringify(body))
  await flow.setup()
  expect((await info()).config.sources).toHaveLength(4)
  await (await flow.materialize(a)).result()
  await until('all is on the feed', async () => (await info()).state.messages >= 5)
  expect((await info()).state.subjects).toEqual({
    [`${namespace}.feed.asset.p.a.materialized`]: 2,
    [`${namespace}.feed.run.finished`]: 2,
    [`${namespace}.feed.schedule.p.s.missed`]: 1,
  })
  await nc.close()
})
