import { createHmac } from 'node:crypto'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { gateHandler, type VerifiedSender } from '../../src/http/index.ts'
import { useServer } from '../kit/fixture.ts'
import { listeningLogger } from '../kit/stage.ts'
import { type Answer, type GateStage, openGateStage, request } from './kit.ts'

const SECRET = 'a secret of sixteen or more'
const STANDARD_SECRET = `whsec_${Buffer.from('a secret of 24 or more bytes').toString('base64')}`

function field(payload: unknown, name: string): unknown {
  return typeof payload === 'object' && payload !== null ? Reflect.get(payload, name) : undefined
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}

/** The gate that it is for stands in the payload, as `task`. */
const base: VerifiedSender['correlationKey'] = (payload) => text(field(payload, 'task'))

const logger = listeningLogger()
const server = useServer()
let gates: GateStage
let url: (name: string) => string

beforeAll(async () => {
  gates = await openGateStage(server.url)
  const http = await gates.serve({
    logger,
    verified: {
      github: { scheme: 'github', secret: ['another secret, of before', SECRET], correlationKey: base },
      stripe: {
        scheme: 'stripe',
        secret: SECRET,
        correlationKey: (event) => text(field(field(event, 'data'), 'task')),
        payload: (event) => field(event, 'data'),
      },
      slack: { scheme: 'slack', secret: SECRET, correlationKey: base },
      standard: { scheme: 'standard', secret: STANDARD_SECRET, correlationKey: base },
      own: {
        scheme: ({ headers, body, secrets }) => headers.get('x-own') === `${secrets[0]} ${body.length}`,
        secret: SECRET,
        correlationKey: base,
        idempotencyKey: (payload) => text(field(payload, 'delivery')),
      },
      faulty: {
        scheme: () => true,
        secret: SECRET,
        correlationKey: () => {
          throw new Error('a fault of the user')
        },
      },
    },
  })
  url = (name) => `${http.url}/hooks/flowstone/verified/${name}`
})

afterAll(async () => {
  await gates?.[Symbol.asyncDispose]()
})

function hmac(content: string, encoding: 'hex' | 'base64' = 'hex', key: string | Buffer = SECRET): string {
  return createHmac('sha256', key).update(content).digest(encoding)
}

const seconds = (): number => Math.floor(Date.now() / 1000)

function send(name: string, body: string, headers: Record<string, string>): Promise<Answer> {
  return request(url(name), { method: 'POST', headers: { 'Content-Type': 'application/json', ...headers }, body })
}

/** What each sender would send with this body. */
const SIGN: Readonly<Record<string, (body: string) => Record<string, string>>> = {
  github: (body) => ({ 'X-Hub-Signature-256': `sha256=${hmac(body)}`, 'X-GitHub-Delivery': hmac(body).slice(0, 8) }),
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
  own: (body) => ({ 'X-Own': `${SECRET} ${body.length}` }),
}

it.each(['github', 'stripe', 'slack', 'standard', 'own'])(
  '%s: what it has signed reaches the gate of its correlation key',
  async (name) => {
    const task = `arn:${name}/task.with.dots and more`
    const gate = await gates.open({ correlationKey: task })
    const sent = name === 'stripe' ? { id: 'evt_1', data: { task, n: 1 } } : { task, n: 1 }
    const body = JSON.stringify(sent)
    const sign = SIGN[name] ?? (() => ({}))

    for (const [header, value] of Object.entries(sign(body))) {
      if (/delivery/i.test(header)) continue
      expect(await send(name, body, { ...sign(body), [header]: `${value}0` }), header).toMatchObject({
        status: 401,
        body: { reason: 'invalid_signature' },
      })
    }
    expect(await send(name, `${body} `, sign(body))).toMatchObject({ status: 401 })
    expect(await send(name, body, {})).toMatchObject({ status: 401 })
    expect((await gates.flow.gates.get(gate.id))?.status).toBe('waiting')

    expect(await send(name, body, sign(body))).toMatchObject({
      status: 200,
      body: { status: 'accepted', gate: gate.id, repeated: false },
    })
    expect(await send(name, body, sign(body))).toMatchObject({ status: 200, body: { repeated: true } })
    expect(await gate.run.result()).toEqual({ task, n: 1 })
    expect((await gates.flow.gates.get(gate.id))?.signal?.source).toBe(`${name} 127.0.0.1`)
  },
)

it('a body that GitHub signed once answers one gate, whatever delivery id stands beside it', async () => {
  const one = await gates.open({ correlationKey: 'github, twice' })
  const body = JSON.stringify({ task: 'github, twice' })
  const again = (delivery: string) => send('github', body, { ...SIGN.github?.(body), 'X-GitHub-Delivery': delivery })
  expect(await again('1')).toMatchObject({ status: 200, body: { gate: one.id, repeated: false } })
  const two = await gates.open({ correlationKey: 'github, twice' })
  expect(await again('2')).toMatchObject({ status: 200, body: { gate: one.id, repeated: true } })
  expect((await gates.flow.gates.get(two.id))?.status).toBe('waiting')
})

