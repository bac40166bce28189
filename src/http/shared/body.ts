/**
 * A request's body: read with a limit on its size and on its time, and made into a payload by its
 * content type.
 */

import { cut } from '../../../streams/text.ts'
import { after } from '../../options/timer.ts'
import type { BodyRoom } from './budget.ts'
import { HttpProblem } from './problem.ts'

export interface BodyLimits {
  readonly maxBytes: number
  readonly timeoutMs: number
}

export type BodyKind = 'empty' | 'json' | 'form' | 'multipart' | 'text' | 'bytes'

/** A form as it came: names may occur more than once. */
export type FormFields = readonly (readonly [name: string, value: string])[]

export interface ParsedBody {
  readonly kind: BodyKind
  readonly value: unknown
  readonly fields: FormFields | undefined
}

export const ACCEPTED =
  'application/json, application/x-www-form-urlencoded, multipart/form-data, text/plain, application/xml, application/octet-stream'
const DEPTH_MAX = 64
const FIELDS_MAX = 1000
/** A chunk costs as much as a thousand bytes, so many of them must not be smaller than this. */
const CHUNKS_FREE = 1000
const CHUNK_LEAST_BYTES = 16

/**
 * What the headers promise. Throws 415 for what is not taken, 413 for what says itself that it is
 * too long: nothing is read of those.
 */
export function bodyKind(headers: Headers, limits: BodyLimits): BodyKind {
  const encoding = headers.get('content-encoding')
  if (encoding !== null && encoding.trim().toLowerCase() !== 'identity')
    throw unsupported(`Content-Encoding ${shown(encoding)} is not taken; send the body as it is.`)
  if (Number(headers.get('content-length') ?? 0) > limits.maxBytes) throw tooLarge(limits)
  const given = headers.get('content-type')
  if (given === null || given.trim() === '') return 'empty'
  const [type = '', ...parameters] = given.split(';').map((part) => part.trim().toLowerCase())
  const charset = parameters
    .find((parameter) => parameter.startsWith('charset='))
    ?.slice(8)
    .replaceAll('"', '')
  if (charset !== undefined && !['utf-8', 'utf8', 'us-ascii'].includes(charset))
    throw unsupported(`The charset ${shown(charset)} is not taken; send UTF-8.`)
  if (type === 'application/json' || /^[\w.-]+\/[\w.-]+\+json$/.test(type)) return 'json'
  if (type === 'application/x-www-form-urlencoded') return 'form'
  if (type === 'multipart/form-data') return 'multipart'
  if (/^text\/[\w.+-]+$/.test(type) || type === 'application/xml' || /^[\w.-]+\/[\w.-]+\+xml$/.test(type)) return 'text'
  if (type === 'application/octet-stream') return 'bytes'
  throw unsupported(`Content-Type ${shown(type)} is not taken.`)
}

/**
 * All of it, or a problem: 413 as soon as it is too long (whatever it said of its length), 408 when
 * it does not come.
 */
export async function readBody(request: Request, limits: BodyLimits, room: BodyRoom): Promise<Uint8Array> {
  if (!request.body) return new Uint8Array()
  const reader = request.body.getReader()
  // One buffer that grows: a sender may cut a body into a million chunks, and a list of them takes
  // a hundred times the bytes that are counted.
  let bytes = new Uint8Array(0)
  let length = 0
  let chunks = 0
  let isOver = false
  const receive = async (): Promise<void> => {
    for (;;) {
      const next = await reader.read()
      if (next.done || isOver) return
      const chunk: Uint8Array = next.value
      const from = length
      length += chunk.length
      const hasRoom = room.take(chunk.length)
      if (length > limits.maxBytes) throw tooLarge(limits)
      chunks += 1
      if (chunks > CHUNKS_FREE && length < chunks * CHUNK_LEAST_BYTES) throw tooSmallChunks()
      if (!hasRoom)
        throw new HttpProblem('unavailable', 'Too many bodies are being read at this moment.', {
          'Retry-After': '1',
          Connection: 'close',
        })
      if (length > bytes.length) bytes = grown(bytes, Math.min(Math.max(2 * bytes.length, length), limits.maxBytes))
      bytes.set(chunk, from)
    }
  }
  const late = Promise.withResolvers<never>()
  const timer = after(limits.timeoutMs, () =>
    late.reject(new HttpProblem('slow_body', undefined, { Connection: 'close' })),
  )
  try {
    // Once, and not for each chunk: a promise keeps all that wait for it.
    await Promise.race([receive(), late.promise])
  } catch (error) {
    // Not awaited: a stream whose sender is stuck may never say that it was cancelled.
    reader.cancel().catch(() => {})
    if (error instanceof HttpProblem) throw error
    throw new HttpProblem('malformed_body', 'The body broke off.')
  } finally {
    isOver = true
    timer.cancel()
    room.give(length)
  }
  return bytes.subarray(0, length)
}

function grown(bytes: Uint8Array, length: number): Uint8Array<ArrayBuffer> {
  const larger = new Uint8Array(length)
  larger.set(bytes)
  return larger
}

