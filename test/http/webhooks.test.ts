import { createHmac } from 'node:crypto'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { z } from 'zod'
import { runHandler, serveGates, type Webhook } from '../../src/http/index.ts'
import { asset, InvalidError, input, pipeline, TimeoutError } from '../../src/index.ts'
import { useServer } from '../kit/fixture.ts'
import { listeningLogger, openStage, type Stage } from '../kit/stage.ts'
import { type Answer, request, SECRETS } from './kit.ts'

const SECRET = 'a secret of sixteen or more'
const STANDARD_SECRET = `whsec_${Buffer.from('a secret of 24 or more bytes').toString('base64')}`

const order = input('order', z.object({ id: z.string() }))
const note = input('note', z.string())
const invoice = asset('invoice', { dependsOn: [order], execute: (_, deps) => deps.order.id })
const letter = asset('letter', { dependsOn: [order, note], execute: (_, deps) => `${deps.order.id}: ${deps.note}` })
const ping = asset('ping', { execute: () => 'pong' })

interface Order {
  readonly id: string
  readonly fails?: boolean
  readonly customer?: string
}

const webhooks: Readonly<Record<string, Webhook>> = {
  '/hooks/github': { sender: { scheme: 'github', secret: ['another secret, of before', SECRET] }, run: 'shop/invoice' },
  '/hooks/stripe': {
    sender: { scheme: 'stripe', secret: SECRET },
    run: 'shop/invoice',
    input: (message) => ({ order: message.json<{ data: Order }>().data }),
  },
  '/hooks/slack': { sender: { scheme: 'slack', secret: SECRET }, run: 'shop/invoice' },
  '/hooks/standard': { sender: { scheme: 'standard', secret: STANDARD_SECRET }, run: 'shop/invoice' },
  '/hooks/mapped': {
    sender: { scheme: 'github', secret: SECRET },
    run: 'shop/letter',
    filter: (message) => message.headers.get('x-event') !== 'ping',
    key: (message) => message.json<Order>().id,
    partition: (message) => message.json<Order>().customer,
    tags: (message) => ({ delivery: message.id }),
    input: (message) => {
      if (message.json<Order>().fails) throw new Error('a fault of the user')
      return { order: message.json<Order>(), note: message.headers.get('x-event') }
    },
  },
  '/hooks/two': { sender: { scheme: 'github', secret: SECRET }, run: 'shop/letter' },
  '/hooks/none': { sender: { scheme: 'github', secret: SECRET }, run: 'shop/ping' },
  '/hooks/later': { sender: { scheme: 'github', secret: SECRET }, run: 'later/ping' },
}

const server = useServer()
const logger = listeningLogger()
let stage: Stage
let url: string

beforeAll(async () => {
  stage = await openStage(server.url, pipeline('shop', [order, note, invoice, letter, ping]), {
    gates: { secrets: SECRETS },
  })
  const http = await serveGates(stage.flow, { port: 0, logger, webhooks })
  url = http.url
  return async () => await http.close()
})

afterAll(async () => {
  await stage?.[Symbol.asyncDispose]()
})

function hmac(content: string, encoding: 'hex' | 'base64' = 'hex', key: string | Buffer = SECRET): string {
  return createHmac('sha256', key).update(content).digest(encoding)
}

const seconds = (): number => Math.floor(Date.now() / 1000)

const SIGN: Readonly<Record<string, (body: string) => Record<string, string>>> = {
  github: (body) => ({ 'X-Hub-Signature-256': `sha256=${hmac(body)}` }),
  stripe: (body) => ({ 'Stripe-Signature': `t=${seconds()},v1=${hmac(`${seconds()}.${body}`)}` }),
  slack: (body) => ({
    'X-Slack-Request-Timestamp': String(seconds()),
    'X-Slack-Signature': `v0=${hmac(`v0:${seconds()}:${body}`)}`,
  }),
  standard: (body) => ({
    'webhook-id': 'msg_1',
    'webhook-timestamp': String(seconds()),
    'webhook-signature': `v1,${hmac(`msg_1.${seconds()}.${body}`, 'base64', Buffer.from(STANDARD_SECRET.slice(6), 'base64'))}`,
  }),
}

