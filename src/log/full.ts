/** Which limit of storage is reached, for people. */
import type { JetStreamManager } from '@nats-io/jetstream'

/** Which limit is reached, as far as a client may ask. `why`: what the server said. */
export async function limitReached(jsm: JetStreamManager, stream: string, why: string): Promise<string> {
  const [found, account] = await Promise.all([
    jsm.streams.info(stream).catch(() => undefined),
    jsm.getAccountInfo().catch(() => undefined),
  ])
  const { max_bytes = -1, max_msgs = -1 } = found?.config ?? {}
  const { bytes = 0, messages = 0 } = found?.state ?? {}
  if (/maximum bytes/i.test(why) || (max_bytes > 0 && bytes > max_bytes * NEARLY))
    return `limit: max_bytes ${max_bytes} of the stream, ${bytes} used`
  if (/maximum messages/i.test(why) || (max_msgs > 0 && messages >= max_msgs))
    return `limit: max_msgs ${max_msgs} of the stream`
  const maxStorage = account?.limits.max_storage ?? -1
  const storage = account?.storage ?? 0
  if (maxStorage > 0 && storage > maxStorage * NEARLY)
    return `limit: max_storage ${maxStorage} of the account, ${storage} used`
  return `limit: max_file_store or the disk of nats-server, ${storage} bytes used by this account`
}

/** A message that does not fit is larger than what is left. */
const NEARLY = 0.8
