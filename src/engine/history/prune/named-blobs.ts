/**
 * Which objects of the object store are named by something. The index knows those that facts of
 * packs name. Others are named by facts of open runs, by messages that wait, or by signals that
 * came early. Facts that no base has yet may name more, so whoever asks says up to which time.
 */
import { blobsIn, blobsOf } from '../../../../streams/blob-refs.ts'
import { type HistoryManifest, historyKey, indexHash, packsIn, pageOf } from '../../../../streams/history.ts'
import { isInRanges } from '../../../../streams/retention.ts'
import type { Names } from '../../../../streams/subjects.ts'
import type { Connection } from '../../../log/connection.ts'
import { partsSaid } from '../../../log/document-parts.ts'
import { decodeDoc, readDocIfAny } from '../../../log/documents.ts'
import { freshGetMany } from '../../../log/fresh-get.ts'
import { isGone, leaderGet, streamInfo } from '../../../log/nats.ts'
import { manifestOf } from '../../../log/packs.ts'
import { rawRunFacts } from '../../../log/run-facts.ts'
import { positionOf } from '../../shard/checkpoint.ts'
import type { UnsealedMark } from '../unsealed.ts'

const AT_ONCE = 200

export interface BlobSource {
  readonly connection: Connection
  readonly names: Names
  readonly shards: number
}

export class NamedBlobs {
  readonly #source: BlobSource
  readonly #manifests: readonly (HistoryManifest | undefined)[]
  /** Named by what is no pack. */
  readonly #names: ReadonlySet<string>

  private constructor(
    source: BlobSource,
    manifests: readonly (HistoryManifest | undefined)[],
    names: ReadonlySet<string>,
  ) {
    this.#source = source
    this.#manifests = manifests
    this.#names = names
  }

  /**
   * Undefined while that cannot be known. The base of a shard has not all facts that were stored
   * before `beforeMs`, a summary is missing, or an open run names very many.
   */
  static async of(source: BlobSource, beforeMs: number): Promise<NamedBlobs | undefined> {
    const { names, shards } = source
    const all = Array.from({ length: shards }, (_, shard) => shard)
    const found = new Set<string>()
    for (const shard of all) if (!(await hasAll(source, shard, beforeMs))) return undefined
    // Signals and groups go on to runs, and runs to packs. In this order who is on the way is met.
    for (const [bucket, prefix] of [
      [names.controlBucket, 'early.'] as const,
      ...all.map((shard) => [names.historyBucket(shard), 'event_group.'] as const),
    ])
      for await (const [, doc] of docsUnder(source, bucket, prefix)) for (const name of blobsOf(doc)) found.add(name)
    for (const shard of all)
      for await (const blobs of openBlobs(source, shard)) {
        if (!blobs) return undefined
        for (const blob of blobs) found.add(blob)
      }
    const manifests: (HistoryManifest | undefined)[] = []
    for (const shard of all) {
      const manifest = await manifestOf(source, shard)
      // Of packs that an older version wrote, the index does not know yet which objects they name.
      if (manifest && (manifest.summarizedTo ?? 0) < manifest.packs) return undefined
      manifests.push(manifest)
    }
    return new NamedBlobs(source, manifests, found)
  }

  /** Those of them that nothing names. Undefined: the index was merged since it was looked at. */
  async unnamed(blobs: readonly string[]): Promise<string[] | undefined> {
    let left: string[] | undefined = blobs.filter((name) => !this.#names.has(name))
    for (let shard = 0; shard < this.#manifests.length && left && left.length > 0; shard++)
      left = await this.#notInPacks(shard, left)
    return left
  }

  async #notInPacks(shard: number, blobs: readonly string[]): Promise<string[] | undefined> {
    const { connection, names } = this.#source
    const { levels = [], gone = [] } = this.#manifests[shard] ?? {}
    const bucket = names.historyBucket(shard)
    const stream = names.kvStream(bucket)
    let left = [...blobs]
    for (const segment of levels) {
      if (!segment) continue
      const hashes = new Map(left.map((name) => [name, indexHash.blob(name)]))
      const subjectOf = (hash: bigint): string =>
        names.kvSubject(bucket, historyKey.page(segment.id, pageOf(hash, segment.bits)))
      const subjects = [...new Set([...hashes.values()].map(subjectOf))]
      const pages = new Map<string, Uint8Array>()
      for (let i = 0; i < subjects.length; i += AT_ONCE) {
        const some = subjects.slice(i, i + AT_ONCE)
        const there = await freshGetMany(connection, stream, some)
        for (const subject of some) {
          const page = there.get(subject)
          if (!page || page.headers.has('KV-Operation')) return undefined
          pages.set(subject, page.payload)
        }
      }
      left = left.filter((name) => {
        const hash = hashes.get(name) ?? 0n
        const packs = packsIn(pages.get(subjectOf(hash)) ?? new Uint8Array(), hash)
        return packs.every((pack) => isInRanges(gone, pack))
      })
    }
    return left
  }
}

/** Whether all facts that were stored before a time are in the base of a shard. */
async function hasAll({ connection, names }: BlobSource, shard: number, beforeMs: number): Promise<boolean> {
  const { seq = 0 } = (await positionOf(connection, names, names.historyBucket(shard))) ?? {}
  const query = { seq: seq + 1, next_by_subj: '>' }
  const next = await connection.read((nc) => leaderGet(nc, names.log(shard), query))
  return !next || next.timeMs > beforeMs
}

/** Of each run that the base has met and that is open. Undefined: of one it is not known. */
async function* openBlobs(source: BlobSource, shard: number): AsyncGenerator<readonly string[] | undefined> {
  const { connection, names } = source
  const { seq = 0 } = (await positionOf(connection, names, names.historyBucket(shard))) ?? {}
  for await (const [key, doc] of docsUnder(source, names.historyBucket(shard), 'unsealed.')) {
    const { blobs } = doc as UnsealedMark
    if (blobs) yield blobs
    else if (blobs === null) yield undefined
    else
      for await (const fact of rawRunFacts(source, shard, key.split('.')[2] ?? '', seq))
        yield blobsIn(fact.payload, fact.contentType)
  }
}

async function* docsUnder(
  { connection, names }: BlobSource,
  bucket: string,
  prefix: string,
): AsyncGenerator<readonly [key: string, doc: unknown]> {
  const stream = names.kvStream(bucket)
  const before = names.kvSubject(bucket, '').length
  const info = await connection
    .read((nc) => streamInfo(nc, stream, names.kvSubject(bucket, `${prefix}>`)))
    .catch((error: unknown) => {
      if (isGone(error)) return undefined
      throw error
    })
  const subjects = Object.keys(info?.state.subjects ?? {})
  for (let i = 0; i < subjects.length; i += AT_ONCE) {
    const some = subjects.slice(i, i + AT_ONCE)
    const there = await freshGetMany(connection, stream, some)
    for (const subject of some) {
      const key = subject.slice(before)
      const message = there.get(subject)
      const isWhole = message && partsSaid(message) === 1
      const doc = isWhole ? decodeDoc(key, message) : await readDocIfAny(connection, names, bucket, key)
      if (doc !== undefined) yield [key, doc]
    }
  }
}
