/** `Prefer: wait=30` (RFC 7240): how long a client wants to wait for the end of a run. */

const WAIT_MAX_S = 60

/**
 * Whole seconds, at most 60. 0: not at all. The first `wait` counts; what is no number is ignored,
 * as the RFC has it.
 */
export function waitOf(headers: Headers): number {
  for (const preference of (headers.get('prefer') ?? '').split(',')) {
    const [, value] = /^\s*wait\s*=\s*([^;]*?)\s*(?:;|$)/i.exec(preference) ?? []
    if (value === undefined) continue
    const [, seconds] = /^"?(\d{1,9})"?$/.exec(value) ?? []
    return seconds === undefined ? 0 : Math.min(Number(seconds), WAIT_MAX_S)
  }
  return 0
}
