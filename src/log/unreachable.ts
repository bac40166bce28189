/** The server, or a place that keeps values, gave no answer: nobody's mistake, and it passes. */
import { FlowStoneError } from '../../streams/errors.ts'

export function isUnreachable(error: unknown): boolean {
  return error instanceof FlowStoneError && error.code === 'unreachable'
}

const away = new WeakSet<Error>()

/**
 * Marks an error: a process waited long for its own server, or for a place that keeps values. User
 * code may get it, and errors of the same code from elsewhere. So it is known by itself.
 */
export function asAway<E extends Error>(error: E): E {
  away.add(error)
  return error
}

/** Whether what a worker was to do is to be done later, and costs nobody an attempt. */
export function isAway(error: unknown): boolean {
  return error instanceof Error && away.has(error)
}
