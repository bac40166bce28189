import { zstdCompressSync } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { LIST_MAX_BYTES, squeeze, squeezeLarge, unsqueeze, unsqueezeLarge } from '../../streams/compress.ts'
import { runs } from '../kit/runs.ts'

const text = (length: number): Uint8Array<ArrayBuffer> =>
  new TextEncoder().encode('what is said again '.repeat(length / 19 + 1))

/** Bytes that no compressor makes smaller: xorshift, so that the test is the same each time. */
function noise(length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length)
  let state = 2463534242
  for (let i = 0; i < length; i++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    bytes[i] = state & 255
  }
  return bytes
}

describe('squeezed bytes', () => {
  it('come back as they were, at once and beside the event loop', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 5000 }), fc.nat({ max: 3 }), async (given, times) => {
        const bytes = new Uint8Array(Buffer.concat(Array.from({ length: times + 1 }, () => given)))
        const now = squeeze(bytes)
        expect(new Uint8Array(unsqueeze(now.bytes, now.encoding))).toEqual(bytes)
        const later = await squeezeLarge(bytes)
        expect(new Uint8Array(await unsqueezeLarge(later.bytes, later.encoding, bytes.length))).toEqual(bytes)
      }),
      runs(50),
    )
  })

  it('are smaller and say so, or are the same bytes and say nothing', () => {
    const squeezed = squeeze(text(10_000))
    expect(squeezed.encoding).toBe('zstd')
    expect(squeezed.bytes.length).toBeLessThan(1000)
    for (const bytes of [noise(10_000), text(100), new Uint8Array(0)]) expect(squeeze(bytes)).toEqual({ bytes })
  })

  it('are left alone where a list of small items is short: the try would cost more than its items', () => {
    expect(squeeze(text(2000), 20)).toEqual({ bytes: text(2000) })
    expect(squeeze(text(2000), 2).encoding).toBe('zstd')
    expect(squeeze(text(5000), 5000).encoding).toBe('zstd')
  })

  it('that are damaged are refused as undecodable', async () => {
    const { bytes, encoding } = squeeze(text(10_000))
    const damaged = bytes.slice(0, -5)
    expect(() => unsqueeze(damaged, encoding)).toThrow(expect.objectContaining({ code: 'undecodable' }))
    await expect(unsqueezeLarge(noise(600), 'zstd', 600)).rejects.toMatchObject({ code: 'undecodable' })
  })

  it('that would hold more than may be there are refused, and take no memory', async () => {
    const zeros = new Uint8Array(8 * 1024 * 1024)
    const bomb = zstdCompressSync(zeros)
    expect(bomb.length).toBeLessThan(10_000)
    const code = 'undecodable'
    expect(() => unsqueeze(bomb, 'zstd')).toThrow(expect.objectContaining({ code }))
    expect(() => unsqueeze(bomb, 'zstd')).toThrow(`hold more than the ${LIST_MAX_BYTES} bytes that may be there`)
    await expect(unsqueezeLarge(bomb, 'zstd', 1000)).rejects.toMatchObject({ code })
    await expect(unsqueezeLarge(bomb, 'zstd', Number.NaN)).rejects.toMatchObject({ code })
    expect((await unsqueezeLarge(bomb, 'zstd', zeros.length)).length).toBe(zeros.length)
  })
})
