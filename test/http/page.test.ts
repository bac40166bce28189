import { afterAll, beforeAll, expect, it } from 'vitest'
import { serveGates } from '../../src/http/index.ts'
import { useServer } from '../kit/fixture.ts'
import { type GateStage, type OpenedGate, openGateStage, request, SECRETS } from './kit.ts'

const server = useServer()
let gates: GateStage

beforeAll(async () => {
  gates = await openGateStage(server.url)
})

afterAll(async () => {
  await gates?.[Symbol.asyncDispose]()
})

const BROWSER = { Accept: 'text/html,application/xhtml+xml,*/*;q=0.8' }
const OWN_PAGE = { ...BROWSER, Origin: 'null', 'Sec-Fetch-Site': 'same-origin' }

async function nonceOf({ url }: OpenedGate): Promise<string> {
  const { text } = await request(url, { headers: BROWSER })
  return /name="flowstone-form" value="([^"]+)"/.exec(text)?.[1] ?? ''
}

function answer(gate: OpenedGate, fields: Record<string, string>, headers: Record<string, string> = OWN_PAGE) {
  return request(gate.url, { method: 'POST', headers, body: new URLSearchParams(fields) })
}

async function status(gate: OpenedGate): Promise<string | undefined> {
  return (await gates.flow.gates.get(gate.id))?.status
}

it('GET and HEAD show, and never signal, whoever asks', async () => {
  const gate = await gates.open({ approval: { message: 'Publish it?' } })
  for (const agent of ['Slackbot-LinkExpanding 1.0', 'facebookexternalhit/1.1', 'Mozilla/5.0']) {
    const page = await request(`${gate.url}?decision=approve`, { headers: { ...BROWSER, 'User-Agent': agent } })
    expect(page.status).toBe(200)
    expect(page.text).toContain('Publish it?')
    const head = await request(gate.url, { method: 'HEAD', headers: { 'User-Agent': agent } })
    expect(head).toMatchObject({ status: 200, text: '' })
  }
  expect(await status(gate)).toBe('waiting')
})

it('the page is sealed: no script, no frame, no cache, no index, no referrer, and the token is not in it', async () => {
  const gate = await gates.open({ metadata: { a: 1 } })
  const { headers, text } = await request(gate.url, { headers: BROWSER })
  expect(headers.get('content-security-policy')).toMatch(
    /^default-src 'none'; style-src 'sha256-[\w+/=]+'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'$/,
  )
  expect(Object.fromEntries(headers)).toMatchObject({
    'x-frame-options': 'DENY',
    'cache-control': 'no-store',
    'referrer-policy': 'no-referrer',
    'x-robots-tag': expect.stringContaining('noindex'),
    'x-content-type-options': 'nosniff',
    'content-type': 'text/html; charset=utf-8',
  })
  expect(text).not.toMatch(/<script|<link|<img|https?:|javascript:|\son\w+=/i)
  expect(text).not.toContain(gate.token)
  expect([...headers].flat().join('\n')).not.toContain(gate.token)
})

it('what the asset says stays text, whatever it holds', async () => {
  const hostile = '</td></table><script>alert(1)</script><form action="//evil.example">"\'<img src=x onerror=alert(1)>'
  const gate = await gates.open({ approval: { message: hostile, context: { [hostile]: [hostile] } } })
  const { text } = await request(gate.url, { headers: BROWSER })
  expect(text).not.toMatch(/<script|<img|<form(?! method="post">)/)
  expect(text.match(/<form/g)).toHaveLength(1)
  expect(text).toContain('&lt;script&gt;alert(1)')
})

it('an approval is answered with a comment and a name, and the page says what was recorded', async () => {
  const gate = await gates.open({ approval: { message: 'Publish it?' } })
  const fields = { 'flowstone-form': await nonceOf(gate), decision: 'reject', comment: ' not <yet> ', by: 'Ada' }
  const page = await answer(gate, fields)
  expect(page.status).toBe(200)
  expect(page.headers.get('content-type')).toContain('text/html')
  expect(page.text).toMatch(/Rejected: recorded[\s\S]*Ada[\s\S]*127\.0\.0\.1[\s\S]*not &lt;yet&gt;/)
  expect(page.text).not.toContain('<form')
  expect(await gate.run.result()).toMatchObject({ approved: false, comment: 'not <yet>', by: 'Ada' })
  // A double click, or a reload, is the same answer; another decision with the same form is another
  // one, and too late.
  expect(await answer(gate, fields)).toMatchObject({ status: 200 })
  const late = await answer(gate, { ...fields, decision: 'approve' })
  expect(late.status).toBe(409)
  expect(late.text).toMatch(/Already rejected[\s\S]*Somebody was first[\s\S]*Ada/)
  const looked = await request(gate.url, { headers: BROWSER })
  expect(looked.status).toBe(200)
  expect(looked.text).toMatch(/Already rejected[\s\S]*Ada/)
})

