/**
 * What time travel needs of a shard, in its history bucket. A *snapshot* is the base as it was at a
 * position of the log.
 *
 * A *stretch* is what lies between two snapshots. Its document says where it begins, and which
 * packs hold facts of it.
 */
import { promisify } from 'node:util'
import { decodeMsgpack, encodeMsgpack } from './codec.ts'
import { FlowStoneError, messageOf } from './errors.ts'
import { constants, zstdCompress, zstdDecompress } from './zstd.ts'

const VERSION = 1
const COMPRESSION = { params: { [constants.ZSTD_c_compressionLevel]: 3 } }
/** A snapshot that says that it is larger than this is damaged. */
const SNAPSHOT_MAX_BYTES = 1024 * 1024 * 1024

/** The document `stretches`: which there are. */
export interface Stretches {
  readonly v: typeof VERSION
  /** The number of the first one that is kept. */
  readonly first: number
  /** The number that the next one gets. */
  readonly next: number
}

export interface Stretch {
  /** The position that its snapshot stands for. Its facts come behind. */
  readonly seq: number
  /** The server's time of the last fact before. */
  readonly ms: number
  /** Packs that hold facts of it, with the number of those facts. */
  readonly packs: readonly (readonly [pack: number, facts: number])[]
}

export const snapshotKey = {
  stretches: 'stretches',
  stretch: (n: number): string => `stretch.${n}`,
  /** Of the state where this stretch begins. The state at 0 is empty, and has none. */
  snapshot: (n: number): string => `snapshot.${n}`,
} as const

/**
 * A document of the state, as its bucket has it. Undefined for a pipeline: its key is the hash of
 * its content, so the state has it as it was.
 */
export type SnapshotDoc = readonly [key: string, bytes: Uint8Array | undefined]

export async function encodeSnapshot(docs: readonly SnapshotDoc[]): Promise<Uint8Array<ArrayBuffer>> {
  const packed = docs.map(([key, bytes]) => (bytes === undefined ? [key] : [key, bytes]))
  return await promisify(zstdCompress)(encodeMsgpack({ v: VERSION, docs: packed }), COMPRESSION)
}

/** Throws FlowStoneError `undecodable`, or `newer_version`. */
export async function decodeSnapshot(bytes: Uint8Array): Promise<SnapshotDoc[]> {
  let content: unknown
  try {
    content = decodeMsgpack(await promisify(zstdDecompress)(bytes, { maxOutputLength: SNAPSHOT_MAX_BYTES }))
  } catch (cause) {
    throw new FlowStoneError('undecodable', `a snapshot is damaged: ${messageOf(cause)}`, { cause })
  }
  const [v, docs]: unknown[] =
    typeof content === 'object' && content !== null ? [Reflect.get(content, 'v'), Reflect.get(content, 'docs')] : []
  if (v !== VERSION)
    throw new FlowStoneError(
      'newer_version',
      `a snapshot has version ${String(v)}, this process knows ${VERSION}; upgrade it`,
    )
  if (!Array.isArray(docs)) throw new FlowStoneError('undecodable', 'a snapshot is damaged: it has no documents')
  return docs.map((packed: unknown) => {
    const [key, doc]: unknown[] = Array.isArray(packed) ? packed : []
    if (typeof key === 'string' && (doc === undefined || doc instanceof Uint8Array)) return [key, doc]
    throw new FlowStoneError('undecodable', 'a snapshot is damaged: a document has no key')
  })
}
