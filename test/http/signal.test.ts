import { afterAll, beforeAll, expect, it } from 'vitest'
import { z } from 'zod'
import { TokenKeys } from '../../src/gates/token.ts'
import { useServer } from '../kit/fixture.ts'
import { until } from '../kit/until.ts'
import { type GateStage, openGateStage, post, raw, request, SECRETS } from './kit.ts'

const server = useServer()
let gates: GateStage

beforeAll(async () => {
  gates = await openGateStage(server.url)
})

afterAll(async () => {
  await gates?.[Symbol.asyncDispose]()
})

it('a signal is answered 200 when it is stored, and the asset goes on with its payload', async () => {
  const gate = await gates.open()
  const answer = await post(gate.url, { approved: true, n: [1, 2.5, null] })
  expect(answer).toMatchObject({ status: 200, body: { status: 'accepted', gate: gate.id, repeated: false } })
  expect(await gate.run.result()).toEqual({ approved: true, n: [1, 2.5, null] })
})

it.each<[string, RequestInit, unknown]>([
  ['a form', { body: new URLSearchParams({ a: '1', b: 'ü' }) }, { a: '1', b: 'ü' }],
  ['a multipart form', { body: multipart({ a: '1' }) }, { a: '1' }],
  ['text', { body: 'done', headers: { 'Content-Type': 'text/plain' } }, 'done'],
  ['nothing', {}, null],
])('%s is a payload too', async (_, init, expected) => {
  const gate = await gates.open()
  expect(await request(gate.url, { method: 'POST', ...init })).toMatchObject({ status: 200 })
  expect(await gate.run.result()).toEqual(expected)
})

function multipart(fields: Readonly<Record<string, string>>): FormData {
  const form = new FormData()
  for (const [name, value] of Object.entries(fields)) form.set(name, value)
  return form
}

it('400: what is no token, and what is no JSON', async () => {
  const { url, token } = await gates.open()
  const base = url.slice(0, -token.length)
  for (const wrong of ['x', token.slice(0, -5), `${token}.x`, encodeURIComponent('<script>'), 'a'.repeat(3000)])
    expect(await post(`${base}${wrong}`, {}), wrong).toMatchObject({ status: 400, body: { reason: 'malformed_token' } })
  const broken = await request(url, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: '{' })
  expect(broken).toMatchObject({ status: 400, body: { reason: 'malformed_body' } })
  expect(await post(url, {}, { 'Idempotency-Key': 'x'.repeat(256) })).toMatchObject({
    status: 400,
    body: { reason: 'malformed_request' },
  })
  expect((await gates.flow.gates.getByToken(token))?.status).toBe('waiting')
})

it('401: a token that is signed by nobody here', async () => {
  const { url, token } = await gates.open()
  const forged = url.replace(/.(.)$/, (_, last: string) => `${url.at(-2) === 'A' ? 'B' : 'A'}${last}`)
  const answer = await post(forged, {})
  expect(answer).toMatchObject({ status: 401, body: { reason: 'invalid_signature' } })
  expect(answer.headers.get('www-authenticate')).toBe('FlowStone realm="gate"')
  expect((await gates.flow.gates.getByToken(token))?.status).toBe('waiting')
})

it('404: a gate that never was, and what is no address here', async () => {
  const { id } = await gates.open()
  const never = new TokenKeys(SECRETS).sign(id.replace(/n1$/, 'n7'))
  expect(await post(`${gates.http.url}/hooks/flowstone/signal/${never}`, {})).toMatchObject({
    status: 404,
    body: { reason: 'not_found' },
  })
  for (const path of [
    '/',
    '/hooks/flowstone/signal/',
    '/hooks/flowstone/signal/a/b',
    '/hooks/flowstone',
    '/hooks/flowstone/verified/x',
  ])
    expect(await post(`${gates.http.url}${path}`, {}), path).toMatchObject({ status: 404 })
})

it('405: methods that mean nothing here', async () => {
  const { url } = await gates.open()
  for (const method of ['PUT', 'DELETE', 'PATCH', 'OPTIONS']) {
    const answer = await request(url, { method })
    expect(answer, method).toMatchObject({ status: 405, body: { reason: 'method_not_allowed' } })
    expect(answer.headers.get('allow')).toBe('GET, HEAD, POST')
  }
  const bare = await gates.serve({ page: false })
  const answer = await request(`${bare.url}${new URL(url).pathname}`)
  expect(answer).toMatchObject({ status: 405 })
  expect(answer.headers.get('allow')).toBe('POST')
})

