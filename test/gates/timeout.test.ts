import { describe, expect, it } from 'vitest'
import { asset, type Flow, pipeline } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { factsOf, openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { busy } from '../kit/within.ts'

const gates = { secrets: [{ id: 'k1', secret: 's'.repeat(32) }] }

const server = useServer({ syncInterval: 'default' })

const calls: string[] = []
const fails = asset('fails', { execute: (ctx) => ctx.signalGate({ timeout: '500ms' }) })
const cancels = asset('cancels', { execute: (ctx) => ctx.signalGate({ timeout: '50ms', timeoutAction: 'cancel' }) })
const needs = asset('needs', { dependsOn: [cancels], execute: () => 1 })
const retries = asset('retries', {
  execute: (ctx) =>
    ctx.signalGate({ timeout: '60ms', timeoutAction: 'retry', maxTimeoutRetries: 3, retryDelays: ['80ms', '120ms'] }),
  onTimeout: (ctx) => {
    calls.push(`${ctx.timeouts}/${ctx.retriesLeft}`)
    return ctx.fail('nobody answered')
  },
})
const decides = asset('decides', {
  execute: (ctx) => ctx.signalGate({ timeout: '50ms' }),
  onTimeout: (ctx) => (ctx.attempt < 3 ? ctx.signalGate({ timeout: '50ms' }) : `gave up after ${ctx.timeouts}`),
})
const long = asset('long', {
  execute: (ctx) => ctx.signalGate({ timeout: '1h', timeoutAction: 'retry', retryDelays: ['1h'] }),
})
const all = pipeline('timeouts', [fails, cancels, needs, retries, decides, long])

async function gateOf(flow: Flow, run: string): Promise<string> {
  let id = ''
  await until('a gate is open', async () => {
    id = (await flow.gates.list(run))[0]?.id ?? ''
    return id !== ''
  })
  return id
}

describe('a gate that nobody answers', () => {
  it('a gate that nobody answers fails its asset within 50 ms of its time', async () => {
    await using stage = await openStage(server.url, all, { gates })
    const { flow } = stage
    // The first one of a process is slower: code is compiled.
    await rejection((await flow.materialize(fails, { partition: 'warm' })).result())
    const run = await flow.materialize(fails)
    expect(await rejection(run.result())).toMatchObject({ code: 'gate_timeout', asset: 'fails' })
    const gate = await flow.gates.get(await gateOf(flow, run.id))
    expect(gate).toMatchObject({ status: 'timed_out', timeouts: 1, retriesLeft: 0 })
    const facts = await factsOf(flow, run.id)
    const fired = facts.find(({ kind }) => kind === 'gate.timer_fired')
    const lateMs = (fired?.at.getTime() ?? 0) - (gate?.deadline?.getTime() ?? 0)
    expect(lateMs).toBeGreaterThanOrEqual(0)
    expect(lateMs).toBeLessThan(50 * busy())
    const signal = await rejection(flow.gates.signalById(gate?.id ?? ''))
    expect(signal).toMatchObject({ reason: 'expired' })
  })

  it('cancels its asset where that is asked for, and what depends on it is skipped', async () => {
    await using stage = await openStage(server.url, all, { gates })
    const run = await stage.flow.materialize(needs)
    expect(await rejection(run.result())).toMatchObject({ code: 'cancelled' })
    await until('the state says so', async () => {
      const assets = (await run.status())?.assets
      return assets?.cancels?.status === 'cancelled' && assets.needs?.status === 'skipped'
    })
  })

  it('a gate that nobody answers waits on as often as it may, tells onTimeout each time, and only the last time counts', async () => {
    calls.length = 0
    await using stage = await openStage(server.url, all, { gates })
    const { flow } = stage
    const run = await flow.materialize(retries)
    expect(await rejection(run.result())).toMatchObject({ message: expect.stringContaining('nobody answered') })
    expect(calls).toEqual(['1/3', '2/2', '3/1', '4/0'])
    expect(stage.lines.filter((line) => line.includes('while its gate waits on'))).toHaveLength(3)
  })

  it('a gate that nobody answers keeps its token good while it is retried (defect 9 of the original)', async () => {
    calls.length = 0
    await using stage = await openStage(server.url, all, { gates })
    const { flow } = stage
    const run = await flow.materialize(retries)
    const token = await flow.gates.token(await gateOf(flow, run.id))
    await until('it was retried', () => calls.length === 1)
    await flow.gates.signal(token, 'late, but not too late')
    expect(await run.result()).toBe('late, but not too late')
  })

  it('a gate that nobody answers leaves what follows to onTimeout: another gate, or a value', async () => {
    await using stage = await openStage(server.url, all, { gates })
    const run = await stage.flow.materialize(decides)
    expect(await run.result()).toBe('gave up after 1')
    expect(await stage.flow.gates.list(run.id)).toHaveLength(2)
  })
})

describe('a deadline', () => {
  it('a deadline can be moved, nearer and farther', async () => {
    await using stage = await openStage(server.url, all, { gates })
    const { flow } = stage
    const run = await flow.materialize(long)
    const id = await gateOf(flow, run.id)
    const far = await flow.gates.extend(id, '5h', { by: 'me' })
    expect((await flow.gates.get(id))?.deadline).toEqual(far)
    const near = await flow.gates.extend(id, '100ms')
    await until('it was retried', async () => ((await flow.gates.get(id))?.timeouts ?? 0) === 1)
    const again = (await flow.gates.get(id))?.deadline?.getTime() ?? 0
    expect(again - near.getTime()).toBeGreaterThanOrEqual(3_600_000)
    expect(again - near.getTime()).toBeLessThan(3_600_000 + 5000)
    await until('it is listed', async () => (await flow.gates.waiting()).some((gate) => gate.id === id))
    await flow.gates.signalById(id, 1)
    expect((await rejection(flow.gates.extend(id, '1h'))).message).toContain('signaled')
    await run.result()
  })

  it('orders the gates that wait, page by page', async () => {
    await using stage = await openStage(server.url, all, { gates })
    const { flow } = stage
    const runs = await Promise.all(Array.from({ length: 5 }, (_, i) => flow.materialize(long, { key: `page ${i}` })))
    const ids = await Promise.all(runs.map((run) => gateOf(flow, run.id)))
    for (const [i, id] of ids.entries()) await flow.gates.extend(id, `${[3, 1, 5, 2, 4][i] ?? 1}h`)
    const wanted = [1, 3, 0, 4, 2].map((i) => ids[i])
    await until('the state is there', async () => {
      const found = await flow.gates.waiting()
      return found.length === 5 && found.every((gate, i) => gate.id === wanted[i])
    })
    const first = await flow.gates.waiting({ limit: 2 })
    const last = first.at(-1)
    const second = await flow.gates.waiting({ limit: 2, ...(last ? { after: last } : {}) })
    expect([...first, ...second].map((gate) => gate.id)).toEqual(wanted.slice(0, 4))
  })
})
