import { equal } from 'node:assert/strict'
import { asset, connect, pipeline, RetryableError, TerminalError } from '../../../src/index.ts'

let calls = 0
const fetchRates = async (_signal: AbortSignal): Promise<Response> => {
  calls += 1
  return calls === 1
    ? new Response('slow down', { status: 503, headers: { 'Retry-After': '0.05' } })
    : new Response('[1.1]')
}

// #region retries
const rates = asset('rates', {
  retry: { maxAttempts: 5, backoff: '1s..60s' },
  execute: async (ctx) => {
    const response = await fetchRates(ctx.signal)
    if (response.status === 404) throw new TerminalError('there is no such rate') // no retry
    if (response.status === 503) {
      const retryAfterMs = Number(response.headers.get('Retry-After')) * 1000
      throw new RetryableError('the service is busy', { retryAfterMs }) // in place of the backoff
    }
    return (await response.json()) as number[] // any other error is retried after the backoff
  },
})
// #endregion

const flow = await connect()
await flow.engine()
await flow.worker(pipeline('shop', [rates]))
const run = await flow.materialize(rates)
equal((await run.result())[0], 1.1)
equal(calls, 2)
await flow.close()
