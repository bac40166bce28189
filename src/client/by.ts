/** Who acts through a flow: what stands in the facts that it causes. See streams/by.ts. */
import { hostname, userInfo } from 'node:os'
import { byPart, isByName, joinBy, ownPart } from '../../streams/by.ts'
import { InvalidError } from '../../streams/errors.ts'
import { shown } from '../../streams/shown.ts'

/** `given`: what the program says of itself. `user`: whom the server takes it for. */
export function whoActs(given: string | undefined, user: string | undefined): string | undefined {
  const nats = user === undefined ? undefined : byPart('nats', user)
  return joinBy(given === undefined ? (nats === undefined ? localBy('process') : undefined) : ownPart(given), nats)
}

/** The user and the host of this process, as the system says. */
export function localBy(kind: 'cli' | 'process'): string {
  return byPart(kind, `${userHere()}@${hostname().slice(0, 64)}`)
}

/** A container may have no name for its user. */
function userHere(): string {
  try {
    return userInfo().username
  } catch {
    return String(process.getuid?.() ?? 'unknown')
  }
}

export function checkBy(at: string, by: unknown): string {
  if (isByName(by)) return by
  throw new InvalidError(
    `${at}: by must be a name of 1 to 120 characters without spaces, such as checkout or job:nightly, got ${shown(by)}`,
  )
}
