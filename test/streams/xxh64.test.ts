import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import xxhash from 'xxhash-wasm'
import { slowXxh64, xxh64 } from '../../streams/xxh64.ts'
import { runs } from '../kit/runs.ts'

const { h64Raw } = await xxhash()

describe('xxh64', () => {
  it.each([
    ['', 0xef46db3751d8e999n],
    ['a', 0xd24ec4f1a98c6e5bn],
    ['abc', 0x44bc2cf5ad770999n],
    ['Nobody inspects the spammish repetition', 0xfbcea83c8a378bf1n],
  ])('of %j is what its authors say, in WebAssembly and without', (text, hash) => {
    expect(xxh64(text)).toBe(hash)
    expect(slowXxh64(Buffer.from(text))).toBe(hash)
  })

  it('is the same in WebAssembly and without, for any bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(slowXxh64(bytes)).toBe(h64Raw(bytes))
      }),
      runs(200),
    )
  })

  it('reads a part of a larger buffer', () => {
    const all = readFileSync(import.meta.filename)
    expect(slowXxh64(all.subarray(3, 333))).toBe(h64Raw(all.subarray(3, 333)))
  })
})
