/**
 * xxh64 with seed 0, as https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md has it.
 * WebAssembly computes it, from the moment that it is there: a few milliseconds after this module
 * was loaded. Until then it is computed here, some hundred times slower. So nobody has to wait for
 * it when a pipeline is declared, and this module has no top-level await, which `require()` and
 * bundles in CommonJS cannot have.
 */
import xxhash from 'xxhash-wasm'

let wasm: { readonly h64Raw: (bytes: Uint8Array) => bigint; readonly h64: (text: string) => bigint } | undefined

xxhash().then(
  (made) => {
    wasm = made
  },
  // Without WebAssembly it stays as it is.
  () => undefined,
)

export function xxh64(input: string | Uint8Array): bigint {
  if (typeof input === 'string') return wasm ? wasm.h64(input) : slowXxh64(new TextEncoder().encode(input))
  return wasm ? wasm.h64Raw(input) : slowXxh64(input)
}

const P1 = 0x9e3779b185ebca87n
const P2 = 0xc2b2ae3d27d4eb4fn
const P3 = 0x165667b19e3779f9n
const P4 = 0x85ebca77c2b2ae63n
const P5 = 0x27d4eb2f165667c5n
const STRIPE_BYTES = 32

/** The same in plain JavaScript. */
export function slowXxh64(bytes: Uint8Array): bigint {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let at = 0
  let hash = P5
  if (bytes.length >= STRIPE_BYTES) {
    const sums = [u64(P1 + P2), P2, 0n, u64(-P1)]
    for (; at + STRIPE_BYTES <= bytes.length; at += STRIPE_BYTES)
      for (const [i, sum] of sums.entries()) sums[i] = round(sum, view.getBigUint64(at + 8 * i, true))
    const [a = 0n, b = 0n, c = 0n, d = 0n] = sums
    hash = u64(rotate(a, 1n) + rotate(b, 7n) + rotate(c, 12n) + rotate(d, 18n))
    for (const sum of sums) hash = u64((hash ^ round(0n, sum)) * P1 + P4)
  }
  hash = u64(hash + BigInt(bytes.length))
  for (; at + 8 <= bytes.length; at += 8)
    hash = u64(rotate(hash ^ round(0n, view.getBigUint64(at, true)), 27n) * P1 + P4)
  if (at + 4 <= bytes.length) {
    hash = u64(rotate(hash ^ u64(BigInt(view.getUint32(at, true)) * P1), 23n) * P2 + P3)
    at += 4
  }
  for (; at < bytes.length; at++) hash = u64(rotate(hash ^ u64(BigInt(view.getUint8(at)) * P5), 11n) * P1)
  hash = u64((hash ^ (hash >> 33n)) * P2)
  hash = u64((hash ^ (hash >> 29n)) * P3)
  return hash ^ (hash >> 32n)
}

function round(sum: bigint, input: bigint): bigint {
  return u64(rotate(u64(sum + input * P2), 31n) * P1)
}

function rotate(value: bigint, bits: bigint): bigint {
  return u64((value << bits) | (value >> (64n - bits)))
}

function u64(value: bigint): bigint {
  return BigInt.asUintN(64, value)
}
