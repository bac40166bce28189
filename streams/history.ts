/**
 * What the history bucket holds besides documents of the base: packs of runs that have ended, and
 * an index that says in which pack something is.
 *
 * A pack holds the facts of many runs, as they stood on the log, compressed. The index is made of
 * segments, each a sorted list of hashes, cut into pages by their first bits. So whoever looks for
 * one thing reads one page of each segment.
 */
import { promisify } from 'node:util'
import { decodeMsgpack, encodeMsgpack } from './codec.ts'
import { FlowStoneError, messageOf } from './errors.ts'
import { hashBigInt } from './ids.ts'
import type { SeqRange } from './retention.ts'
import { constants, zstdCompress, zstdDecompress } from './zstd.ts'

const PACK_VERSION = 1
const COMPRESSION = { params: { [constants.ZSTD_c_compressionLevel]: 3 } }
/** A pack that says that it is larger than this is damaged. */
const PACK_MAX_BYTES = 256 * 1024 * 1024

/** A fact as it stood on the log. */
export interface SealedFact {
  /** The subject behind `<ns>.log.<shard>.`. */
  readonly path: string
  readonly seq: number
  readonly timeMs: number
  readonly contentType: string | undefined
  readonly payload: Uint8Array
}

/**
 * What a pack holds of one run. A run may be in several packs: it is large, or a fact came late.
 */
export interface SealedRun {
  readonly run: string
  /** Its documents when it was sealed, by key. Bits of a scatter are bare bytes. */
  readonly docs: Readonly<Record<string, unknown>>
  readonly facts: readonly SealedFact[]
}

export const historyKey = {
  pack: (n: number): string => `pack.${n}`,
  /** A page of a segment of the index. */
  page: (segment: number, n: number): string => `index.${segment}.${n}`,
  /** Which segments there are. */
  manifest: 'manifest',
} as const

export async function encodePack(runs: readonly SealedRun[]): Promise<Uint8Array<ArrayBuffer>> {
  const packed = runs.map(({ run, docs, facts }) => {
    const all = Object.entries(docs)
    const bare = all.filter(([, doc]) => doc instanceof Uint8Array)
    return [
      run,
      JSON.stringify(Object.fromEntries(all.filter(([, doc]) => !(doc instanceof Uint8Array)))),
      facts.map(({ path, seq, timeMs, contentType, payload }) => [path, seq, timeMs, contentType ?? null, payload]),
      ...(bare.length > 0 ? [bare] : []),
    ]
  })
  return await promisify(zstdCompress)(encodeMsgpack({ v: PACK_VERSION, runs: packed }), COMPRESSION)
}

/** Throws FlowStoneError `undecodable`, or `newer_version`. */
export async function decodePack(bytes: Uint8Array): Promise<SealedRun[]> {
  let content: Record<string, unknown>
  try {
    const plain = await promisify(zstdDecompress)(bytes, { maxOutputLength: PACK_MAX_BYTES })
    content = recordIn(decodeMsgpack(plain))
  } catch (cause) {
    throw new FlowStoneError('undecodable', `a pack of the history is damaged: ${messageOf(cause)}`, { cause })
  }
  if (content.v !== PACK_VERSION)
    throw new FlowStoneError(
      'newer_version',
      `a pack of the history has version ${String(content.v)}, this process knows ${PACK_VERSION}; upgrade it`,
    )
  return listIn(content.runs).map((packed) => {
    const [run, docs, facts, bare = []] = listIn(packed)
    const bytes = listIn(bare).map((doc) => listIn(doc))
    return {
      run: String(run),
      docs: { ...recordIn(JSON.parse(String(docs))), ...Object.fromEntries(bytes) },
      facts: listIn(facts).map(factIn),
    }
  })
}

function factIn(packed: unknown): SealedFact {
  const [path, seq, timeMs, contentType, payload] = listIn(packed)
  if (!(payload instanceof Uint8Array)) throw new FlowStoneError('undecodable', 'a fact of a pack has no payload')
  return {
    path: String(path),
    seq: Number(seq),
    timeMs: Number(timeMs),
    contentType: typeof contentType === 'string' ? contentType : undefined,
    payload,
  }
}

