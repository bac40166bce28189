import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats, type NatsConnection } from '@nats-io/transport-node'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { asset, pipeline } from '../../src/index.ts'
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
