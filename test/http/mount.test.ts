import { createServer } from 'node:http'
import { getRequestListener } from '@hono/node-server'
import { Hono } from 'hono'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type GatesOverHttp, gateHandler } from '../../src/http/index.ts'
import { useServer } from '../kit/fixture.ts'
import { listeningLogger } from '../kit/stage.ts'
import { type GateStage, openGateStage, post, request } from './kit.ts'

const server = useServer()
let gates: GateStage

beforeAll(async () => {
  gates = await openGateStage(server.url)
})

afterAll(async () => {
  await gates?.[Symbol.asyncDispose]()
})

it('the handler is a function from Request to Response, and needs no server', async () => {
  const gate = await gates.open()
  const handler = gateHandler(gates.flow)
  const answer = await handler(new Request(`http://flows.example.com${gate.path}`, { method: 'POST' }))
  expect(answer.status).toBe(200)
  expect((await gates.flow.gates.get(gate.id))?.signal?.source).toBe('unknown')
})

it('it mounts in a hono app beside other routes, also below a path', async () => {
  const [one, two] = [await gates.open(), await gates.open()]
  const handler = gateHandler(gates.flow)
  const app = new Hono()
  app.get('/', (c) => c.text('mine'))
  app.all('/hooks/flowstone/*', (c) => handler(c.req.raw, c.env))
  app.mount('/below', handler)
  const web = createServer(getRequestListener(app.fetch))
  await new Promise<void>((resolve) => web.listen(0, '127.0.0.1', resolve))
  try {
    const address = web.address()
    const url = `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`
    expect(await request(url)).toMatchObject({ status: 200, text: 'mine' })
    expect(await post(`${url}${one.path}`, 1)).toMatchObject({ status: 200 })
    expect(await post(`${url}/below${two.path}`, 2)).toMatchObject({ status: 200 })
    expect((await gates.flow.gates.get(one.id))?.signal).toMatchObject({ payload: 1, source: '127.0.0.1' })
    expect((await gates.flow.gates.get(two.id))?.signal).toMatchObject({ payload: 2, source: '127.0.0.1' })
  } finally {
    web.close()
  }
})

it('an internal failure is logged, without the token, and not sent to the client', async () => {
  const { path, token } = await gates.open()
  const logger = listeningLogger()
  const failing: GatesOverHttp = {
    verify: (given) => gates.flow.gates.verify(given),
    getByToken: (given) => gates.flow.gates.getByToken(given),
    signal: (given) => Promise.reject(new Error(`a bug at ${given}`)),
    signalByCorrelationKey: () => Promise.reject(new Error('not asked')),
  }
  const answer = await gateHandler({ gates: failing }, { logger })(new Request(`http://h${path}`, { method: 'POST' }))
  expect(answer.status).toBe(500)
  expect(await answer.text()).not.toMatch(/bug|v1\./)
  expect(logger.lines.join('\n')).toMatch(/a request failed \(internal\): a bug at v1\.…$/)
  expect(logger.lines.join('\n')).not.toContain(token)
})

it('options that cannot be are refused when the handler is made', () => {
  const make = (options: string) => () => gateHandler(gates.flow, JSON.parse(options))
  expect(make('{"maxBodyBytes":0}')).toThrow('maxBodyBytes must be')
  expect(make('{"bodyTimeout":"soon"}')).toThrow('bodyTimeout must be')
  expect(make('{"baseUrl":"flows"}')).toThrow('baseUrl must be')
  expect(make('{"rateLimit":{"token":[0,"second"]}}')).toThrow('rateLimit.token must be')
  expect(make('{"recordHeaders":["Authorization"]}')).toThrow('authorization can hold a secret')
  expect(make('{"recordHeaders":["x y"]}')).toThrow('"x y" is no name of a header')
  expect(make('{"trustProxy":true}')).toThrow('trustProxy must be')
  expect(make('{"rateLimt":{}}')).toThrow('no option rateLimt; did you mean rateLimit?')
  expect(make('{"rateLimit":false}')).toThrow('rateLimit must be an object')
  expect(make('{"rateLimit":{"adress":false}}')).toThrow('no option adress; did you mean address?')
  expect(make('{"rateLimit":{"address":5}}')).toThrow('rateLimit.address must be')
  expect(make('{"recordHeaders":"x"}')).toThrow('recordHeaders must be a list')
  expect(make('{"recordHeaders":["X-Auth-Key"]}')).toThrow('x-auth-key can hold a secret')
  expect(make('{"answerTimeout":0}')).toThrow('answerTimeout must be more than 0')
  expect(make('{"bodyTimeout":"30d"}')).toThrow('bodyTimeout must be more than 0 and at most 1 h')
  expect(make('{"page":"no"}')).toThrow('page must be true or false')
  expect(make('{"address":"here"}')).toThrow('address must be a function')
  expect(make('{"verified":null}')).toThrow('verified must be an object')
  expect(make('null')).toThrow('options must be an object')
})
