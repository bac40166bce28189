/**
 * A client in a process of its own that answers gates, some at a time, and reports each request and
 * each reply.
 */
import { begin, tell } from './child.ts'
import { answerBy } from './gated.ts'

const AT_A_TIME = 3

const { flow, settings } = await begin()
tell('ready')
const gates = (settings.gates ?? []).values()

async function answer(): Promise<void> {
  for (const gate of gates) {
    tell('asks', { gate })
    await flow.gates.signalById(gate, answerBy('first', gate), { idempotencyKey: `first ${gate}` })
    tell('answered', { gate })
  }
}

await Promise.all(Array.from({ length: AT_A_TIME }, answer))
tell('done')
