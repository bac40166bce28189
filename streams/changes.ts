/**
 * What time travel needs of the facts that are not sealed yet, in the history bucket. *Changes* are
 * the documents that changed between two positions of the log, as they were at the second one. A
 * *whole* is the state at the second one. See docs/decisions/time-travel.md.
 */
import { promisify } from 'node:util'
import { decode, decodeMsgpack, encodeJson, encodeMsgpack } from './codec.ts'
import { FlowStoneError, messageOf } from './errors.ts'
import type { SnapshotDoc } from './snapshots.ts'
import { constants, zstdCompress, zstdDecompress } from './zstd.ts'

const VERSION = 1
/** Such documents live for an hour, and the engine has other work. */
const COMPRESSION = { params: { [constants.ZSTD_c_compressionLevel]: 1 } }
/** Changes that say that they are larger than this are damaged. */
const CHANGES_MAX_BYTES = 256 * 1024 * 1024

export const changesKey = {
  list: 'changes',
  changes: (n: number): string => `changes.${n}`,
  whole: (n: number): string => `whole.${n}`,
} as const

/** The document `changes`: which there are, the oldest first. */
export interface ChangesList {
  readonly v: typeof VERSION
  /** Of the log, so that those of another one are known. */
  readonly log: string
  /** The number that the next changes get. */
  readonly next: number
  readonly all: readonly ChangesPlace[]
}

export interface ChangesPlace {
  readonly n: number
  /** Changes behind this position, up to that one. */
  readonly from: number
  readonly seq: number
  /** The last fact up to there, by which the log is known again. */
  readonly mark: { readonly seq: number; readonly ms: number }
  readonly bytes: number
  /** The size of the whole, where there is one. */
  readonly whole?: number
}

export interface Changes {
  /** As in a snapshot. */
  readonly docs: readonly SnapshotDoc[]
  /** Keys of documents that are gone. */
  readonly gone: readonly string[]
  /** Runs that ended: nothing of them is left but what `docs` has. */
  readonly ended: readonly string[]
}

export function encodeChangesList(list: ChangesList): Uint8Array<ArrayBuffer> {
  return new Uint8Array(encodeJson(list))
}

/** Throws FlowStoneError `newer_version`. */
export function decodeChangesList(bytes: Uint8Array): ChangesList {
  const list = decode(bytes, 'application/json') as ChangesList
  expectVersion('a list of changes', list.v)
  return list
}

export async function encodeChanges({ docs, gone, ended }: Changes): Promise<Uint8Array<ArrayBuffer>> {
  const packed = docs.map(([key, bytes]) => (bytes === undefined ? [key] : [key, bytes]))
  return await promisify(zstdCompress)(encodeMsgpack({ v: VERSION, docs: packed, gone, ended }), COMPRESSION)
}

/** Throws FlowStoneError `undecodable`, or `newer_version`. */
export async function decodeChanges(bytes: Uint8Array): Promise<Changes> {
  let content: unknown
  try {
    content = decodeMsgpack(await promisify(zstdDecompress)(bytes, { maxOutputLength: CHANGES_MAX_BYTES }))
  } catch (cause) {
    throw damaged(messageOf(cause), cause)
  }
  if (typeof content !== 'object' || content === null) throw damaged('they are no object')
  const field = (name: string): unknown => Reflect.get(content, name)
  expectVersion('changes', field('v'))
  const docs = listIn(field('docs')).map((packed): SnapshotDoc => {
    const [key, doc] = listIn(packed)
    if (typeof key === 'string' && (doc === undefined || doc instanceof Uint8Array)) return [key, doc]
    throw damaged('a document has no key')
  })
  return { docs, gone: listIn(field('gone')).map(String), ended: listIn(field('ended')).map(String) }
}

function expectVersion(what: string, v: unknown): void {
  if (v !== VERSION)
    throw new FlowStoneError(
      'newer_version',
      `${what} of the history have version ${String(v)}, this process knows ${VERSION}; upgrade it`,
    )
}

function listIn(value: unknown): readonly unknown[] {
  if (Array.isArray(value)) return value
  throw damaged('no list where one should be')
}

function damaged(why: string, cause?: unknown): FlowStoneError {
  return new FlowStoneError('undecodable', `changes in the history are damaged: ${why}`, { cause })
}
