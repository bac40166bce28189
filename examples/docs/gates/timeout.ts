import { equal } from 'node:assert/strict'
import { asset, connect, pipeline } from '../../../src/index.ts'

const reminded: number[] = []
const remind = async (left: number): Promise<void> => {
  reminded.push(left)
}

// #region timeout
const approved = asset('approved', {
  execute: (ctx) =>
    ctx.approval({
      message: 'Delete the old backups?',
      timeout: '100ms',
      timeoutAction: 'retry', // wait longer, at the same gate
      retryDelays: ['100ms', '200ms'],
      maxTimeoutRetries: 2,
    }),
  onTimeout: async (ctx) => {
    if (ctx.retriesLeft === 0) return 'not approved' // the last timeout: this becomes the value
    await remind(ctx.retriesLeft) // the gate waits on, and what is returned does not count
    return ''
  },
  onSignal: () => 'approved',
})
// #endregion

const flow = await connect()
await flow.engine()
await flow.worker(pipeline('backups', [approved]))
equal(await (await flow.materialize(approved)).result(), 'not approved')
equal(reminded.length > 0, true)
await flow.close()
