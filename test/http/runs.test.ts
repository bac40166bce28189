import { afterAll, beforeAll, expect, it } from 'vitest'
import { z } from 'zod'
import { type GateServer, type RunOverHttp, runHandler, type ServeOptions, serveGates } from '../../src/http/index.ts'
import { newApiKey } from '../../src/http/shared/api-keys.ts'
import { asset, ConflictError, input, pipeline } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { listeningLogger, openStage, type Stage } from '../kit/stage.ts'
import { until } from '../kit/until.ts'
import { type Answer, post, raw, request, SECRETS } from './kit.ts'

const order = input('order', z.object({ id: z.string(), total: z.number() }))
const invoice = asset('invoice', {
  dependsOn: [order],
  execute: (_, { order: given }) => ({ of: given.id, cents: BigInt(given.total * 100) }),
})
const broken = asset('broken', {
  retry: { maxAttempts: 1 },
  execute: () => {
    throw new Error('no paper')
  },
})
/** Runs of a partition go on until they are let. */
const held = new Map<string, () => void>()
const slow = asset('slow', {
  execute: async (ctx) => {
    await new Promise<void>((resolve) => held.set(ctx.partition ?? '', resolve))
    return ctx.partition
  },
})
const report = asset('report', { execute: () => 'numbers' })

const keys = {
  shop: newApiKey(),
  shopNew: newApiKey(),
  other: newApiKey(),
  reader: newApiKey(),
  starter: newApiKey(),
  sales: newApiKey(),
  gone: newApiKey(),
}
const server = useServer()
const logger = listeningLogger()
let stage: Stage
let http: GateServer
const servers: GateServer[] = []

async function serve(more: ServeOptions = {}): Promise<GateServer> {
  const one = await serveGates(stage.flow, {
    port: 0,
    logger,
    apiKeys: [
      { id: 'shop', hash: keys.shop.hash, assets: ['orders/*'] },
      { id: 'shop', hash: keys.shopNew.hash, assets: ['orders/*'] },
      { id: 'other', hash: keys.other.hash, assets: ['orders/*'] },
      { id: 'reader', hash: keys.reader.hash, assets: ['orders/*'], may: ['read'] },
      { id: 'starter', hash: keys.starter.hash, assets: ['orders/*'], may: ['start'] },
      { id: 'sales', hash: keys.sales.hash.toUpperCase(), assets: ['sales/report'] },
      { id: 'gone', hash: keys.gone.hash, assets: ['*/*'], expires: '2020-01-01' },
    ],
    ...more,
  })
  servers.push(one)
  return one
}

beforeAll(async () => {
  const pipelines = [pipeline('orders', [order, invoice, broken, slow]), pipeline('sales', [report])]
  stage = await openStage(server.url, pipelines, { gates: { secrets: SECRETS } })
  http = await serve()
})

afterAll(async () => {
  for (const release of held.values()) release()
  await Promise.all(servers.map((one) => one.close()))
  await stage?.[Symbol.asyncDispose]()
})

type Key = keyof typeof keys

function start(key: Key, target: string, body: unknown, headers: Record<string, string> = {}): Promise<Answer> {
  return post(`${http.url}/runs/${target}`, body, { Authorization: `Bearer ${keys[key].key}`, ...headers })
}

function read(key: Key, run: unknown, headers: Record<string, string> = {}): Promise<Answer> {
  return request(`${http.url}/runs/${run}`, { headers: { Authorization: `Bearer ${keys[key].key}`, ...headers } })
}

const ORDER = { input: { order: { id: 'o-1', total: 12 } } }
const WAIT = { Prefer: 'wait=60' }

