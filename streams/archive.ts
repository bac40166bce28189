/**
 * What an archive holds: a record a line, as JSON. An archive is read by other programs too, so a
 * fact stands there decoded. Where that would not give back the same bytes, they stand beside it.
 * docs/archive.md is for those who read it.
 *
 *   archive     the head: format, namespace, shards
 *   position    where a schedule, a sensor or a subscription stands (version 2)
 *   document    a document of a run, as the engine left it
 *   (a fact)    kind is the name of the fact, such as `run.finished`
 *   blob        a part of a value that is too large for a fact
 *   end         the foot: counts, ranges, and the hash of all lines before it
 */
import { createHash, type Hash } from 'node:crypto'
import { z } from 'zod'
import { CONTENT_TYPE, decode, decodeList } from './codec.ts'
import type { Encoding } from './compress.ts'
import { FlowStoneError, messageOf } from './errors.ts'
import { parsePath } from './facts.ts'
import type { SealedFact } from './history.ts'
import { jsonOf } from './plain-json.ts'
import type { StoredValue } from './schemas.ts'

/** 1: without positions. Whoever knows only 1 refuses an archive of 2. */
export const ARCHIVE_VERSION = 2
/** The form of a position. */
const POSITION_VERSION = 1

const text = z.string().exactOptional()
const whole = z.number().int().min(0).exactOptional()

const archiveRecord = z.object({
  kind: z.string(),
  shard: whole,
  /** Of a fact, on the log that it comes from. */
  seq: whole,
  /** When the server stored it, as ISO text. */
  time: text,
  /** Of a fact; of a document its key. */
  subject: text,
  run: text,
  ids: z.record(z.string(), z.string()).exactOptional(),
  /** The fact of a run that is not in the archive: a value that a run of it has taken. */
  reference: z.literal(true).exactOptional(),
  /** The content type of `raw`, where that is there. */
  type: text,
  /** The version of a fact's format. */
  v: whole,
  data: z.unknown().exactOptional(),
  /** Bytes as base64: of a fact that its data does not give back exactly, of a document, a blob. */
  raw: text,
})

export type ArchiveRecord = Readonly<z.infer<typeof archiveRecord>>

export interface ArchiveHead {
  readonly v: 1 | typeof ARCHIVE_VERSION
  readonly namespace: string
  readonly shards: number
  /** When it was begun; of one that pruning wrote, when the last run ended. As ISO text. */
  readonly at: string
}

/** What is in it of a shard. */
export interface ArchiveRange {
  readonly shard: number
  readonly first: number
  readonly last: number
}

/** How much there is of each, and where from. */
export interface ArchiveCounts {
  readonly runs: number
  /** Of those, runs that had not ended. */
  readonly open: number
  readonly facts: number
  readonly documents: number
  readonly blobs: number
  readonly positions: number
  readonly ranges: readonly ArchiveRange[]
  /** Times of the first and the last fact, as ISO text. */
  readonly firstTime?: string
  readonly lastTime?: string
}

export interface ArchiveFoot extends ArchiveCounts {
  readonly lines: number
  /** SHA-256 of all lines before this one, each with its newline, as hex. */
  readonly sha256: string
}

/** The fields are always in this order: the hash is of the lines. */
export function lineOf(record: ArchiveRecord): string {
  const { kind, shard, seq, time, subject, run, ids, reference, type, v, data, raw } = record
  return `${JSON.stringify({ kind, shard, seq, time, subject, run, ids, reference, type, v, data, raw })}\n`
}

/** Throws FlowStoneError `bad_archive`. */
export function recordIn(line: string): ArchiveRecord {
  let found: unknown
  try {
    found = JSON.parse(line)
  } catch (cause) {
    throw badArchive(`a line is no JSON: ${messageOf(cause)}`, cause)
  }
  return checkedRecord(found)
}

/** Throws FlowStoneError `bad_archive`, which names the field. */
export function checkedRecord(found: unknown): ArchiveRecord {
  const { success, data, error } = archiveRecord.safeParse(found)
  if (success) return data
  const [issue] = error.issues
  const field = issue?.path.join('.') || 'it'
  throw badArchive(`a line is not what an export writes: ${field}: ${issue?.message ?? error.message}`)
}

export function badArchive(why: string, cause?: unknown): FlowStoneError {
  return new FlowStoneError('bad_archive', `this is no whole archive: ${why}`, { cause })
}

/** A fact of a shard's log, of the namespace `ns`. */
export function factRecord(ns: string, shard: number, fact: SealedFact, reference = false): ArchiveRecord {
  const { path, seq, timeMs, contentType, payload } = fact
  const parsed = parsePath(path)
  if (!parsed) throw new FlowStoneError('unknown_fact', `${path} is no fact of FlowStone`)
  const { name: kind, ids } = parsed
  const common = {
    kind,
    shard,
    seq,
    time: new Date(timeMs).toISOString(),
    subject: `${ns}.log.${shard}.${path}`,
    ...(ids.run === undefined ? {} : { run: ids.run }),
    ids,
    ...(reference ? { reference } : {}),
  }
  const raw = { type: contentType ?? CONTENT_TYPE.json, raw: Buffer.from(payload).toString('base64') }
  const { v, fact: _, ...data } = recordOf(decode(payload, contentType)) ?? {}
  if (typeof v !== 'number' || !Number.isSafeInteger(v) || v < 0) return { ...common, ...raw }
  if (contentType?.startsWith(CONTENT_TYPE.msgpack))
    return { ...common, ...raw, v, data: JSON.parse(jsonOf(readable(data))) }
  const record = { ...common, v, data }
  return Buffer.from(bodyText(record)).equals(payload) && contentType === CONTENT_TYPE.json
    ? record
    : { ...record, ...raw }
}

