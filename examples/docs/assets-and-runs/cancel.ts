import { equal } from 'node:assert/strict'
import { once } from 'node:events'
import { asset, connect, pipeline, RunFailedError } from '../../../src/index.ts'

const endless = asset('endless', {
  execute: async ({ signal }) => {
    await once(signal, 'abort')
    signal.throwIfAborted()
  },
})

const flow = await connect()
await flow.engine()
await flow.worker(pipeline('shop', [endless]))
const { id } = await flow.materialize(endless)
// #region cancel
const run = flow.run(id) // a handle by id, in any process
await run.cancel('wrong date')
// #endregion
const error = await run.result().catch((thrown: unknown) => thrown)
equal(error instanceof RunFailedError && error.code, 'cancelled')
await flow.close()
