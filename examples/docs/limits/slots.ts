import { equal } from 'node:assert/strict'
import { connect } from '../../../src/index.ts'

const train = async (_options: { fence: number; signal: AbortSignal }): Promise<string> => 'trained'
const flow = await connect()
const { limiter } = flow
// #region slots
await limiter.withSlot('gpu', 4, (slot, signal) => train({ fence: slot.fence, signal }), {
  by: 'nightly training',
})

const slot = await limiter.acquireSlot('gpu', 4) // does not wait
if (slot !== 'at_capacity') {
  try {
    slot.throwIfLost() // right before what the slot protects
    await train({ fence: slot.fence, signal: slot.signal })
  } finally {
    await slot.release()
  }
}
// #endregion
equal(slot === 'at_capacity', false)
await flow.close()
