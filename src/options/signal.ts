/** Signals that end a wait, as options. */
import { InvalidError } from '../../streams/errors.ts'
import { shown } from '../../streams/shown.ts'

/**
 * Throws InvalidError that names `field`: a wait would find out too late, where nobody catches it.
 */
export function checkSignal(field: string, signal: unknown): void {
  if (signal === undefined || signal instanceof AbortSignal) return
  throw new InvalidError(`${field} must be an AbortSignal, got ${shown(signal)}`)
}
