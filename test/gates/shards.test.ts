import { describe, expect, it } from 'vitest'
import { asset, type Flow, type GateView, pipeline, type Run } from '../../src/index.ts'
import { parseRunId } from '../../streams/ids.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { GATES, gateOf, gatesOf, keyOn } from './kit.ts'

const server = useServer({ syncInterval: 'default' })

const SHARDS = 3
const N = 20
/** Waits as many hours as its partition says. */
const plain = asset('plain', { execute: (ctx) => ctx.signalGate({ timeout: `${Number(ctx.partition)}h` }) })
const named = asset('named', { execute: (ctx) => ctx.signalGate({ correlationKey: ctx.partition ?? '' }) })
const many = asset('many', {
  scatter: () => Array.from({ length: N }, (_, i) => i),
  execute: (ctx) => ctx.signalGate({ timeout: '50h' }),
})
const all = pipeline('shards', [plain, named, many])

const every = Array.from({ length: SHARDS }, (_, shard) => shard)
const idsOf = (gates: readonly GateView[]): string[] => gates.map(({ id }) => id)

async function pages(flow: Flow, limit: number): Promise<GateView[]> {
  const found: GateView[] = []
  for (;;) {
    const after = found.at(-1)
    const page = await flow.gates.waiting({ limit, ...(after ? { after } : {}) })
    if (page.length === 0) return found
    found.push(...page)
  }
}

describe('gates of runs that live on several shards of the log', () => {
  it('gates of runs that live on several shards of the log are listed together by their deadlines, and each is extended, cancelled and answered where it is', async () => {
    await using stage = await openStage(server.url, all, { gates: GATES, shards: SHARDS })
    const { flow } = stage
    // Deadlines go round the shards: 1 h on the first, 2 h on the second, …
    const hours = Array.from({ length: 3 * SHARDS }, (_, i) => i + 1)
    const runs = await Promise.all(
      hours.map((h) =>
        flow.materialize(plain, { partition: `${h}`, key: keyOn((h - 1) % SHARDS, SHARDS, `run ${h}`) }),
      ),
    )
    const gates = await Promise.all(runs.map((run) => gateOf(flow, run.id)))
    expect(new Set(gates.map(({ run }) => parseRunId(run).shard))).toEqual(new Set(every))
    const waits = async (wanted: readonly (GateView | undefined)[]): Promise<void> => {
      const ids = wanted.map((gate) => gate?.id)
      await until('they wait in this order', async () => idsOf(await flow.gates.waiting()).join() === ids.join())
      for (const limit of [1, 2, 4]) expect(idsOf(await pages(flow, limit))).toEqual(ids)
    }
    await waits(gates)

    // The first one of each partition becomes its last, the second one is cancelled.
    const order = gates.slice(2 * SHARDS)
    for (const [shard, gate] of gates.slice(0, SHARDS).entries()) {
      const deadline = await flow.gates.extend(gate.id, `${100 - shard}h`)
      expect((await flow.gates.get(gate.id))?.deadline).toEqual(deadline)
      order.splice(SHARDS, 0, gate)
    }
    for (const [i, gate] of gates.slice(SHARDS, 2 * SHARDS).entries()) {
      await flow.gates.cancel(gate.id)
      expect((await rejection(runs[SHARDS + i]?.result() ?? Promise.resolve())).code).toBe('cancelled')
    }
    await waits(order)

    for (const { id, run } of order) await flow.gates.signal(await flow.gates.token(id), run)
    for (const { run } of order) expect(await flow.run(run).result()).toBe(run)
    await waits([])
  })

  it('gates of runs that live on several shards of the log are found by their correlation key on whichever it is, and of several the newest is meant', async () => {
    await using stage = await openStage(server.url, all, { gates: GATES, shards: SHARDS })
    const { flow } = stage
    const opened: GateView[] = []
    for (const shard of [2, 0, 1]) {
      const run = await flow.materialize(named, { partition: 'job', key: keyOn(shard, SHARDS, 'named') })
      opened.push(await gateOf(flow, run.id))
    }
    const newest = opened[2]
    expect((await flow.gates.getByCorrelationKey('job'))?.id).toBe(newest?.id)
    expect(await flow.gates.signalByCorrelationKey('job', 'hello')).toMatchObject({ gate: newest?.id })
    expect(await flow.run(newest?.run ?? '').result()).toBe('hello')
    expect(await rejection(flow.gates.signalByCorrelationKey('job'))).toMatchObject({ reason: 'already_signaled' })
    for (const { id } of opened.slice(0, 2)) expect((await flow.gates.get(id))?.status).toBe('waiting')

    for (const shard of every) {
      await flow.gates.signalByCorrelationKey(`early ${shard}`, shard, { keepFor: '1m' })
      const run = await flow.materialize(named, { partition: `early ${shard}`, key: keyOn(shard, SHARDS, 'early') })
      expect(await run.result()).toBe(shard)
    }
  })

  it('gates of one name on several shards are answered from the newest back, as far as they wait; a signal that may be the same again is not taken for another', async () => {
    await using stage = await openStage(server.url, all, { gates: GATES, shards: SHARDS })
    const { flow } = stage
    const opened: string[] = []
    // The first and the last two on the same partition of the log.
    for (const [i, shard] of [0, 0, 1, 0, 0].entries()) {
      const run = await flow.materialize(named, { partition: 'job', key: keyOn(shard, SHARDS, `named ${i}`) })
      opened.push((await gateOf(flow, run.id)).id)
    }
    const [first, second, third, fourth, fifth = ''] = opened
    const signal = (key?: string): Promise<unknown> =>
      flow.gates.signalByCorrelationKey('job', 1, key === undefined ? {} : { idempotencyKey: key })
    await flow.gates.cancel(fifth)
    expect(await signal()).toMatchObject({ gate: fourth })
    expect(await rejection(signal())).toMatchObject({ reason: 'cancelled' })
    expect(await signal('b')).toMatchObject({ gate: third, repeated: false })
    expect(await signal('b')).toMatchObject({ gate: third, repeated: true })
    expect(await signal('c')).toMatchObject({ gate: second })
    expect(await signal('b')).toMatchObject({ gate: third, repeated: true })
    expect(await signal('d')).toMatchObject({ gate: first })
    expect(await rejection(signal('e'))).toMatchObject({ reason: 'cancelled' })
  })

  it('gates of instances belong to their own run, on each shard of the log', async () => {
    await using stage = await openStage(server.url, all, { gates: GATES, shards: SHARDS })
    const { flow } = stage
    const runs = await Promise.all(every.map((shard) => flow.materialize(many, { key: keyOn(shard, SHARDS, 'many') })))
    const found = await Promise.all(runs.map((run) => gatesOf(flow, run.id, N)))
    for (const [shard, gates] of found.entries()) {
      expect(gates.map(({ index }) => index).toSorted((a, b) => Number(a) - Number(b))).toEqual([...Array(N).keys()])
      for (const { run } of gates) expect(run).toBe(runs[shard]?.id)
    }
    await until('all wait', async () => (await flow.gates.waiting()).length === SHARDS * N)
    expect(new Set(idsOf(await pages(flow, 7)))).toEqual(new Set(idsOf(found.flat())))
    await Promise.all(found.flat().map(({ id, run, index }) => flow.gates.signalById(id, `${run} ${index}`)))
    for (const run of runs as readonly Run<{ key: number; value: unknown }[]>[]) {
      const values = (await run.result()).map(({ value }) => value)
      expect(values).toEqual(Array.from({ length: N }, (_, i) => `${run.id} ${i}`))
    }
  })
})
