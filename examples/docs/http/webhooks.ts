import { createHmac } from 'node:crypto'
import { z } from 'zod'
import { runHandler } from '../../../src/http/index.ts'
import { asset, connect, input, pipeline } from '../../../src/index.ts'

const hookSecret = 'what you gave the shop for this webhook'

const order = input('order', z.object({ id: z.string(), customer: z.string() }))
const invoice = asset('invoice', {
  dependsOn: [order],
  execute: (_ctx, deps) => deps.order.id,
})

const flow = await connect()
await flow.engine()
await flow.worker(pipeline('orders', [order, invoice]))

// #region handler
interface Created {
  readonly type: string
  readonly data: { readonly id: string; readonly customer: string }
}

const handler = runHandler(flow, {
  webhooks: {
    '/hooks/orders': {
      sender: { scheme: 'github', secret: hookSecret },
      run: 'orders/invoice',
      filter: (message) => message.json<Created>().type === 'order.created',
      input: (message) => ({ order: message.json<Created>().data }),
      tags: (message) => ({ customer: message.json<Created>().data.customer }),
    },
  },
})
// #endregion

const send = async (payload: unknown): Promise<void> => {
  const body = JSON.stringify(payload)
  const signature = `sha256=${createHmac('sha256', hookSecret).update(body).digest('hex')}`
  const answer = await handler(
    new Request('http://localhost/hooks/orders', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', 'X-Hub-Signature-256': signature },
      body,
    }),
  )
  console.log(answer.status, (await answer.text()).trim())
}
await send({ type: 'order.viewed' })
const created = { type: 'order.created', data: { id: 'o-1', customer: 'c-9' } }
await send(created)
await send(created)
await flow.close()
// prints: 200 {"status":"ignored"}
// prints: 200 {"status":"accepted","run":"…","repeated":false}
// prints: 200 {"status":"accepted","run":"…","repeated":true}
