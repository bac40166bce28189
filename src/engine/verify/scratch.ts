/**
 * What verifying holds besides memory: files in a folder of their own, which goes at the end.
 * Nothing is written while everything is small.
 */
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const BUFFER_BYTES = 64 * 1024

export class Scratch {
  #folder: string | undefined
  #count = 0
  readonly #files: ScratchFile[] = []

  /** Undefined while nothing was written. */
  get folder(): string | undefined {
    return this.#folder
  }

  file(bufferBytes = BUFFER_BYTES): ScratchFile {
    const file = new ScratchFile(() => {
      this.#folder ??= mkdtempSync(join(tmpdir(), 'flowstone-verify-'))
      return join(this.#folder, String(this.#count++))
    }, bufferBytes)
    this.#files.push(file)
    return file
  }

  [Symbol.dispose](): void {
    for (const file of this.#files) file.close()
    if (this.#folder !== undefined) rmSync(this.#folder, { recursive: true, force: true })
  }
}

/** Bytes that are appended, and read again by their place. */
export class ScratchFile {
  readonly #pathOf: () => string
  readonly #bufferBytes: number
  #buffer = Buffer.alloc(0)
  #held = 0
  #written = 0
  #descriptor: number | undefined

  constructor(pathOf: () => string, bufferBytes: number) {
    this.#pathOf = pathOf
    this.#bufferBytes = bufferBytes
  }

  get length(): number {
    return this.#written + this.#held
  }

  /** Returns where they begin. */
  append(bytes: Uint8Array): number {
    const at = this.length
    if (this.#held + bytes.length > this.#bufferBytes) this.#flush()
    if (bytes.length > this.#bufferBytes) {
      this.#write(bytes)
      return at
    }
    if (this.#held + bytes.length > this.#buffer.length) {
      const larger = Buffer.alloc(Math.min(this.#bufferBytes, Math.max(1024, 2 * (this.#held + bytes.length))))
      this.#buffer.copy(larger, 0, 0, this.#held)
      this.#buffer = larger
    }
    this.#buffer.set(bytes, this.#held)
    this.#held += bytes.length
    return at
  }

  read(at: number, length: number): Buffer<ArrayBuffer> {
    const bytes = Buffer.alloc(length)
    const inFile = Math.max(0, Math.min(length, this.#written - at))
    if (inFile > 0 && this.#descriptor !== undefined) {
      let done = 0
      while (done < inFile) {
        const read = readSync(this.#descriptor, bytes, done, inFile - done, at + done)
        if (read === 0) throw new Error(`a scratch file ends at ${at + done}, before ${at + inFile}`)
        done += read
      }
    }
    if (inFile < length) this.#buffer.copy(bytes, inFile, at + inFile - this.#written, at + length - this.#written)
    return bytes
  }

  close(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor)
    this.#descriptor = undefined
  }

  #flush(): void {
    if (this.#held === 0) return
    this.#write(this.#buffer.subarray(0, this.#held))
    this.#held = 0
  }

  #write(bytes: Uint8Array): void {
    this.#descriptor ??= openSync(this.#pathOf(), 'w+', 0o600)
    for (let done = 0; done < bytes.length; ) done += writeSync(this.#descriptor, bytes, done)
    this.#written += bytes.length
  }
}

/** Texts by their place. */
export class Texts {
  readonly #file: ScratchFile

  constructor(scratch: Scratch) {
    this.#file = scratch.file()
  }

  add(text: string): number {
    const bytes = Buffer.from(text)
    const length = Buffer.alloc(4)
    length.writeUInt32BE(bytes.length)
    return this.#file.append(Buffer.concat([length, bytes]))
  }

  get(at: number): string {
    return this.#file.read(at + 4, this.#file.read(at, 4).readUInt32BE()).toString()
  }
}
