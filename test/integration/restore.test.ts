import { describe, expect, it } from 'vitest'
import { asset, type Flow, pipeline } from '../../src/index.ts'
import { foldAndForget, restoreLog } from '../kit/engine.ts'
import { useServer } from '../kit/fixture.ts'
import { kindsOf, openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { within } from '../kit/within.ts'

const server = useServer({ syncInterval: 'default' })

const signal = (): AbortSignal => within(25_000)
const base = asset('base', { execute: () => 1 })
const top = asset('top', { dependsOn: [base], execute: (_, { base: one }) => one + 1 })
const fails = asset('fails', {
  retry: { maxAttempts: 1 },
  execute: () => {
    throw new Error('no')
  },
})
let release = Promise.withResolvers<void>()
const spread = asset('spread', {
  scatter: () => [1, 2, 3],
  execute: async ({ scatterKey }) => {
    await release.promise
    return scatterKey
  },
  gather: async (results) => {
    let sum = 0
    for await (const { value } of results) sum += value
    return sum
  },
})
const waits = asset('waits', { execute: (ctx) => ctx.signalGate({ timeout: '1h' }), onSignal: (_, payload) => payload })
const all = pipeline('restored', [base, top, fails, spread, waits])
const gates = { secrets: [{ id: 'k1', secret: 'x'.repeat(40) }] }

async function gateOf(flow: Flow): Promise<string> {
  let id: string | undefined
  await until('it waits', async () => {
    id = (await flow.gates.waiting())[0]?.id
    return id !== undefined
  })
  return id ?? ''
}

// They wait for the reconciler, each for its own.
describe.concurrent('an engine that starts on a quiet log', () => {
  it('makes the plan of a run that was folded and never planned', async () => {
    await using stage = await openStage(server.url, all, { engine: false })
    const run = await stage.flow.materialize(top, { upstream: 'missing' })
    await foldAndForget(server.url, stage.namespace)
    expect((await run.status())?.status).toBe('requested')
    await stage.flow.engine()
    expect(await run.result({ signal: signal() })).toBe(2)
  })

  it.each([
    ['the end of a run', base, 'run.finished'],
    ['the end of an asset that failed', fails, 'asset.failed'],
    ['the end of a scatter', spread, 'scatter.closed'],
  ] as const)('decides %s once more', async (_, target, decision) => {
    await using stage = await openStage(server.url, all)
    const { flow, namespace, engine } = stage
    // The engine has enqueued its work, and is gone when that is done.
    if (target === spread) release = Promise.withResolvers()
    await stage.worker?.stop()
    const run = await flow.materialize(target)
    await until('it is queued', async () => {
      const status = (await run.status())?.assets[target.name]?.status
      return status === 'queued'
    })
    await engine?.stop()
    await flow.worker(all)
    await until('it is done', async () => {
      const kinds = await kindsOf(flow, run.id)
      return kinds.some((kind) => ['asset.materialized', 'attempt.ended', 'scatter.sized'].includes(kind))
    })
    if (target === spread) {
      const other = await flow.engine()
      await until('its instances are leased', async () => (await flow.scatter.status(`${run.id}.spread`)).stored === 3)
      await other.stop()
      release.resolve()
      await until('they are done', async () => (await kindsOf(flow, run.id)).includes('scatter.outcomes'))
    }
    await foldAndForget(server.url, namespace)
    expect(await kindsOf(flow, run.id)).not.toContain(decision)
    await flow.engine()
    if (target === fails) expect((await rejection(run.result({ signal: signal() }))).message).toContain('no')
    else expect(await run.result({ signal: signal() })).toBe(target === spread ? 6 : 1)
    expect(await kindsOf(flow, run.id)).toContain(decision)
  })

  it('cancels what a cancelled run left, and the gate that it waited at', async () => {
    await using stage = await openStage(server.url, all, { gates })
    const { flow, namespace } = stage
    const run = await flow.materialize(waits)
    const gate = await gateOf(flow)
    await until('it is suspended', async () => (await run.status())?.assets.waits?.status === 'suspended')
    await stage.engine?.stop()
    await run.cancel('enough')
    await foldAndForget(server.url, namespace)
    await flow.engine()
    expect(await rejection(run.result({ signal: signal() }))).toMatchObject({ code: 'cancelled' })
    await until('its gate is cancelled', async () => (await flow.gates.get(gate))?.status === 'cancelled')
  })
})

describe('a message that has left the log', () => {
  it('a message that has left the log is not waited for by a rebuild, nor by an engine: a gate is extended, and signalled while nothing runs', async () => {
    await using stage = await openStage(server.url, all, { gates })
    const { flow } = stage
    const run = await flow.materialize(waits)
    const gate = await gateOf(flow)
    await flow.gates.extend(gate, '2h')
    await until(
      'it is folded',
      async () => ((await flow.gates.get(gate))?.deadline?.getTime() ?? 0) > Date.now() + 5_000_000,
    )
    await stage.engine?.stop()
    await stage.worker?.stop()
    await flow.gates.signalById(gate, 'yes')
    await flow.rebuild()
    await (await flow.engine()).active
    await flow.worker(all)
    expect(await run.result({ signal: signal() })).toBe('yes')
  })
})

describe('a rebuild before any engine was active', () => {
  it('a rebuild before any engine was active leaves requests and triggers to the first engine', async () => {
    await using stage = await openStage(server.url, all, { engine: false })
    const { flow, namespace } = stage
    const planned = await flow.materialize(top)
    const pure = await flow.materialize(base)
    const outside = await stage.connect()
    const { connect: connectNats } = await import('@nats-io/transport-node')
    const nc = await connectNats({ servers: server.url })
    await nc.request(`${namespace}.trigger.restored.base`, JSON.stringify({ key: 'outside' }), { timeout: 5000 })
    await nc.close()
    expect(await flow.rebuild()).toMatchObject({ facts: 0 })
    await outside.engine()
    expect(await planned.result({ signal: signal() })).toBe(2)
    expect(await pure.result({ signal: signal() })).toBe(1)
    const triggered = await flow.materialize(base, { key: 'outside' })
    expect(await triggered.result({ signal: signal() })).toBe(1)
    await until('three runs', async () => (await flow.runs()).length === 3)
  })
})

describe.concurrent('a log that is not the one that the state was made from', () => {
  it.each([
    ['made anew', () => 0],
    ['without its end', (subjects: readonly string[]) => subjects.findIndex((one) => one.endsWith('.finished'))],
    [
      'without its end, and longer by now',
      (subjects: readonly string[]) => subjects.findIndex((one) => one.endsWith('.requested')) + 1,
    ],
  ] as const)('(%s) is refused by engines, and a rebuild goes on with it', async (how, keep) => {
    await using stage = await openStage(server.url, all)
    const { flow, namespace } = stage
    const run = await flow.materialize(top)
    await run.result()
    await stage.worker?.stop()
    await stage.engine?.stop()
    await restoreLog(server.url, namespace, keep)

    const other = await stage.connect()
    const worker = await other.worker(all)
    const more = []
    for (let i = 0; i < (how.includes('longer') ? 12 : 1); i++) more.push(await other.materialize(base))
    const engine = await other.engine()
    const refusal = await rejection(engine.active)
    expect(refusal).toMatchObject({ code: 'log_changed' })
    expect(refusal.message).toContain(`the log ${namespace}_LOG_0 is not the one`)
    expect(refusal.message).toContain('flowstone rebuild')
    expect(engine.refused?.code).toBe('log_changed')
    expect((await other.problems()).map(({ code }) => code)).toEqual(['log_changed'])
    expect(stage.lines.filter((line) => line.includes('is not the one'))).toHaveLength(1)

    // A refusing engine holds no claim. It goes on by itself.
    await other.rebuild()
    for (const one of more) expect(await one.result({ signal: signal() })).toBe(1)
    if (how !== 'made anew') expect(await other.run(run.id).result({ signal: signal() })).toBe(2)
    expect(engine.refused).toBeUndefined()
    expect(await other.problems()).toEqual([])
    await worker.stop()
  })

  it('a log that is not the one that the state was made from is noticed under an active engine', async () => {
    await using stage = await openStage(server.url, all)
    const { flow, namespace, engine } = stage
    await (await flow.materialize(top)).result()
    await restoreLog(server.url, namespace, () => 0)
    await until('the engine says so', () => engine?.refused?.code === 'log_changed')
  })
})