it('409: a second signal is refused, unless it is the first one again', async () => {
  const gate = await gates.open()
  const key = { 'Idempotency-Key': '"delivery-1"' }
  expect(await post(gate.url, { n: 1 }, key)).toMatchObject({ status: 200, body: { repeated: false } })
  expect(await post(gate.url, { n: 1 }, key)).toMatchObject({ status: 200, body: { repeated: true } })
  expect(await post(gate.url, { n: 1 }, { 'Idempotency-Key': 'delivery-1' })).toMatchObject({ status: 200 })
  expect(await post(gate.url, { n: 2 }, { 'Idempotency-Key': 'delivery-2' })).toMatchObject({
    status: 409,
    body: { reason: 'already_signaled' },
  })
  expect(await post(gate.url, { n: 1 })).toMatchObject({ status: 409 })
  expect(await gate.run.result()).toEqual({ n: 1 })
})

it('one of many signals at once is accepted', async () => {
  const gate = await gates.open()
  const answers = await Promise.all(Array.from({ length: 40 }, (_, n) => post(gate.url, { n })))
  expect(answers.filter(({ status }) => status === 200)).toHaveLength(1)
  expect(answers.filter(({ status }) => status === 409)).toHaveLength(39)
  expect(await gate.run.result()).toEqual({ n: answers.findIndex(({ status }) => status === 200) })
})

it('410: a gate that has timed out, and one that was cancelled', async () => {
  const late = await gates.open({ timeout: '50ms' })
  await until('it has timed out', async () => (await gates.flow.gates.get(late.id))?.status === 'timed_out')
  expect(await post(late.url, {})).toMatchObject({ status: 410, body: { reason: 'expired' } })
  const gone = await gates.open()
  await gates.flow.gates.cancel(gone.id, 'not needed')
  expect(await post(gone.url, {})).toMatchObject({ status: 410, body: { reason: 'cancelled' } })
})

it('413: a body above the limit, whether it says so or not', async () => {
  const gate = await gates.open()
  const small = await gates.serve({ maxBodyBytes: 1000 })
  const url = `${small.url}${gate.path}`
  const answer = await post(url, 'x'.repeat(1000))
  expect(answer).toMatchObject({ status: 413, body: { reason: 'payload_too_large' } })
  const chunk = `1f4\r\n${'x'.repeat(500)}\r\n`
  const head = `POST ${gate.path} HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n`
  // No last chunk: it is refused while it is still being sent.
  expect(await raw(url, [head, chunk, chunk, chunk])).toMatch(/^HTTP\/1.1 413 /)
  expect(await post(url, 'x'.repeat(900))).toMatchObject({ status: 200 })
  const big = await gates.open()
  expect(await post(big.url, 'x'.repeat(1_048_575))).toMatchObject({ status: 413 })
  expect(await post(big.url, 'x'.repeat(1_000_000))).toMatchObject({ status: 200 })
  expect(await big.run.result()).toHaveLength(1_000_000)
})

it('408: a body that does not come', async () => {
  const gate = await gates.open()
  const hasty = await gates.serve({ bodyTimeout: '100ms' })
  const head = `POST ${gate.path} HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\nbegun`
  expect(await raw(hasty.url, [head])).toMatch(/^HTTP\/1.1 408 [\s\S]*"reason":"slow_body"/)
  expect((await gates.flow.gates.getByToken(gate.token))?.status).toBe('waiting')
})

it('415: what is not taken, and what is', async () => {
  const { url } = await gates.open()
  for (const type of ['image/png', 'application/pdf', 'application/json; charset=latin1']) {
    const answer = await request(url, { method: 'POST', headers: { 'Content-Type': type }, body: 'x' })
    expect(answer, type).toMatchObject({ status: 415, body: { reason: 'unsupported_media_type' } })
    expect(answer.headers.get('accept-post')).toContain('application/json')
  }
  expect(await post(url, {}, { 'Content-Encoding': 'gzip' })).toMatchObject({ status: 415 })
})

