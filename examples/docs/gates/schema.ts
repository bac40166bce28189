import { equal } from 'node:assert/strict'
import { z } from 'zod'
import { asset, connect, pipeline, SignalRejectedError } from '../../../src/index.ts'

// #region schema
const paid = asset('paid', {
  payloadSchema: z.object({ cents: z.int().min(1) }),
  execute: (ctx) => ctx.signalGate({ timeout: '24h' }),
  onSignal: (_ctx, { cents }) => cents / 100, // typed by the schema
})
// #endregion

const flow = await connect()
await flow.engine()
await flow.worker(pipeline('shop', [paid]))
const run = await flow.materialize(paid)
const id = await gateOf(run.id)
// #region refused
try {
  await flow.gates.signalById(id, { cents: -5 })
} catch (error) {
  if (!(error instanceof SignalRejectedError)) throw error
  console.log(error.reason) // invalid_payload: the gate still waits
}
// #endregion
await flow.gates.signalById(id, { cents: 500 })
equal(await run.result(), 5)
await flow.close()

async function gateOf(run: string): Promise<string> {
  for (;;) {
    const [gate] = await flow.gates.list(run)
    if (gate) return gate.id
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
