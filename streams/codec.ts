/**
 * Bytes on the wire. Facts that outsiders read are JSON; bulk facts and tasks are MessagePack
 * (plain maps, no msgpackr records, so any language reads them). The `Content-Type` header says
 * which; a reader takes both.
 */
import { addExtension, Packr, RESET_BUFFER_MODE } from 'msgpackr'
import { type Encoding, unsqueeze } from './compress.ts'
import { FlowStoneError, InvalidError, messageOf } from './errors.ts'

export type Format = 'json' | 'msgpack'
export const CONTENT_TYPE = { json: 'application/json', msgpack: 'application/msgpack' } as const

// A `toJSON` is not called: what it gives would come back in place of what was given.
const OPTIONS = { useRecords: false, encodeUndefinedAsNil: false, useToJSON: false } as const
let packr = new Packr({ ...OPTIONS, copyBuffers: true })
/** Bytes in what this gives are views of the message, and good for as long as that is. */
const viewing = new Packr({ ...OPTIONS, copyBuffers: false })
/** For objects of more than 65,535 members; a little slower. */
const wide = new Packr({ ...OPTIONS, copyBuffers: true, variableMapSize: true })
/** A buffer that a very large value has made larger than this is not kept. */
const BUFFER_MAX = 16 * 1024 * 1024
const utf8 = new TextDecoder('utf-8', { fatal: true })

export function encode(value: unknown, format: Format): Uint8Array {
  return format === 'json' ? encodeJson(value) : encodeMsgpack(value)
}

export function encodeJson(value: unknown): Uint8Array {
  // From Node's pool of memory: memory of its own costs a small value five times as much.
  return plainBytes(Buffer.from(JSON.stringify(value) ?? ''))
}

/**
 * MessagePack. Throws InvalidError for what no other process could read: functions, symbols,
 * cycles, class instances that hide their state.
 */
export function encodeMsgpack(value: unknown): Uint8Array<ArrayBuffer> {
  try {
    // A copy: msgpackr gives a view of its buffer, which the next value is written over. (Without
    // the copy it makes a new buffer whenever one is full, of four times the largest value so far.
    // Memory that is freed in such pieces does not go back to the system.)
    const view = packr.pack(value, RESET_BUFFER_MODE)
    const bytes = new Uint8Array(view)
    if (view.buffer.byteLength > BUFFER_MAX) packr = new Packr({ ...OPTIONS, copyBuffers: true })
    return bytes
  } catch (cause) {
    const why = cause instanceof RangeError ? 'it refers to itself, or is nested too deeply' : messageOf(cause)
    throw new InvalidError(`value cannot be encoded: ${why}`, { cause })
  }
}

/**
 * Bytes of MessagePack that stand for a value: put into another value they are written as they are.
 */
export class Encoded {
  readonly bytes: Uint8Array<ArrayBuffer>

  constructor(bytes: Uint8Array<ArrayBuffer>) {
    this.bytes = bytes
  }
}

/** As `encodeMsgpack`, for objects of any number of members. */
export function encodeWide(value: unknown): Uint8Array<ArrayBuffer> {
  return new Uint8Array(wide.pack(value))
}

/**
 * A type that MessagePack does not have is an extension of type 70, with MessagePack of a list in
 * it. The lists: `['bigint', '123']`, `['-0']`, `['Float32Array', bytes]` (little-endian; also
 * other typed arrays, and `ArrayBuffer`), `['Map', [[key, value], …]]`, `['Set', [value, …]]`.
 */
const EXTENSION = 70

export function encodeExtension(content: readonly [kind: string, inner?: unknown]): Encoded {
  const inner = encodeWide(content)
  const bytes = new Uint8Array(6 + inner.length)
  bytes[0] = 0xc9
  new DataView(bytes.buffer).setUint32(1, inner.length)
  bytes[5] = EXTENSION
  bytes.set(inner, 6)
  return new Encoded(bytes)
}

const TYPED_ARRAYS: ReadonlySet<unknown> = new Set([
  'Int8Array',
  'Uint8ClampedArray',
  'Int16Array',
  'Uint16Array',
  'Int32Array',
  'Uint32Array',
  'Float16Array',
  'Float32Array',
  'Float64Array',
  'BigInt64Array',
  'BigUint64Array',
])

function decodeExtension(bytes: Uint8Array): unknown {
  const content: unknown = packr.unpack(plainBytes(bytes))
  const [kind, inner]: unknown[] = Array.isArray(content) ? content : []
  if (kind === '-0') return -0
  if (kind === 'bigint' && typeof inner === 'string') return BigInt(inner)
  if (kind === 'Map' && Array.isArray(inner)) return new Map(inner)
  if (kind === 'Set' && Array.isArray(inner)) return new Set(inner)
  if (inner instanceof Uint8Array) {
    const { buffer } = Uint8Array.from(inner)
    if (kind === 'ArrayBuffer') return buffer
    const Kind: unknown = TYPED_ARRAYS.has(kind) ? Reflect.get(globalThis, String(kind)) : undefined
    if (typeof Kind === 'function') return Reflect.construct(Kind, [buffer])
  }
  throw new FlowStoneError('undecodable', `an extension of kind ${String(kind)} is not known here`)
}

/**
 * Its types do not tell of `allocate`, by which its own extensions write without a head of their
 * own.
 */
const extension: object = {
  Class: Encoded,
  type: EXTENSION,
  pack: ({ bytes }: Encoded, allocate: (size: number) => { target: Uint8Array; position: number }) => {
    const { target, position } = allocate(bytes.length)
    target.set(bytes, position)
  },
  unpack: decodeExtension,
}
// msgpackr keeps extensions for all who use this copy of it: the type is one that it does not use
// itself, and the class is ours.
addExtension(extension)

/** `views`: byte fields are not copied, as suits what is only carried on. */
export function decode(bytes: Uint8Array, contentType: string | undefined, views = false): unknown {
  try {
    if (contentType?.startsWith(CONTENT_TYPE.msgpack)) return (views ? viewing : packr).unpack(plainBytes(bytes))
    return JSON.parse(utf8.decode(bytes))
  } catch (cause) {
    throw new FlowStoneError('undecodable', `payload is not ${contentType ?? 'JSON'}: ${messageOf(cause)}`, { cause })
  }
}

/** Node's Buffer would give Buffers back for bytes that went in as Uint8Array. */
function plainBytes(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

export function decodeMsgpack(bytes: Uint8Array): unknown {
  return decode(bytes, CONTENT_TYPE.msgpack)
}

/**
 * The list in an opaque field, which `encoding` says is compressed. Throws `undecodable` when there
 * is none.
 */
export function decodeList(field: Uint8Array | readonly unknown[], encoding?: Encoding): readonly unknown[] {
  if (!(field instanceof Uint8Array)) return field
  const list = decodeMsgpack(unsqueeze(field, encoding))
  if (Array.isArray(list)) return list
  throw new FlowStoneError('undecodable', 'a list was expected in an opaque field')
}
