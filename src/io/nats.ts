/** The default I/O manager: MessagePack in the namespace's object store, compressed where that makes it smaller, named by content hash, so equal values are stored once. */
import { createHash } from 'node:crypto'
import { type ObjectStore, Objm } from '@nats-io/obj'
import { decodeMsgpack } from '../../streams/codec.ts'
import { FlowStoneError } from '../../streams/errors.ts'
import { type Encoding, squeezeLarge, unsqueezeLarge } from '../../streams/squeeze.ts'
import type { Names } from '../../streams/subjects.ts'
import { encodeValue } from '../../streams/value.ts'
import type { Connection } from '../log/connection.ts'
import type { BytesIoManager } from './manager.ts'

const CHUNK_BYTES = 128 * 1024

export function natsIo(connection: Connection, names: Names): BytesIoManager {
  let opened: Promise<ObjectStore> | undefined
  const store = (): Promise<ObjectStore> => {
    // A failure is not kept: the next caller tries again.
    opened ??= new Objm(connection.nc).open(names.blobBucket).catch((error: unknown) => {
      opened = undefined
      throw error
    })
    return opened
  }
  const manager: BytesIoManager = {
    store: (value) => manager.storeBytes(encodeValue(value)),
    storeBytes: async (plain) => {
      const hash = createHash('sha256').update(plain).digest('hex')
      const { bytes, encoding } = await squeezeLarge(plain)
      const name = nameOf(hash, encoding)
      const blobs = await store()
      const there = await blobs.info(name)
      // Another release of the compressor may give other bytes for the same value: those are as good.
      if (!there || there.deleted || (!encoding && there.size !== bytes.length))
        await blobs.put({ name, options: { max_chunk_size: CHUNK_BYTES } }, chunks(bytes))
      return { hash, bytes: bytes.length, ...(encoding ? { encoding, plainBytes: plain.length } : {}) }
    },
    load: async ({ hash, encoding: named, plainBytes }) => {
      const encoding = named === 'zstd' ? named : undefined
      const blobs = await store()
      const found = await blobs.get(nameOf(String(hash), encoding))
      if (!found)
        throw new FlowStoneError('missing_value', `value ${String(hash)} is not in object store ${names.blobBucket}`)
      const parts: Uint8Array[] = []
      for await (const part of found.data) parts.push(part)
      const failure = await found.error
      if (failure)
        throw new FlowStoneError(
          'damaged_value',
          `value ${String(hash)} in object store ${names.blobBucket}: ${failure.message}`,
          { cause: failure },
        )
      return decodeMsgpack(await unsqueezeLarge(Buffer.concat(parts), encoding, Number(plainBytes)))
    },
  }
  return manager
}

function nameOf(hash: string, encoding: Encoding | undefined): string {
  return encoding ? `${hash}-${encoding}` : hash
}

function chunks(bytes: Uint8Array): ReadableStream<Uint8Array> {
  let at = 0
  return new ReadableStream({
    pull: (controller) => {
      if (at >= bytes.length) {
        controller.close()
        return
      }
      controller.enqueue(bytes.subarray(at, at + CHUNK_BYTES))
      at += CHUNK_BYTES
    },
  })
}
