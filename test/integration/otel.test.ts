/**
 * One trace for each run, over client, engine and worker in processes of their own, as a receiver
 * of OTLP gets it.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { serveHttp } from '../../src/http/index.ts'
import { newApiKey } from '../../src/http/shared/api-keys.ts'
import { connect, type Flow } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { type OtlpReceiver, otlpReceiver, type ReceivedSpan, treeOf } from '../kit/otlp.ts'
import { freshNamespace } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const server = useServer({ syncInterval: 'default' })
const program = fileURLToPath(new URL('./programs/traced.ts', import.meta.url))
const namespace = freshNamespace()
const secrets = [{ id: 'k1', secret: '0123456789abcdef0123456789abcdef' }]

let otlp: OtlpReceiver
let flow: Flow
const children: (ChildProcess & { readonly said: () => string })[] = []

async function start(role: string, args: readonly string[] = [], env: Record<string, string> = {}) {
  const own = { TRACED_ROLE: role, TRACED_SERVER: server.url, TRACED_NAMESPACE: namespace, TRACED_OTLP: otlp.url }
  const child = spawn(process.execPath, [program, ...args], { env: { ...process.env, ...own, ...env } })
  let text = ''
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (data: Buffer) => {
      text += data.toString()
    })
  const started = Object.assign(child, { said: () => text })
  children.push(started)
  if (role !== 'client')
    await until(`the ${role} is ready`, () => {
      if (child.exitCode !== null) throw new Error(text)
      return text.includes('ready')
    })
  return started
}

/** Runs assets in a client of its own; the id of each run, and its trace. */
async function ask(...assets: string[]): Promise<{ readonly run: string; readonly traceId: string }[]> {
  const client = await start('client', assets)
  if (client.exitCode === null) await once(client, 'exit')
  expect(client.exitCode, client.said()).toBe(0)
  return client
    .said()
    .trim()
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => {
      const { run, trace } = JSON.parse(line) as { run: string; trace: { traceId: string } }
      return { run, traceId: trace.traceId }
    })
}

/** Exporters of other processes may still be sending. */
async function whole(traceId: string, names: readonly string[]): Promise<ReceivedSpan[]> {
  const there = (): ReceivedSpan[] => otlp.spans.filter((span) => span.traceId === traceId)
  await until(`the spans ${names.join(', ')}`, () => names.every((name) => there().some((span) => span.name === name)))
  let problem: unknown
  await until(
    'no span lacks its parent',
    () => {
      try {
        return treeOf(otlp.spans, traceId).size > 0
      } catch (error) {
        problem = error
        return false
      }
    },
    20_000,
  ).catch(() => {
    throw problem
  })
  return [...treeOf(otlp.spans, traceId).values()]
}

const named = (spans: readonly ReceivedSpan[], name: string): ReceivedSpan[] =>
  spans.filter((span) => span.name === name)
const one = (spans: readonly ReceivedSpan[], name: string): ReceivedSpan => {
  const [found, more] = named(spans, name)
  if (!found || more) throw new Error(`${name}: not one of it in ${spans.map((span) => span.name).join(', ')}`)
  return found
}

beforeAll(async () => {
  otlp = await otlpReceiver()
  flow = await connect({ servers: server.url, namespace, gates: { secrets } })
  await flow.setup()
  await Promise.all([start('engine'), start('worker')])
})

afterAll(async () => {
  for (const child of children) child.kill('SIGKILL')
  await flow.close()
  await otlp[Symbol.asyncDispose]()
})