it('any other gate takes JSON, or nothing; what is no JSON is shown again', async () => {
  const gate = await gates.open()
  const nonce = await nonceOf(gate)
  const wrong = await answer(gate, { 'flowstone-form': nonce, decision: 'send', payload: '{"a": <b>' })
  expect(wrong.status).toBe(400)
  expect(wrong.text).toMatch(/role="alert"[\s\S]*The payload is not JSON[\s\S]*\{&quot;a&quot;: &lt;b&gt;<\/textarea>/)
  expect(await status(gate)).toBe('waiting')
  // What one process has shown, another takes.
  const other = { ...gate, url: `${(await gates.serve()).url}${gate.path}` }
  expect(await answer(other, { 'flowstone-form': nonce, decision: 'send', payload: '{"a": 1}' })).toMatchObject({
    status: 200,
  })
  expect(await gate.run.result()).toEqual({ a: 1 })
  const empty = await gates.open()
  expect(await answer(empty, { 'flowstone-form': await nonceOf(empty), payload: '' })).toMatchObject({ status: 200 })
  expect(await empty.run.result()).toBeNull()
})

it('an approval takes no other decision, and no novel for a comment', async () => {
  const gate = await gates.open({ approval: { message: 'Well?' } })
  const nonce = await nonceOf(gate)
  expect(await answer(gate, { 'flowstone-form': nonce })).toMatchObject({ status: 400 })
  expect(await answer(gate, { 'flowstone-form': nonce, decision: 'maybe' })).toMatchObject({ status: 400 })
  expect(await answer(gate, { 'flowstone-form': nonce, decision: 'approve', comment: 'x'.repeat(2001) })).toMatchObject(
    { status: 400 },
  )
  expect(await status(gate)).toBe('waiting')
})

it('a form of another site, of another gate, or of nowhere does not signal', async () => {
  const [gate, other] = [
    await gates.open({ approval: { message: 'Well?' } }),
    await gates.open({ approval: { message: 'Well?' } }),
  ]
  const nonce = await nonceOf(gate)
  const fields = { 'flowstone-form': nonce, decision: 'approve' }
  const refused: [string, Record<string, string>, Record<string, string>][] = [
    ['another site, as its browser says', fields, { ...OWN_PAGE, 'Sec-Fetch-Site': 'cross-site' }],
    ['another part of this site', fields, { ...OWN_PAGE, 'Sec-Fetch-Site': 'same-site' }],
    ['another site, by its origin', fields, { ...BROWSER, Origin: 'https://evil.example' }],
    ['the nonce of another gate', { ...fields, 'flowstone-form': await nonceOf(other) }, OWN_PAGE],
    ['a nonce that is none', { ...fields, 'flowstone-form': 'x' }, OWN_PAGE],
    ['no nonce, from a browser', { decision: 'approve' }, OWN_PAGE],
  ]
  for (const [what, sent, headers] of refused) {
    const page = await answer(gate, sent, headers)
    expect(page.status, what).toBe(403)
    expect(await status(gate), what).toBe('waiting')
  }
  expect(await answer(gate, fields)).toMatchObject({ status: 200 })
})

it('behind a proxy, a browser’s origin is compared with the address that people use', async () => {
  const gate = await gates.open({ approval: { message: 'Well?' } })
  const proxied = await gates.serve({ baseUrl: 'https://flows.example.com' })
  const behind = { ...gate, url: `${proxied.url}${gate.path}` }
  const fields = { 'flowstone-form': await nonceOf(behind), decision: 'approve' }
  expect(await answer(behind, fields, { ...BROWSER, Origin: proxied.url })).toMatchObject({ status: 403 })
  expect(await answer(behind, fields, { ...BROWSER, Origin: 'https://flows.example.com' })).toMatchObject({
    status: 200,
  })
})

it('… which need not be said again where the flow knows it', async () => {
  const gate = await gates.open({ approval: { message: 'Well?' } })
  const flow = await gates.stage.connect({ gates: { secrets: SECRETS, baseUrl: 'https://flows.example.com' } })
  await using server = await serveGates(flow, { port: 0 })
  const behind = { ...gate, url: `${server.url}${gate.path}` }
  const fields = { 'flowstone-form': await nonceOf(behind), decision: 'approve' }
  expect(await answer(behind, fields, { ...BROWSER, Origin: server.url })).toMatchObject({ status: 403 })
  expect(await answer(behind, fields, { ...BROWSER, Origin: 'https://flows.example.com' })).toMatchObject({
    status: 200,
  })
})

it('gates that have ended, and gates that are none, have a page with the same status that a program gets', async () => {
  const gate = await gates.open({ metadata: { job: 'j1' } })
  const nonce = await nonceOf(gate)
  await gates.flow.gates.cancel(gate.id, 'not <needed>')
  const cancelled = await request(gate.url, { headers: BROWSER })
  expect(cancelled).toMatchObject({ status: 200 })
  expect(cancelled.text).toMatch(/No longer wanted[\s\S]*not &lt;needed&gt;/)
  const late = await answer(gate, { 'flowstone-form': nonce, payload: '1' })
  expect(late.status).toBe(410)
  expect(late.text).toContain('No longer wanted')
  const broken = `${gates.http.url}/hooks/flowstone/signal/broken`
  const page = await request(broken, { headers: BROWSER })
  expect(page.status).toBe(400)
  expect(page.text).toContain('<h1>Malformed token</h1>')
  expect(await request(broken)).toMatchObject({ status: 400, body: { reason: 'malformed_token' } })
})