/** The payload that a body stands for; see docs/http.md for the table. Throws 400 and 415. */
export async function parseBody(kind: BodyKind, bytes: Uint8Array, contentType: string): Promise<ParsedBody> {
  if (kind === 'empty' && bytes.length > 0) throw unsupported('A body needs a Content-Type.')
  switch (kind) {
    case 'empty':
      return { kind, value: null, fields: undefined }
    case 'json':
      return { kind, value: parseJson(textOf(bytes)), fields: undefined }
    case 'form': {
      const text = textOf(bytes)
      // An encoder would have escaped these; so it is JSON whose sender forgot to say so (curl -d),
      // and would arrive as the name of an empty field.
      if (/^\s*[{[]/.test(text))
        throw new HttpProblem(
          'malformed_body',
          'The body looks like JSON and says that it is a form; send Content-Type: application/json.',
        )
      // Counted before they are made: a megabyte of `a&` takes seconds.
      if (countOf(text, '&') >= FIELDS_MAX) throw tooManyFields()
      return form(kind, [...new URLSearchParams(text)])
    }
    case 'multipart':
      return form(kind, await multipartFields(bytes, contentType))
    case 'text':
      return { kind, value: textOf(bytes), fields: undefined }
    case 'bytes':
      return { kind, value: { contentType, base64: Buffer.from(bytes).toString('base64') }, fields: undefined }
    default:
      return kind satisfies never
  }
}

/** Throws 400 with what is wrong with the `what`. */
export function parseJson(text: string, what: 'body' | 'payload' = 'body'): unknown {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    // The parser's message quotes what was sent; the place is enough.
    const place =
      error instanceof Error ? /at position \d+( \(line \d+ column \d+\))?/.exec(error.message)?.[0] : undefined
    throw new HttpProblem('malformed_body', `The ${what} is not JSON${place ? ` (${place})` : ''}.`)
  }
  checkDepth(value, what)
  return value
}

/** Level by level and not by recursion, which is what a deep value would break. */
function checkDepth(value: unknown, what: string): void {
  let level: unknown[] = [value]
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > DEPTH_MAX)
      throw new HttpProblem('malformed_body', `The ${what} is nested deeper than ${DEPTH_MAX} levels.`)
    level = level.flatMap((item) =>
      typeof item === 'object' && item !== null ? Object.values(item).filter((v) => typeof v === 'object') : [],
    )
  }
}

function form(kind: 'form' | 'multipart', fields: FormFields): ParsedBody {
  if (fields.length > FIELDS_MAX) throw tooManyFields()
  return { kind, value: formValue(fields), fields }
}

function tooManyFields(): HttpProblem {
  return new HttpProblem('malformed_body', `A form has at most ${FIELDS_MAX} fields.`)
}

/** How often it stands there, counted up to a little over the most that is allowed. */
function countOf(text: string, part: string): number {
  let count = 0
  for (let at = text.indexOf(part); at >= 0 && count <= 2 * FIELDS_MAX; at = text.indexOf(part, at + part.length))
    count += 1
  return count
}

/** Names to values; a name that occurs more than once to the list of its values. */
export function formValue(fields: FormFields): Record<string, string | string[]> {
  const values = new Map<string, string | string[]>()
  for (const [name, value] of fields) {
    const before = values.get(name)
    values.set(name, before === undefined ? value : [...(Array.isArray(before) ? before : [before]), value])
  }
  return Object.fromEntries(values)
}

async function multipartFields(bytes: Uint8Array, contentType: string): Promise<FormFields> {
  // Each field has one, whatever stands in it.
  if (countOf(Buffer.from(bytes).toString('latin1').toLowerCase(), 'content-disposition') > FIELDS_MAX)
    throw tooManyFields()
  let data: FormData
  try {
    data = await new Response(new Uint8Array(bytes), { headers: { 'Content-Type': contentType } }).formData()
  } catch {
    throw new HttpProblem('malformed_body', 'The body is not multipart/form-data with the boundary that it names.')
  }
  return [...data].map(([name, value]) => {
    if (typeof value !== 'string')
      throw unsupported('A form must not hold files; put them elsewhere and send their address.')
    return [name, value]
  })
}

function textOf(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw new HttpProblem('malformed_body', 'The body is not UTF-8.')
  }
}

function tooLarge({ maxBytes }: BodyLimits): HttpProblem {
  // The rest of the body is not read, so the connection cannot be used for another request.
  return new HttpProblem('payload_too_large', `A body has at most ${maxBytes} bytes.`, { Connection: 'close' })
}

function tooSmallChunks(): HttpProblem {
  return new HttpProblem('malformed_body', 'The body comes in very many small chunks; send larger ones.', {
    Connection: 'close',
  })
}

function unsupported(detail: string): HttpProblem {
  return new HttpProblem('unsupported_media_type', detail, { 'Accept-Post': ACCEPTED })
}

function shown(text: string): string {
  return JSON.stringify(cut(text, 100))
}
