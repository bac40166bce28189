/**
 * Small pieces of the JetStream protocol that the client library has no call for, or hides the
 * answer of.
 */
import { JetStreamApiError, type StreamInfo } from '@nats-io/jetstream'
import { errors, type MsgHdrs, type NatsConnection } from '@nats-io/nats-core'
import { decode, encodeJson } from '../../streams/codec.ts'
import { violationIn } from '../../streams/denied.ts'
import { FlowStoneError } from '../../streams/errors.ts'
import { isFullError } from '../../streams/full.ts'
import { apiSubject, jetstreamManager, storeSubject } from '../../streams/jetstream.ts'
import { LOG_ID } from '../../streams/topology.ts'
import { ask, askMany } from './ask.ts'
import { HeaderBlock, type Headers, parseHeaderText } from './headers.ts'
import { holdWrites } from './one-write.ts'
import { reportsOf } from './reports.ts'

/** A message to be stored. */
export interface Entry {
  readonly subject: string
  readonly payload: Uint8Array
  readonly contentType?: string
  /**
   * Stored only if the last message under `subject` (a filter; default this entry's subject) has
   * this sequence; 0: there is none.
   */
  readonly expect?: { readonly seq: number; readonly subject?: string }
  /** The server drops a second message with this id within its window. A saving, not safety. */
  readonly msgId?: string
  readonly headers?: Readonly<Record<string, string>>
}

export interface StoredMessage {
  readonly subject: string
  readonly seq: number
  readonly timeMs: number
  readonly payload: Uint8Array
  readonly headers: Headers
}

/** Marks what one call to append wrote, so that a lost answer can be resolved by looking. */
export const UNIT_HEADER = 'Fs-Unit'

export const ERR = {
  wrongLastSequence: 10071,
  wrongLastSequenceConstant: 10164,
  duplicateInBatch: 10201,
  /**
   * The server refused the first message of a batch without a reason, because too many batches are
   * open. Nothing of the batch is stored.
   */
  incompleteBatch: 10176,
  tooManyBatches: 10210,
  notFound: 10037,
  noStream: 10059,
} as const

/** What JetStream's API answered instead of what it was asked for. */
export class ApiError extends FlowStoneError {
  /** As HTTP has them. */
  readonly status: number

  constructor(stream: string, status: number, description: string) {
    super('jetstream', `reading ${stream}: ${description} (${status})`)
    this.status = status
  }
}

/**
 * Whether the same question may be answered in a while: the server is in trouble, has too much to
 * do, or did not answer.
 */
export function isPassing(error: unknown): boolean {
  if (error instanceof ApiError) return isPassingStatus(error.status)
  if (error instanceof FlowStoneError || violationIn(error)) return false
  if (error instanceof JetStreamApiError) return error.status === 404 || isPassingStatus(error.status)
  return true
}

function isPassingStatus(status: number): boolean {
  return status >= 500 || status === 429 || status === 408
}

export interface PubAck {
  readonly seq: number
  readonly duplicate: boolean
  readonly error?: PubError
}

export interface PubError {
  readonly errCode: number
  readonly code: number
  readonly description: string
}

/**
 * Whether the same message, or batch, may be stored in a while. Where it says so, nothing was
 * stored, but for errors of the 500s: those leave it open.
 */
export function isPassingRefusal({ errCode, code, description }: PubError): boolean {
  return errCode === ERR.incompleteBatch || isPassingStatus(code) || isFullError(errCode, description)
}

export function isFull(error: PubError | undefined): boolean {
  return error !== undefined && isFullError(error.errCode, error.description)
}

export function headersOf(entry: Entry, unit: string | undefined): [name: string, value: string][] {
  const list: [string, string][] = []
  if (entry.contentType) list.push(['Content-Type', entry.contentType])
  if (unit) list.push([UNIT_HEADER, unit])
  if (entry.expect) {
    list.push(['Nats-Expected-Last-Subject-Sequence', String(entry.expect.seq)])
    if (entry.expect.subject) list.push(['Nats-Expected-Last-Subject-Sequence-Subject', entry.expect.subject])
  }
  if (entry.msgId) list.push(['Nats-Msg-Id', entry.msgId])
  if (entry.headers) list.push(...Object.entries(entry.headers))
  return list
}

export async function publish(
  nc: NatsConnection,
  entry: Entry,
  unit: string | undefined,
  timeoutMs: number,
): Promise<PubAck> {
  const reply = await ask(nc, storeSubject(nc, entry.subject), entry.payload, {
    headers: new HeaderBlock(headersOf(entry, unit)),
    timeoutMs,
  })
  return parseAck(nc, reply.data)
}