function recordIn(value: unknown): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>
  throw new FlowStoneError('undecodable', 'a pack of the history is damaged: no object where one should be')
}

function listIn(value: unknown): readonly unknown[] {
  if (Array.isArray(value)) return value
  throw new FlowStoneError('undecodable', 'a pack of the history is damaged: no list where one should be')
}

/** By what something is found in the index. */
export const indexHash = {
  run: (run: string): bigint => hashBigInt(`run ${run}`),
  /** A fact that others refer to by its sequence. */
  seq: (seq: number): bigint => hashBigInt(`seq ${seq}`),
  path: (path: string): bigint => hashBigInt(`path ${path}`),
  /** A document of a run that takes several packs. */
  doc: (key: string): bigint => hashBigInt(`doc ${key}`),
  /** An object of the object store that a fact names. */
  blob: (name: string): bigint => hashBigInt(`blob ${name}`),
} as const

/** A hash, and a pack that holds what has it. */
export interface IndexEntry {
  readonly hash: bigint
  readonly pack: number
}

const ENTRY_BYTES = 12

/** The page of a hash, of a segment that is cut by so many bits. */
export function pageOf(hash: bigint, bits: number): number {
  return bits === 0 ? 0 : Number(hash >> BigInt(64 - bits))
}

export function encodePage(entries: readonly IndexEntry[]): Uint8Array<ArrayBuffer> {
  const view = new DataView(new ArrayBuffer(entries.length * ENTRY_BYTES))
  for (const [i, { hash, pack }] of entries.entries()) {
    view.setBigUint64(i * ENTRY_BYTES, hash)
    view.setUint32(i * ENTRY_BYTES + 8, pack)
  }
  return new Uint8Array(view.buffer)
}

export function decodePage(bytes: Uint8Array): IndexEntry[] {
  if (bytes.length % ENTRY_BYTES !== 0) throw new FlowStoneError('undecodable', 'a page of the index is damaged')
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  return Array.from({ length: bytes.length / ENTRY_BYTES }, (_, i) => ({
    hash: view.getBigUint64(i * ENTRY_BYTES),
    pack: view.getUint32(i * ENTRY_BYTES + 8),
  }))
}

/** Packs that may hold what has this hash, in order. */
export function packsIn(page: Uint8Array, hash: bigint): number[] {
  const view = new DataView(page.buffer, page.byteOffset, page.byteLength)
  const count = Math.floor(page.length / ENTRY_BYTES)
  let [low, high] = [0, count]
  while (low < high) {
    const middle = (low + high) >> 1
    if (view.getBigUint64(middle * ENTRY_BYTES) < hash) low = middle + 1
    else high = middle
  }
  const packs: number[] = []
  for (let i = low; i < count && view.getBigUint64(i * ENTRY_BYTES) === hash; i++)
    packs.push(view.getUint32(i * ENTRY_BYTES + 8))
  return packs
}

/** One segment of the index. */
export interface IndexSegment {
  readonly id: number
  /** It is cut into 2 to the power of this many pages. */
  readonly bits: number
  readonly entries: number
}

/** The document `manifest`. */
export interface HistoryManifest {
  readonly v: 1
  /** When the log was made that this is the history of, as the server says it. */
  readonly log: string
  /** Facts stay on the log for so long after the index says where they are, in milliseconds. */
  readonly graceMs: number
  /** Packs so far; the next one gets this number. */
  readonly packs: number
  /** The next segment gets this number. */
  readonly nextSegment: number
  /** The smallest first; `null` where there is none of that size. */
  readonly levels: readonly (IndexSegment | null)[]
  /** Packs that are gone: what the index says of them counts no more. */
  readonly gone?: readonly SeqRange[]
  /** How many steps of pruning there are on record. */
  readonly records?: number
  /** How many runs were pruned, and the newest end of one. */
  readonly pruned?: { readonly runs: number; readonly toMs: number }
  /** All packs before this one have a summary. */
  readonly summarizedTo?: number
}