it('a run is started, followed, and gives its value', async () => {
  const body = { ...ORDER, partition: 'p', tags: { tenant: 'a' }, upstream: 'all', timeout: '1m' }
  const started = await start('shop', 'orders/invoice', body)
  const run = String(started.body.run)
  expect(started).toMatchObject({ status: 202, body: { status: 'requested', url: `/runs/${run}`, repeated: false } })
  expect(started.headers.get('location')).toBe(`/runs/${run}`)
  expect(started.headers.get('cache-control')).toBe('no-store')
  const ended = await read('shop', run, WAIT)
  expect(ended).toMatchObject({
    status: 200,
    body: {
      run,
      status: 'succeeded',
      asset: 'orders/invoice',
      partition: 'p',
      tags: { tenant: 'a' },
      value: { of: 'o-1', cents: { $bigint: '1200' } },
    },
  })
  expect(await stage.flow.run(run).input()).toEqual(ORDER.input)
  await until('the state has it', async () => (await read('shop', run)).body.finishedAt !== undefined)
  expect(await read('reader', run)).toMatchObject({ status: 200, body: { status: 'succeeded', value: { of: 'o-1' } } })
})

it('Prefer: wait answers with the value, also of a run that was there before', async () => {
  const headers = { ...WAIT, 'Idempotency-Key': 'waits' }
  for (const _ of ['first', 'again']) {
    const answer = await start('shop', 'orders/invoice', ORDER, headers)
    expect(answer).toMatchObject({ status: 200, body: { status: 'succeeded', value: { of: 'o-1' } } })
    expect(answer.headers.get('preference-applied')).toBe('wait=60')
    expect(answer.headers.get('content-location')).toBe(answer.headers.get('location'))
  }
})

it('a run that failed is 200, and says at which asset and why', async () => {
  const answer = await start('shop', 'orders/broken', undefined, { ...WAIT, 'Content-Type': 'application/json' })
  const { run } = answer.body
  expect(answer).toMatchObject({
    status: 200,
    body: { status: 'failed', error: { asset: 'broken', message: `run ${run} failed at broken: no paper` } },
  })
  // Without waiting the state is asked, which may be a moment behind.
  expect(await read('shop', run, WAIT)).toMatchObject({
    status: 200,
    body: { status: 'failed', error: { asset: 'broken' } },
  })
})

it('a run that takes longer is 202, and one that was cancelled says so', async () => {
  const answer = await start('shop', 'orders/slow', { partition: 'long' }, { Prefer: 'wait=1' })
  const run = String(answer.body.run)
  expect(answer).toMatchObject({ status: 202, body: { url: `/runs/${run}` } })
  expect(answer.headers.get('preference-applied')).toBeNull()
  expect((await read('shop', run)).body).not.toHaveProperty('value')
  await stage.flow.run(run).cancel('not wanted')
  expect(await read('shop', run, WAIT)).toMatchObject({
    status: 200,
    body: { status: 'cancelled', error: { code: 'cancelled' } },
  })
})

it('an idempotency key gives one run to one client, also with its next key, and another to others', async () => {
  const headers = { 'Idempotency-Key': '"order 1"' }
  const first = await start('shop', 'orders/invoice', ORDER, headers)
  const again = await start('shopNew', 'orders/invoice', ORDER, headers)
  expect(again).toMatchObject({ status: 202, body: { run: first.body.run, repeated: true } })
  const other = await start('other', 'orders/invoice', ORDER, headers)
  expect(other.body).toMatchObject({ repeated: false })
  expect(other.body.run).not.toBe(first.body.run)
  const differs = await start('shop', 'orders/invoice', { input: { order: { id: 'secret', total: 1 } } }, headers)
  expect(differs).toMatchObject({ status: 409, body: { reason: 'key_conflict' } })
  expect(differs.text).not.toMatch(/o-1|secret/)
  expect(await start('shop', 'orders/invoice', ORDER, { 'Idempotency-Key': 'x'.repeat(256) })).toMatchObject({
    status: 400,
    body: { reason: 'malformed_request' },
  })
  const racing = await Promise.all(
    Array.from({ length: 20 }, () => start('shop', 'orders/invoice', ORDER, { 'Idempotency-Key': 'race' })),
  )
  expect(new Set(racing.map(({ body }) => body.run)).size).toBe(1)
  expect(racing.filter(({ body }) => body.repeated === false)).toHaveLength(1)
})