/**
 * An atomic batch (ADR-50): all of it is stored or none. The ack's `seq` is that of the last entry,
 * and sequences in a batch follow each other. At most 1,000 entries. Its own implementation because
 * the library's drops expectations and hides the server's error.
 */
export async function publishBatch(
  nc: NatsConnection,
  entries: readonly { entry: Entry; unit: string | undefined }[],
  batchId: string,
  timeoutMs: number,
): Promise<PubAck> {
  holdWrites(nc)
  for (const [i, { entry, unit }] of entries.entries()) {
    const list = headersOf(entry, unit)
    list.push(['Nats-Batch-Id', batchId], ['Nats-Batch-Sequence', String(i + 1)])
    const subject = storeSubject(nc, entry.subject)
    if (i < entries.length - 1) {
      nc.publish(subject, entry.payload, { headers: new HeaderBlock(list) })
      continue
    }
    list.push(['Nats-Batch-Commit', '1'])
    const reply = await ask(nc, subject, entry.payload, { headers: new HeaderBlock(list), timeoutMs })
    return parseAck(nc, reply.data)
  }
  throw new FlowStoneError('internal', 'an empty batch')
}

function parseAck(nc: NatsConnection, data: Uint8Array): PubAck {
  const body = decode(data, undefined)
  if (typeof body !== 'object' || body === null)
    throw new FlowStoneError('protocol', 'an acknowledgement that is no object')
  const error: unknown = Reflect.get(body, 'error')
  const seq = Number(Reflect.get(body, 'seq') ?? 0)
  const duplicate = Reflect.get(body, 'duplicate') === true
  const stream = String(Reflect.get(body, 'stream') ?? 'a stream')
  if (typeof error !== 'object' || error === null) {
    reportsOf(nc)?.hasRoom(stream)
    return { seq, duplicate }
  }
  const refusal = {
    errCode: Number(Reflect.get(error, 'err_code') ?? 0),
    code: Number(Reflect.get(error, 'code') ?? 0),
    description: String(Reflect.get(error, 'description') ?? ''),
  }
  if (isFull(refusal)) reportsOf(nc)?.isFull(stream, refusal.description)
  return { seq, duplicate, error: refusal }
}

/**
 * What to get: a message by sequence, the first one at or behind a sequence, or the last one under
 * a subject filter.
 */
export type Query = { readonly seq: number; readonly next_by_subj?: string } | { readonly last_by_subj: string }

/**
 * A message from the stream's leader: never stale. Throws FlowStoneError `no_stream` when there is
 * no such stream.
 */
export async function leaderGet(
  nc: NatsConnection,
  stream: string,
  query: Query,
  timeoutMs = 5000,
): Promise<StoredMessage | undefined> {
  const reply = await ask(nc, apiSubject(nc, `STREAM.MSG.GET.${stream}`), encodeJson(query), { timeoutMs })
  const body = decode(reply.data, undefined)
  if (typeof body !== 'object' || body === null) throw new FlowStoneError('protocol', 'an answer that is no object')
  const error: unknown = Reflect.get(body, 'error')
  if (typeof error === 'object' && error !== null) {
    const errCode = Number(Reflect.get(error, 'err_code'))
    if (errCode === ERR.notFound) return undefined
    if (errCode === ERR.noStream) throw noStream(stream)
    throw new ApiError(stream, Number(Reflect.get(error, 'code') ?? 0), String(Reflect.get(error, 'description')))
  }
  const message: unknown = Reflect.get(body, 'message')
  if (typeof message !== 'object' || message === null)
    throw new FlowStoneError('protocol', 'an answer without a message')
  const text = (field: string): string => String(Reflect.get(message, field) ?? '')
  return {
    subject: text('subject'),
    seq: Number(Reflect.get(message, 'seq')),
    timeMs: Date.parse(text('time')),
    payload: new Uint8Array(Buffer.from(text('data'), 'base64')),
    headers: parseHeaderText(Buffer.from(text('hdrs'), 'base64').toString('utf8')),
  }
}

export function headerMap(h: MsgHdrs | undefined): ReadonlyMap<string, string> {
  const result = new Map<string, string>()
  if (h) for (const [key, values] of h) if (values[0] !== undefined) result.set(key, values[0])
  return result
}

/**
 * Direct get: from any replica, in binary, so faster than the leader, but perhaps stale. A message
 * that is not found here is read from the leader. Messages of the log never change, so a lagging
 * replica costs time but never gives a wrong answer.
 */
export async function directGet(
  nc: NatsConnection,
  stream: string,
  query: { seq: number } | { last_by_subj: string },
  timeoutMs = 5000,
): Promise<StoredMessage | undefined> {
  return (await directGetIfAny(nc, stream, query, timeoutMs)) ?? (await leaderGet(nc, stream, query, timeoutMs))
}

