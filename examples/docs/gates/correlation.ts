import { equal } from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { asset, connect, pipeline } from '../../../src/index.ts'

const orderId = randomUUID()
// #region correlation
const paid = asset('paid', {
  execute: (ctx) => ctx.signalGate({ timeout: '24h', correlationKey: `order ${ctx.partition}` }),
  onSignal: (_ctx, payment: { cents: number }) => payment.cents,
})
// #endregion

const flow = await connect()
await flow.engine()
await flow.worker(pipeline('shop', [paid]))
const run = await flow.materialize(paid, { partition: orderId })
const delivery = randomUUID()
// #region signal
// in code that has checked who calls: order and delivery are ids of the sender
await flow.gates.signalByCorrelationKey(
  `order ${orderId}`,
  { cents: 500 },
  { idempotencyKey: delivery, keepFor: '1h' }, // kept, should it come before its gate
)
// #endregion
equal(await run.result(), 500)
await flow.close()
