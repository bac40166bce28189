import { equal } from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { connect, RateLimitedError } from '../../../src/index.ts'

const call = async (): Promise<string> => 'done'
const flow = await connect()
const bucket = `api-${randomUUID()}`
const { limiter } = flow
// #region rates
const checked = await limiter.check(bucket, [2, 'minute']) // asks once, does not wait
console.log(checked) // { allowed: true }, or { allowed: false, waitMs: 12345 }
console.log(await limiter.peek(bucket, [2, 'minute'])) // the same, but takes nothing

await limiter.take(bucket, [2, 'minute']) // waits for its turn
try {
  await limiter.withLimit(bucket, [2, 'minute'], call, { maxWait: '1s' }) // waits, then calls
} catch (error) {
  if (!(error instanceof RateLimitedError)) throw error
  console.log(`no turn within 1 s; the next one in ${error.retryAfterMs} ms`)
}

await limiter.check('tokens', { limit: 90_000, per: 'minute' }, { n: 1200 }) // 1,200 tokens at once
// #endregion
equal(checked.allowed, true)
equal((await limiter.peek(bucket, [2, 'minute'])).allowed, false)
await flow.close()
