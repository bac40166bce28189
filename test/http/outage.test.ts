import { createHmac } from 'node:crypto'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { newApiKey } from '../../src/http/shared/api-keys.ts'
import { startServer } from '../../src/server/index.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { until } from '../kit/until.ts'
import { openGateStage, post, request } from './kit.ts'

it('while NATS is away a signal is not acknowledged, and sending it again afterwards is the same signal', async () => {
  using scratch = scratchFolder()
  const dir = join(scratch.path, 'nats')
  let server = await startServer({ dir })
  await using gates = await openGateStage(server.url)
  const hasty = await gates.serve({ answerTimeout: '500ms' })
  const gate = await gates.open()
  const { port } = server
  await server.kill()

  const key = { 'Idempotency-Key': 'once' }
  const away = await post(`${hasty.url}${gate.path}`, { n: 1 }, key)
  expect(away).toMatchObject({ status: 503, body: { reason: 'unavailable' } })
  expect(away.headers.get('retry-after')).toBe('5')
  const page = await request(`${hasty.url}${gate.path}`, { headers: { Accept: 'text/html' } })
  expect(page.status).toBe(503)
  expect(page.text).toContain('<h1>Not available</h1>')
  // Who waits longer gets an answer when it is back.
  const patient = post(gate.url, { n: 1 }, key)

  server = await startServer({ dir, port })
  expect(await patient).toMatchObject({ status: 200 })
  expect(await post(`${hasty.url}${gate.path}`, { n: 1 }, key)).toMatchObject({ status: 200 })
  expect(await post(gate.url, { n: 2 })).toMatchObject({ status: 409 })
  expect(await gate.run.result()).toEqual({ n: 1 })
  await gates.stage[Symbol.asyncDispose]()
  await server.stop()
})

it('while NATS is away no run is acknowledged, and what is sent again afterwards starts one', async () => {
  using scratch = scratchFolder()
  const dir = join(scratch.path, 'nats')
  let server = await startServer({ dir })
  await using gates = await openGateStage(server.url)
  const { key, hash } = newApiKey()
  const secret = 'a secret of sixteen or more'
  const options = {
    apiKeys: [{ id: 'shop', hash, assets: ['http/*'] }],
    webhooks: { '/hooks/in': { sender: { scheme: 'github', secret }, run: 'http/gated' } },
  } as const
  const hasty = await gates.serve({ ...options, answerTimeout: '500ms' })
  const patient = await gates.serve(options)
  const { port } = server
  const signed = { 'X-Hub-Signature-256': `sha256=${createHmac('sha256', secret).update('{}').digest('hex')}` }
  const send = {
    byKey: (to: string) =>
      post(`${to}/runs/http/gated`, {}, { Authorization: `Bearer ${key}`, 'Idempotency-Key': 'once' }),
    bySignature: (to: string) => post(`${to}/hooks/in`, {}, signed),
  }
  await server.kill()
  for (const one of Object.values(send))
    expect(await one(hasty.url)).toMatchObject({ status: 503, body: { reason: 'unavailable' } })
  const late = Object.values(send).map(async (one) => await one(patient.url))

  server = await startServer({ dir, port })
  for (const [at, one] of Object.values(send).entries()) {
    const first = await late[at]
    expect(first?.status).toBeLessThan(300)
    // Whatever became of the requests that nobody was answered, there is one run.
    const again = await one(hasty.url)
    expect(again.body).toMatchObject({ run: first?.body.run, repeated: true })
    expect((await gates.flow.run(String(again.body.run)).view())?.target).toBe('gated')
  }
  await until('the engine has read both', async () => (await gates.flow.runs({ limit: 10 })).length === 2)
  await gates.stage[Symbol.asyncDispose]()
  await server.stop()
})
