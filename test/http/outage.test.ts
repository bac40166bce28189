import { join } from 'node:path'
import { expect, it } from 'vitest'
import { startServer } from '../../src/server/index.ts'
import { scratchFolder } from '../kit/scratch.ts'
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
}, 60_000)
