import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats, type NatsConnection } from '@nats-io/transport-node'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { asset, pipeline } from '../../src/index.ts'
import { Connection } from '../../src/log/connection.ts'
import { historyOf, isSealed } from '../../src/log/history.ts'
import { indexHash } from '../../streams/history.ts'
import { namesOf } from '../../streams/subjects.ts'
import { collect } from '../kit/collect.ts'
import { useServer } from '../kit/fixture.ts'
import { factsOf, openStage, type Stage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })
let nc: NatsConnection

beforeAll(async () => {
  nc = await connectNats({ servers: server.url })
})
afterAll(() => nc.close())

async function onLog({ namespace }: Stage, filter: string): Promise<string[]> {
  const jsm = await jetstreamManager(nc)
  const prefix = `${namespace}.log.0.`
  const info = await jsm.streams.info(`${namespace}_LOG_0`, { subjects_filter: `${prefix}${filter}` })
  return Object.keys(info.state.subjects ?? {}).map((subject) => subject.slice(prefix.length))
}

const asks = asset('asks', {
  execute: async (ctx) => ctx.signalGate({ timeout: '1h' }),
  onSignal: async (_ctx, payload) => ({ heard: payload }),
})
const first = asset('first', { execute: async () => 1 })
const second = asset('second', { dependsOn: [first], execute: async (_ctx, deps) => deps.first + 1 })
const [slow, quick] = [pipeline('slow', [asks, first]), pipeline('quick', [first, second])]
const GATES = { secrets: [{ id: 'k1', secret: 'a secret of thirty-two bytes or more' }] }

it('a run that stays open keeps its facts, and others leave the log all the same', { timeout: 180_000 }, async () => {
  await using stage = await openStage(server.url, [slow, quick], { sealAfter: '1s', gates: GATES })
  const { flow } = stage
  const gone = async (run: string): Promise<void> => {
    await until(
      `run ${run} has left the log`,
      async () =>
        (await onLog(stage, `*.${run}.>`)).length === 0 && (await onLog(stage, `asset.*.*.${run}.>`)).length === 0,
    )
  }
  const waits = await flow.materialize(asks)
  await until('the gate is open', async () => (await flow.gates.list(waits.id)).length === 1)
  // Nothing of its pipeline is open, so facts of its assets go in a stroke; or there is.
  const runs = await Promise.all([
    flow.materialize(second, { upstream: 'all', pipeline: quick }),
    flow.materialize(first, { upstream: 'all', pipeline: slow }),
  ])
  for (const run of runs) await run.result()
  await (await flow.materialize(first, { upstream: 'all', pipeline: quick })).result()
  for (const run of runs) await gone(run.id)
  expect(await runs[0]?.result()).toBe(2)
  expect(await onLog(stage, `run.${waits.id}.>`)).toContain(`run.${waits.id}.requested`)
  expect(await onLog(stage, `gate.${waits.id}.>`)).toHaveLength(2)
  // Its facts are older than what has left, and not in memory of an engine that comes after.
  await stage.engine?.stop()
  const next = await flow.engine({ sealAfter: '1s' })
  await next.active
  const [gate] = await flow.gates.list(waits.id)
  await flow.gates.signalById(gate?.id ?? '', 'at last')
  expect(await waits.result()).toEqual({ heard: 'at last' })
  const facts = await factsOf(flow, waits.id)
  await (await flow.materialize(first, { upstream: 'all', pipeline: quick })).result()
  await gone(waits.id)
  expect(await factsOf(flow, waits.id)).toEqual(facts)
  expect(await flow.gates.list(waits.id)).toMatchObject([{ status: 'signaled' }])
})

it('what an old index says of a run is not taken for what a newer one says', { timeout: 180_000 }, async () => {
  await using stage = await openStage(server.url, [slow, quick], { sealAfter: '1s', gates: GATES })
  const { flow, namespace } = stage
  const waits = await flow.materialize(asks)
  await until('the gate is open', async () => (await flow.gates.list(waits.id)).length === 1)
  const connection = await Connection.open({ servers: server.url })
  const other = await Connection.open({ servers: server.url })
  const released = Promise.withResolvers<void>()
  try {
    const names = namesOf(namespace)
    const sealed = await flow.materialize(second, { pipeline: quick })
    await until('there is an index', async () => await isSealed({ connection: other, names }, sealed.id))
    const history = historyOf({ connection, names }, 0)
    const asked = Promise.withResolvers<void>()
    const read = connection.read.bind(connection)
    vi.spyOn(connection, 'read').mockImplementation(async (ask, signal) => {
      const answer = await read(ask, signal)
      // Pages of the index come together.
      if (!(answer instanceof Map)) return answer
      asked.resolve()
      await released.promise
      return answer
    })
    const early = collect(history.facts(waits.id))
    await asked.promise
    vi.restoreAllMocks()
    const [gate] = await flow.gates.list(waits.id)
    await flow.gates.signalById(gate?.id ?? '', 'go')
    await waits.result()
    await until('it is sealed', async () => await isSealed({ connection: other, names }, waits.id))
    history.expire()
    expect(await history.packsWith(indexHash.run(waits.id))).not.toEqual([])
    released.resolve()
    await early
    expect((await collect(history.facts(waits.id))).map(({ path }) => path)).toContain(`run.${waits.id}.requested`)
  } finally {
    released.resolve()
    vi.restoreAllMocks()
    await connection.close()
    await other.close()
  }
})
