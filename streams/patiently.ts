/** What is asked again while JetStream has no answer, as while a cluster elects a leader. */
import { JetStreamApiError } from '@nats-io/jetstream'
import { errors } from '@nats-io/nats-core'

/** An election takes up to ten seconds. A busy machine makes everything slower. */
const PATIENCE_MS = 30_000
const PAUSE_MS = 250
/** Server errors: no leader answers now. */
const NO_LEADER: ReadonlySet<number> = new Set([10008, 10009])

/** `ask` may be carried out more than once: a try without an answer may have had its effect. */
export async function patiently<T>(ask: () => Promise<T>): Promise<T> {
  const deadlineMs = performance.now() + PATIENCE_MS
  for (;;) {
    try {
      return await ask()
    } catch (error) {
      if (!hasNoAnswer(error) || performance.now() > deadlineMs) throw error
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS))
  }
}

/** Whether nobody could answer, and may in a while. */
export function hasNoAnswer(error: unknown): boolean {
  for (let at = error, depth = 0; at instanceof Error && depth < 8; at = at.cause, depth++)
    if (at instanceof errors.TimeoutError || (at instanceof JetStreamApiError && NO_LEADER.has(at.code))) return true
  return false
}
