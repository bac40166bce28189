import { channel } from 'node:diagnostics_channel'
import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats, type NatsConnection } from '@nats-io/transport-node'
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest'
import { stateKey } from '../../projections/state.ts'
import { asset, pipeline, TELEMETRY_CHANNELS } from '../../src/index.ts'
import { namesOf } from '../../streams/subjects.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { GATES, gateOf, gatesOf, untilSuspended } from './kit.ts'

const server = useServer({ syncInterval: 'default' })
let nc: NatsConnection
beforeAll(async () => {
  nc = await connectNats({ servers: server.url })
})
afterAll(async () => {
  await nc.close()
})

const brief = asset('brief', { execute: (ctx) => ctx.signalGate({ timeout: Number(ctx.partition) }) })
const briefly = pipeline('brief', [brief])

describe('the timer of a gate', () => {
  it('the timer of a gate that got lost is set again once the gate is past its deadline', {
    timeout: 180_000,
  }, async () => {
    await using stage = await openStage(server.url, briefly, { gates: GATES, reconcileMs: 200 })
    const run = await stage.flow.materialize(brief, { partition: '1500' })
    const gate = await gateOf(stage.flow, run.id)
    const names = namesOf(stage.namespace)
    const jsm = await jetstreamManager(nc)
    const timer = `${stage.namespace}.log.0.gate.${gate.id}.timer`
    const { purged } = await jsm.streams.purge(names.log(0), { filter: timer })
    expect(purged).toBe(1)
    const repaired: unknown[] = []
    const onRepair = (event: unknown): void => void repaired.push(event)
    channel('flowstone:engine.repaired').subscribe(onRepair)
    onTestFinished(() => void channel('flowstone:engine.repaired').unsubscribe(onRepair))
    expect((await rejection(run.result())).code).toBe('gate_timeout')
    const ended = await stage.flow.gates.get(gate.id)
    expect((ended?.endedAt?.getTime() ?? 0) - (gate.deadline?.getTime() ?? 0)).toBeGreaterThan(4900)
    expect(repaired).toMatchObject([{ gates: [gate.id] }])
  })

  it.each([3_600_000, -3_600_000])(
    'goes by the clock of the server when that of the worker is %i ms off',
    async (offMs) => {
      const realNow = Date.now.bind(Date)
      vi.spyOn(Date, 'now').mockImplementation(() => realNow() + offMs)
      onTestFinished(() => void vi.restoreAllMocks())
      await using stage = await openStage(server.url, briefly, { gates: GATES })
      const run = await stage.flow.materialize(brief, { partition: '400' })
      const { id, openedAt, deadline } = await gateOf(stage.flow, run.id)
      expect(Math.abs((deadline?.getTime() ?? 0) - openedAt.getTime() - 400)).toBeLessThan(10_000)
      expect((await rejection(run.result())).code).toBe('gate_timeout')
      const endedAt = (await stage.flow.gates.get(id))?.endedAt?.getTime() ?? 0
      expect(endedAt - (deadline?.getTime() ?? 0)).toBeGreaterThanOrEqual(-2)
      expect(endedAt - (deadline?.getTime() ?? 0)).toBeLessThan(10_000)
    },
  )

  it('the timer of a gate is no longer looked for when the gate has ended: a mark that an engine left is taken away after the deadline', async () => {
    await using stage = await openStage(server.url, briefly, { gates: GATES, worker: {} })
    const { flow } = stage
    const run = await flow.materialize(brief, { partition: '1000' })
    const gate = await gateOf(flow, run.id)
    await flow.gates.signalById(gate.id, 1)
    await run.result()
    await stage.engine?.stop()
    // As an engine leaves it that dies with marks still to be deleted.
    const bucket = namesOf(stage.namespace).stateBucket(0)
    const [of, name, number] = gate.id.split('.')
    const at = { run: of ?? '', asset: name ?? '', gate: number ?? '' }
    const key = stateKey.waiting(gate.deadline?.getTime(), at)
    const subject = namesOf(stage.namespace).kvSubject(bucket, key)
    await nc.request(subject, JSON.stringify({ since: 0 }))
    expect(await flow.gates.waiting()).toEqual([])
    await until('the deadline is well over', () => Date.now() > (gate.deadline?.getTime() ?? 0) + 5100, 10_000)
    const successor = await stage.flow.engine({ reconcileMs: 100 })
    await successor.active
    const jsm = await jetstreamManager(nc)
    await until('the mark is deleted', async () => {
      // Something to write, so that there is a checkpoint.
      await flow.materialize(brief, { partition: '1' })
      const last = await jsm.streams.getMessage(namesOf(stage.namespace).kvStream(bucket), { last_by_subj: subject })
      return last?.header.get('KV-Operation') === 'DEL'
    })
  })

  it('the timer of a gate whose time passed while no engine ran ends the gate as soon as one is active', async () => {
    await using stage = await openStage(server.url, briefly, { gates: GATES })
    const run = await stage.flow.materialize(brief, { partition: '4000' })
    const { id } = await gateOf(stage.flow, run.id)
    await stage.engine?.stop()
    const jsm = await jetstreamManager(nc)
    const fired = `${stage.namespace}.log.0.gate.${id}.timer_fired`
    await until('the timer has fired', async () => {
      const { state } = await jsm.streams.info(namesOf(stage.namespace).log(0), { subjects_filter: fired })
      return Object.keys(state.subjects ?? {}).length === 1
    })
    expect((await stage.flow.gates.get(id))?.status).toBe('waiting')
    await stage.flow.engine()
    expect((await rejection(run.result())).code).toBe('gate_timeout')
  })
})

