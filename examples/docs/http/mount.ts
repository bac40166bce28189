import { once } from 'node:events'
import { serve } from '@hono/node-server'
import { Hono } from 'hono'
import { gateHandler } from '../../../src/http/index.ts'
import { connect } from '../../../src/index.ts'

const namespace = 'docs-http-mount'
const secret = 'at least 32 characters, the same in all processes'

// #region handler
const flow = await connect({ namespace, gates: { secrets: [{ id: 'k1', secret }] } })
const handler = gateHandler(flow)
// #endregion

// #region hono
const app = new Hono()
app.all('/hooks/flowstone/*', (c) => handler(c.req.raw, c.env))
// #endregion

// #region node
const server = serve({ fetch: handler, port: 0 })
// #endregion

// #region route
// In a framework with route handlers, at hooks/flowstone/[...path]:
export const GET = handler
export const POST = handler
// #endregion

const answer = await app.request('/hooks/flowstone/signal/abc', { method: 'POST' })
console.log(answer.status, await answer.json())
const direct = await POST(new Request('http://localhost/hooks/flowstone/signal/abc', { method: 'POST' }))
console.log(direct.status)
server.close()
await once(server, 'close')
await flow.close()
