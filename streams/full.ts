/** Storage that is full: which errors of the server say so. */

/**
 * The account's limit; the server's memory or file store; both of the server when a stream is made.
 */
const FULL_CODES: ReadonlySet<number> = new Set([10002, 10023, 10028, 10047])
/** The stream refused to store, for a reason in words. */
const STORE_FAILED = 10077

/**
 * Whether a refusal means that there is no room. Nothing was stored then, and the same message is
 * stored when there is.
 */
export function isFullError(errCode: number, description: string): boolean {
  if (FULL_CODES.has(errCode)) return true
  return errCode === STORE_FAILED && /maximum (bytes|messages)|no space|insufficient|exceeded/i.test(description)
}
