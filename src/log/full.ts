/** Storage that is full: which errors of the server say so, and which limit it is. */
import type { JetStreamManager } from '@nats-io/jetstream'

/** The account's limit; the server's memory or file store; both of the server when a stream is made. */
const FULL_CODES: ReadonlySet<number> = new Set([10002, 10023, 10028, 10047])
/** The stream refused to store, for a reason in words. */
const STORE_FAILED = 10077

/** Whether a refusal means that there is no room. Nothing was stored then, and the same message is stored when there is. */
export function isFullError(errCode: number, description: string): boolean {
  if (FULL_CODES.has(errCode)) return true
  return errCode === STORE_FAILED && /maximum (bytes|messages)|no space|insufficient|exceeded/i.test(description)
}

/** Which limit is reached, as far as a client may ask. */
export async function limitReached(jsm: JetStreamManager, stream: string): Promise<string> {
  const [found, account] = await Promise.all([
    jsm.streams.info(stream).catch(() => undefined),
    jsm.getAccountInfo().catch(() => undefined),
  ])
  const { max_bytes = -1, max_msgs = -1 } = found?.config ?? {}
  const { bytes = 0, messages = 0 } = found?.state ?? {}
  if (max_bytes > 0 && bytes > max_bytes * NEARLY) return `limit: max_bytes ${max_bytes} of the stream, ${bytes} used`
  if (max_msgs > 0 && messages >= max_msgs) return `limit: max_msgs ${max_msgs} of the stream`
  const maxStorage = account?.limits.max_storage ?? -1
  const storage = account?.storage ?? 0
  if (maxStorage > 0 && storage > maxStorage * NEARLY)
    return `limit: max_storage ${maxStorage} of the account, ${storage} used`
  return `limit: max_file_store or the disk of nats-server, ${storage} bytes used by this account`
}

/** A message that does not fit is larger than what is left. */
const NEARLY = 0.8
