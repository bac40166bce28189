import { asset, connect, FlowStoneError, pipeline, RunFailedError } from '../../../src/index.ts'

const fragile = asset('fragile', {
  execute: () => {
    throw new Error('the scale is not calibrated')
  },
  retry: { maxAttempts: 1 },
})

const flow = await connect({ namespace: 'docs_errors' })
await flow.engine()
await flow.worker(pipeline('lab', [fragile]))
// #region codes
const run = await flow.materialize(fragile)
try {
  await run.result()
} catch (error) {
  if (error instanceof RunFailedError) console.log(`${error.asset}: ${error.message}`)
  else if (error instanceof FlowStoneError && error.code === 'unreachable') console.log('no server')
  else throw error
}
// #endregion
await flow.close()
