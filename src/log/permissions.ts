/**
 * Which NATS permission a denied subject asks for: the pattern that an operator writes into the
 * server's configuration.
 */

export interface Denied {
  readonly operation: 'publish' | 'subscribe'
  /** The subject that the server refused. */
  readonly subject: string
  /** The permission that is missing. */
  readonly permission: string
}

/** Families of subjects: the part that matches is kept, and `>` replaces the rest. */
const FAMILIES: readonly RegExp[] = [
  /^\$JS\.ACK\./,
  /^\$JS\.(?:[^.]+\.)?API\.CONSUMER\.MSG\.NEXT\.[^.]+\./,
  /^\$JS\.(?:[^.]+\.)?API\.CONSUMER\.(?:DURABLE\.CREATE|CREATE|INFO|DELETE)\.[^.]+\./,
  /^\$JS\.(?:[^.]+\.)?API\.DIRECT\.GET\.[^.]+\./,
  /^\$JS\.FC\./,
  /^(?:\$JS\.[^.]+\.API\.)?\$(?:KV|O)\.[^.]+\./,
  /^[^.]+\.(?:log|work)\.\d+\./,
  /^[^.]+\.(?:notify|feed|feed_position|proof|workers|logs)\./,
]

/** `inboxPrefix`: as the connection was given it. */
export function deniedBy(operation: string, subject: string, inboxPrefix = '_INBOX'): Denied {
  const family = subject.startsWith(`${inboxPrefix}.`)
    ? `${inboxPrefix}.`
    : FAMILIES.map((pattern) => pattern.exec(subject)?.[0]).find((start) => start !== undefined)
  return {
    operation: operation === 'publish' ? 'publish' : 'subscribe',
    subject,
    permission: family === undefined ? subject : `${family}>`,
  }
}

/** Whether answers come there. All else that is listened to has a family. */
export function isInbox({ operation, permission }: Pick<Denied, 'operation' | 'permission'>): boolean {
  return operation === 'subscribe' && permission.endsWith('.>') && !FAMILIES.some((family) => family.test(permission))
}

/** What to do, where it is not only to give the permission. */
export function remedyOf(denied: Denied): string {
  return isInbox(denied)
    ? '; if this user has an inbox of its own, name it: inboxPrefix, --inbox-prefix or NATS_INBOX_PREFIX'
    : ''
}

/** What does not work without it, where that is not plain from the subject. */
export function consequenceOf({ operation, permission }: Denied): string {
  if (permission === '$JS.ACK.>')
    return '; tasks cannot be acknowledged: the server delivers each of them again after ackWait'
  if (isInbox({ operation, permission })) return '; no answer of the server can arrive'
  if (operation === 'publish' && /\.logs\.>$|^\$JS\.API\.STREAM\..+_LOGS$/.test(permission))
    return '; lines of ctx.log are not kept'
  if (/\.notify\.>$/.test(permission)) return '; what it would tell at once is noticed some seconds later'
  return ''
}
