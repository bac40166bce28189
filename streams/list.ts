/**
 * Long lists of users' values, as MessagePack: keys of a scatter, values of its instances. There
 * may be millions, so nobody holds them as objects. A writer keeps the bytes of each as soon as it
 * is given. A reader decodes a few at a time. Objects that live longer than a moment make the heap
 * grow, and cost most of the time that is spent to collect it.
 */
import { decodeMsgpack, encodeMsgpack } from './codec.ts'
import { type Encoding, unsqueeze } from './compress.ts'
import { FlowStoneError } from './errors.ts'
import { encodeValue } from './value.ts'

/** A list of up to 2^32 values begins with so many bytes at the most. */
const HEAD_BYTES = 5
const FIRST_BYTES = 8 * 1024
/** A buffer that was made larger than this is not kept for the next writer. */
const KEPT_BYTES = 1024 * 1024
const KEPT_MAX = 16
/**
 * Bounds of what is written here: nearly all keys and values there are. The rest goes through
 * `encodeValue`, which takes several times as long, and gives the same bytes.
 */
const QUICK_BYTES = 4096
const QUICK_MEMBERS = 64
const QUICK_DEPTH = 8

const kept: Buffer<ArrayBuffer>[] = []

/** The bytes of a list that grows. */
export class ListWriter {
  #bytes: Buffer<ArrayBuffer> = kept.pop() ?? Buffer.allocUnsafeSlow(FIRST_BYTES)
  /** Where each value ends; as many as there are values. */
  #ends: number[] = []
  #at = HEAD_BYTES
  /** How far a value may be written without a look at the room. */
  #quickEnd = 0
  #isCanonical = true

  get count(): number {
    return this.#ends.length
  }

  /** Of its values, without the list's head. */
  get size(): number {
    return this.#at - HEAD_BYTES
  }

  /** The bytes of the value that was added last. They hold until the next one is. */
  get last(): Uint8Array {
    return this.#bytes.subarray(this.#ends.at(-2) ?? HEAD_BYTES, this.#at)
  }

  /**
   * Whether the value that was added last is what JSON gives back of it, with members in order:
   * then equal bytes are equal keys.
   */
  get isCanonical(): boolean {
    return this.#isCanonical
  }

  /**
   * Adds the value as it is now. Returns how many bytes it takes.
   * @throws InvalidError with the place of what cannot be stored: `at`, or `at[position]`, and what
   * follows. Nothing was added then.
   */
  add(value: unknown, at = 'value', position?: number): number {
    const from = this.#at
    this.#room(QUICK_BYTES)
    this.#quickEnd = from + QUICK_BYTES - 16
    this.#isCanonical = true
    let quick = false
    try {
      quick = this.#write(value, QUICK_DEPTH)
    } catch {
      // A getter, or a proxy, that throws. `encodeValue` says where.
    }
    if (!quick) {
      this.#at = from
      this.#isCanonical = false
      this.addEncoded(encodeValue(value, position === undefined ? at : `${at}[${position}]`))
    } else this.#ends.push(this.#at)
    return this.#at - from
  }

  addEncoded(bytes: Uint8Array): void {
    this.#room(bytes.length)
    this.#bytes.set(bytes, this.#at)
    this.#at += bytes.length
    this.#ends.push(this.#at)
  }

  /** Takes the last value away. */
  undo(): void {
    this.#ends.pop()
    this.#at = this.#ends.at(-1) ?? HEAD_BYTES
  }

