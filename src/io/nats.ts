/**
 * The default I/O manager: MessagePack in the namespace's object store, compressed where that makes
 * it smaller, named by content hash, so equal values are stored once.
 */
import { createHash } from 'node:crypto'
import { blobName } from '../../streams/blob-refs.ts'
import { decodeMsgpack } from '../../streams/codec.ts'
import { squeezeLarge, unsqueezeLarge } from '../../streams/compress.ts'
import { FlowStoneError } from '../../streams/errors.ts'
import type { Names } from '../../streams/subjects.ts'
import { encodeValue } from '../../streams/value.ts'
import type { Connection } from '../log/connection.ts'
import { Blobs } from './blobs.ts'
import type { BytesIoManager } from './manager.ts'

export function natsIo(connection: Connection, names: Names): BytesIoManager {
  const blobs = new Blobs(connection, names.blobBucket)
  const manager: BytesIoManager = {
    store: (value) => manager.storeBytes(encodeValue(value)),
    storeBytes: async (plain) => {
      const hash = hashOf(plain)
      const { bytes, encoding } = await squeezeLarge(plain)
      // Another release of the compressor may give other bytes for the same value: those are as
      // good.
      await blobs.put(blobName(hash, encoding), bytes, encoding === undefined)
      return { hash, bytes: bytes.length, ...(encoding ? { encoding, plainBytes: plain.length } : {}) }
    },
    load: async ({ hash, encoding: named, plainBytes }, { signal } = {}) => {
      const encoding = named === 'zstd' ? named : undefined
      const bytes = await blobs.get(blobName(String(hash), encoding), signal)
      if (!bytes)
        throw new FlowStoneError('missing_value', `value ${String(hash)} is not in object store ${names.blobBucket}`)
      const plain = await unsqueezeLarge(bytes, encoding, Number(plainBytes))
      // Whoever may store values could store another one under this name.
      if (hashOf(plain) !== hash)
        throw new FlowStoneError(
          'damaged_value',
          `value ${String(hash)} in object store ${names.blobBucket} is another one: its hash is ${hashOf(plain)}`,
        )
      return decodeMsgpack(plain)
    },
  }
  return manager
}

/** Whether a value cannot be read, now or later: it is not in the store, or it is another one. */
export function isGone(error: unknown): boolean {
  return error instanceof FlowStoneError && (error.code === 'missing_value' || error.code === 'damaged_value')
}

export function hashOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}
