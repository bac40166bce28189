/** Attempts to answer a gate that were refused: what is noted, and how little a flood costs. */
import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats, type NatsConnection } from '@nats-io/transport-node'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { GATES_AT_ONCE, mergeRefused, type RefusedDoc, SHOWN } from '../../src/gates/refused.ts'
import { serveGates } from '../../src/http/index.ts'
import { asset, connect, pipeline, type RefusedSignals } from '../../src/index.ts'
import { namesOf } from '../../streams/subjects.ts'
import { useServer } from '../kit/fixture.ts'
import { openStage, rejection, type Stage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { GATES, gateOf, gatesOf } from './kit.ts'

const server = useServer({ syncInterval: 'default' })
const paid = asset('paid', {
  payloadSchema: z.object({ cents: z.int() }),
  execute: (ctx) => ctx.signalGate({ timeout: '1h', correlationKey: `order ${ctx.partition}` }),
})
const many = asset('many', { scatter: () => [...Array(60).keys()], execute: (ctx) => ctx.signalGate() })
let nc: NatsConnection
let stage: Stage
beforeAll(async () => {
  nc = await connectNats({ servers: server.url })
  stage = await openStage(server.url, pipeline('refused', [paid, many]), { gates: GATES })
})
afterAll(async () => {
  await stage?.[Symbol.asyncDispose]()
  await nc?.close()
})

async function untilRefused(gate: string, count: number): Promise<RefusedSignals> {
  let found: RefusedSignals | undefined
  await until(`${count} are noted`, async () => {
    found = (await stage.flow.gates.get(gate))?.refused
    return (found?.count ?? 0) >= count
  })
  if (!found) throw new Error('none')
  return found
}

/** Another signature of the same gate. */
function forgedFrom(token: string): string {
  const [version, key, id] = token.split('.')
  return [version, key, id, Buffer.alloc(32, 7).toString('base64url')].join('.')
}

async function documents(names = namesOf(stage.namespace)): Promise<string[]> {
  const jsm = await jetstreamManager(nc)
  const prefix = names.kvSubject(names.controlBucket, 'refused.')
  const { state } = await jsm.streams.info(names.kvStream(names.controlBucket), { subjects_filter: `${prefix}>` })
  return Object.keys(state.subjects ?? {}).map((subject) => subject.slice(prefix.length))
}

it('each refusal of a known gate is noted with its reason and source, and never the token', async () => {
  const { flow } = stage
  const run = await flow.materialize(paid, { partition: 'a' })
  const { id } = await gateOf(flow, run.id)
  const token = await flow.gates.token(id)
  await rejection(flow.gates.signal(forgedFrom(token), {}, { source: 'a forger' }))
  await rejection(flow.gates.signal(token, { cents: 'many' }, { source: 'a bank' }))
  await rejection(flow.as('ann').gates.signalByCorrelationKey('order a', { cents: 0.5 }))
  await flow.gates.signal(token, { cents: 5 })
  await rejection(flow.gates.signal(token, { cents: 6 }, { source: 'a bank' }))
  const { count, reasons, last } = await untilRefused(id, 4)
  expect({ count, reasons }).toEqual({
    count: 4,
    reasons: { invalid_signature: 1, invalid_payload: 2, already_signaled: 1 },
  })
  expect(last.map(({ reason, source }) => [reason, source])).toEqual(
    expect.arrayContaining([
      ['already_signaled', 'a bank'],
      ['invalid_payload', undefined],
      ['invalid_payload', 'a bank'],
      ['invalid_signature', 'a forger'],
    ]),
  )
  expect(last.find(({ by }) => by?.includes('ann'))?.reason).toBe('invalid_payload')
  expect((await flow.gates.list(run.id))[0]?.refused?.count).toBe(4)
  const names = namesOf(stage.namespace)
  const jsm = await jetstreamManager(nc)
  const subject = names.kvSubject(names.controlBucket, `refused.${id}`)
  const stored = await jsm.streams.getMessage(names.kvStream(names.controlBucket), { last_by_subj: subject })
  expect(stored?.string()).not.toContain(token.slice(-20))
  expect(stored?.header.get('Nats-TTL')).toBe('604800s')
})

it('over HTTP a forged token is noted with the address of its sender, and one of no gate is not', async () => {
  const { flow } = stage
  await using http = await serveGates(flow, { port: 0 })
  const run = await flow.materialize(paid, { partition: 'b' })
  const { id } = await gateOf(flow, run.id)
  const token = await flow.gates.token(id)
  const before = await documents()
  const post = async (given: string): Promise<number> =>
    (await fetch(`${http.url}/hooks/flowstone/signal/${given}`, { method: 'POST' })).status
  const elsewhere = Buffer.from(id.replace(/n1$/, 'n9')).toString('base64url')
  expect(await post(forgedFrom(token.replace(/^(v1\.\w+)\.\w+/, `$1.${elsewhere}`)))).toBe(401)
  expect(await post(forgedFrom(token))).toBe(401)
  const { last } = await untilRefused(id, 1)
  expect(last).toMatchObject([{ reason: 'invalid_signature', source: expect.stringMatching(/127|::1/) }])
  expect((await documents()).toSorted()).toEqual([...before, id].toSorted())
  const listed = async () => (await flow.gates.waiting()).find((gate) => gate.id === id)
  await until('it is listed', async () => (await listed()) !== undefined)
  expect((await listed())?.refused?.count).toBe(1)
})

it('a signal that came early and does not fit is noted where it was refused', async () => {
  const { flow } = stage
  await flow.gates.signalByCorrelationKey('order early', { cents: 'x' }, { keepFor: '1h', source: 'early bird' })
  const run = await flow.materialize(paid, { partition: 'early' })
  const { id } = await gateOf(flow, run.id)
  expect((await untilRefused(id, 1)).last).toMatchObject([{ reason: 'invalid_payload', source: 'early bird' }])
})

it('what is noted of a gate leaves with its run', async () => {
  await using briefly = await openStage(server.url, pipeline('refused', [paid]), { gates: GATES, sealAfter: '1s' })
  const { flow, namespace } = briefly
  const run = await flow.materialize(paid, { partition: 'pruned' })
  const { id } = await gateOf(flow, run.id)
  await rejection(flow.gates.signalById(id, {}))
  await flow.gates.signalById(id, { cents: 1 })
  await run.result()
  await until('it is noted', async () => (await flow.gates.get(id))?.refused?.count === 1)
  const last = await flow.materialize(paid, { partition: 'pruned' })
  await flow.gates.signalById((await gateOf(flow, last.id)).id, { cents: 2 })
  await last.result()
  await until('it is pruned', async () => {
    await flow.retention.prune({ olderThan: '1s' })
    return (await run.view()) === undefined
  })
  const names = namesOf(namespace)
  await until('the note is gone', async () => !(await documents(names)).includes(id))
})

it('a flood costs a few messages and documents of bounded size', async () => {
  const { flow } = stage
  const run = await flow.materialize(many)
  const gates = await gatesOf(flow, run.id, 60)
  const tokens = await Promise.all(gates.map(({ id }) => flow.gates.token(id)))
  await using flooding = await connect({ servers: server.url, namespace: stage.namespace, gates: GATES })
  const before = await documents()
  const names = namesOf(stage.namespace)
  let writes = 0
  let refused = 0
  const written = nc.subscribe(names.kvSubject(names.controlBucket, 'refused.>'), {
    callback: () => {
      writes += 1
    },
  })
  await nc.flush()
  for (let n = 0; n < 2000; n++) {
    const token = forgedFrom(tokens[n % tokens.length] ?? '')
    try {
      flooding.gates.verify(token, { source: `10.0.0.${n}`.padEnd(256, 'x') })
    } catch {
      refused += 1
    }
  }
  expect(refused).toBe(2000)
  // All of it within the time of one write, whatever the load of this machine: the event loop was
  // not free in between.
  await flooding.close()
  const made = (await documents()).filter((id) => !before.includes(id))
  written.unsubscribe()
  expect(made.length).toBeGreaterThan(0)
  expect(made.length).toBeLessThan(GATES_AT_ONCE / 2)
  expect(writes).toBe(made.length)
  const [first = ''] = made
  const { count, last } = await untilRefused(first, 1)
  expect(count).toBeGreaterThan(20)
  expect(last).toHaveLength(3)
  expect(last[0]?.source?.length).toBe(100)
})

describe('what a document shows', () => {
  const doc = (reason: 'invalid_signature' | 'expired', atMs: number): RefusedDoc => ({
    v: 1,
    count: 1,
    reasons: { [reason]: 1 },
    last: [{ atMs, reason }],
  })

  it('is the newest attempts, of which forged ones cannot take the place of others', () => {
    let all = doc('expired', 0)
    for (let n = 1; n <= 50; n++) all = mergeRefused(all, doc('invalid_signature', n))
    expect(all.count).toBe(51)
    expect(all.last.map(({ atMs }) => atMs)).toEqual([50, 49, 48, 0])
    for (let n = 51; n <= 80; n++) all = mergeRefused(all, doc('expired', n))
    expect(all.last).toHaveLength(SHOWN)
    expect(all.reasons).toEqual({ invalid_signature: 50, expired: 31 })
  })
})
