import { createHash } from 'node:crypto'
import { z } from 'zod'
import { runHandler } from '../../../src/http/index.ts'
import { asset, connect, input, pipeline } from '../../../src/index.ts'

const order = input('order', z.object({ id: z.string(), total: z.number() }))
const invoice = asset('invoice', {
  dependsOn: [order],
  execute: (_ctx, deps) => `${deps.order.id}: ${deps.order.total}`,
})

const key = 'fsk_what_flowstone_http_key_has_printed_this_once'
const hash = createHash('sha256').update(key).digest('hex')

const flow = await connect()
await flow.engine()
await flow.worker(pipeline('orders', [order, invoice]))

// #region handler
const handler = runHandler(flow, {
  apiKeys: [{ id: 'shop', hash, assets: ['orders/*'], expires: '2099-01-31' }],
})
// #endregion

const answer = await handler(
  new Request('http://localhost/runs/orders/invoice', {
    method: 'POST',
    headers: {
      Authorization: `Bearer ${key}`,
      'Content-Type': 'application/json',
      'Idempotency-Key': 'order o-1',
      Prefer: 'wait=30',
    },
    body: JSON.stringify({ input: { order: { id: 'o-1', total: 12.5 } } }),
  }),
)
console.log(answer.status, (await answer.text()).trim())
const without = await handler(
  new Request('http://localhost/runs/orders/invoice', { method: 'POST' }),
)
console.log(without.status, (await without.text()).trim())
await flow.close()
// prints: 200 {"run":"…","status":"succeeded",…"asset":"orders/invoice",…"value":"o-1: 12.5"}
// prints: 401 {…"reason":"unauthorized"}
