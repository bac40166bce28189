/** The reason that a caller gives for an action. Facts contain it, so its length is bounded. */
import { InvalidError } from '../../streams/errors.ts'
import { checkText } from '../../streams/text.ts'

export const REASON_MAX = 2000

/**
 * Returns the field of a fact. Throws InvalidError for what is no text, or is too long. `call`
 * names the caller's call.
 */
export function reasonOf(call: string, reason: unknown): { reason?: string } {
  if (reason === undefined) return {}
  if (typeof reason === 'string' && reason.length <= REASON_MAX) return { reason: checkText(`${call}: reason`, reason) }
  const got = typeof reason === 'string' ? `${reason.length} of them` : typeof reason
  throw new InvalidError(`${call}: reason must be text of at most ${REASON_MAX} characters, got ${got}`)
}
