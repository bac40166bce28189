/** Packs of a history, the newest first. */
import { decodePack, type HistoryManifest, historyKey, type SealedRun } from '../../streams/history.ts'
import { isInRanges } from '../../streams/retention.ts'
import { partsSaid } from './document-parts.ts'
import { decodeDoc, readDocIfAny } from './documents.ts'
import type { HistorySource } from './history.ts'
import { isGone, leaderGet, type StoredMessage } from './nats.ts'

export interface StoredPack {
  /** When it was stored: all of its facts are older, and so are those of packs before it. */
  readonly timeMs: number
  readonly runs: () => Promise<readonly SealedRun[]>
}

/** One that was pruned is left out. */
export async function* packsNewestFirst(source: HistorySource, shard: number): AsyncGenerator<StoredPack> {
  const { connection, names } = source
  const bucket = names.historyBucket(shard)
  const manifest = (await readDocIfAny(connection, names, bucket, historyKey.manifest)) as HistoryManifest | undefined
  for (let n = (manifest?.packs ?? 0) - 1; n >= 0; n--) {
    if (isInRanges(manifest?.gone ?? [], n)) continue
    const key = historyKey.pack(n)
    const message = await messageOf(source, bucket, key)
    if (!message) continue
    const runs = async (): Promise<readonly SealedRun[]> => {
      const doc =
        partsSaid(message) === 1 ? decodeDoc(key, message) : await readDocIfAny(connection, names, bucket, key)
      return doc instanceof Uint8Array ? await decodePack(doc) : []
    }
    yield { timeMs: message.timeMs, runs }
  }
}

async function messageOf(
  { connection, names }: HistorySource,
  bucket: string,
  key: string,
): Promise<StoredMessage | undefined> {
  const query = { last_by_subj: names.kvSubject(bucket, key) }
  try {
    return await connection.read((nc) => leaderGet(nc, names.kvStream(bucket), query))
  } catch (error) {
    if (isGone(error)) return undefined
    throw error
  }
}