  /** MessagePack of the first `count` values: a view, until the next value is added. */
  list(count = this.#ends.length): Uint8Array<ArrayBuffer> {
    const end = count === 0 ? HEAD_BYTES : (this.#ends[count - 1] ?? this.#at)
    const bytes = this.#bytes
    if (count < 0x10) {
      bytes[HEAD_BYTES - 1] = 0x90 | count
      return plain(bytes, HEAD_BYTES - 1, end)
    }
    if (count < 0x10000) {
      bytes[HEAD_BYTES - 3] = 0xdc
      bytes.writeUInt16BE(count, HEAD_BYTES - 2)
      return plain(bytes, HEAD_BYTES - 3, end)
    }
    bytes[0] = 0xdd
    bytes.writeUInt32BE(count, 1)
    return plain(bytes, 0, end)
  }

  /** Takes the first `count` values away. */
  drop(count: number): void {
    if (count >= this.#ends.length) {
      this.#ends = []
      this.#at = HEAD_BYTES
      return
    }
    const by = (this.#ends[count - 1] ?? HEAD_BYTES) - HEAD_BYTES
    this.#bytes.copyWithin(HEAD_BYTES, HEAD_BYTES + by, this.#at)
    this.#ends = this.#ends.slice(count).map((end) => end - by)
    this.#at -= by
  }

  /** Nothing more is added: another writer may have the buffer. */
  end(): void {
    if (this.#bytes.length > 0 && this.#bytes.length <= KEPT_BYTES && kept.length < KEPT_MAX) kept.push(this.#bytes)
    this.#bytes = NONE
    this.#ends = []
    this.#at = HEAD_BYTES
  }

  #room(bytes: number): void {
    const needed = this.#at + bytes
    if (needed <= this.#bytes.length) return
    const wider = Buffer.allocUnsafeSlow(Math.max(needed, 2 * this.#bytes.length, FIRST_BYTES))
    wider.set(this.#bytes.subarray(0, this.#at))
    this.#bytes = wider
  }

  /** False: not one of those that are written here. */
  #write(value: unknown, depth: number): boolean {
    if (this.#at > this.#quickEnd) return false
    switch (typeof value) {
      case 'string':
        return this.#writeText(value)
      case 'number':
        return this.#writeNumber(value)
      case 'boolean':
        this.#bytes[this.#at++] = value ? 0xc3 : 0xc2
        return true
      case 'undefined':
        this.#isCanonical = false
        // As msgpackr has it: an extension of type 0.
        this.#bytes[this.#at++] = 0xd4
        this.#bytes[this.#at++] = 0
        this.#bytes[this.#at++] = 0
        return true
      case 'object':
        if (value === null) {
          this.#bytes[this.#at++] = 0xc0
          return true
        }
        if (depth === 0) return false
        return Array.isArray(value) ? this.#writeList(value, depth) : this.#writeObject(value, depth)
      default:
        return false
    }
  }

  #writeList(list: readonly unknown[], depth: number): boolean {
    const { length } = list
    if (length > QUICK_MEMBERS || Object.getPrototypeOf(list) !== Array.prototype) return false
    if (length < 0x10) this.#bytes[this.#at++] = 0x90 | length
    else {
      this.#bytes[this.#at++] = 0xdc
      this.#bytes[this.#at++] = 0
      this.#bytes[this.#at++] = length
    }
    for (let i = 0; i < length; i++) {
      const inner = list[i]
      // A hole is no undefined.
      if (inner === undefined && !(i in list)) return false
      if (!this.#write(inner, depth - 1)) return false
    }
    // Without holes, more names are members beside the elements.
    return Object.keys(list).length === length
  }

  #writeObject(value: object, depth: number): boolean {
    if (Object.getPrototypeOf(value) !== Object.prototype) return false
    const head = this.#at
    this.#at += 3
    let count = 0
    let before = ''
    for (const name in value) {
      if (!Object.hasOwn(value, name)) continue
      count += 1
      if (name === '__proto__' || count > QUICK_MEMBERS) return false
      if (name < before) this.#isCanonical = false
      before = name
      if (!this.#writeText(name)) return false
      if (!this.#write((value as Readonly<Record<string, unknown>>)[name], depth - 1)) return false
      if (this.#at > this.#quickEnd) return false
    }
    this.#bytes[head] = 0xde
    this.#bytes[head + 1] = 0
    this.#bytes[head + 2] = count
    return true
  }

  #writeNumber(value: number): boolean {
    const bytes = this.#bytes
    if (value >>> 0 === value) {
      // Of -0, `>>>` makes 0.
      if (value === 0 && Object.is(value, -0)) return false
      if (value < 0x80) bytes[this.#at++] = value
      else if (value < 0x100) {
        bytes[this.#at++] = 0xcc
        bytes[this.#at++] = value
      } else if (value < 0x10000) {
        bytes[this.#at++] = 0xcd
        this.#at = bytes.writeUInt16BE(value, this.#at)
      } else {
        bytes[this.#at++] = 0xce
        this.#at = bytes.writeUInt32BE(value, this.#at)
      }
      return true
    }
    if (value >> 0 === value) {
      if (value >= -0x20) bytes[this.#at++] = 0x100 + value
      else if (value >= -0x80) {
        bytes[this.#at++] = 0xd0
        bytes[this.#at++] = value + 0x100
      } else if (value >= -0x8000) {
        bytes[this.#at++] = 0xd1
        this.#at = bytes.writeInt16BE(value, this.#at)
      } else {
        bytes[this.#at++] = 0xd2
        this.#at = bytes.writeInt32BE(value, this.#at)
      }
      return true
    }
    if (!Number.isFinite(value)) this.#isCanonical = false
    bytes[this.#at++] = 0xcb
    this.#at = bytes.writeDoubleBE(value, this.#at)
    return true
  }

  #writeText(text: string): boolean {
    const { length } = text
    const bytes = this.#bytes
    if (length < 0x20) {
      const from = this.#at + 1
      let i = 0
      for (; i < length; i++) {
        const code = text.charCodeAt(i)
        if (code >= 0x80) break
        bytes[from + i] = code
      }
      if (i === length) {
        bytes[this.#at] = 0xa0 | length
        this.#at = from + length
        return true
      }
    }
    if (this.#at + length * 3 > this.#quickEnd || !text.isWellFormed()) return false
    // The head says how many bytes follow, which are known when they are there.
    const guess = length < 0x20 ? 1 : length < 0x100 ? 2 : 3
    const size = bytes.write(text, this.#at + guess)
    const head = size < 0x20 ? 1 : size < 0x100 ? 2 : 3
    if (head !== guess) bytes.copyWithin(this.#at + head, this.#at + guess, this.#at + guess + size)
    if (head === 1) bytes[this.#at] = 0xa0 | size
    else if (head === 2) {
      bytes[this.#at] = 0xd9
      bytes[this.#at + 1] = size
    } else {
      bytes[this.#at] = 0xda
      bytes.writeUInt16BE(size, this.#at + 1)
    }
    this.#at += head + size
    return true
  }
}

const NONE = Buffer.allocUnsafeSlow(0)

function plain(bytes: Buffer<ArrayBuffer>, from: number, to: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes.buffer, bytes.byteOffset + from, to - from)
}

const scratch = new Uint8Array(64 * 1024)
const BLOCK = 16
/** So many blocks are kept decoded: values are asked for about in order. */
const BLOCKS_KEPT = 4

type ItemOf = (k: number) => unknown
type Access = (values: readonly unknown[]) => ItemOf
const asIs: Access = (values) => (k) => values[k]

/** The values of a list, decoded a few at a time. */
export class ListReader {
  /** How many there are. */
  readonly count: number
  readonly #bytes: Uint8Array
  /** Where each block of values begins, as far as that is known. */
  readonly #starts: number[]
  readonly #blocks: { readonly n: number; readonly item: ItemOf }[] = []
  readonly #access: Access

  /**
   * `access` is given what was decoded, and gives it out.
   * @throws FlowStoneError `undecodable` when the bytes are no list.
   */
  constructor(bytes: Uint8Array, access: Access = asIs, starts?: number[]) {
    const [count, start] = headOf(bytes)
    this.count = count
    this.#bytes = bytes
    this.#starts = starts ?? [start]
    this.#access = access
  }

  /** Another reader of the same list: what one of them asks for leaves the other's blocks alone. */
  fork(): ListReader {
    return new ListReader(this.#bytes, this.#access, this.#starts)
  }

  /** Undefined behind the last one. */
  item(k: number): unknown {
    const n = Math.floor(k / BLOCK)
    for (let i = this.#blocks.length - 1; i >= 0; i--) {
      const block = this.#blocks[i]
      if (block?.n === n) return block.item(k - n * BLOCK)
    }
    if (k >= this.count) return undefined
    const item = this.#decode(n)
    if (this.#blocks.length >= BLOCKS_KEPT) this.#blocks.shift()
    this.#blocks.push({ n, item })
    return item(k - n * BLOCK)
  }

  #decode(n: number): ItemOf {
    const count = Math.min(BLOCK, this.count - n * BLOCK)
    const [from, to] = [this.#startOf(n), this.#startOf(n + 1)]
    const size = HEAD_BYTES + to - from
    // What is decoded is a copy, bytes too: the buffer is free again at once.
    const list = size <= scratch.length ? scratch.subarray(0, size) : new Uint8Array(size)
    list.set([0xdd, 0, 0, 0, count])
    list.set(this.#bytes.subarray(from, to), HEAD_BYTES)
    const values = decodeMsgpack(list)
    if (!Array.isArray(values)) throw damaged()
    return this.#access(values)
  }

  #startOf(n: number): number {
    for (let known = this.#starts.length; known <= n; known++) {
      const count = Math.min(BLOCK, this.count - (known - 1) * BLOCK)
      this.#starts.push(skip(this.#bytes, this.#starts[known - 1] ?? 0, count))
    }
    return this.#starts[n] ?? 0
  }
}

/**
 * The list in an opaque field, which `encoding` says is compressed. It may be kept for longer than
 * the message that the field is of. Throws `undecodable` when there is none.
 */
export function readList(
  field: Uint8Array | readonly unknown[],
  encoding: Encoding | undefined,
  access?: Access,
): ListReader {
  if (!(field instanceof Uint8Array)) return new ListReader(encodeMsgpack(field), access)
  return new ListReader(encoding === undefined ? new Uint8Array(field) : unsqueeze(field, encoding), access)
}

function headOf(bytes: Uint8Array): [count: number, start: number] {
  const [first = 0, b = 0, c = 0, d = 0, e = 0] = bytes
  if (first >= 0x90 && first < 0xa0) return [first & 0x0f, 1]
  if (first === 0xdc && bytes.length >= 3) return [b * 0x100 + c, 3]
  if (first === 0xdd && bytes.length >= 5) return [((b * 0x100 + c) * 0x100 + d) * 0x100 + e, 5]
  throw damaged()
}

function damaged(): FlowStoneError {
  return new FlowStoneError('undecodable', 'a list was expected in an opaque field')
}

/** Where the value behind the next `count` values begins. */
function skip(bytes: Uint8Array, from: number, count: number): number {
  let at = from
  for (let left = count; left > 0; left--) {
    if (at >= bytes.length) throw damaged()
    const type = bytes[at++] ?? 0
    if (type < 0x80 || type >= 0xe0) continue
    if (type < 0x90) left += 2 * (type & 0x0f)
    else if (type < 0xa0) left += type & 0x0f
    else if (type < 0xc0) at += type & 0x1f
    else {
      const fixed = FIXED[type - 0xc0] ?? 0
      const [width, extra, values] = SIZED[type - 0xc0] ?? NOTHING
      if (width === 0) {
        at += fixed
        continue
      }
      let size = 0
      for (let i = 0; i < width; i++) size = size * 0x100 + (bytes[at++] ?? 0)
      if (values > 0) left += values * size
      else at += size + extra
    }
  }
  if (at > bytes.length) throw damaged()
  return at
}

/** How many bytes follow the types from 0xc0 on, where that is fixed. */
const FIXED = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 2, 3, 5, 9, 17, 0, 0, 0, 0, 0, 0, 0] as const
const NOTHING = [0, 0, 0] as const
/** Others say their size in so many bytes: as so many values for each, or as bytes and `extra`. */
const SIZED: Readonly<Record<number, readonly [width: number, extra: number, values: number]>> = {
  4: [1, 0, 0],
  5: [2, 0, 0],
  6: [4, 0, 0],
  7: [1, 1, 0],
  8: [2, 1, 0],
  9: [4, 1, 0],
  25: [1, 0, 0],
  26: [2, 0, 0],
  27: [4, 0, 0],
  28: [2, 0, 1],
  29: [4, 0, 1],
  30: [2, 0, 2],
  31: [4, 0, 2],
}