function bodyText({ v, kind, data }: Pick<ArchiveRecord, 'v' | 'kind' | 'data'>): string {
  return JSON.stringify({ v, fact: kind, ...recordOf(data) })
}

/** The fact, byte for byte. */
export function factIn(ns: string, record: ArchiveRecord): SealedFact & { readonly shard: number } {
  const { kind, shard, seq, time, subject, type, raw } = record
  const head = `${ns}.log.${shard}.`
  if (shard === undefined || seq === undefined || time === undefined || !subject?.startsWith(head))
    throw badArchive(`a line of ${kind} lacks shard, seq, time or subject`)
  const timeMs = Date.parse(time)
  if (!Number.isSafeInteger(seq) || seq < 1 || !Number.isFinite(timeMs))
    throw badArchive(`a line of ${kind} has no sequence or no time`)
  const payload = raw === undefined ? Buffer.from(bodyText(record)) : Buffer.from(raw, 'base64')
  return {
    shard,
    path: subject.slice(head.length),
    seq,
    timeMs,
    contentType: raw === undefined ? CONTENT_TYPE.json : type,
    payload: new Uint8Array(payload),
  }
}

/** `key`: as the bucket of the state has it. */
export function documentRecord(shard: number, run: string | undefined, key: string, doc: unknown): ArchiveRecord {
  const common = { kind: 'document', shard, subject: key, ...(run === undefined ? {} : { run }) }
  if (doc instanceof Uint8Array) return { ...common, raw: Buffer.from(doc).toString('base64') }
  return { ...common, data: doc }
}

export function documentIn({ subject, data, raw }: ArchiveRecord): { readonly key: string; readonly doc: unknown } {
  if (subject === undefined) throw badArchive('a document has no key')
  return { key: subject, doc: raw === undefined ? data : new Uint8Array(Buffer.from(raw, 'base64')) }
}

/** Of a schedule, a sensor, a subscription, or of messages that a subscription gathers. */
export function positionRecord(key: string, doc: unknown): ArchiveRecord {
  return { kind: 'position', shard: 0, subject: key, v: POSITION_VERSION, data: doc }
}

/** Throws `newer_version`. */
export function positionIn({ subject, v, data }: ArchiveRecord): { readonly key: string; readonly doc: unknown } {
  if (v !== undefined && v > POSITION_VERSION)
    throw new FlowStoneError(
      'newer_version',
      `a position of the archive has version ${v}, this process knows ${POSITION_VERSION}; upgrade it`,
    )
  if (subject === undefined || typeof recordOf(data)?.seq !== 'number') throw badArchive('a position is none')
  return { key: subject, doc: data }
}

/** A value in the object store of the namespace. */
export interface BlobRef {
  readonly hash: string
  readonly encoding?: Encoding
  readonly plainBytes?: number
}

/** Its name in the object store. */
export function blobName({ hash, encoding }: BlobRef): string {
  return encoding ? `${hash}-${encoding}` : hash
}

/** So many bytes of a blob are in one line. */
const BLOB_PART_BYTES = 192 * 1024

export function* blobRecords(ref: BlobRef, bytes: Uint8Array): Generator<ArchiveRecord> {
  const parts = Math.max(1, Math.ceil(bytes.length / BLOB_PART_BYTES))
  for (let part = 0; part < parts; part++) {
    const some = bytes.subarray(part * BLOB_PART_BYTES, (part + 1) * BLOB_PART_BYTES)
    yield {
      kind: 'blob',
      subject: blobName(ref),
      data: { ...ref, bytes: bytes.length, part, parts },
      raw: Buffer.from(some.buffer, some.byteOffset, some.length).toString('base64'),
    }
  }
}

export interface BlobPart {
  readonly ref: BlobRef
  readonly part: number
  readonly parts: number
  readonly bytes: Uint8Array
}

export function blobPartIn({ data, raw }: ArchiveRecord): BlobPart {
  const said = recordOf(data)
  const { hash, encoding, plainBytes, part, parts } = said ?? {}
  if (typeof hash !== 'string' || raw === undefined) throw badArchive('a blob has no hash')
  return {
    ref: {
      hash,
      ...(encoding === 'zstd' ? { encoding } : {}),
      ...(typeof plainBytes === 'number' ? { plainBytes } : {}),
    },
    part: Number(part),
    parts: Number(parts),
    bytes: new Uint8Array(Buffer.from(raw, 'base64')),
  }
}