/**
 * As `directGet`, but what the replica does not have is undefined, though the leader may have it.
 */
export async function directGetIfAny(
  nc: NatsConnection,
  stream: string,
  query: { seq: number } | { last_by_subj: string },
  timeoutMs = 5000,
): Promise<StoredMessage | undefined> {
  const reply = await ask(nc, apiSubject(nc, `DIRECT.GET.${stream}`), encodeJson(query), { timeoutMs })
  return reply.headers && reply.headers.code >= 400 ? undefined : fromDirect(reply.headers, reply.data)
}

interface GetManyOptions {
  readonly upToSeq?: number
  readonly timeoutMs?: number
  readonly saw?: (seq: number) => void
}

/**
 * The last message under each of up to 1,024 subjects (no filters), by subject, from one replica.
 * Messages that this replica lacks are missing, though the leader may have them. It is one request,
 * and costs half as much as single ones (measured with 64). `upToSeq`: ignores later messages.
 * `saw`: hears up to which sequence this replica has the stream, if any message was found.
 */
export async function directGetMany(
  nc: NatsConnection,
  stream: string,
  subjects: readonly string[],
  { upToSeq, timeoutMs = 5000, saw }: GetManyOptions = {},
): Promise<ReadonlyMap<string, StoredMessage>> {
  const query = encodeJson({ multi_last: subjects, batch: subjects.length, up_to_seq: upToSeq })
  const { answers, end } = await askMany(nc, apiSubject(nc, `DIRECT.GET.${stream}`), query, { timeoutMs })
  const { code, description } = end.headers ?? {}
  if (code !== END_OF_BATCH && code !== NOT_FOUND) throw new ApiError(stream, code ?? 0, description ?? 'no status')
  saw?.(Number(end.headers?.get('Nats-UpTo-Sequence') || 0))
  return new Map(
    answers.map((answer) => {
      const message = fromDirect(answer.headers, answer.data)
      return [message.subject, message]
    }),
  )
}

/**
 * Up to `count` messages under a subject filter, in order, from a sequence on, of one replica:
 * there may be more that it does not have yet.
 */
export async function directNext(
  nc: NatsConnection,
  stream: string,
  seq: number,
  filter: string,
  count: number,
  timeoutMs = 5000,
): Promise<StoredMessage[]> {
  const query = encodeJson({ seq, next_by_subj: filter, batch: count, max_bytes: BATCH_BYTES })
  const { answers, end } = await askMany(nc, apiSubject(nc, `DIRECT.GET.${stream}`), query, { timeoutMs })
  const { code, description } = end.headers ?? {}
  if (code !== END_OF_BATCH && code !== NOT_FOUND) throw new ApiError(stream, code ?? 0, description ?? 'no status')
  return answers.map((answer) => fromDirect(answer.headers, answer.data))
}

/** All messages under a subject filter, in order, of one replica. */
export async function directAll(nc: NatsConnection, stream: string, filter: string): Promise<StoredMessage[]> {
  const found: StoredMessage[] = []
  for (;;) {
    const page = await directNext(nc, stream, (found.at(-1)?.seq ?? 0) + 1, filter, PAGE)
    found.push(...page)
    if (Number(page.at(-1)?.headers.get('Nats-Num-Pending') ?? 0) === 0) return found
  }
}

/**
 * A time as the server takes it. It counts nanoseconds from 1970 in 64 bits, and gives no answer to
 * a year of more than four digits.
 */
export function startTime(at: Date): string {
  return new Date(Math.min(Math.max(0, at.getTime()), LAST_TIME_MS)).toISOString()
}

const LAST_TIME_MS = Date.UTC(2262, 0)

/** The first message under a filter that was stored at a time or later, of one replica. */
export async function directSince(
  nc: NatsConnection,
  stream: string,
  since: Date,
  filter: string,
  timeoutMs = 5000,
): Promise<StoredMessage | undefined> {
  const query = encodeJson({ start_time: startTime(since), next_by_subj: filter })
  const reply = await ask(nc, apiSubject(nc, `DIRECT.GET.${stream}`), query, { timeoutMs })
  const { code, description } = reply.headers ?? {}
  if (code === NOT_FOUND) return undefined
  if (code !== undefined && code >= 400) throw new ApiError(stream, code, description ?? 'no status')
  return fromDirect(reply.headers, reply.data)
}

/** How many messages stand under a filter behind a sequence, in one replica. */
export async function countBehind(nc: NatsConnection, stream: string, seq: number, filter: string): Promise<number> {
  const [next] = await directNext(nc, stream, seq + 1, filter, 1)
  return next ? 1 + Number(next.headers.get('Nats-Num-Pending') ?? 0) : 0
}