describe('what goes on behind a gate', () => {
  const plain = asset('plain', { execute: (ctx) => ctx.signalGate(), onSignal: (_, payload: number) => payload + 1 })
  const many = asset('many', {
    scatter: () => [0, 1, 2],
    execute: (ctx) => ctx.signalGate(),
    onSignal: (_, payload: number) => payload + 1,
  })
  const both = pipeline('both', [plain, many])

  it('what goes on behind a gate is enqueued again when its task got lost', { timeout: 180_000 }, async () => {
    await using stage = await openStage(server.url, both, { gates: GATES, reconcileMs: 300, worker: false })
    const { flow } = stage
    const first = await flow.worker(both)
    const runs = [await flow.materialize(plain), await flow.materialize(many)] as const
    const gates = [...(await gatesOf(flow, runs[0].id)), ...(await gatesOf(flow, runs[1].id, 3))]
    await untilSuspended(flow, runs[0].id, 'plain')
    await until('instances wait', async () => (await flow.scatter.status(`${runs[1].id}.many`)).suspended === 3)
    await first.stop()
    for (const [n, { id }] of gates.entries()) await flow.gates.signalById(id, n)
    const jsm = await jetstreamManager(nc)
    const work = namesOf(stage.namespace).work(0)
    await until('their tasks are on WORK', async () => (await jsm.streams.info(work)).state.messages === 4)
    await jsm.streams.purge(work)
    await flow.worker(both)
    expect(await runs[0].result()).toBe(1)
    expect((await runs[1].result()).map(({ value }) => value)).toEqual([2, 3, 4])
  })
})

describe('a scatter that is closed early', () => {
  const left = asset('left', { scatter: () => [0, 1, 2], execute: (ctx) => ctx.signalGate() })

  it.each(['scatter', 'run'])('(its %s is cancelled) leaves no mark of what waited and what went on', async (what) => {
    await using stage = await openStage(server.url, pipeline('left', [left]), { gates: GATES, reconcileMs: 200 })
    const { flow, namespace } = stage
    const run = await flow.materialize(left)
    const [gate] = await gatesOf(flow, run.id, 3)
    await until('instances wait', async () => (await flow.scatter.status(`${run.id}.left`)).suspended === 3)
    await stage.worker?.stop()
    const jsm = await jetstreamManager(nc)
    const bucket = namesOf(namespace).stateBucket(0)
    const marks = async (kind: string): Promise<number> => {
      const filter = `$KV.${bucket}.${kind}.>`
      const { state } = await jsm.streams.info(`KV_${bucket}`, { subjects_filter: filter })
      const found = await Promise.all(
        Object.keys(state.subjects ?? {}).map((subject) =>
          jsm.streams.getMessage(`KV_${bucket}`, { last_by_subj: subject }),
        ),
      )
      // A deleted key leaves a message of its own for a while.
      return found.filter((message) => message && !message.header.has('KV-Operation')).length
    }
    await flow.gates.signalById(gate?.id ?? '', 1)
    // Two wait: gates of a row share a mark.
    await until('one goes on', async () => (await marks('resuming')) === 1 && (await marks('waiting')) === 1)
    await (what === 'run' ? run.cancel() : flow.scatter.cancel(`${run.id}.left`))
    await rejection(run.result())
    await until('no mark is left', async () => (await marks('resuming')) + (await marks('waiting')) === 0)
  })
})

describe('gates', () => {
  it('gates are reported by telemetry', async () => {
    const events: { name: string; data: object }[] = []
    for (const name of TELEMETRY_CHANNELS) {
      if (!name.startsWith('flowstone:gate.')) continue
      const listen = (data: unknown): void =>
        void (
          typeof data === 'object' &&
          data !== null &&
          events.push({ name: name.slice('flowstone:gate.'.length), data })
        )
      channel(name).subscribe(listen)
      onTestFinished(() => void channel(name).unsubscribe(listen))
    }
    const told = asset('told', {
      execute: (ctx) =>
        ctx.signalGate({ timeout: 40, timeoutAction: 'retry', maxTimeoutRetries: 1, retryDelays: [30] }),
      onTimeout: (ctx) => (ctx.retriesLeft > 0 ? undefined : ctx.signalGate()),
      onSignal: (ctx) => ctx.signalGate(),
    })
    await using stage = await openStage(server.url, pipeline('told', [told]), { gates: GATES })
    const run = await stage.flow.materialize(told)
    const second = (await gatesOf(stage.flow, run.id, 2))[1]
    await stage.flow.gates.signalById(second?.id ?? '', 1)
    const third = (await gatesOf(stage.flow, run.id, 3))[2]
    await stage.flow.gates.cancel(third?.id ?? '', 'enough')
    expect((await rejection(run.result())).code).toBe('cancelled')
    // The engine says `end`, and whoever ended the gate says how: either may be first. So may the
    // sender of a signal and the worker that continues behind it.
    const byOthers = new Set(['end', 'signal', 'cancel'])
    const named = (others: boolean): string[] =>
      events.flatMap(({ name }) => (byOthers.has(name) === others ? [name] : []))
    await until('all is reported', () => named(true).length === 5)
    expect(named(true).toSorted()).toEqual(['cancel', 'end', 'end', 'end', 'signal'])
    expect(named(false)).toEqual(['create', 'timeout_retry', 'timeout', 'resume', 'create', 'resume', 'create'])
    for (const { data } of events) expect(data).toMatchObject({ run: run.id, asset: 'told' })
    const of = (name: string): object | undefined => events.find((event) => event.name === name)?.data
    expect(of('timeout')).toMatchObject({ timeouts: 2, waitedMs: expect.any(Number) })
    expect(of('cancel')).toMatchObject({ reason: 'enough' })
  })
})