function send(name: string, body: string, headers: Record<string, string>): Promise<Answer> {
  const all = { 'Content-Type': 'application/json', ...headers }
  return request(`${url}/hooks/${name}`, { method: 'POST', headers: all, body })
}

function github(name: string, sent: unknown, headers: Record<string, string> = {}): Promise<Answer> {
  const body = JSON.stringify(sent)
  return send(name, body, { ...SIGN.github?.(body), ...headers })
}

it.each(['github', 'stripe', 'slack', 'standard'])(
  '%s: what it has signed starts one run, however often it comes',
  async (name) => {
    const mine = { id: `of ${name}` }
    const body = JSON.stringify(name === 'stripe' ? { id: 'evt_1', data: mine } : mine)
    const sign = SIGN[name] ?? (() => ({}))
    for (const [header, value] of Object.entries(sign(body)))
      expect(await send(name, body, { ...sign(body), [header]: `${value}0` }), header).toMatchObject({
        status: 401,
        body: { reason: 'invalid_signature' },
      })
    expect(await send(name, `${body} `, sign(body))).toMatchObject({ status: 401 })
    expect(await send(name, body, {})).toMatchObject({ status: 401 })

    const first = await send(name, body, sign(body))
    expect(first).toMatchObject({ status: 200, body: { status: 'accepted', repeated: false } })
    const { run } = first.body
    const again = await Promise.all([1, 2, 3].map(() => send(name, body, sign(body))))
    for (const answer of again) expect(answer).toMatchObject({ status: 200, body: { run, repeated: true } })
    expect(await stage.flow.run(String(run)).result()).toBe(`of ${name}`)
  },
)

it('the same delivery id with other content is no run, and a conflict', async () => {
  const [one, two] = ['{"id":"first"}', '{"id":"second"}']
  const sign = (body: string) => ({
    ...SIGN.standard?.(body),
    'webhook-id': 'msg_2',
    'webhook-signature': `v1,${hmac(`msg_2.${seconds()}.${body}`, 'base64', Buffer.from(STANDARD_SECRET.slice(6), 'base64'))}`,
  })
  expect(await send('standard', one, sign(one))).toMatchObject({ status: 200 })
  expect(await send('standard', two, sign(two))).toMatchObject({ status: 409, body: { reason: 'key_conflict' } })
  expect(logger.lines.join('\n')).toMatch(/webhook \/hooks\/standard: delivery msg_2 cannot start shop\/invoice/)
})

it('two webhooks never share a key', async () => {
  const runs = [await github('github', { id: 'shared' }), await github('none', { id: 'shared' })]
  expect(runs.map(({ status }) => status)).toEqual([200, 200])
  expect(runs[0]?.body.run).not.toBe(runs[1]?.body.run)
  expect(await stage.flow.run(String(runs[1]?.body.run)).result()).toBe('pong')
})

it('functions say what a run is given, its key, partition and tags, and what starts none', async () => {
  const sent = { id: 'mapped', customer: 'a' }
  expect(await github('mapped', sent, { 'X-Event': 'ping' })).toMatchObject({
    status: 200,
    body: { status: 'ignored' },
  })
  const { body } = await github('mapped', sent, { 'X-Event': 'opened' })
  const run = stage.flow.run(String(body.run))
  expect(await run.result()).toBe('mapped: opened')
  expect(await run.view()).toMatchObject({ partition: 'a', tags: { delivery: expect.any(String) } })
})

