import { connect } from '../../../src/index.ts'

const flow = await connect()

// At most 60 calls in any minute, over all processes. Waits for its turn.
const answer = await flow.limiter.withLimit('openai', [60, 'minute'], async () => 'hello', {
  maxWait: '30s',
})

// At most 4 holders at a time, over all processes. A slot comes back when its process dies.
await flow.limiter.withSlot('gpu', 4, (slot, signal) =>
  console.log(answer, slot.fence, signal.aborted),
)

await flow.close()
