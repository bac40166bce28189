/**
 * Proof that a log was not changed: a block for each stretch of it. A block has a hash of each
 * fact, the root of all of them, and the hash of the block before. See docs/decisions/proof.md.
 *
 * A block is two messages. The head is small and stays for ever. The detail says which facts the
 * block has, so that the one at fault can be named. Hashes are of bytes as they are stored, so
 * nobody has to encode anything the same way again.
 */
import { hash } from 'node:crypto'
import { promisify } from 'node:util'
import { decodeMsgpack, encodeJson, encodeMsgpack } from './codec.ts'
import { FlowStoneError, messageOf } from './errors.ts'
import type { SealedFact } from './history.ts'
import { type ProofKey, signed } from './proof-keys.ts'
import { constants, zstdCompress, zstdDecompressSync } from './zstd.ts'

const BLOCK_VERSION = 1
export const HASH_BYTES = 32
/** So much of a fact's hash stands in the detail: nobody finds another fact with the same. */
export const LEAF_BYTES = 16
/** Children of a node of the tree. */
const BRANCHES = 16
const COMPRESSION = { params: { [constants.ZSTD_c_compressionLevel]: 1 } }
const DETAIL_MAX_BYTES = 64 * 1024 * 1024
/** What is hashed begins with what it is, so that none of them passes for another. */
const MARK = { leaf: 0, node: 1, block: 2 } as const

/**
 * The hash of a fact: SHA-256 over a zero byte, sequence (64 bits), time in milliseconds (64 bits),
 * path, content type, and payload. The lengths in bytes of path and type (16 bits) stand before
 * them. Numbers are big-endian. The length of a content type that is missing is 65,535.
 */
export function leafOf(fact: SealedFact): Buffer {
  const leaf = Buffer.alloc(HASH_BYTES)
  writeLeaf(fact, leaf, 0)
  return leaf
}

/** As `leafOf`, into a buffer that has many: one of its own would keep memory of others with it. */
export function writeLeaf(fact: SealedFact, into: Buffer, at: number): void {
  const { seq, timeMs, path, contentType, payload } = fact
  const pathBytes = Buffer.byteLength(path)
  const typeBytes = contentType === undefined ? 0 : Buffer.byteLength(contentType)
  const size = 21 + pathBytes + typeBytes + payload.length
  const bytes = size <= scratch.length ? scratch.subarray(0, size) : Buffer.allocUnsafeSlow(size)
  bytes[0] = MARK.leaf
  writeNumber(bytes, seq, 1)
  writeNumber(bytes, timeMs, 9)
  bytes.writeUInt16BE(pathBytes, 17)
  bytes.write(path, 19)
  bytes.writeUInt16BE(contentType === undefined ? 0xffff : typeBytes, 19 + pathBytes)
  if (contentType !== undefined) bytes.write(contentType, 21 + pathBytes)
  bytes.set(payload, 21 + pathBytes + typeBytes)
  into.write(hash('sha256', bytes, 'binary'), at, 'binary')
}

/** Most facts are smaller. */
const scratch = Buffer.allocUnsafeSlow(16 * 1024)

/** In 64 bits, big-endian: quicker than a bigint. */
function writeNumber(bytes: Buffer, value: number, offset: number): void {
  bytes.writeUInt32BE(Math.floor(value / 2 ** 32), offset)
  bytes.writeUInt32BE(value >>> 0, offset + 4)
}

/** As text it costs a third: a buffer of its own is dear. */
function digest(bytes: Uint8Array): Buffer {
  return Buffer.from(hash('sha256', bytes, 'binary'), 'binary')
}

/**
 * The root over hashes of facts, in order. Sixteen neighbours make a node, sixteen nodes a node
 * above, until there is one. A node alone at the end of its row goes up as it is. Of no hashes it
 * is the hash of nothing.
 */
