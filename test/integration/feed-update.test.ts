import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats } from '@nats-io/transport-node'
import { expect, it } from 'vitest'
import { asset, pipeline } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer()

/** What the server copied, when it made the feed. */
const sourceOf = (ns: string, shard: number) => ({
  name: `${ns}_LOG_${shard}`,
  subject_transforms: [
    {
      src: `${ns}.log.${shard}.asset.*.*.*.end.materialized`,
      dest: `${ns}.feed.asset.{{wildcard(1)}}.{{wildcard(2)}}.materialized`,
    },
    { src: `${ns}.log.${shard}.run.*.finished`, dest: `${ns}.feed.run.finished` },
  ],
})

it('the feed of an older namespace, which the server made, goes on where it stopped', async () => {
  const a = asset('a', { execute: () => 1 })
  await using stage = await openStage(server.url, pipeline('p', [a]), { shards: 2 })
  const { namespace, flow } = stage
  const nc = await connectNats({ servers: server.url })
  const jsm = await jetstreamManager(nc)
  const name = `${namespace}_FEED`
  const info = async () => await jsm.streams.info(name, { subjects_filter: `${namespace}.feed.>` })
  const counts = async () => (await info()).state.subjects ?? {}
  for (let i = 0; i < 3; i++) await (await flow.materialize(a)).result()
  await stage.engine?.stop()
  const { config } = await info()
  await jsm.streams.delete(name)
  await jsm.streams.add({ ...config, subjects: [], sources: [sourceOf(namespace, 0), sourceOf(namespace, 1)] })
  await until('the server has copied all', async () => (await info()).state.messages === 6)
  await flow.setup()
  expect((await info()).config.sources ?? []).toEqual([])
  await flow.engine()
  await (await flow.materialize(a)).result()
  const wanted = { [`${namespace}.feed.asset.p.a.materialized`]: 4, [`${namespace}.feed.run.finished`]: 4 }
  // Positions are messages of the stream, too.
  const shown = async (): Promise<number> => Object.values(await counts()).reduce((sum, count) => sum + count, 0)
  await until('the rest is there', async () => (await shown()) >= 8)
  expect(await counts()).toEqual(wanted)
  await nc.close()
})

it('the feed has each fact once, whatever becomes of the engines and of the stream', async () => {
  const a = asset('a', { execute: (ctx) => ctx.partition })
  await using stage = await openStage(server.url, pipeline('p', [a]))
  const { namespace, flow } = stage
  const nc = await connectNats({ servers: server.url })
  const jsm = await jetstreamManager(nc)
  const name = `${namespace}_FEED`
  const seen = async () => {
    const { state } = await jsm.streams.info(name, { subjects_filter: `${namespace}.feed.run.finished` })
    return state.subjects?.[`${namespace}.feed.run.finished`] ?? 0
  }
  const run = async (partition: string) => await (await flow.materialize(a, { partition })).result()
  await run('1')
  // Two engines take turns: what one of them left is copied by the other.
  let { engine } = stage
  for (let i = 2; i < 6; i++) {
    const next = await flow.engine()
    await engine?.stop()
    engine = next
    await run(`${i}`)
  }
  await until('all are there', async () => (await seen()) === 5)
  await engine?.stop()
  await flow.rebuild()
  await flow.engine()
  await run('6')
  await until('the next one is there', async () => (await seen()) >= 6)
  expect(await seen()).toBe(6)
  // As after a clean-up by somebody who meant well.
  await jsm.streams.delete(name)
  await flow.setup()
  await run('7')
  await until('it is made again from the log', async () => (await seen()) >= 7)
  expect(await seen()).toBe(7)
  await nc.close()
})

it('the feed goes on, and repeats nothing, when all that it showed was dropped for its age', async () => {
  const a = asset('a', { execute: (ctx) => ctx.partition })
  await using stage = await openStage(server.url, pipeline('p', [a]), { shards: 2, feedMaxAgeMs: 1000 })
  const { namespace, flow } = stage
  const nc = await connectNats({ servers: server.url })
  const jsm = await jetstreamManager(nc)
  const shown = async () => {
    const { state } = await jsm.streams.info(`${namespace}_FEED`, { subjects_filter: `${namespace}.feed.run.finished` })
    return state.subjects?.[`${namespace}.feed.run.finished`] ?? 0
  }
  const runs = Array.from({ length: 6 }, (_, i) => flow.materialize(a, { partition: `${i}` }))
  await Promise.all((await Promise.all(runs)).map((run) => run.result()))
  await until('they are shown', async () => (await shown()) > 0)
  await until('they are dropped', async () => (await shown()) === 0)
  const { id } = await flow.materialize(a, { partition: 'next' })
  await flow.run(id).result()
  await until('the next one is shown', async () => (await shown()) > 0)
  expect(await shown()).toBe(1)
  await nc.close()
})