it('whoever has no good key learns nothing: all is one 401', async () => {
  const { body } = await start('shop', 'orders/invoice', ORDER)
  const answers = new Set<string>()
  for (const path of ['orders/invoice', 'orders/none', 'none/none', `${body.run}`, '', 'a/b/c', '%ff/%00'])
    for (const method of ['GET', 'POST', 'PUT', 'DELETE', 'OPTIONS'])
      for (const key of [undefined, keys.gone.key, `${keys.shop.key}x`, keys.shop.hash]) {
        const headers: Record<string, string> = key === undefined ? {} : { Authorization: `Bearer ${key}` }
        const answer = await request(`${http.url}/runs/${path}`, { method, headers })
        expect(answer.headers.get('www-authenticate')).toBe('Bearer realm="flowstone"')
        answers.add(`${answer.status} ${answer.text}`)
      }
  expect(answers.size).toBe(1)
  expect([...answers][0]).toMatch(/^401 .*"reason":"unauthorized"/)
  // A key is taken from one place only.
  const inAddress = await request(`${http.url}/runs/${body.run}?access_token=${keys.shop.key}&key=${keys.shop.key}`)
  expect(inAddress.status).toBe(401)
  const twice = await raw(http.url, [
    `GET /runs/${body.run} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer x\r\nAuthorization: Bearer ${keys.shop.key}\r\nConnection: close\r\n\r\n`,
  ])
  expect(twice).toMatch(/^HTTP\/1.1 401/)
})

it('a key starts and reads only its assets, and sees no difference between what it may not and what is not', async () => {
  const { body } = await start('shop', 'orders/invoice', ORDER)
  const forbidden = await start('sales', 'orders/invoice', ORDER)
  expect(forbidden).toMatchObject({ status: 403, body: { reason: 'forbidden' } })
  for (const target of ['orders/none', 'none/none', 'sales/reports', '*/report', 'sales%2freport/x'])
    expect((await start('sales', target, ORDER)).text, target).toBe(forbidden.text)
  const hidden = await read('sales', body.run)
  expect(hidden).toMatchObject({ status: 404, body: { reason: 'unknown_run' } })
  for (const run of ['0-none', '999-none', 'no run', '..', '%00', '0-a.b'])
    expect((await read('sales', run)).status, run).toBe(404)
  expect((await read('sales', '0-none')).text).toBe(hidden.text)
  expect(await start('sales', 'sales/report', {}, WAIT)).toMatchObject({ status: 200, body: { value: 'numbers' } })
  expect(await start('reader', 'orders/invoice', ORDER)).toMatchObject({ status: 403 })
  const { run } = (await start('starter', 'orders/invoice', ORDER)).body
  expect(await read('starter', run)).toMatchObject({ status: 403 })
})

it('names that the pipeline has not are 404, within what the key may', async () => {
  for (const target of ['orders/invoic', 'orders/a.b', 'orders/%69nvoice%00'])
    expect(await start('shop', target, ORDER), target).toMatchObject({
      status: 404,
      body: { reason: 'unknown_asset', detail: 'No pipeline that is registered has an asset of this name.' },
    })
})

it.each([
  [{ input: { order: { id: 1, total: 1 } } }, /^input\.order: .*expected string.* at id/],
  [{ input: {} }, /^input: order is missing/],
  [{ input: { ordr: 1 } }, /^input: there is no input ordr; did you mean order\?/],
  [{ input: 'x' }, /^input must be|^input: /],
  [{ ...ORDER, tag: {} }, /no option tag; did you mean tags\?/],
  [{ ...ORDER, key: 'mine' }, /no option key/],
  [{ ...ORDER, tags: { a: 1 } }, /^tags\.a must be text/],
  [{ ...ORDER, partition: 5 }, /^partition must be text/],
  [{ ...ORDER, upstream: 'some' }, /^upstream must be/],
  [{ ...ORDER, timeout: 'soon' }, /^timeout must be/],
  [[], /must be an object/],
  ['text', /must be an object/],
])('the body %j is 422, and says what is wrong', async (body, detail) => {
  const answer = await start('shop', 'orders/invoice', body)
  expect(answer).toMatchObject({ status: 422, body: { reason: 'invalid_input' } })
  expect(answer.body.detail).toMatch(detail)
})

