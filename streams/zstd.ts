/**
 * Zstandard of Node, for all modules. An older Node has none, and would fail while it links whoever
 * imports it by name, before any code could say which Node is needed.
 */
import zlib from 'node:zlib'
import { tooOld } from './node-version.ts'

const refusal = tooOld(process.versions.node)
if (refusal !== undefined) throw new Error(refusal)

export const { constants, createZstdCompress, createZstdDecompress } = zlib
export const { zstdCompress, zstdCompressSync, zstdDecompress, zstdDecompressSync } = zlib
