/** Which objects of the namespace's object store a fact or a document names. */
import { decode } from './codec.ts'

const MARK = Buffer.from('manager')

/** The name of an object, as the I/O manager `nats` gives it. */
export function blobName(hash: string, encoding?: string): string {
  return encoding === undefined ? hash : `${hash}-${encoding}`
}

/**
 * Names of objects in an encoded fact. A user's value that looks like a reference counts as one:
 * that keeps an object, and loses none. Nothing is named by bytes that cannot be read.
 */
export function blobsIn(payload: Uint8Array, contentType: string | undefined): string[] {
  const bytes = Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength)
  if (!bytes.includes(MARK)) return []
  try {
    return blobsOf(decode(payload, contentType))
  } catch {
    return []
  }
}

/** The same of what is decoded. */
export function blobsOf(value: unknown): string[] {
  const found = new Set<string>()
  collect(value, found)
  return [...found]
}

function collect(value: unknown, found: Set<string>): void {
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return
  if (Array.isArray(value)) {
    for (const member of value) collect(member, found)
    return
  }
  const { manager, ref } = value as { manager?: unknown; ref?: unknown }
  if (manager === 'nats' && typeof ref === 'object' && ref !== null) {
    const { hash, encoding } = ref as { hash?: unknown; encoding?: unknown }
    if (typeof hash === 'string') found.add(blobName(hash, encoding === 'zstd' ? encoding : undefined))
  }
  for (const member of Object.values(value)) collect(member, found)
}
