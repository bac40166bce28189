import { expect, it } from 'vitest'
import { serveGates } from '../../src/http/index.ts'
import { asset, connect, pipeline } from '../../src/index.ts'
import { rawNats } from '../kit/raw-nats.ts'
import { freshNamespace, listeningLogger } from '../kit/stage.ts'
import { until } from '../kit/until.ts'

const login = { user: 'app', pass: 'good' }
const withPassword = (password: string) => ({ authorization: { users: [{ user: 'app', password }] } })

it('engine, worker and HTTP go on after the server has refused their credentials many times', async () => {
  await using server = await rawNats(withPassword('good'))
  const logger = listeningLogger()
  const namespace = freshNamespace()
  const one = asset('one', { execute: () => 1 })
  const pipe = pipeline('p', [one])
  await using flow = await connect({ servers: server.url, namespace, nats: login, logger })
  const engine = await flow.engine()
  await engine.active
  await flow.worker(pipe)
  await using http = await serveGates(flow, { port: 0, rateLimit: { address: false } })
  const health = async (path: string) => (await fetch(`${http.url}${path}`)).status
  expect(await (await flow.materialize(one)).result()).toBe(1)
  expect([await health('/healthz'), await health('/readyz')]).toEqual([200, 200])

  await server.stop()
  await server.start(withPassword('other'))
  await until('the refusal is logged', () => logger.lines.some((line) => /refuses the credentials/.test(line)))
  await until('many attempts', () => server.log().split('authentication error').length > 4)
  expect(flow.connection).toMatchObject({ state: 'away', reason: expect.stringMatching(/Authorization Violation/i) })
  expect([await health('/healthz'), await health('/readyz')]).toEqual([200, 503])
  expect(logger.lines.filter((line) => /refuses the credentials/.test(line))).toHaveLength(1)
  await until('that it is away is said', () => logger.lines.some((line) => /server away since \d{4}/.test(line)))
  expect(logger.lines.filter((line) => /server away since \d{4}/.test(line))).toHaveLength(1)

  await server.stop()
  await server.start(withPassword('good'))
  await using other = await connect({ servers: server.url, namespace, nats: login, logger })
  expect(await (await other.materialize(one, { upstream: 'all' })).result()).toBe(1)
  await until('it is ready again', async () => (await health('/readyz')) === 200)
  expect(flow.connection.state).toBe('connected')
})

it('every part stops, and flow.closed tells why, when the connection is closed for good', async () => {
  await using server = await rawNats()
  const logger = listeningLogger()
  const slow = asset('slow', {
    execute: (ctx) => new Promise((_, reject) => ctx.signal.addEventListener('abort', () => reject(ctx.signal.reason))),
  })
  await using flow = await connect({
    servers: server.url,
    namespace: freshNamespace(),
    logger,
    nats: { maxReconnectAttempts: 1 },
  })
  const engine = await flow.engine()
  await engine.active
  const worker = await flow.worker(pipeline('p', [slow]))
  await using http = await serveGates(flow, { port: 0 })
  const run = await flow.materialize(slow)
  await until('it runs', () => worker.busy > 0)
  const result = run.result().catch((error: unknown) => error)
  await server.stop()

  const reason = await flow.closed
  expect(reason).toMatchObject({ code: 'closed', message: expect.stringMatching(/closed for good/) })
  expect(await result).toMatchObject({ code: 'closed' })
  expect(flow.connection).toMatchObject({ state: 'closed' })
  await until('the code that ran was aborted', () => worker.busy === 0)
  await flow.close()
  expect((await fetch(`${http.url}/healthz`)).status).toBe(503)
  expect((await fetch(`${http.url}/readyz`)).status).toBe(503)
  expect(logger.lines.filter((line) => /closed for good/.test(line))).toHaveLength(1)
})

it('flow.closed brings nothing after a close that was asked for', async () => {
  await using server = await rawNats()
  const flow = await connect({ servers: server.url, namespace: freshNamespace() })
  await flow.close()
  expect(await flow.closed).toBeUndefined()
})

it('a worker goes on when credentials cannot be read while its helper thread connects', async () => {
  await using server = await rawNats()
  const logger = listeningLogger()
  let isMissing = false
  const authenticator = () => {
    if (isMissing) throw new Error('no such file')
    return login
  }
  const one = asset('one', { execute: () => 1 })
  await using flow = await connect({
    servers: server.url,
    namespace: freshNamespace(),
    nats: { authenticator },
    logger,
  })
  await flow.engine()
  isMissing = true
  await flow.worker(pipeline('p', [one]))
  expect(logger.lines.filter((line) => /got no credentials: no such file/.test(line))).toHaveLength(1)
  expect(await (await flow.materialize(one)).result()).toBe(1)
})
