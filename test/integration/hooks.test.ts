import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { inspect } from 'node:util'
import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats, type NatsConnection } from '@nats-io/transport-node'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import {
  asset,
  type GateOpenedEvent,
  type HookContext,
  type PipelineHooks,
  pipeline,
  type RunFailedEvent,
  type RunFinishedEvent,
  type RunLateEvent,
} from '../../src/index.ts'
import type { RunEvent } from '../../src/telemetry.ts'
import { loggable } from '../../streams/loggable.ts'
import { collect } from '../kit/collect.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })
let nc: NatsConnection

beforeAll(async () => {
  nc = await connectNats({ servers: server.url })
})
afterAll(() => nc.close())

const GATES = {
  secrets: [{ id: 'k1', secret: 'a secret of thirty-two bytes or more' }],
  baseUrl: 'https://flows.example.com',
}

it('hooks hear of a failure with its causes, and are tried again with the same key when they fail', async () => {
  const failed: [HookContext, RunFailedEvent][] = []
  const finished: RunFinishedEvent[] = []
  const broken = asset('broken', {
    retry: { maxAttempts: 1 },
    execute: () => {
      throw new Error('no report', { cause: Object.assign(new Error('refused'), { code: 'ECONNREFUSED' }) })
    },
  })
  const fine = asset('fine', { execute: () => 1 })
  const all = pipeline('p', [broken, fine], {
    hooks: {
      retry: { maxAttempts: 3, backoff: '10ms' },
      onRunFailed: (ctx, event) => {
        failed.push([ctx, event])
        if (failed.length < 3) throw new Error('the service is away')
      },
      onRunFinished: (_ctx, event) => void finished.push(event),
    },
  })
  await using stage = await openStage(server.url, all)
  const { flow } = stage
  const run = await flow.materialize(broken, { key: 'k', tags: { team: 'data' }, partition: 'x' })
  await expect(run.result()).rejects.toThrow('no report')
  await until('the hook has succeeded', () => failed.length === 3)
  await (await flow.materialize(fine)).result()
  await until('both ends are heard of', () => finished.length === 2)
  const [[ctx, event] = []] = failed
  expect(event).toMatchObject({
    run: run.id,
    pipeline: 'p',
    target: 'broken',
    key: 'k',
    partition: 'x',
    tags: { team: 'data' },
    status: 'failed',
    asset: 'broken',
    error: { message: 'no report', cause: { code: 'ECONNREFUSED', message: 'refused' } },
  })
  expect(event?.finishedAt.getTime()).toBeGreaterThanOrEqual(event?.requestedAt.getTime() ?? Number.NaN)
  expect(ctx?.signal).toBeInstanceOf(AbortSignal)
  expect(failed.map(([{ attempt }]) => attempt)).toEqual([1, 2, 3])
  expect(new Set(failed.map(([{ idempotencyKey }]) => idempotencyKey)).size).toBe(1)
  // One trace for all attempts of a call.
  expect(ctx?.traceparent).toMatch(/^00-[\da-f]{32}-[\da-f]{16}-01$/)
  expect(new Set(failed.map(([{ traceparent }]) => traceparent)).size).toBe(1)
  expect(finished.map(({ target, status }) => [target, status])).toEqual([
    ['broken', 'failed'],
    ['fine', 'succeeded'],
  ])
  // Calls are not among the runs, and are found by what they call.
  await until(
    'both runs are listed as ended',
    async () => (await flow.runs()).filter((one) => one.finishedAt).length === 2,
  )
  expect((await flow.runs()).map(({ target }) => target).toSorted()).toEqual(['broken', 'fine'])
  const [call] = await flow.runs({ target: 'p/hook__run_failed' })
  expect(call).toMatchObject({ hook: { on: 'run_failed', run: run.id } })
  expect((await flow.why(call?.id ?? '')).chain.map(({ text }) => text).join(' ')).toContain(
    `Hook run_failed of pipeline p was due, for run ${run.id}`,
  )
  await until('its calls have ended', async () => (await run.hooks()).every((one) => one.finishedAt))
  expect(await run.hooks()).toMatchObject([
    { on: 'run_failed', call: call?.id, status: 'succeeded', attempts: 3 },
    { on: 'run_finished', status: 'succeeded', attempts: 1 },
  ])
  expect(await flow.verify()).toMatchObject({ findings: [] })
})

