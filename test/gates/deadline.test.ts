import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats, type NatsConnection } from '@nats-io/transport-node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { asset, ConflictError, pipeline } from '../../src/index.ts'
import { namesOf } from '../../streams/subjects.ts'
import { useServer } from '../kit/fixture.ts'
import { factsOf, openStage, rejection } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { busy } from '../kit/within.ts'
import { GATES, gateOf, gatesOf } from './kit.ts'

const server = useServer({ syncInterval: 'default' })
let nc: NatsConnection
beforeAll(async () => {
  nc = await connectNats({ servers: server.url })
})
afterAll(async () => {
  await nc.close()
})

const once = asset('once', { execute: (ctx) => ctx.signalGate({ timeout: 3000 }) })
const retried = asset('retried', {
  execute: (ctx) => ctx.signalGate({ timeout: 3000, timeoutAction: 'retry', retryDelays: ['5m'] }),
})
const COUNT = 100
/** All of them must be open before the first one times out. */
const OPEN_MS = Math.round(4000 * busy())
const raced = asset('raced', {
  scatter: () => Array.from({ length: COUNT }, (_, i) => i),
  scatterOptions: { failureMode: 'partial', failureThreshold: 1, retry: { maxAttempts: 1 } },
  execute: (ctx) => ctx.signalGate({ timeout: OPEN_MS + 7 * (ctx.index % 20) }),
})
const all = pipeline('deadlines', [once, retried, raced])

/** How many messages stand under a subject of a gate. */
async function countOf(namespace: string, id: string, what: 'timer' | 'timer_fired'): Promise<number> {
  const filter = `${namespace}.log.0.gate.${id}.${what}`
  const info = await (await jetstreamManager(nc)).streams.info(namesOf(namespace).log(0), { subjects_filter: filter })
  return info.state.subjects?.[filter] ?? 0
}

describe('a deadline that passes while no engine runs', () => {
  it('a deadline that passes while no engine runs is moved by who asks for more time before the timeout counts', async () => {
    await using stage = await openStage(server.url, all, { gates: GATES })
    const { flow, namespace } = stage
    const run = await flow.materialize(once)
    const { id } = await gateOf(flow, run.id)
    await stage.engine?.stop()
    await until('its timer has fired', async () => (await countOf(namespace, id, 'timer_fired')) === 1)
    const deadline = await flow.gates.extend(id, '1h')
    await flow.engine()
    // What the engine made of the timer stands on the log before what it makes of this run.
    await gateOf(flow, (await flow.materialize(once, { key: 'behind' })).id)
    expect(await flow.gates.get(id)).toMatchObject({ status: 'waiting', deadline, timeouts: 0 })
    expect(await countOf(namespace, id, 'timer')).toBe(1)
    await flow.gates.signalById(id, 'in time')
    expect(await run.result()).toBe('in time')
    expect(await countOf(namespace, id, 'timer')).toBe(0)
  })

  it('a deadline that passes while no engine runs leaves no timer and no timeout with a gate that was answered before the engine came back', async () => {
    await using stage = await openStage(server.url, all, { gates: GATES })
    const { flow, namespace } = stage
    const run = await flow.materialize(retried)
    const { id, deadline } = await gateOf(flow, run.id)
    await stage.engine?.stop()
    await until('its timer has fired', async () => (await countOf(namespace, id, 'timer_fired')) === 1)
    await flow.gates.signalById(id, 'late')
    await flow.engine()
    expect(await run.result()).toBe('late')
    expect(await countOf(namespace, id, 'timer')).toBe(0)
    expect((await factsOf(flow, run.id)).map(({ kind }) => kind)).not.toContain('gate.extended')
    expect(await flow.gates.get(id)).toMatchObject({ status: 'signaled', deadline, timeouts: 0 })
  })
})

describe('more time, asked for as the timers fire', () => {
  it('more time, asked for as the timers fire, is given, and then the gate does not time out before; or refused, and then it has', {
    timeout: 180_000,
  }, async () => {
    await using stage = await openStage(server.url, all, { gates: GATES, worker: { concurrency: 50 } })
    const { flow, namespace } = stage
    const other = await stage.connect({ gates: GATES })
    const run = await flow.materialize(raced)
    const open = await gatesOf(flow, run.id, COUNT)
    const told = await Promise.all(
      open.map(async ({ id, deadline, index = 0 }) => {
        // When several timers are due, the server takes up to a quarter of a second for some of
        // them.
        const atMs = (deadline?.getTime() ?? 0) + 25 * (index % 15) - 4
        // The first ones ask in good time, the last ones too late for certain.
        if (index % 15 > 0) await until('its deadline is near', () => Date.now() >= atMs)
        if (index % 15 === 14) await until('it has ended', async () => (await flow.gates.get(id))?.status !== 'waiting')
        return { id, answer: await other.gates.extend(id, '1h').catch((error: unknown) => error) }
      }),
    )
    // The engine has taken in what was there before this.
    await gateOf(flow, (await flow.materialize(once, { key: 'behind' })).id)
    for (const { id, answer } of told) {
      const gate = await flow.gates.get(id)
      if (answer instanceof Date) expect(gate?.status, id).toBe('waiting')
      else {
        expect(answer, id).toBeInstanceOf(ConflictError)
        expect(gate?.status, id).toBe('timed_out')
        expect(await countOf(namespace, id, 'timer'), id).toBe(0)
      }
    }
    const given = told.filter(({ answer }) => answer instanceof Date).length
    console.info(`of ${COUNT} that asked for more time as their timers fired ${given} got it`)
    expect(given).toBeGreaterThan(0)
    expect(given).toBeLessThan(COUNT)
    await flow.scatter.cancel(`${run.id}.raced`)
    await rejection(run.result())
  })
})
