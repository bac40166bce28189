import { equal } from 'node:assert/strict'
import { asset, connect, pipeline } from '../../../src/index.ts'

const started: { id: string; callback: string }[] = []
const startJob = async (job: { id: string; callback: string }): Promise<void> => {
  started.push(job)
}

// #region open
const transcript = asset('transcript', {
  execute: async (ctx) => {
    const gate = await ctx.openGate({ timeout: '2h' }) // stored: a quick answer finds it
    await startJob({ id: gate.id, callback: gate.callbackUrl }) // gate.id is the idempotency key
    return gate.wait()
  },
  onSignal: (_ctx, payload: { text: string }) => payload.text,
})
// #endregion

const flow = await connect()
await flow.engine()
await flow.worker(pipeline('media', [transcript]))
const run = await flow.materialize(transcript)
while (started.length === 0) await new Promise((resolve) => setTimeout(resolve, 10))
const token = started[0]?.callback.split('/').at(-1) ?? ''
// #region answer
const accepted = await flow.gates.signal(
  token,
  { text: 'hello' },
  { source: 'transcriber', idempotencyKey: 'job-17' },
)
console.log(accepted.status, accepted.repeated) // accepted false
// #endregion
equal(accepted.repeated, false)
equal(await run.result(), 'hello')
await flow.close()
