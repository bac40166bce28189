import { once } from 'node:events'
import { serve } from '@hono/node-server'
import { Hono } from 'hono'
import { gateHandler } from '../../../src/http/index.ts'
import { connect } from '../../../src/index.ts'

const secret = 'at least 32 characters, the same in all processes'

// #region handler
const flow = await connect({ gates: { secrets: [{ id: 'k1', secret }] } })
const handler = gateHandler(flow)
// #endregion

const app = new Hono()
app.all('/hooks/flowstone/*', (c) => handler(c.req.raw, c.env))

const server = serve({ fetch: handler, port: 0 })

const answer = await app.request('/hooks/flowstone/signal/abc', { method: 'POST' })
console.log(answer.status, await answer.text())
const direct = await handler(
  new Request('http://localhost/hooks/flowstone/signal/abc', { method: 'POST' }),
)
console.log(direct.status)
server.close()
await once(server, 'close')
await flow.close()
// prints: 400 {…"reason":"malformed_token"}
// prints:
// prints: 400
