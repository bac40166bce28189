/** What a user of nats-server may not do. */
import { errors } from '@nats-io/nats-core'

/** The server's refusal of a subject, where that is why. */
export function violationIn(error: unknown): InstanceType<typeof errors.PermissionViolationError> | undefined {
  for (let at = error, depth = 0; at instanceof Error && depth < 8; at = at.cause, depth++)
    if (at instanceof errors.PermissionViolationError) return at
  return undefined
}