it('422: a payload with a member that would come back under another name is refused, and the gate waits on', async () => {
  const gate = await gates.open()
  const headers = { 'Content-Type': 'application/json' }
  const answer = await request(gate.url, { method: 'POST', headers, body: '{"a":{"__proto__":1}}' })
  expect(answer).toMatchObject({ status: 422, body: { reason: 'invalid_payload' } })
  expect(answer.body.detail).toContain('payload.a has a member __proto__')
  expect(await post(gate.url, { a: 1 })).toMatchObject({ status: 200 })
})

it('422: a payload that the gate’s schema does not take gets the reason, and the gate waits on', async () => {
  const gate = await gates.open({ payloadSchema: z.object({ rows: z.number().int() }) })
  const answer = await post(gate.url, { rows: 'many' })
  expect(answer).toMatchObject({ status: 422, body: { reason: 'invalid_payload' } })
  expect(answer.body.detail).toContain('rows')
  expect(await post(gate.url, { rows: 12 })).toMatchObject({ status: 200 })
  expect(await gate.run.result()).toEqual({ rows: 12 })
})

it('429: too many from one address, or for one token, and when to come again', async () => {
  const [one, two] = [await gates.open(), await gates.open()]
  const byToken = await gates.serve({ rateLimit: { token: [2, 'hour'] } })
  for (const status of [400, 400, 429]) {
    const answer = await request(`${byToken.url}${one.path}`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: '{',
    })
    expect(answer.status).toBe(status)
    if (status === 429) expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(1000)
  }
  expect(await post(`${byToken.url}${two.path}`, {})).toMatchObject({ status: 200 })
  // A forged one has no allowance to use up.
  for (let i = 0; i < 4; i++)
    expect(
      await post(`${byToken.url}${two.path.slice(0, -1)}${two.path.endsWith('A') ? 'Q' : 'A'}`, {}),
    ).not.toMatchObject({ status: 429 })

  const byAddress = await gates.serve({ rateLimit: { address: [2, 'hour'] }, trustProxy: 1 })
  const from = (address: string) => request(`${byAddress.url}${one.path}`, { headers: { 'X-Forwarded-For': address } })
  expect((await from('192.0.2.1')).status).toBe(200)
  expect((await from('192.0.2.1')).status).toBe(200)
  expect(await from('192.0.2.1')).toMatchObject({ status: 429, body: { reason: 'rate_limited' } })
  expect((await from('192.0.2.2')).status).toBe(200)
})

it('problems are problem details, and repeat neither token nor payload', async () => {
  const { url, token } = await gates.open({ payloadSchema: z.object({ ok: z.literal(true) }) })
  const answer = await post(url, { ok: false })
  expect(answer.headers.get('content-type')).toBe('application/problem+json')
  expect(answer.body).toEqual({
    type: 'urn:flowstone:problem:invalid_payload',
    title: 'Invalid payload',
    status: 422,
    detail: expect.any(String),
    reason: 'invalid_payload',
  })
  expect(answer.text).not.toContain(token)
  expect([...answer.headers].flat().join('\n')).not.toContain(token)
})

it('who signaled is recorded: the address, and the headers that were chosen', async () => {
  const gate = await gates.open()
  const chosen = await gates.serve({
    recordHeaders: ['User-Agent', 'X-Batch', 'X-Original-URL'],
    trustProxy: ['loopback'],
  })
  await post(`${chosen.url}${gate.path}`, 1, {
    'User-Agent': 'service/1',
    'X-Batch': 'b'.repeat(1000),
    Authorization: 'Bearer secret',
    Cookie: 'session=secret',
    'X-Original-URL': `http://proxy${gate.path}`,
    'X-Forwarded-For': '6.6.6.6, 198.51.100.7',
  })
  const signal = (await gates.flow.gates.get(gate.id))?.signal
  expect(signal).toEqual({
    payload: 1,
    source: '198.51.100.7',
    headers: { 'user-agent': 'service/1', 'x-batch': 'b'.repeat(512) },
  })
})

it('proxy headers of somebody who is no proxy are not believed', async () => {
  const gate = await gates.open()
  const headers = { 'X-Forwarded-For': '6.6.6.6', Forwarded: 'for=6.6.6.6', 'X-Real-IP': '6.6.6.6' }
  expect(await post(gate.url, 1, headers)).toMatchObject({ status: 200 })
  expect((await gates.flow.gates.get(gate.id))?.signal?.source).toBe('127.0.0.1')
})

