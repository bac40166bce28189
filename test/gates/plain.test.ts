import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { type AssetContext, asset, type Flow, type GateView, pipeline, SignalRejectedError } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { kindsOf, openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const gates = { secrets: [{ id: 'k1', secret: 's'.repeat(32) }], baseUrl: 'https://flows.example.com/' }

const server = useServer({ syncInterval: 'default' })

/** The one gate that waits in a run. */
async function waitingGate(flow: Flow, run: string): Promise<GateView> {
  let found: GateView | undefined
  await until('a gate waits', async () => {
    found = (await flow.gates.list(run)).find((gate) => gate.status === 'waiting')
    return found !== undefined
  })
  if (!found) throw new Error('no gate')
  return found
}

async function reasonOf(signalling: Promise<unknown>): Promise<string> {
  const error = await rejection(signalling)
  if (error instanceof SignalRejectedError) return error.reason
  throw error
}

const summary = asset('summary', { execute: () => ({ mails: 3 }) })
const calls: string[] = []
const published = asset('published', {
  dependsOn: [summary],
  execute: (ctx, deps) => ctx.signalGate({ timeout: '24h', metadata: { summary: deps.summary } }),
  onSignal: (ctx, payload: { approved: boolean }, deps) =>
    payload.approved ? `published ${deps.summary.mails}` : ctx.fail('rejected'),
})
const after = asset('after', { dependsOn: [published], execute: (_ctx, deps) => deps.published.length })
const bare = asset('bare', { execute: (ctx) => ctx.signalGate() })
const twice = asset('twice', {
  execute: (ctx) => ctx.signalGate({ metadata: 'first' }),
  onSignal: (ctx, payload: { step: number }) =>
    payload.step < 3 ? ctx.signalGate({ metadata: payload.step }) : `after ${payload.step}`,
})
const flaky = asset('flaky', {
  retry: { maxAttempts: 3, backoff: '10ms' },
  execute: (ctx) => {
    calls.push('execute')
    return ctx.signalGate()
  },
  onSignal: (_ctx, payload: number) => {
    calls.push(`onSignal ${payload}`)
    if (calls.length < 4) throw new Error('not yet')
    return payload * 2
  },
})
const before = asset('before', {
  retry: { maxAttempts: 2, backoff: '10ms' },
  execute: async (ctx) => {
    const gate = await ctx.openGate({ correlationKey: `job/${ctx.runId}.1` })
    calls.push(gate.token, String(gate.isNew), gate.callbackUrl)
    if (ctx.partition === 'fails' && ctx.attempt === 1) throw new Error('the job could not be started')
    if (ctx.partition === 'early') await flowOfTest?.gates.signal(gate.token, 'quick')
    return gate.wait()
  },
})
let flowOfTest: Flow | undefined
const checked = asset('checked', {
  execute: (ctx) => ctx.signalGate({ payloadSchema: z.object({ amount: z.number().min(1) }) }),
  onSignal: (_ctx, payload: { amount: number }) => payload.amount,
})
const approval = asset('approval', {
  execute: (ctx) => ctx.approval({ message: 'Publish?', context: { mails: 3 } }),
  onSignal: (_ctx, decision: { approved: boolean; comment?: string }) => decision,
})
const all = pipeline('gates', [summary, published, after, bare, twice, flaky, before, checked, approval])

describe('a plain asset at a gate', () => {
  it('waits, and goes on with the payload of its signal; what depends on it follows (defect 5 of the original)', async () => {
    await using stage = await openStage(server.url, all, { gates })
    const { flow } = stage
    const run = await flow.materialize(after)
    const gate = await waitingGate(flow, run.id)
    expect(gate).toMatchObject({
      asset: 'published',
      id: `${run.id}.published.a1n1`,
      status: 'waiting',
      kind: 'signal',
      metadata: { summary: { mails: 3 } },
      timeouts: 0,
    })
    await until('the run says so', async () => (await run.status())?.assets.published?.status === 'suspended')
    // The worker is free.
    expect(stage.worker?.busy).toBe(0)
    const token = await flow.gates.token(gate.id)
    const accepted = await flow.gates.signal(token, { approved: true }, { source: 'test', headers: { 'x-a': 'b' } })
    expect(accepted).toEqual({ status: 'accepted', gate: gate.id, repeated: false })
    expect(await run.result()).toBe('published 3'.length)
    expect(await flow.gates.get(gate.id)).toMatchObject({
      status: 'signaled',
      signal: { payload: { approved: true }, source: 'test', headers: { 'x-a': 'b' } },
    })
    expect(await kindsOf(flow, run.id)).toEqual([
      'run.requested',
      'asset.materialized',
      'gate.created',
      'asset.suspended',
      'gate.resolved',
      'asset.materialized',
      'asset.materialized',
      'run.finished',
    ])
    expect(await reasonOf(flow.gates.signal(token, { approved: false }))).toBe('already_signaled')
  })

  it('a plain asset at a gate fails when onSignal says so, and the payload is its value when there is no onSignal', async () => {
    await using stage = await openStage(server.url, all, { gates })
    const { flow } = stage
    const run = await flow.materialize(published)
    await flow.gates.signalById((await waitingGate(flow, run.id)).id, { approved: false })
    expect(await rejection(run.result())).toMatchObject({
      asset: 'published',
      message: expect.stringContaining('rejected'),
    })
    const other = await flow.materialize(bare)
    await flow.gates.signalById((await waitingGate(flow, other.id)).id, { any: ['thing', 1] })
    expect(await other.result()).toEqual({ any: ['thing', 1] })
  })

  it('may wait at several gates, one after the other', async () => {
    await using stage = await openStage(server.url, all, { gates })
    const { flow } = stage
    const run = await flow.materialize(twice)
    for (const step of [1, 2, 3]) await flow.gates.signalById((await waitingGate(flow, run.id)).id, { step })
    expect(await run.result()).toBe('after 3')
    expect((await flow.gates.list(run.id)).map(({ id, metadata }) => [id.split('.')[2], metadata])).toEqual([
      ['a1n1', 'first'],
      ['a2n1', 1],
      ['a3n1', 2],
    ])
  })

  it('a plain asset at a gate runs onSignal again when that throws, and never execute; the payload is not lost', async () => {
    calls.length = 0
    await using stage = await openStage(server.url, all, { gates })
    const { flow } = stage
    const run = await flow.materialize(flaky)
    await flow.gates.signalById((await waitingGate(flow, run.id)).id, 21)
    expect(await run.result()).toBe(42)
    expect(calls).toEqual(['execute', 'onSignal 21', 'onSignal 21', 'onSignal 21'])
  })

  it('a plain asset at a gate that opened its gate first takes a signal that comes before it waits', async () => {
    calls.length = 0
    await using stage = await openStage(server.url, all, { gates })
    flowOfTest = stage.flow
    const run = await stage.flow.materialize(before, { partition: 'early' })
    expect(await run.result()).toBe('quick')
    expect(calls[1]).toBe('true')
    expect(calls[2]).toBe(`https://flows.example.com/hooks/flowstone/signal/${calls[0]}`)
  })

  it('a plain asset at a gate that fails takes its gate with it: the old token never resolves the new attempt', async () => {
    calls.length = 0
    await using stage = await openStage(server.url, all, { gates })
    const { flow } = stage
    const run = await flow.materialize(before, { partition: 'fails' })
    await until('the second attempt waits', () => calls.length >= 6)
    const [old = '', , , fresh = ''] = calls
    expect(fresh).not.toBe(old)
    expect(await reasonOf(flow.gates.signal(old, 'late'))).toBe('cancelled')
    // By the name that the asset's code gave it, any text: the newest gate of that name (defect 9
    // of the original).
    expect(await flow.gates.getByCorrelationKey(`job/${run.id}.1`)).toMatchObject({ status: 'waiting' })
    await flow.gates.signalByCorrelationKey(`job/${run.id}.1`, 'good')
    expect(await run.result()).toBe('good')
  })

  it('a plain asset at a gate refuses a payload that is not what was asked for, and waits on', async () => {
    await using stage = await openStage(server.url, all, { gates })
    const { flow } = stage
    const run = await flow.materialize(checked)
    const { id } = await waitingGate(flow, run.id)
    expect(await reasonOf(flow.gates.signalById(id, { amount: 0 }))).toBe('invalid_payload')
    expect((await rejection(flow.gates.signalById(id, { amount: 'x' }))).message).toContain('amount')
    await flow.gates.signalById(id, { amount: 5 })
    expect(await run.result()).toBe(5)
  })

  it('a plain asset at a gate can ask for an approval', async () => {
    await using stage = await openStage(server.url, all, { gates })
    const { flow } = stage
    const run = await flow.materialize(approval)
    const gate = await waitingGate(flow, run.id)
    expect(gate).toMatchObject({ kind: 'approval', metadata: { message: 'Publish?', context: { mails: 3 } } })
    expect(await reasonOf(flow.gates.signalById(gate.id, { approved: 'yes' }))).toBe('invalid_payload')
    await flow.gates.signalById(gate.id, { approved: true, comment: 'fine' })
    expect(await run.result()).toEqual({ approved: true, comment: 'fine' })
  })

  it('a plain asset at a gate is cancelled with its gate, and with its run', async () => {
    await using stage = await openStage(server.url, all, { gates })
    const { flow } = stage
    const run = await flow.materialize(after)
    const { id } = await waitingGate(flow, run.id)
    await flow.gates.cancel(id, 'not needed')
    await flow.gates.cancel(id)
    expect(await rejection(run.result())).toMatchObject({ code: 'cancelled' })
    expect(await flow.gates.get(id)).toMatchObject({ status: 'cancelled', reason: 'not needed' })
    expect(await reasonOf(flow.gates.signalById(id))).toBe('cancelled')
    const other = await flow.materialize(bare)
    const gate = await waitingGate(flow, other.id)
    await other.cancel()
    expect(await rejection(other.result())).toMatchObject({ code: 'cancelled' })
    await until('its gate is cancelled', async () => (await flow.gates.get(gate.id))?.status === 'cancelled')
    // A signal that was taken is not undone (defect 10 of the original).
    const third = await flow.materialize(bare, { partition: 'third' })
    const last = await waitingGate(flow, third.id)
    await flow.gates.signalById(last.id, 1)
    expect((await rejection(flow.gates.cancel(last.id))).message).toContain('signaled')
    expect(await third.result()).toBe(1)
  })

  it('answers a repeated delivery of the same signal with accepted, and no other', async () => {
    await using stage = await openStage(server.url, all, { gates })
    const { flow } = stage
    const run = await flow.materialize(bare)
    const { id } = await waitingGate(flow, run.id)
    const signals = Array.from({ length: 100 }, (_, i) =>
      flow.gates.signalById(id, i, { idempotencyKey: i < 10 ? 'same' : `other ${i}` }).then(
        ({ repeated }) => (repeated ? 'repeated' : 'accepted'),
        (error: unknown) => (error instanceof SignalRejectedError ? error.reason : String(error)),
      ),
    )
    const answers = await Promise.all(signals)
    expect(answers.filter((answer) => answer === 'accepted')).toHaveLength(1)
    const winner = answers.indexOf('accepted')
    expect(await run.result()).toBe(winner)
    for (const [i, answer] of answers.entries())
      if (i !== winner) expect(answer).toBe(winner < 10 && i < 10 ? 'repeated' : 'already_signaled')
  })

  it.each<[string, (ctx: AssetContext) => unknown]>([
    ['an approval that was not returned', async (ctx) => void (await ctx.approval({ message: 'Publish?' }))],
    ['a gate that was not returned', (ctx) => (ctx.signalGate() ? 'published' : '')],
    ['a gate within a value', (ctx) => ({ waits: ctx.signalGate() })],
    ['several gates', async (ctx) => [(await ctx.openGate()).wait(), (await ctx.openGate()).wait()]],
  ])('is not passed over: %s fails the asset', async (_, execute) => {
    const careless = asset('careless', { retry: { maxAttempts: 1 }, execute })
    const instances = asset('instances', {
      retry: { maxAttempts: 1 },
      scatter: () => [1],
      execute: (ctx) => execute(ctx),
    })
    await using stage = await openStage(server.url, pipeline('p', [careless, instances]), { gates })
    for (const one of [careless, instances]) {
      const run = await stage.flow.materialize(one)
      const error = await rejection(run.result())
      expect(error.message).toMatch(
        /wait only where what they give is returned|is a gate, or a run; return it by itself/,
      )
    }
  })

  it('without a secret fails at once, with an error that says what to set', async () => {
    await using stage = await openStage(server.url, all, { gates: { secrets: [] } })
    const run = await stage.flow.materialize(bare)
    expect(await rejection(run.result())).toMatchObject({
      code: 'no_gate_secret',
      message: expect.stringContaining('FLOWSTONE_GATE_SECRETS'),
    })
    expect((await kindsOf(stage.flow, run.id)).filter((kind) => kind === 'attempt.ended')).toHaveLength(1)
  })
})
