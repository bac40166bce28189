/**
 * Headers that are kept with a signal, for audit: those that were chosen, short, and never a
 * secret.
 */
import { InvalidError } from '../../../streams/errors.ts'

export const DEFAULT_RECORDED: readonly string[] = ['user-agent', 'content-type', 'x-request-id']

/** They carry secrets, or are made to. */
const NEVER =
  /^(authorization|proxy-authorization|cookie|set-cookie|referer|.*(api|auth|access|secret)-?key|.*(-token|-secret|-signature(-256)?|-password))$/
const NAME = /^[!#$%&'*+.^_`|~0-9a-z-]+$/
const VALUE_MAX = 512
/** With gates it is 4 KiB, written as JSON. */
const ALL_MAX = 4000

/**
 * Lower case names. Throws InvalidError for what is no header, and for one that must not be kept.
 */
export function checkRecorded(names: readonly string[]): readonly string[] {
  if (!Array.isArray(names)) throw new InvalidError('recordHeaders must be a list of names')
  return names.map((given) => {
    const name = String(given).toLowerCase()
    if (!NAME.test(name)) throw new InvalidError(`recordHeaders: ${JSON.stringify(given)} is no name of a header`)
    if (NEVER.test(name))
      throw new InvalidError(`recordHeaders: ${name} can hold a secret, and what is recorded stays on the log for good`)
    return name
  })
}

/** `secret`: the token; a header that repeats the address (proxies add such) is left out. */
export function recordedHeaders(
  headers: Headers,
  names: readonly string[],
  secret: string | undefined,
): Record<string, string> {
  const kept: [string, string][] = []
  let room = ALL_MAX
  for (const name of names) {
    const value = headers.get(name)?.slice(0, VALUE_MAX)
    if (value === undefined || (secret !== undefined && headers.get(name)?.includes(secret))) continue
    room -= JSON.stringify([name, value]).length
    if (room < 0) break
    kept.push([name, value])
  }
  return Object.fromEntries(kept)
}
