import { equal } from 'node:assert/strict'
import { asset, connect, pipeline, RunFailedError } from '../../../src/index.ts'

const slow = 'data:application/json,{}'
// #region timeouts
const rates = asset('rates', {
  timeout: '20s', // of one attempt
  retry: { maxAttempts: 5 },
  execute: async (ctx) => (await fetch(slow, { signal: ctx.signal })).json(), // ends in time
})
const shop = pipeline('shop', [rates], { timeout: '2h' }) // of a whole run that names no timeout
// #endregion

const stuck = asset('stuck', {
  timeout: '50ms',
  retry: { maxAttempts: 1 },
  execute: () => new Promise(() => {}),
})

const flow = await connect()
await flow.engine()
await flow.worker([shop, pipeline('stuck', [stuck])])
await (await flow.materialize(rates)).result()
const error = await (await flow.materialize(stuck)).result().catch((thrown: unknown) => thrown)
equal(error instanceof RunFailedError && error.code, 'timeout')
await flow.close()