export function rootOf(leaves: readonly Uint8Array[]): Buffer {
  if (leaves.length === 0) return digest(new Uint8Array())
  let row: readonly Uint8Array[] = leaves
  while (row.length > 1) {
    const above: Uint8Array[] = []
    for (let i = 0; i < row.length; i += BRANCHES) {
      const children = row.slice(i, i + BRANCHES)
      const [only] = children
      if (children.length === 1 && only) above.push(only)
      else above.push(digest(Buffer.concat([Uint8Array.of(MARK.node), ...children])))
    }
    row = above
  }
  return Buffer.from(row[0] ?? [])
}

/** What a block says. Hashes are hexadecimal. */
export interface BlockHead {
  readonly v: 1
  readonly ns: string
  readonly shard: number
  /** When the log was made that it is of, as the server says it. */
  readonly log: string
  /** Its number, from 0. */
  readonly n: number
  /** The hash of the block before; of the first one empty. */
  readonly prev: string
  /** All facts of the log from here to there, both included. */
  readonly from: number
  readonly to: number
  readonly count: number
  readonly root: string
  /** SHA-256 of the detail; of a block without facts empty. */
  readonly detail: string
  /** SHA-256 of the records of what leaves the log; without them empty. */
  readonly left: string
  /** The server's time, in milliseconds. */
  readonly atMs: number
  /** The public key that it is signed by: the 32 bytes of Ed25519, in base64; unsigned: empty. */
  readonly key: string
}

/**
 * What left by rule, or is about to. `folded`: facts under `path` (a filter), all up to `upTo`.
 * `pruned`: facts of runs, `unreadable`: messages that are no facts. Of both the first and the last
 * sequence of each stretch. `shrunk`: all facts of these blocks have left, and so do their details.
 */
export type LeftRecord =
  | { readonly why: 'folded'; readonly path: string; readonly upTo: number }
  | { readonly why: 'pruned' | 'unreadable'; readonly seqs: readonly (readonly [from: number, to: number])[] }
  | { readonly why: 'shrunk'; readonly blocks: readonly number[] }

/** A head as it stands on the stream. */
export interface ReadBlock {
  readonly head: BlockHead
  readonly headBytes: Uint8Array
  /** Hexadecimal. */
  readonly hash: string
  /** Undefined: they are not what the head says. */
  readonly left: readonly LeftRecord[] | undefined
  readonly signature: Uint8Array | undefined
}

/** The facts of a block, in order. */
export interface BlockDetail {
  readonly seqs: readonly number[]
  readonly paths: readonly string[]
  /** The first bytes of each hash, one after the other. */
  readonly leaves: Uint8Array
}

export const sha256 = (bytes: Uint8Array): string => hash('sha256', bytes, 'hex')

export async function encodeDetail({ seqs, paths, leaves }: BlockDetail): Promise<Uint8Array<ArrayBuffer>> {
  const steps = seqs.map((seq, i) => seq - (seqs[i - 1] ?? 0))
  const plain = encodeMsgpack({ v: BLOCK_VERSION, steps, paths: paths.join('\n'), leaves })
  return await promisify(zstdCompress)(plain, COMPRESSION)
}

/** Throws FlowStoneError `undecodable`, or `newer_version`. */
export function decodeDetail(bytes: Uint8Array): BlockDetail {
  const { v, steps, paths, leaves } = recordIn(unpacked(bytes), 'detail')
  checkVersion(v)
  if (!Array.isArray(steps) || typeof paths !== 'string' || !(leaves instanceof Uint8Array)) throw damaged('detail')
  let seq = 0
  const seqs = steps.map((step) => (seq += Number(step)))
  const names = seqs.length === 0 ? [] : paths.split('\n')
  if (names.length !== seqs.length || leaves.length !== seqs.length * LEAF_BYTES) throw damaged('detail')
  return { seqs, paths: names, leaves }
}