it('a hook that always fails is given up, its run says so, and can be retried', async () => {
  const fine = asset('fine', { execute: () => 1 })
  let isGone = true
  const hooks: PipelineHooks = {
    retry: { maxAttempts: 2, backoff: '10ms' },
    onRunFinished: () => {
      if (isGone) throw new Error('the service is gone')
    },
  }
  await using stage = await openStage(server.url, pipeline('p', [fine], { hooks }))
  const { flow } = stage
  await (await flow.materialize(fine)).result()
  await until(
    'the call has failed',
    async () => (await flow.runs({ target: 'p/hook__run_finished' }))[0]?.status === 'failed',
  )
  const [call] = await flow.runs({ target: 'p/hook__run_finished' })
  expect(call?.assets.hook__run_finished).toMatchObject({ attempt: 2, error: { message: 'the service is gone' } })
  const said = `a call of p/hook__run_finished was given up: the service is gone (run ${call?.id})`
  expect(stage.lines.filter((line) => line.includes('given up'))).toEqual([said])
  isGone = false
  const again = await flow.retry(call?.id ?? '')
  await again.result()
  expect((await flow.run(again.id).view())?.hook).toEqual(call?.hook)
  expect((await flow.runs()).map(({ target }) => target)).toEqual(['fine'])
})

it('a gate that is opened is heard of with its address, and the address answers it', async () => {
  const told: RunEvent[] = []
  const listen = (message: unknown): void => void told.push(message as RunEvent)
  subscribe('flowstone:run.finished', listen)
  onTestFinished(() => void unsubscribe('flowstone:run.finished', listen))
  const opened: { event: GateOpenedEvent; url: string; token: string }[] = []
  const published = asset('published', {
    execute: (ctx) => ctx.approval({ message: 'Publish?', context: { pages: 3 }, timeout: '1h' }),
    onSignal: (_ctx, { approved }: { approved: boolean }) => approved,
  })
  const all = pipeline('p', [published], {
    hooks: { onGateOpened: (_ctx, event) => void opened.push({ event, url: event.callbackUrl, token: event.token }) },
  })
  await using stage = await openStage(server.url, all, { gates: GATES })
  const { flow } = stage
  const run = await flow.materialize(published)
  await until('somebody hears of the gate', () => opened.length === 1)
  const [{ event, url, token } = { url: '', token: '' }] = opened
  expect(event).toMatchObject({
    run: run.id,
    asset: 'published',
    kind: 'approval',
    index: undefined,
    metadata: { message: 'Publish?', context: { pages: 3 } },
  })
  expect(event?.deadline?.getTime()).toBeGreaterThan(Date.now())
  // What is logged or sent as a whole gives nobody the right to answer.
  for (const copy of [JSON.stringify(event), JSON.stringify({ ...event }), loggable(event, 10_000), inspect(event)]) {
    expect(copy).toContain(run.id)
    expect(copy).not.toContain(token)
  }
  expect(url).toBe(`https://flows.example.com/hooks/flowstone/signal/${token}`)
  await until('its call is listed', async () => (await run.hooks()).length === 1)
  expect(await run.hooks()).toMatchObject([{ on: 'gate_opened', gate: event?.gate }])
  await flow.gates.signal(token, { approved: true })
  expect(await run.result()).toBe(true)
  const ends = (): unknown[] => told.map(({ target, internal }) => [target, internal]).sort()
  await until('both ends are reported', () => ends().length === 2)
  expect(ends()).toEqual([
    ['hook__gate_opened', true],
    ['published', undefined],
  ])
})

it('gates of instances are heard of, each with its instance', async () => {
  const heard = new Map<number | undefined, string>()
  const signed = asset('signed', {
    scatter: () => ['a', 'b', 'c'],
    execute: (ctx) => ctx.approval({ message: `Sign ${ctx.scatterKey}?` }),
    onSignal: (ctx, { by }: { by?: string }) => `${ctx.scatterKey} by ${by}`,
  })
  const all = pipeline('p', [signed], {
    hooks: { onGateOpened: (_ctx, { index, token }) => void heard.set(index, token) },
  })
  await using stage = await openStage(server.url, all, { gates: GATES })
  const run = await stage.flow.materialize(signed)
  await until('three gates are heard of', () => heard.size === 3)
  for (const [index, token] of heard) await stage.flow.gates.signal(token, { approved: true, by: `${index}` })
  expect((await run.result()).map(({ value }) => value)).toEqual(['a by 0', 'b by 1', 'c by 2'])
})

it('a call whose hook nobody has any more waits, says so, and is made when somebody has it again', async () => {
  const heard: string[] = []
  const fine = asset('fine', { execute: () => 1 })
  const hooks: PipelineHooks = { onRunFinished: (_ctx, { run }) => void heard.push(run) }
  const [before, after] = [pipeline('p', [fine], { hooks }), pipeline('p', [fine])]
  await using stage = await openStage(server.url, [], { worker: false })
  const { flow } = stage
  const run = await flow.materialize(fine, { pipeline: before })
  await flow.worker(after)
  await run.result()
  await until('its call waits', async () => (await run.hooks())[0]?.status === 'queued')
  const [call] = await run.hooks()
  // It has not begun.
  expect(call).toMatchObject({ status: 'queued', attempts: 0 })
  await until('it says for what', async () => {
    const status = await flow.run(call?.call ?? '').status()
    return status?.assets.hook__run_finished?.waitingFor.some((reason) => reason.includes('worker')) === true
  })
  await flow.worker(before)
  await until('it is made', () => heard.length === 1)
  expect(heard).toEqual([run.id])
})

