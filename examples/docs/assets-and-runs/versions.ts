import { equal } from 'node:assert/strict'
import { z } from 'zod'
import { asset, connect, pipeline } from '../../../src/index.ts'

const orders = asset('orders', { execute: () => [{ id: 1, cents: 2000 }] })
// #region versions
const report = asset('report', {
  codeVersion: '2', // it expects cents since version 2; before, it was euros
  dependsOn: [orders],
  execute: (_ctx, { orders }) => orders.reduce((sum, { cents }) => sum + cents, 0),
})

const approved = asset('approved', {
  dependsOn: [report],
  payloadSchema: z.object({ ok: z.boolean() }), // of its gates that name no other
  execute: (ctx, { report }) => ctx.signalGate({ timeout: '24h', metadata: { report } }),
  onSignal: (_ctx, { ok }) => ok,
})
// #endregion

const flow = await connect()
await flow.engine()
await flow.worker(pipeline('shop', [orders, report, approved]))
equal(await (await flow.materialize(report)).result(), 2000)
await flow.close()
