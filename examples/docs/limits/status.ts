import { equal } from 'node:assert/strict'
import { connect } from '../../../src/index.ts'

const flow = await connect()
const { limiter } = flow
await flow.setup()
await limiter.reset('openai')
await limiter.take('openai', [60, 'minute'])
// #region status
const { rate, slots } = await limiter.status('openai')
console.log(rate?.count, rate?.remaining, rate?.waiting, rate?.nextTurn)
console.log(slots?.count, slots?.holders) // undefined: no slots of this name are in use

for (const { bucket } of await limiter.list({ prefix: 'open' })) console.log(bucket)
// #endregion
equal(rate?.remaining, 59)
await flow.close()