it('an approval gives its address before it waits', async () => {
  const written: string[] = []
  const published = asset('published', {
    execute: async (ctx) => {
      const gate = await ctx.openApproval({ message: 'Publish?', timeout: '1h' })
      if (gate.isNew) written.push(gate.token)
      ctx.log.info('opened', { ...gate, gate })
      return gate.wait()
    },
    onSignal: (_ctx, { approved, by }: { approved: boolean; by?: string }) => `${approved} by ${by}`,
  })
  await using stage = await openStage(server.url, pipeline('p', [published]), { gates: GATES })
  const { flow } = stage
  const run = await flow.materialize(published)
  await until('somebody is written to', () => written.length === 1)
  await expect(flow.gates.signal(written[0] ?? '', { approved: 'maybe' })).rejects.toThrow(/approved/)
  await flow.gates.signal(written[0] ?? '', { approved: true, by: 'ann' })
  expect(await run.result()).toBe('true by ann')
  const lines = await collect(flow.logs(run.id, { follow: true }))
  expect(lines.map(({ fields }) => fields)).toMatchObject([{ isNew: true, gate: { isNew: true } }])
  expect(JSON.stringify(lines)).not.toContain(written[0])
})

it('a run that is open for long is late, once, and its time limit still holds', async () => {
  const late: RunLateEvent[] = []
  const slow = asset('slow', {
    execute: ({ signal }) => new Promise((_, reject) => signal.addEventListener('abort', reject)),
  })
  const all = pipeline('p', [slow], {
    timeout: '2s',
    hooks: { lateAfter: '300ms', onLate: (_ctx, event) => void late.push(event) },
  })
  await using stage = await openStage(server.url, all)
  const { flow } = stage
  const run = await flow.materialize(slow)
  await until('it is late', () => late.length === 1)
  expect(late[0]).toMatchObject({ run: run.id, target: 'slow', status: 'running', afterMs: 300, open: ['slow'] })
  expect((await flow.verify()).findings).toEqual([])
  await expect(run.result()).rejects.toThrow('timeout of 2000 ms')
  expect(late).toHaveLength(1)
})

it('a run whose timer was lost is late all the same', async () => {
  const late: string[] = []
  const waits = asset('waits', { execute: (ctx) => ctx.signalGate({ timeout: '1h' }) })
  const all = pipeline('p', [waits], {
    hooks: { lateAfter: '4s', onLate: (_ctx, { run }) => void late.push(run) },
  })
  await using stage = await openStage(server.url, all, { gates: GATES, reconcileMs: 200 })
  const { flow } = stage
  const run = await flow.materialize(waits)
  await until('it waits', async () => (await run.status())?.assets.waits?.status === 'suspended')
  const jsm = await jetstreamManager(nc)
  const filter = `${stage.namespace}.log.0.run.${run.id}.late.timer`
  expect((await jsm.streams.purge(`${stage.namespace}_LOG_0`, { filter })).purged).toBe(1)
  await until('it is late', () => late.length === 1, 30_000)
  await until('it says so', async () => (await run.view())?.lateSince !== undefined)
})

it('a call outlives the run that it is about, which is sealed meanwhile', async () => {
  const { promise, resolve } = Promise.withResolvers<void>()
  const heard: string[] = []
  const fine = asset('fine', { execute: () => 1 })
  const hooks = {
    onRunFinished: async (_ctx: HookContext, { run }: RunFinishedEvent) => {
      await promise
      heard.push(run)
    },
  }
  await using stage = await openStage(server.url, pipeline('p', [fine], { hooks }), { sealAfter: '1s' })
  const { flow } = stage
  const run = await flow.materialize(fine)
  await run.result()
  const jsm = await jetstreamManager(nc)
  await until('it has left the log', async () => {
    const filter = `${stage.namespace}.log.0.run.${run.id}.>`
    const { state } = await jsm.streams.info(`${stage.namespace}_LOG_0`, { subjects_filter: filter })
    return Object.keys(state.subjects ?? {}).length === 0
  })
  expect((await flow.runs({ target: 'p/hook__run_finished' }))[0]?.status).toBe('running')
  resolve()
  await until('the hook has heard of it', () => heard.length === 1)
  expect(heard).toEqual([run.id])
})
