/** What is asked again while JetStream cannot do it, as while a cluster elects a leader. */
import { JetStreamApiError } from '@nats-io/jetstream'
import { errors } from '@nats-io/nats-core'
import { FlowStoneError } from './errors.ts'

/** An election takes up to ten seconds. A busy machine makes everything slower. */
const PATIENCE_MS = 30_000
/** Namespaces that are made at once take more for a moment than they keep. */
const FULL_MS = 2000
const PAUSE_MS = 250
/** Server errors: no leader answers now. */
const NO_LEADER: ReadonlySet<number> = new Set([10008, 10009])

/** `ask` may be carried out more than once: a try without an answer may have had its effect. */
export async function patiently<T>(ask: () => Promise<T>): Promise<T> {
  const sinceMs = performance.now()
  for (;;) {
    try {
      return await ask()
    } catch (error) {
      if (performance.now() - sinceMs >= patienceOf(error)) throw error
    }
    await pause(PAUSE_MS * (0.5 + Math.random()))
  }
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

function patienceOf(error: unknown): number {
  if (hasNoAnswer(error)) return PATIENCE_MS
  return error instanceof FlowStoneError && error.code === 'storage_full' ? FULL_MS : 0
}

/** Whether nobody could answer, and may in a while. */
export function hasNoAnswer(error: unknown): boolean {
  for (let at = error, depth = 0; at instanceof Error && depth < 8; at = at.cause, depth++)
    if (at instanceof errors.TimeoutError || (at instanceof JetStreamApiError && NO_LEADER.has(at.code))) return true
  return false
}