/** How many runs there are, once the state has all that came before. */
async function runsListed(): Promise<number> {
  const { id } = await stage.flow.materialize(report)
  await until('it is listed', async () => (await stage.flow.runs({ limit: 1 }))[0]?.id === id)
  return (await stage.flow.runs({ limit: 1000 })).length
}

it('bodies that cannot be taken are refused before a run exists', async () => {
  const before = await runsListed()
  const send = (body: string, headers: Record<string, string>, key: Key = 'shop') =>
    request(`${http.url}/runs/orders/invoice`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${keys[key].key}`, ...headers },
      body,
    })
  const type = { 'Content-Type': 'application/json' }
  const good = JSON.stringify(ORDER)
  expect(await send('{"input"', type)).toMatchObject({ status: 400, body: { reason: 'malformed_body' } })
  expect(await send(`{"input":${'['.repeat(100)}${']'.repeat(100)}}`, type)).toMatchObject({ status: 400 })
  for (const other of ['application/x-www-form-urlencoded', 'text/plain', 'application/xml', 'multipart/form-data'])
    expect((await send(good, { 'Content-Type': other })).headers.get('accept-post'), other).toBe('application/json')
  expect(await send(good, { 'Content-Type': 'application/json; charset=latin1' })).toMatchObject({ status: 415 })
  expect(await send(good, { ...type, 'Content-Encoding': 'gzip' })).toMatchObject({ status: 415 })
  expect(await send(good, { 'Content-Type': '' })).toMatchObject({ status: 415 })
  expect(await send('x'.repeat(1_048_577), type)).toMatchObject({ status: 413 })
  // Whoever may not start runs has none of his body read.
  expect(await send('x'.repeat(1_048_577), type, 'sales')).toMatchObject({ status: 403 })
  expect(await send('{"input":{"order":{"id":"o","total":1},"__proto__":{"x":1}}}', type)).toMatchObject({
    status: 422,
  })
  expect(
    await request(`${http.url}/runs/orders/invoice`, { headers: { Authorization: `Bearer ${keys.shop.key}` } }),
  ).toMatchObject({ status: 405 })
  expect(await runsListed()).toBe(before + 1)
})

it('a body that does not end is 408, and one that is longer than it says is 413', async () => {
  const small = await serve({ bodyTimeout: '100ms', maxBodyBytes: 100 })
  const head = `POST /runs/orders/invoice HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer ${keys.shop.key}\r\nContent-Type: application/json\r\n`
  const slowly = await raw(small.url, [`${head}Content-Length: 50\r\n\r\n{"input"`])
  expect(slowly).toMatch(/^HTTP\/1.1 408/)
  const chunked = await raw(small.url, [
    `${head}Transfer-Encoding: chunked\r\n\r\nc8\r\n${'x'.repeat(200)}\r\n0\r\n\r\n`,
  ])
  expect(chunked).toMatch(/^HTTP\/1.1 413/)
})

it('each client has a rate of its own', async () => {
  const limited = await serve({ rateLimit: { key: [2, 'hour'] } })
  const get = (key: Key) =>
    request(`${limited.url}/runs/0-none`, { headers: { Authorization: `Bearer ${keys[key].key}` } })
  expect([(await get('shop')).status, (await get('shopNew')).status]).toEqual([404, 404])
  const third = await get('shop')
  expect(third).toMatchObject({ status: 429, body: { reason: 'rate_limited' } })
  expect(Number(third.headers.get('retry-after'))).toBeGreaterThan(0)
  expect((await get('other')).status).toBe(404)
})

it('without API keys there are no such addresses', async () => {
  const gatesOnly = await serveGates(stage.flow, { port: 0 })
  servers.push(gatesOnly)
  const answer = await post(`${gatesOnly.url}/runs/orders/invoice`, ORDER, { Authorization: `Bearer ${keys.shop.key}` })
  expect(answer).toMatchObject({ status: 404, body: { detail: 'There is nothing at this address.' } })
})

it('addresses of runs begin with baseUrl', async () => {
  const based = await serve({ baseUrl: 'https://flows.example.com/api/' })
  const answer = await post(`${based.url}/runs/sales/report`, {}, { Authorization: `Bearer ${keys.sales.key}` })
  expect(answer.headers.get('location')).toBe(`https://flows.example.com/api/runs/${answer.body.run}`)
})

/** A run that never ends, and tells when nobody waits for it any more. */
function endless(): { run: RunOverHttp; waiting: Promise<void>; left: Promise<void> } {
  const waiting = Promise.withResolvers<void>()
  const left = Promise.withResolvers<void>()
  const run: RunOverHttp = {
    id: '0-endless',
    isNew: true,
    view: async () => undefined,
    result: ({ signal }) =>
      new Promise((_, reject) => {
        waiting.resolve()
        signal?.addEventListener('abort', () => {
          left.resolve()
          reject(signal.reason)
        })
      }),
  }
  return { run, waiting: waiting.promise, left: left.promise }
}

const apiKeys = [{ id: 'shop', hash: keys.shop.hash, assets: ['orders/*'] }]

it.each(['the client goes away', 'the server closes'])('a wait ends when %s', async (how) => {
  const { run, waiting, left } = endless()
  const flow = { gates: stage.flow.gates, request: async () => run, run: () => run }
  await using one = await serveGates(flow, { port: 0, apiKeys, logger })
  const client = new AbortController()
  const answer = request(`${one.url}/runs/orders/slow`, {
    method: 'POST',
    headers: { Authorization: `Bearer ${keys.shop.key}`, ...WAIT },
    signal: client.signal,
  })
  await waiting
  if (how === 'the server closes') {
    const closing = one.close()
    expect(await answer).toMatchObject({ status: 202, body: { run: '0-endless' } })
    await closing
  } else {
    client.abort()
    await expect(answer).rejects.toThrow('abort')
  }
  await left
})

it('a server that does not answer is 503 in time, and says that the same key makes it safe', async () => {
  const flow = {
    request: () => new Promise<RunOverHttp>(() => undefined),
    run: () => endless().run,
  }
  const handler = runHandler(flow, { apiKeys, answerTimeout: '50ms', logger })
  const headers = { Authorization: `Bearer ${keys.shop.key}` }
  const answer = await handler(new Request('http://h/runs/orders/slow', { method: 'POST', headers }))
  expect(answer.status).toBe(503)
  expect(await answer.text()).toContain('with the same Idempotency-Key')
})

it('a fault of this side is logged, and what others sent is not shown', async () => {
  const fault = new Error('a bug')
  const failing = (error: Error) => ({ request: () => Promise.reject(error), run: () => endless().run })
  const own = listeningLogger()
  const send = (error: Error) =>
    runHandler(failing(error), { apiKeys, logger: own })(
      new Request('http://h/runs/orders/slow', {
        method: 'POST',
        headers: { Authorization: `Bearer ${keys.shop.key}` },
      }),
    )
  const answer = await send(fault)
  expect([answer.status, await answer.text()]).toEqual([500, expect.not.stringContaining('bug')])
  expect(own.lines.join('\n')).toContain('a request failed (internal): a bug')
  expect(own.lines.join('\n')).not.toContain(keys.shop.key)
  expect(await (await send(new ConflictError('input was {"card":"4711"}'))).text()).not.toContain('4711')
})

it('options that cannot be are refused when the handler is made', () => {
  const make = (options: object) => () => runHandler(stage.flow, options)
  expect(make({})).toThrow('give apiKeys, webhooks, or both')
  expect(make({ apiKeys: [], logger })).toThrow('at least one key')
  expect(make({ apiKey: [] })).toThrow('no option apiKey; did you mean apiKeys?')
  expect(make({ apiKeys, rateLimit: { token: false } })).toThrow('no option token')
  expect(make({ apiKeys, baseUrl: 'flows' })).toThrow('baseUrl must be')
})
