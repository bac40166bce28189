import { describe, expect, expectTypeOf, it } from 'vitest'
import { z } from 'zod'
import {
  asset,
  CancelledError,
  ConflictError,
  type Decision,
  pipeline,
  SignalRejectedError,
  type ValueOf,
} from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { factsOf, kindsOf, openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { GATES, gateOf, untilSuspended } from './kit.ts'

const server = useServer({ syncInterval: 'default' })

async function reason(signalling: Promise<unknown>): Promise<string> {
  const error = await rejection(signalling)
  if (!(error instanceof SignalRejectedError)) throw error
  return error.reason
}

describe('an asset that waits at a gate', () => {
  it('an asset that waits at a gate goes on with what the signal brought, and holds no worker meanwhile (defect 5: onSignal was never called)', async () => {
    const published = asset('published', {
      execute: (ctx) => ctx.signalGate({ timeout: '1h', metadata: { job: 'a/b.c' } }),
      onSignal: (ctx, payload: { approved: boolean }) => ({
        ...payload,
        behind: ctx.gate.metadata,
        by: ctx.gate.source,
      }),
    })
    const after = asset('after', { dependsOn: [published], execute: (_, deps) => deps.published.approved })
    expectTypeOf<ValueOf<typeof published>>().toEqualTypeOf<{
      behind: unknown
      by: string | undefined
      approved: boolean
    }>()
    await using stage = await openStage(server.url, pipeline('p', [published, after]), {
      gates: GATES,
      worker: { concurrency: 1 },
    })
    const { flow } = stage
    const run = await flow.materialize(after)
    const gate = await gateOf(flow, run.id)
    expect(gate).toMatchObject({
      id: `${run.id}.published.a1n1`,
      status: 'waiting',
      kind: 'signal',
      metadata: { job: 'a/b.c' },
    })
    await untilSuspended(flow, run.id, 'published')
    await until('the worker is free', () => stage.worker?.busy === 0)
    expect((await run.status())?.assets.published).toMatchObject({ gate: gate.id, deadline: gate.deadline })

    const token = await flow.gates.token(gate.id)
    const said = { source: '10.0.0.1', headers: { 'X-Job': '7' } }
    expect(await flow.gates.signal(token, { approved: true }, said)).toEqual({
      status: 'accepted',
      gate: gate.id,
      repeated: false,
    })
    expect(await run.result()).toBe(true)
    await until('the state has it', async () => (await run.status())?.status === 'succeeded')
    expect(await flow.gates.getByToken(token)).toMatchObject({
      status: 'signaled',
      signal: { payload: { approved: true }, source: '10.0.0.1', headers: { 'x-job': '7' } },
    })
    const kinds = await kindsOf(flow, run.id)
    expect(kinds).toEqual([
      'run.requested',
      ...(kinds.includes('run.planned') ? ['run.planned'] : []),
      'gate.created',
      'asset.suspended',
      'gate.resolved',
      'asset.materialized',
      'asset.materialized',
      'run.finished',
    ])
  })

  it('an asset that waits at a gate has the payload as its value where there is no onSignal', async () => {
    const waits = asset('waits', { execute: (ctx) => ctx.signalGate() })
    // Nobody knows its type; above all it is not that of the gate.
    expectTypeOf<ValueOf<typeof waits>>().toEqualTypeOf<unknown>()
    const opened = asset('opened', { execute: async (ctx) => (await ctx.openGate()).wait() })
    expectTypeOf<ValueOf<typeof opened>>().toEqualTypeOf<unknown>()
    const each = asset('each', { scatter: () => [1], execute: (ctx) => ctx.signalGate() })
    expectTypeOf<ValueOf<typeof each>>().toEqualTypeOf<{ key: number; value: unknown }[]>()
    const gathered = asset('gathered', {
      scatter: () => [1],
      execute: (ctx) => ctx.signalGate(),
      gather: async (results) => {
        for await (const { value } of results) expectTypeOf(value).toBeUnknown()
        return 1
      },
    })
    expectTypeOf<ValueOf<typeof gathered>>().toEqualTypeOf<number>()
    await using stage = await openStage(server.url, pipeline('p', [waits]), { gates: GATES })
    const run = await stage.flow.materialize(waits)
    const gate = await gateOf(stage.flow, run.id)
    await stage.flow.gates.signalById(gate.id, [1, { two: null }])
    expect(await run.result()).toEqual([1, { two: null }])
  })
})

describe('a gate', () => {
  const waits = asset('waits', {
    execute: (ctx) =>
      ctx.signalGate({
        payloadSchema: z.object({ n: z.number() }),
        ...(ctx.partition ? { correlationKey: ctx.partition } : {}),
      }),
    onSignal: (_, payload: { n: number }) => payload.n,
  })

  it('a gate takes one signal, and tells all others the truth; the same idempotency key is the same signal', async () => {
    await using stage = await openStage(server.url, pipeline('p', [waits]), { gates: GATES })
    const { gates } = stage.flow
    const run = await stage.flow.materialize(waits)
    const { id } = await gateOf(stage.flow, run.id)
    const token = await gates.token(id)
    const answers = await Promise.allSettled(
      Array.from({ length: 100 }, (_, n) => gates.signal(token, { n }, { idempotencyKey: `k${n}` })),
    )
    const won = answers.flatMap((answer, n) => (answer.status === 'fulfilled' ? [n] : []))
    expect(won).toHaveLength(1)
    for (const answer of answers)
      if (answer.status === 'rejected') expect(answer.reason).toMatchObject({ reason: 'already_signaled' })
    expect(await run.result()).toBe(won[0])
    expect(await gates.signal(token, { n: -1 }, { idempotencyKey: `k${won[0]}` })).toMatchObject({ repeated: true })
    expect(await reason(gates.signal(token, { n: -1 }))).toBe('already_signaled')
    const resolved = (await factsOf(stage.flow, run.id)).filter(({ kind }) => kind === 'gate.resolved')
    expect(resolved).toHaveLength(1)
  })

  it('a gate refuses a payload that its schema does not take, and waits on', async () => {
    await using stage = await openStage(server.url, pipeline('p', [waits]), { gates: GATES })
    const { gates } = stage.flow
    const run = await stage.flow.materialize(waits)
    const { id } = await gateOf(stage.flow, run.id)
    for (const payload of [undefined, null, {}, { n: '1' }, 'text', { n: Number.NaN }])
      expect(await reason(gates.signalById(id, payload))).toBe('invalid_payload')
    const error = await rejection(gates.signalById(id, { n: '1' }))
    expect(error.message).toMatch(/expected number.* at n$/)
    expect(await reason(gates.signalById(id, { n: 1, more: () => 1 }))).toBe('invalid_payload')
    expect(await reason(gates.signalById(id, 'x'.repeat(1_100_000)))).toBe('invalid_payload')
    expect((await gates.get(id))?.status).toBe('waiting')
    await gates.signalById(id, { n: 7 })
    expect(await run.result()).toBe(7)
  })

  it('a gate keeps a payload that is too large for a message elsewhere', async () => {
    const large = asset('large', { execute: (ctx) => ctx.signalGate() })
    await using stage = await openStage(server.url, pipeline('p', [large]), { gates: GATES })
    const run = await stage.flow.materialize(large)
    const text = 'x'.repeat(900_000)
    await stage.flow.gates.signalById((await gateOf(stage.flow, run.id)).id, { text })
    expect(await run.result()).toEqual({ text })
  })

  it('a gate is cancelled with its asset and what depends on it, and then takes no signal', async () => {
    const after = asset('after', { dependsOn: [waits], execute: () => 1 })
    await using stage = await openStage(server.url, pipeline('p', [waits, after]), { gates: GATES })
    const { gates } = stage.flow
    const run = await stage.flow.materialize(after)
    const { id } = await gateOf(stage.flow, run.id)
    await gates.cancel(id, 'no longer wanted')
    await gates.cancel(id)
    const error = await rejection(run.result())
    expect(error.code).toBe('cancelled')
    expect(error).not.toBeInstanceOf(CancelledError)
    await until('the run has ended', async () => (await run.status())?.finishedAt !== undefined)
    expect(await run.status()).toMatchObject({
      status: 'cancelled',
      assets: { waits: { status: 'cancelled' }, after: { status: 'skipped' } },
    })
    expect(await reason(gates.signalById(id, { n: 1 }))).toBe('cancelled')
    expect(await gates.get(id)).toMatchObject({ status: 'cancelled', reason: 'no longer wanted' })
  })

  it('a gate is not cancelled any more once it was signalled (defect 10: the signal was overwritten)', async () => {
    await using stage = await openStage(server.url, pipeline('p', [waits]), { gates: GATES, worker: false })
    await using late = await openStage(server.url, pipeline('p', [waits]), {
      gates: GATES,
      engine: false,
      namespace: stage.namespace,
    })
    const { gates } = stage.flow
    const run = await stage.flow.materialize(waits)
    const { id } = await gateOf(stage.flow, run.id)
    await late.worker?.stop()
    await gates.signalById(id, { n: 5 })
    await expect(gates.cancel(id, 'too late')).rejects.toThrow(ConflictError)
    await stage.flow.worker(pipeline('p', [waits]))
    expect(await run.result()).toBe(5)
    expect(await gates.get(id)).toMatchObject({ status: 'signaled', reason: undefined, signal: { payload: { n: 5 } } })
  })

  it('a gate is found by the name its code gave it, whatever is in that (defect 9: a dot was malformed)', async () => {
    await using stage = await openStage(server.url, pipeline('p', [waits]), { gates: GATES, shards: 3 })
    const { gates } = stage.flow
    for (const [n, base] of [
      'arn:aws:states:eu-west-1:1:execution/a.b',
      'host.example.org',
      'ü/\u0000 *>$',
      'x'.repeat(512),
    ].entries()) {
      expect(await reason(gates.signalByCorrelationKey(base, { n }))).toBe('not_found')
      const run = await stage.flow.materialize(waits, { partition: base })
      const gate = await gateOf(stage.flow, run.id)
      expect((await gates.getByCorrelationKey(base))?.id).toBe(gate.id)
      expect(await gates.signalByCorrelationKey(base, { n })).toMatchObject({ gate: gate.id })
      expect(await run.result()).toBe(n)
      expect(await reason(gates.signalByCorrelationKey(base, { n }))).toBe('already_signaled')
    }
  })

  it('a gate has no token and no name of its own on the log, only hashes (defect 9: tokens were stored in clear)', async () => {
    await using stage = await openStage(server.url, pipeline('p', [waits]), { gates: GATES })
    const run = await stage.flow.materialize(waits, { partition: 'my-job-17' })
    const { id } = await gateOf(stage.flow, run.id)
    const token = await stage.flow.gates.token(id)
    await stage.flow.gates.signal(token, { n: 1 })
    await run.result()
    const facts = (await factsOf(stage.flow, run.id)).filter(({ kind }) => kind.startsWith('gate.'))
    const text = JSON.stringify(facts)
    expect(text).not.toContain(token)
    expect(text).not.toContain(token.split('.')[3])
    expect(text).not.toContain('my-job-17')
  })

  it('opens for its own token only: not for that of another gate, a gate that was never there, or another secret', async () => {
    await using stage = await openStage(server.url, pipeline('p', [waits]), { gates: GATES })
    const rotated = await stage.connect({
      gates: { secrets: [{ id: 'k2', secret: 'y'.repeat(32) }, ...GATES.secrets] },
    })
    const run = await stage.flow.materialize(waits)
    const { id } = await gateOf(stage.flow, run.id)
    const token = await stage.flow.gates.token(id)
    expect(await rotated.gates.token(id)).toBe(token)
    const never = await stage.connect({ gates: { secrets: [{ id: 'k2', secret: 'y'.repeat(32) }] } })
    expect(await reason(never.gates.signal(token, { n: 1 }))).toBe('invalid_signature')
    expect(await reason(stage.flow.gates.signal('nonsense', { n: 1 }))).toBe('malformed_token')
    expect(await reason(stage.flow.gates.signalById(`${run.id}.waits.a9n1`, { n: 1 }))).toBe('not_found')
    expect(await rotated.gates.signal(token, { n: 1 })).toMatchObject({ status: 'accepted' })
    expect(await run.result()).toBe(1)
  })

  it('for a decision by people brings who decided, and when', async () => {
    const approved = asset('approved', {
      execute: (ctx) => ctx.approval({ message: 'Publish?', context: { rows: 3 }, timeout: '1d' }),
      onSignal: (ctx, decision: Decision) => ({ ...decision, by: ctx.gate.source, at: ctx.gate.answeredAt }),
    })
    await using stage = await openStage(server.url, pipeline('p', [approved]), { gates: GATES })
    const { gates } = stage.flow
    const run = await stage.flow.materialize(approved)
    const gate = await gateOf(stage.flow, run.id)
    expect(gate).toMatchObject({ kind: 'approval', metadata: { message: 'Publish?', context: { rows: 3 } } })
    expect(await reason(gates.signalById(gate.id, { approved: 'yes' }))).toBe('invalid_payload')
    await gates.signalById(gate.id, { approved: true, comment: 'fine' }, { source: 'ann' })
    const ended = await gates.get(gate.id)
    expect(await run.result()).toEqual({ approved: true, comment: 'fine', by: 'ann', at: ended?.endedAt })
  })
})