/** The payload of a head, and the hash that the next one names. */
export async function encodeBlock(
  head: Omit<BlockHead, 'v' | 'left' | 'key'>,
  left: readonly LeftRecord[],
  key: ProofKey | undefined,
): Promise<{ readonly payload: Uint8Array; readonly hash: string }> {
  const leftBytes = left.length === 0 ? undefined : await promisify(zstdCompress)(encodeJson(left), COMPRESSION)
  const said: BlockHead = {
    v: BLOCK_VERSION,
    ...head,
    left: leftBytes ? sha256(leftBytes) : '',
    key: key?.publicKey ?? '',
  }
  const headBytes = encodeJson(said)
  const payload = encodeMsgpack({
    v: BLOCK_VERSION,
    head: headBytes,
    ...(leftBytes ? { left: leftBytes } : {}),
    ...(key ? { sig: key.sign(headBytes) } : {}),
  })
  return { payload, hash: hashOfHead(headBytes) }
}

export function hashOfHead(headBytes: Uint8Array): string {
  return hash('sha256', Buffer.concat([Uint8Array.of(MARK.block), headBytes]), 'hex')
}

/** Throws FlowStoneError `undecodable`, or `newer_version`. */
export function decodeBlock(payload: Uint8Array): ReadBlock {
  let body: Record<string, unknown>
  try {
    body = recordIn(decodeMsgpack(payload), 'block')
  } catch (cause) {
    throw damaged('block', cause)
  }
  checkVersion(body.v)
  const { head: headBytes, left: leftBytes, sig } = body
  if (!(headBytes instanceof Uint8Array)) throw damaged('block')
  const head = headIn(headBytes)
  return {
    head,
    headBytes,
    hash: hashOfHead(headBytes),
    left: leftIn(head, leftBytes),
    signature: sig instanceof Uint8Array ? sig : undefined,
  }
}

/** Whether the key that a block names has signed it. */
export function isSigned({ head, headBytes, signature }: ReadBlock): boolean {
  return signature !== undefined && signed(head.key, headBytes, signature)
}

const TEXTS = ['ns', 'log', 'prev', 'root', 'detail', 'left', 'key'] as const
const NUMBERS = ['shard', 'n', 'from', 'to', 'count', 'atMs'] as const

function headIn(bytes: Uint8Array): BlockHead {
  let doc: Record<string, unknown>
  try {
    doc = recordIn(JSON.parse(Buffer.from(bytes).toString('utf8')), 'head')
  } catch (cause) {
    throw damaged('block', cause)
  }
  checkVersion(doc.v)
  if (TEXTS.some((field) => typeof doc[field] !== 'string')) throw damaged('block')
  if (NUMBERS.some((field) => !Number.isSafeInteger(doc[field]))) throw damaged('block')
  // Each field was checked above.
  return doc as unknown as BlockHead
}

function leftIn({ left }: BlockHead, bytes: unknown): readonly LeftRecord[] | undefined {
  if (bytes === undefined) return left === '' ? [] : undefined
  if (!(bytes instanceof Uint8Array) || sha256(bytes) !== left) return undefined
  try {
    const records: unknown = JSON.parse(inflated(bytes).toString('utf8'))
    return Array.isArray(records) ? (records as LeftRecord[]) : undefined
  } catch {
    return undefined
  }
}

function unpacked(bytes: Uint8Array): unknown {
  try {
    return decodeMsgpack(inflated(bytes))
  } catch (cause) {
    throw damaged('detail', cause)
  }
}

function inflated(bytes: Uint8Array): Buffer {
  return zstdDecompressSync(bytes, { maxOutputLength: DETAIL_MAX_BYTES })
}

function checkVersion(version: unknown): void {
  if (typeof version === 'number' && version > BLOCK_VERSION)
    throw new FlowStoneError(
      'newer_version',
      `a block of the proof has version ${version}, this process knows ${BLOCK_VERSION}; upgrade it`,
    )
  if (version !== BLOCK_VERSION) throw damaged('block')
}

function recordIn(value: unknown, what: string): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>
  throw damaged(what)
}

function damaged(what: string, cause?: unknown): FlowStoneError {
  return new FlowStoneError(
    'undecodable',
    `a ${what} of the proof is damaged${cause === undefined ? '' : `: ${messageOf(cause)}`}`,
    { cause },
  )
}
