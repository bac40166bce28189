import { setTimeout as sleep } from 'node:timers/promises'
import { FlowStoneError } from '../../streams/errors.ts'
import { busy } from './within.ts'

const PAUSE_MAX_MS = 40

/**
 * Waits until a condition holds: tests wait for what they mean and never for time to pass.
 * @throws Error naming `what` when it does not hold within `timeoutMs` (default 60,000), or
 * longer on a busy machine.
 */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  timeoutMs = 60_000,
): Promise<void> {
  const startedMs = performance.now()
  // Most conditions ask a server: who waits for long asks less often, and leaves the processors to
  // what is waited for.
  for (let pauseMs = 4; !(await holds(condition)); pauseMs = Math.min(PAUSE_MAX_MS, pauseMs * 1.15)) {
    const tookMs = performance.now() - startedMs
    if (tookMs > timeoutMs * busy()) throw new Error(`not within ${Math.round(tookMs)} ms: ${what}`)
    await sleep(pauseMs)
  }
}

/** What the state bucket does not know yet is not there yet: it may lag the log. */
async function holds(condition: () => boolean | Promise<boolean>): Promise<boolean> {
  try {
    return await condition()
  } catch (error) {
    if (error instanceof FlowStoneError && error.code === 'not_found') return false
    throw error
  }
}
