/**
 * Compares two large sets without having them in memory: what there is, and what there should be.
 * Both are known by a hash of 64 bits. They are kept in parts by the first bits of the hash, and
 * compared part by part. So memory is that of one part, and what does not fit is in scratch files.
 * Whoever reports something looks at the thing itself first: two hashes may be the same.
 */
import { type Scratch, type ScratchFile, Texts } from './scratch.ts'

const PARTS = 64
const BITS = 58n
const RECORD_BYTES = 16
const BUFFER_BYTES = 32 * 1024

export interface Duplicate {
  readonly hash: bigint
  /** What was said of the two. */
  readonly marks: readonly [number, number]
}

export class Ledger {
  readonly #there: ScratchFile[]
  readonly #wanted: ScratchFile[]
  readonly #texts: Texts
  readonly #record = Buffer.alloc(RECORD_BYTES)
  #count = 0

  constructor(scratch: Scratch) {
    this.#there = Array.from({ length: PARTS }, () => scratch.file(BUFFER_BYTES))
    this.#wanted = Array.from({ length: PARTS }, () => scratch.file(BUFFER_BYTES))
    this.#texts = new Texts(scratch)
  }

  /** How much there is. */
  get count(): number {
    return this.#count
  }

  /** There is something. `mark`: a number that tells it from another one of the same hash. */
  add(hash: bigint, mark: number): void {
    this.#count += 1
    this.#append(this.#there, hash, mark)
  }

  /** Something should be there. `about` is given back if it is not. */
  want(hash: bigint, about: string): void {
    this.#append(this.#wanted, hash, this.#texts.add(about))
  }

  #append(parts: readonly ScratchFile[], hash: bigint, number: number): void {
    this.#record.writeBigUInt64BE(hash)
    this.#record.writeDoubleBE(number, 8)
    parts[Number(hash >> BITS)]?.append(this.#record)
  }

  /** What is missing, and what is there twice under different marks. */
  *compare(): Generator<{ readonly missing: string } | { readonly twice: Duplicate }> {
    for (let part = 0; part < PARTS; part++) {
      const marks = new Map<bigint, number>()
      for (const [hash, mark] of records(this.#there[part])) {
        const before = marks.get(hash)
        if (before === undefined) marks.set(hash, mark)
        else if (before !== mark) yield { twice: { hash, marks: [before, mark] } }
      }
      for (const [hash, at] of records(this.#wanted[part])) if (!marks.has(hash)) yield { missing: this.#texts.get(at) }
    }
  }
}

function* records(file: ScratchFile | undefined): Generator<readonly [hash: bigint, mark: number]> {
  if (!file) return
  const step = RECORD_BYTES * 4096
  for (let at = 0; at < file.length; at += step) {
    const bytes = file.read(at, Math.min(step, file.length - at))
    for (let i = 0; i < bytes.length; i += RECORD_BYTES) yield [bytes.readBigUInt64BE(i), bytes.readDoubleBE(i + 8)]
  }
}

/** One bit for each sequence. */
export class Sequences {
  #bits = new Uint8Array(1024)

  add(seq: number): void {
    const at = Math.floor(seq / 8)
    if (at >= this.#bits.length) {
      const larger = new Uint8Array(Math.max(at + 1, this.#bits.length * 2))
      larger.set(this.#bits)
      this.#bits = larger
    }
    this.#bits[at] = (this.#bits[at] ?? 0) | (1 << (seq % 8))
  }

  has(seq: number): boolean {
    return ((this.#bits[Math.floor(seq / 8)] ?? 0) & (1 << (seq % 8))) !== 0
  }

  /** Those from `from` to `to`, both included, that were not added; the first few by name. */
  missing(from: number, to: number, most = 5): { readonly count: number; readonly first: readonly number[] } {
    const first: number[] = []
    let count = 0
    for (let seq = from; seq <= to; seq++) {
      if (seq % 8 === 0 && this.#bits[seq / 8] === 0xff && seq + 7 <= to) {
        seq += 7
        continue
      }
      if (this.has(seq)) continue
      count += 1
      if (first.length < most) first.push(seq)
    }
    return { count, first }
  }
}