it('faults of the configuration are logged, and the sender may try again', async () => {
  expect(await github('mapped', { id: 'x', fails: true })).toMatchObject({ status: 500, body: { reason: 'internal' } })
  expect(logger.lines.join('\n')).toContain('webhooks["/hooks/mapped"]: input failed: a fault of the user')
  expect(await github('mapped', { id: '' })).toMatchObject({ status: 500 })
  expect(logger.lines.join('\n')).toContain('key failed: brought no text of 1 to 255 characters')
  const later = await github('later', {})
  expect(later).toMatchObject({ status: 503, body: { reason: 'unavailable' } })
  expect(later.headers.get('retry-after')).toBe('60')
  expect(logger.lines.join('\n')).toContain('pipeline later is not registered')
})

it('a message that the asset does not take is 422, named in the answer and in the log', async () => {
  const answer = await github('github', { id: 5 })
  expect(answer).toMatchObject({ status: 422, body: { reason: 'invalid_input' } })
  expect(answer.body.detail).toMatch(/^input\.order: .*at id/)
  expect(logger.lines.join('\n')).toMatch(/cannot start shop\/invoice: input\.order: .*at id/)
  expect((await github('two', { id: 'x' })).body.detail).toContain(
    'letter goes back to order, note; say what each of them is given',
  )
})

it("Slack's question is answered, and other methods and bodies are refused", async () => {
  const body = JSON.stringify({ type: 'url_verification', challenge: 'abc' })
  expect(await send('slack', body, SIGN.slack?.(body) ?? {})).toMatchObject({ status: 200, body: { challenge: 'abc' } })
  expect(await request(`${url}/hooks/slack`)).toMatchObject({ status: 405 })
  expect(await request(`${url}/hooks/slack/`, { method: 'POST' })).toMatchObject({ status: 404 })
  const long = 'x'.repeat(1_048_577)
  expect(await send('github', long, SIGN.github?.(long) ?? {})).toMatchObject({ status: 413 })
  expect(await send('github', '{}', { ...SIGN.github?.('{}'), 'Content-Encoding': 'gzip' })).toMatchObject({
    status: 415,
  })
  expect(await send('github', '{', SIGN.github?.('{') ?? {})).toMatchObject({ status: 400 })
  // API keys are another thing, and there are none here.
  expect(await request(`${url}/runs/shop/ping`, { method: 'POST' })).toMatchObject({ status: 404 })
})

it('nothing is acknowledged that could not be stored', async () => {
  const handler = runHandler(
    {
      request: () => Promise.reject(new TimeoutError('the server went away')),
      run: (id) => stage.flow.run(id),
    },
    { webhooks, logger },
  )
  const body = '{"id":"lost"}'
  const headers = { 'Content-Type': 'application/json', ...SIGN.github?.(body) }
  const answer = await handler(new Request('http://h/hooks/github', { method: 'POST', headers, body }))
  expect(answer.status).toBe(503)
})

it('webhooks that cannot be are refused when the handler is made', () => {
  const sender = { scheme: 'github', secret: SECRET } as const
  const make = (path: string, more: object) => () =>
    runHandler(stage.flow, { webhooks: { [path]: { sender, run: 'shop/ping', ...more } } })
  for (const path of [
    'hooks',
    '/',
    '/runs',
    '/runs/x',
    '/hooks/flowstone/x',
    '/healthz',
    '/a/../b',
    '/:x',
    '/a/*',
    '/a/',
  ])
    expect(make(path, {}), path).toThrow(InvalidError)
  expect(make('/h', { run: 'ping' })).toThrow('webhooks["/h"]: run: name a pipeline and an asset')
  expect(make('/h', { inputs: {} })).toThrow('no option inputs; did you mean input?')
  expect(make('/h', { input: {} })).toThrow('input must be a function')
  expect(make('/h', { sender: { ...sender, scheme: 'gitlab' } })).toThrow('sender: scheme must be github')
  expect(make('/h', { sender: { ...sender, secret: 'short' } })).toThrow('secret must be text of at least 16')
  expect(make('/h', { sender: { ...sender, secrt: '' } })).toThrow('did you mean secret?')
  expect(make('/h', { sender: 'github' })).toThrow('sender: options must be an object')
})