const BATCH_BYTES = 4 * 1024 * 1024
const PAGE = 1000
const END_OF_BATCH = 204
const NOT_FOUND = 404

function fromDirect(h: MsgHdrs | undefined, data: Uint8Array): StoredMessage {
  const map = headerMap(h)
  return {
    subject: map.get('Nats-Subject') ?? '',
    seq: Number(map.get('Nats-Sequence')),
    timeMs: Date.parse(map.get('Nats-Time-Stamp') ?? ''),
    payload: data,
    headers: map,
  }
}

/** What a stream holds. */
export interface Bounds {
  readonly first: number
  /**
   * The last sequence that was given out. The message may be gone: a schedule that fired, or was
   * taken away.
   */
  readonly last: number
  readonly messages: number
  /**
   * When the stream was made, as the server says it. Another time: another stream of the same name,
   * or the same one, restored from a backup.
   */
  readonly created: string
  /** Of a log: its name for good, also when it was restored. Of one of before: `created`. */
  readonly id: string
}

/**
 * The stream's first and last sequence, from its leader. Throws FlowStoneError `no_stream` when
 * there is no such stream.
 */
export async function streamBounds(nc: NatsConnection, stream: string, timeoutMs = 5000): Promise<Bounds> {
  const reply = await ask(nc, apiSubject(nc, `STREAM.INFO.${stream}`), '', { timeoutMs })
  const body = decode(reply.data, undefined)
  const field = (name: string): unknown =>
    typeof body === 'object' && body !== null ? Reflect.get(body, name) : undefined
  const error = field('error')
  if (typeof error === 'object' && error !== null) {
    if (Number(Reflect.get(error, 'err_code')) === ERR.noStream) throw noStream(stream)
    throw new ApiError(stream, Number(Reflect.get(error, 'code') ?? 0), String(Reflect.get(error, 'description')))
  }
  const state = field('state')
  if (typeof state !== 'object' || state === null)
    throw new FlowStoneError('jetstream', `no information on stream ${stream}`)
  return {
    first: Number(Reflect.get(state, 'first_seq')),
    last: Number(Reflect.get(state, 'last_seq')),
    messages: Number(Reflect.get(state, 'messages')),
    created: String(field('created')),
    id: idIn(field('config')) ?? String(field('created')),
  }
}

function idIn(config: unknown): string | undefined {
  const metadata: unknown = typeof config === 'object' && config !== null ? Reflect.get(config, 'metadata') : undefined
  if (typeof metadata !== 'object' || metadata === null) return undefined
  const id: unknown = Reflect.get(metadata, LOG_ID)
  return typeof id === 'string' && id !== '' ? id : undefined
}

/**
 * Whether a message exists at one of the sequences `from` to `to`, both included. A sequence may be
 * empty, because a schedule leaves the stream when it fires or is removed. So code that waits for a
 * position uses this, and never waits for one exact message.
 */
export async function anyBetween(nc: NatsConnection, stream: string, from: number, to: number): Promise<boolean> {
  if (from > to) return false
  const next = await leaderGet(nc, stream, { seq: from, next_by_subj: '>' })
  return next !== undefined && next.seq <= to
}

/**
 * What the library's `streams.info` says, from the stream's leader. Throws FlowStoneError
 * `no_stream` as `streamBounds` does: the library's own error counts as passing, so whoever reads
 * would wait a minute.
 */
export async function streamInfo(nc: NatsConnection, stream: string, filter?: string): Promise<StreamInfo> {
  const jsm = await jetstreamManager(nc)
  try {
    return await jsm.streams.info(stream, filter === undefined ? {} : { subjects_filter: filter })
  } catch (error) {
    if (error instanceof JetStreamApiError && error.code === ERR.noStream) throw noStream(stream)
    throw error
  }
}

/**
 * As `publish`, for a stream that may be gone. A stream without a leader and one that was deleted
 * look the same to `publish`: nobody answers. Throws FlowStoneError `no_stream` for the second.
 */
export async function publishTo(
  nc: NatsConnection,
  stream: string,
  entry: Entry,
  unit: string | undefined,
  timeoutMs: number,
): Promise<PubAck> {
  try {
    return await publish(nc, entry, unit, timeoutMs)
  } catch (error) {
    if (error instanceof errors.NoRespondersError) await streamBounds(nc, stream, timeoutMs)
    throw error
  }
}

/** Whether an error says that a stream is not there. */
export function isGone(error: unknown): boolean {
  return error instanceof FlowStoneError && error.code === 'no_stream'
}

export function noStream(stream: string): FlowStoneError {
  return new FlowStoneError('no_stream', `there is no stream ${stream}`)
}