describe('the trace of a run', () => {
  it('holds what client, engine and worker did, as one tree', async () => {
    const asking = ask('asked')
    await until('the gate is open', async () => (await flow.gates.waiting({ limit: 1 })).length > 0)
    const [signalled] = await ask('signal:traced')
    const [{ run, traceId } = { run: '', traceId: '' }] = await asking
    const spans = await whole(traceId, ['run traced/asked', 'asked.gate', 'asked.signal', 'spread.instances'])
    expect(new Set(spans.map(({ service }) => service))).toEqual(new Set(['client', 'engine', 'worker']))

    const top = one(spans, 'run traced/asked')
    expect(top).toMatchObject({ parentSpanId: one(spans, 'ask asked').spanId, service: 'engine', isError: false })
    expect(top.attributes).toMatchObject({ 'flowstone.run.id': run, 'flowstone.status': 'succeeded' })
    for (const name of ['called.execute', 'parent.execute', 'asked.execute', 'asked.gate', 'spread.scatter'])
      expect(one(spans, name).parentSpanId, name).toBe(top.spanId)
    expect(one(spans, 'asked.gate').links).toMatchObject([{ traceId: signalled?.traceId }])
    expect(one(spans, 'asked.signal').links).toMatchObject([{ spanId: one(spans, 'asked.gate').spanId }])

    // What the code sends is below it: by OpenTelemetry, and by ctx.traceparent.
    const called = one(spans, 'called.execute')
    expect(one(spans, 'GET /').parentSpanId).toBe(called.spanId)
    const value = await flow.value<{ traceparent: string }>('traced/called', { run })
    expect(value?.value.traceparent).toBe(`00-${traceId}-${called.spanId}-01`)

    // The run that another one asked for is below the code that did.
    expect(one(spans, 'run traced/child').parentSpanId).toBe(one(spans, 'parent.execute').spanId)
  })

  it('has a span for each lease with counts, and for instances only where they are sampled', async () => {
    const [{ run, traceId } = { run: '', traceId: '' }] = await ask('spread')
    const spans = await whole(traceId, ['run traced/spread', 'spread.instances', 'spread.gather'])
    const leases = named(spans, 'spread.lease')
    const scatter = one(spans, 'spread.instances')
    expect(scatter.attributes).toMatchObject({
      'flowstone.instances.total': 50,
      'flowstone.instances.succeeded': 49,
      'flowstone.instances.failed': 1,
    })
    expect(leases.every(({ parentSpanId }) => parentSpanId === scatter.spanId)).toBe(true)
    const sum = (what: string): number =>
      leases.reduce((all, { attributes }) => all + Number(attributes[`flowstone.instances.${what}`]), 0)
    // One fails twice, one succeeds at its second attempt.
    expect([sum('succeeded'), sum('failed')]).toEqual([49, 3])
    expect(leases.flatMap(({ exceptions }) => exceptions)).toContain('no 7')
    expect(named(spans, 'in instance')).toHaveLength(52)
    const sampled = named(spans, 'spread.instance')
    expect(sampled.length).toBeLessThan(20)
    const ids = new Set(leases.map(({ spanId }) => spanId))
    expect(sampled.every(({ parentSpanId }) => ids.has(parentSpanId ?? ''))).toBe(true)

    // What failed is run again in another run, and another trace.
    const redrive = await flow.scatter.redrive(`${run}.spread`)
    await redrive.result().catch(() => undefined)
    const redriven = (): ReceivedSpan | undefined =>
      otlp.spans.find((span) => span.attributes['flowstone.run.id'] === redrive.id && span.name === 'run traced/spread')
    await until('the redrive is recorded', () => redriven() !== undefined)
    expect(redriven()?.links).toMatchObject([{ traceId, spanId: one(spans, 'run traced/spread').spanId }])
    await whole(redriven()?.traceId ?? '', ['spread.instances'])
  })

  it('goes on behind the gates of instances', async () => {
    const asking = ask('each')
    await until('the gates are open', async () => (await flow.gates.waiting({ limit: 9 })).length === 2)
    for (const key of ['each a', 'each b']) await flow.gates.signalByCorrelationKey(key, key)
    const [{ traceId } = { traceId: '' }] = await asking
    const spans = await whole(traceId, ['run traced/each', 'each.instances', 'each.gather'])
    const scatter = one(spans, 'each.instances')
    const gates = named(spans, 'each.gate')
    expect(gates.map(({ parentSpanId }) => parentSpanId)).toEqual([scatter.spanId, scatter.spanId])
    const resumes = named(spans, 'each.resume')
    const linked = new Set(resumes.flatMap(({ links }) => links.map(({ spanId }) => spanId)))
    expect(linked).toEqual(new Set(gates.map(({ spanId }) => spanId)))
    const behind = new Set(named(spans, 'behind the gate').map(({ parentSpanId }) => parentSpanId))
    expect(behind).toEqual(new Set(resumes.map(({ spanId }) => spanId)))
  })

  it('holds errors as exceptions, and a retry links to the run before it', async () => {
    const [{ run, traceId } = { run: '', traceId: '' }] = await ask('failing')
    const spans = await whole(traceId, ['run traced/failing', 'failing.execute'])
    expect(named(spans, 'failing.execute')).toMatchObject([
      { isError: true, exceptions: ['not today'], attributes: { 'flowstone.attempt': 1, 'error.type': 'TypeError' } },
      { isError: true, exceptions: ['not today'], attributes: { 'flowstone.attempt': 2 } },
    ])
    const failed = one(spans, 'run traced/failing')
    expect(failed).toMatchObject({ isError: true, attributes: { 'flowstone.status': 'failed' } })

    // It is asked for outside of any trace: its own follows from its id.
    const again = await flow.retry(run)
    await again.result().catch(() => undefined)
    const id = again.id
    const retried = (): ReceivedSpan | undefined =>
      otlp.spans.find(({ name, attributes }) => name === 'run traced/failing' && attributes['flowstone.run.id'] === id)
    await until('the retry is reported', () => retried() !== undefined)
    expect(retried()).toMatchObject({ parentSpanId: undefined, links: [{ traceId, spanId: failed.spanId }] })
    expect(retried()?.traceId).not.toBe(traceId)
    await whole(retried()?.traceId ?? '', ['failing.execute'])
  })

  it('lacks no span where a worker is killed', async () => {
    // Which of the two gets it is open, so the first one goes.
    const [, survivor] = children
    survivor?.kill('SIGTERM')
    const victim = await start('worker', [], { TRACED_DIES: '1' })
    const asking = ask('dying')
    await once(victim, 'exit')
    await start('worker')
    const [{ traceId } = { traceId: '' }] = await asking
    const spans = await whole(traceId, ['run traced/dying', 'before the end'])
    const attempts = named(spans, 'dying.execute').toSorted((a, b) => a.fromMs - b.fromMs)
    expect(attempts).toMatchObject([
      { isError: true, attributes: { 'flowstone.outcome': 'lost', 'flowstone.attempt': 1 } },
      { isError: false, attributes: { 'flowstone.outcome': 'value', 'flowstone.attempt': 2 } },
    ])
    // One of them was sent by the process that died.
    const sent = named(spans, 'before the end').map(({ parentSpanId }) => parentSpanId)
    expect(new Set(sent)).toEqual(new Set(attempts.map(({ spanId }) => spanId)))
  })

  it('is that of the trigger or the message which asked for the run', async () => {
    const traceId = 'ab'.repeat(16)
    const nats = await import('@nats-io/transport-node')
    const nc = await nats.connect({ servers: server.url })
    const headers = nats.headers()
    headers.set('traceparent', `00-${traceId}-${'cd'.repeat(8)}-01`)
    headers.set('tracestate', 'vendor=1')
    nc.publish(`${namespace}.trigger.traced.called`, '{}', { headers })
    await nc.drain()
    const spans = (): ReceivedSpan[] => otlp.spans.filter((span) => span.traceId === traceId)
    await until('the run is reported', () => spans().some(({ name }) => name === 'run traced/called'))
    expect(one(spans(), 'run traced/called')).toMatchObject({ parentSpanId: 'cd'.repeat(8), traceState: 'vendor=1' })
    expect(one(spans(), 'GET /').parentSpanId).toBe(one(spans(), 'called.execute').spanId)
  })

  it('is that of the request over HTTP, or the one that is named', async () => {
    const [overHttp, named] = ['1', '2'].map((digit) => `00-${digit.repeat(32)}-${'cd'.repeat(8)}-01`)
    const { key, hash } = newApiKey()
    await using http = await serveHttp(flow, { port: 0, apiKeys: [{ id: 'shop', hash, assets: ['traced/*'] }] })
    const headers = { Authorization: `Bearer ${key}`, traceparent: overHttp ?? '', 'Content-Type': 'application/json' }
    await fetch(`${http.url}/runs/traced/child`, { method: 'POST', headers, body: '{}' })
    await flow.request('traced/child', named === undefined ? {} : { traceparent: named })
    const runs = (): ReceivedSpan[] => otlp.spans.filter(({ parentSpanId }) => parentSpanId === 'cd'.repeat(8))
    await until('both are recorded', () => ['1', '2'].every((d) => runs().some((s) => s.traceId === d.repeat(32))))
    await expect(flow.request('traced/child', { traceparent: '00-1' })).rejects.toThrow(
      'request: traceparent must be a header of W3C Trace Context',
    )
  })
})