it('another delivery of another message finds the gate answered', async () => {
  await gates.open({ correlationKey: 'twice' })
  const own = (delivery: string) => {
    const body = JSON.stringify({ task: 'twice', delivery })
    return send('own', body, SIGN.own?.(body) ?? {})
  }
  expect((await own('1')).status).toBe(200)
  expect(await own('1')).toMatchObject({ status: 200, body: { repeated: true } })
  expect(await own('2')).toMatchObject({ status: 409 })
})

it('a message for no gate is ignored, one for a gate that is not there is 404', async () => {
  const other = JSON.stringify({ zen: 'ping' })
  expect(await send('github', other, SIGN.github?.(other) ?? {})).toMatchObject({
    status: 200,
    body: { status: 'ignored' },
  })
  const unknown = JSON.stringify({ task: 'nobody knows it' })
  expect(await send('github', unknown, SIGN.github?.(unknown) ?? {})).toMatchObject({
    status: 404,
    body: { reason: 'not_found' },
  })
})

it('Slack gets its challenge back, once it has signed', async () => {
  const body = JSON.stringify({ type: 'url_verification', challenge: 'c' })
  expect(await send('slack', body, SIGN.slack?.(body) ?? {})).toMatchObject({ status: 200, body: { challenge: 'c' } })
  expect(await send('slack', body, {})).toMatchObject({ status: 401 })
})

it('a body is not parsed before its signature holds', async () => {
  expect(await send('github', '{', {})).toMatchObject({ status: 401 })
  expect(await send('github', '{', SIGN.github?.('{') ?? {})).toMatchObject({ status: 400 })
})

it('a sender that is not set up is 404, and there is nothing to get', async () => {
  expect(await send('nobody', '{}', {})).toMatchObject({ status: 404, body: { reason: 'unknown_sender' } })
  expect(await request(url('github'))).toMatchObject({ status: 405 })
})

it('a fault of the user’s own function is logged, and not sent to the sender', async () => {
  const answer = await send('faulty', '{}', {})
  expect(answer).toMatchObject({ status: 500, body: { reason: 'internal' } })
  expect(answer.text).not.toContain('fault of the user')
  expect(logger.lines.join('\n')).toContain('verified.faulty: correlationKey failed: a fault of the user')
})

it('a sender that cannot be is refused when the handler is made', () => {
  const refused =
    (sender: unknown, name = 'x') =>
    () =>
      gateHandler(gates.flow, {
        verified: JSON.parse(JSON.stringify({ [name]: sender }), (key, value) =>
          key === 'correlationKey' ? () => undefined : value,
        ),
      })
  const good = { scheme: 'github', secret: SECRET, correlationKey: 1 }
  expect(refused(good)).not.toThrow()
  expect(refused({ ...good, scheme: 'gitlab' })).toThrow('verified.x: scheme must be')
  expect(refused({ ...good, secret: 'short' })).toThrow('verified.x: secret must be')
  expect(refused({ ...good, secret: [] })).toThrow('verified.x: secret must be')
  expect(refused({ ...good, tolerance: 'soon' })).toThrow('verified.x: tolerance must be')
  expect(refused({ scheme: 'github', secret: SECRET })).toThrow('verified.x: correlationKey must be')
  expect(refused({ ...good, keepFor: '30d' })).toThrow('verified.x: keepFor must be more than 0 and at most 24 h')
  expect(refused({ ...good, tolerance: 0 })).toThrow('verified.x: tolerance must be more than 0')
  expect(refused({ ...good, keepfor: '1h' })).toThrow('no option keepfor; did you mean keepFor?')
  expect(refused({ ...good, payload: 1 })).toThrow('verified.x: payload must be a function')
  const standard = (secret: string): unknown => ({ scheme: 'standard', secret, correlationKey: 1 })
  expect(refused(standard(STANDARD_SECRET))).not.toThrow()
  for (const none of [
    'k=Jf83hfLk2jf9sKf8aaaaaaaaaaaaaa',
    '!'.repeat(32),
    `whsec_${'.'.repeat(32)}`,
    'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa!!',
    `whsec_${Buffer.from('23 bytes are not enough').toString('base64')}`,
    `${STANDARD_SECRET.slice(0, -4)}-_-_`,
  ])
    expect(refused(standard(none)), none).toThrow('verified.x: secret of scheme standard must be base64 of at least 24')
  expect(refused(null)).toThrow('verified.x must be an object')
  expect(refused(good, 'a/b')).toThrow('verified: "a/b" must be')
})

it('what the user’s functions bring is looked at, and a fault of theirs is not the sender’s', async () => {
  const lines = listeningLogger()
  const sender = { scheme: () => true, secret: SECRET }
  const handler = gateHandler(gates.flow, {
    logger: lines,
    verified: {
      none: { ...sender, correlationKey: () => null },
      long: { ...sender, correlationKey: () => 'x'.repeat(1025) },
      key: { ...sender, correlationKey: () => 'x', idempotencyKey: () => 'x'.repeat(513) },
    },
  })
  const status = async (name: string): Promise<number> =>
    (await handler(new Request(`http://h/hooks/flowstone/verified/${name}`, { method: 'POST' }))).status
  expect(await status('none')).toBe(200)
  expect(await status('long')).toBe(404)
  expect(await status('key')).toBe(500)
  expect(lines.lines.join('\n')).toContain('verified.key: idempotencyKey failed: brought no text of at most 512')
})