it('a header given twice does not bring an address past the proxy', async () => {
  const gate = await gates.open()
  const proxied = await gates.serve({ trustProxy: 1 })
  const head = [
    `POST ${gate.path} HTTP/1.1`,
    'Host: h',
    'X-Forwarded-For: 6.6.6.6',
    'x-forwarded-for: 198.51.100.7',
    'X-Forwarded-For : 7.7.7.7',
    'Content-Length: 0',
    'Connection: close',
    '',
    '',
  ]
  // A name with a blank before its colon is how requests are smuggled past proxies.
  expect(await raw(proxied.url, [head.join('\r\n')])).toMatch(/^HTTP\/1.1 400 /)
  const clean = head.filter((line) => !line.includes(' :')).join('\r\n')
  expect(await raw(proxied.url, [clean])).toMatch(/^HTTP\/1.1 200 /)
  expect((await gates.flow.gates.get(gate.id))?.signal?.source).toBe('198.51.100.7')
})

it('a body with two lengths is refused', async () => {
  const gate = await gates.open()
  const head = (more: string) =>
    `POST ${gate.path} HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\n${more}\r\n\r\n0\r\n\r\n`
  expect(await raw(gates.http.url, [head('Content-Length: 5\r\nTransfer-Encoding: chunked')])).toMatch(
    /^HTTP\/1.1 400 /,
  )
  expect(await raw(gates.http.url, [head('Content-Length: 5\r\nContent-Length: 6')])).toMatch(/^HTTP\/1.1 400 /)
  expect((await gates.flow.gates.getByToken(gate.token))?.status).toBe('waiting')
})

it('the server says that it lives, and nothing of it hangs when it is closed', async () => {
  const other = await gates.serve()
  expect(await request(`${other.url}/healthz`)).toMatchObject({ status: 200, text: 'ok\n' })
  await other.close()
  await other.close()
  await expect(request(`${other.url}/healthz`)).rejects.toThrow()
})

it('a health check over HTTP/1.0 needs no Host header; HTTP/1.1 does', async () => {
  const { url } = gates.http
  expect(await raw(url, ['GET /healthz HTTP/1.0\r\n\r\n'])).toMatch(/^HTTP\/1.1 200 [\s\S]*ok\n$/)
  expect(await raw(url, ['GET /healthz HTTP/1.1\r\n\r\n'])).toMatch(/^HTTP\/1.1 400 /)
})

it('no changed token opens a gate: every character changed, cut off, made longer, by another key, of another gate', async () => {
  const [gate, other] = [await gates.open(), await gates.open()]
  const open = await gates.serve({ rateLimit: { address: false, token: false } })
  const { token } = gate
  const [version = '', key = '', id = '', signature = ''] = token.split('.')
  const [, , otherId = '', otherSignature = ''] = other.token.split('.')
  const changed = [
    ...Array.from(token, (was, i) => `${token.slice(0, i)}${was === 'A' ? 'B' : 'A'}${token.slice(i + 1)}`),
    // The last character of base64url has bits that mean nothing: none of its neighbours may stand
    // for it.
    ...Array.from(
      'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_',
      (c) => token.slice(0, -1) + c,
    ).filter((t) => t !== token),
    ...Array.from(token, (_, i) => token.slice(0, i)).filter((t) => t !== ''),
    ...['A', '=', '.', '.x', '%20', '%00', '/'].map((end) => token + end),
    `${version}.${key}.${otherId}.${signature}`,
    `${version}.${key}.${id}.${otherSignature}`,
    `${version}.other.${id}.${signature}`,
    `v2.${key}.${id}.${signature}`,
    new TokenKeys([{ id: key, secret: 'another secret of at least 32 bytes' }]).sign(gate.id),
  ]
  const wrong: string[] = []
  for (const t of changed) {
    const { status } = await post(`${open.url}/hooks/flowstone/signal/${t}`, {})
    if (![400, 401, 404].includes(status)) wrong.push(`${status} ${t}`)
  }
  expect(wrong).toEqual([])
  expect((await gates.flow.gates.get(gate.id))?.status).toBe('waiting')
  expect((await gates.flow.gates.get(other.id))?.status).toBe('waiting')
})
