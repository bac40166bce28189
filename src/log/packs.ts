/** Packs of a history: which there are, and what is in them. */
import { decodePack, type HistoryManifest, historyKey, type SealedRun } from '../../streams/history.ts'
import { isInRanges } from '../../streams/retention.ts'
import type { Names } from '../../streams/subjects.ts'
import type { Connection } from './connection.ts'
import { partsSaid } from './document-parts.ts'
import { decodeDoc, readDoc, readDocIfAny } from './documents.ts'
import { isGone, leaderGet, type StoredMessage } from './nats.ts'

export interface HistorySource {
  readonly connection: Connection
  readonly names: Names
}

/** Undefined where nothing was sealed yet. */
export async function manifestOf(
  { connection, names }: HistorySource,
  shard: number,
): Promise<HistoryManifest | undefined> {
  // The bucket's type of document follows from its key.
  return (await readDoc(connection, names, names.historyBucket(shard), historyKey.manifest)) as
    | HistoryManifest
    | undefined
}

/** Numbers of the packs that were not pruned, from one on. */
export function* packNumbers(manifest: HistoryManifest | undefined, from = 0): Generator<number> {
  const { packs = 0, gone = [] } = manifest ?? {}
  for (let n = from; n < packs; n++) if (!isInRanges(gone, n)) yield n
}

/** Undefined for one that is gone. Throws as `decodePack` does. */
export async function readPack(
  { connection, names }: HistorySource,
  shard: number,
  n: number,
): Promise<readonly SealedRun[] | undefined> {
  const bytes = await readDocIfAny(connection, names, names.historyBucket(shard), historyKey.pack(n))
  return bytes instanceof Uint8Array ? await decodePack(bytes) : undefined
}

export interface StoredPack {
  /** When it was stored: all of its facts are older, and so are those of packs before it. */
  readonly timeMs: number
  readonly runs: () => Promise<readonly SealedRun[]>
}

export async function* packsNewestFirst(source: HistorySource, shard: number): AsyncGenerator<StoredPack> {
  const bucket = source.names.historyBucket(shard)
  for (const n of [...packNumbers(await manifestOf(source, shard))].toReversed()) {
    const key = historyKey.pack(n)
    const message = await messageOf(source, bucket, key)
    if (!message) continue
    const runs = async (): Promise<readonly SealedRun[]> => {
      if (partsSaid(message) > 1) return (await readPack(source, shard, n)) ?? []
      const bytes = decodeDoc(key, message)
      return bytes instanceof Uint8Array ? await decodePack(bytes) : []
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