/**
 * All values of the object store that a fact names. A user's value may look like one, and is taken
 * for one.
 */
export function blobsIn({ contentType, payload }: Pick<SealedFact, 'contentType' | 'payload'>): BlobRef[] {
  // Nearly no fact names one.
  if (!Buffer.from(payload.buffer, payload.byteOffset, payload.length).includes('manager')) return []
  const found: BlobRef[] = []
  collectBlobs(decode(payload, contentType), found)
  return found
}

function collectBlobs(value: unknown, found: BlobRef[]): void {
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return
  const ref = Array.isArray(value) ? undefined : blobIn(value)
  if (ref) found.push(ref)
  for (const inner of Object.values(value)) collectBlobs(inner, found)
}

function blobIn(value: object): BlobRef | undefined {
  const { manager, ref } = value as Partial<Extract<StoredValue, { manager: string }>>
  if (manager !== 'nats' || !recordOf(ref)) return undefined
  const { hash, encoding, plainBytes } = ref ?? {}
  if (typeof hash !== 'string' || !/^[0-9a-f]{64}$/.test(hash)) return undefined
  return {
    hash,
    ...(encoding === 'zstd' ? { encoding } : {}),
    ...(typeof plainBytes === 'number' ? { plainBytes } : {}),
  }
}

/** With the lists that the engine only carries (keys, values) decoded. */
function readable(data: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  const { encoding, ...rest } = data
  const lists = (['keys', 'values'] as const).filter((field) => rest[field] instanceof Uint8Array)
  if (lists.length === 0) return data
  const decoded = lists.map((field) => [
    field,
    decodeList(rest[field] as Uint8Array, encoding === 'zstd' ? encoding : undefined),
  ])
  return { ...rest, ...Object.fromEntries(decoded) }
}

function recordOf(value: unknown): Record<string, unknown> | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : undefined
}

/** Counts and hashes lines on their way, in either direction. */
export class ArchiveTally {
  readonly #hash: Hash = createHash('sha256')
  readonly #ranges = new Map<number, { first: number; last: number }>()
  readonly #counts = { runs: 0, open: 0, facts: 0, documents: 0, blobs: 0, positions: 0 }
  #from: string | undefined
  #to: string | undefined
  #lines = 0

  add(record: ArchiveRecord, line: string): void {
    this.#hash.update(line)
    this.#lines += 1
    const { kind, shard, seq, time, data, subject, run } = record
    if (kind === 'document') {
      this.#counts.documents += 1
      if (run !== undefined && subject === `run.${run}`) {
        this.#counts.runs += 1
        if (recordOf(data)?.finishedMs === undefined) this.#counts.open += 1
      }
    } else if (kind === 'position') this.#counts.positions += 1
    else if (kind === 'blob') this.#counts.blobs += recordOf(data)?.part === 0 ? 1 : 0
    else if (shard !== undefined && seq !== undefined) {
      this.#counts.facts += 1
      const range = this.#ranges.get(shard)
      if (range) {
        range.first = Math.min(range.first, seq)
        range.last = Math.max(range.last, seq)
      } else this.#ranges.set(shard, { first: seq, last: seq })
      if (time !== undefined && (this.#from === undefined || time < this.#from)) this.#from = time
      if (time !== undefined && (this.#to === undefined || time > this.#to)) this.#to = time
    }
  }

  foot(): ArchiveFoot {
    const ranges = [...this.#ranges].map(([shard, range]) => ({ shard, ...range }))
    return {
      ...this.#counts,
      ranges: ranges.toSorted((a, b) => a.shard - b.shard),
      ...(this.#from === undefined ? {} : { firstTime: this.#from }),
      ...(this.#to === undefined ? {} : { lastTime: this.#to }),
      lines: this.#lines,
      sha256: this.#hash.copy().digest('hex'),
    }
  }
}

/** Throws `bad_archive`, and `newer_version` for one that a newer FlowStone wrote. */
export function headIn({ kind, data }: ArchiveRecord): ArchiveHead {
  const said = recordOf(data)
  if (kind !== 'archive' || !said) throw badArchive('its first line does not say that it is one')
  if (typeof said.v === 'number' && said.v > ARCHIVE_VERSION)
    throw new FlowStoneError(
      'newer_version',
      `the archive has version ${said.v}, this process knows ${ARCHIVE_VERSION}; upgrade it`,
    )
  const { namespace, shards, at } = said
  if (typeof namespace !== 'string' || typeof shards !== 'number' || !(Number.isInteger(shards) && shards >= 1))
    throw badArchive('its first line names no namespace or no shards')
  return { v: said.v === 1 ? 1 : ARCHIVE_VERSION, namespace, shards, at: String(at) }
}

/** Compares what an archive says of itself at its end with what was read. */
export function checkFoot({ data }: ArchiveRecord, read: ArchiveFoot): void {
  const said = recordOf(data)
  if (said?.lines !== read.lines) throw badArchive(`it has ${read.lines} lines, and was written with ${said?.lines}`)
  if (said.sha256 !== read.sha256) throw badArchive('its hash is another one: a line was changed')
}
