/**
 * Documents that are larger than a message may be, such as the run of a pipeline with thousands of
 * assets. The first part is stored under the key of the document, and has the number of parts. The
 * others are stored under `part.<n>.<key>`. All parts carry the hash of the whole document. So a
 * reader notices parts of different checkpoints, and reads again.
 */
import { hashBytes64 } from '../../streams/ids.ts'
import type { StoredMessage } from './nats.ts'

/** Room for subject and headers. */
const MARGIN_BYTES = 4096
const COUNT_HEADER = 'Fs-Parts'
const HASH_HEADER = 'Fs-Parts-Of'
const PARTS_MAX = 10_000

export function partKey(key: string, n: number): string {
  return `part.${n}.${key}`
}

export function partsOf(
  key: string,
  payload: Uint8Array,
  maxPayload: number,
): { readonly key: string; readonly payload: Uint8Array; readonly headers?: Readonly<Record<string, string>> }[] {
  const size = Math.max(1024, maxPayload - MARGIN_BYTES)
  if (payload.length <= size) return [{ key, payload }]
  const count = Math.ceil(payload.length / size)
  const headers = { [COUNT_HEADER]: String(count), [HASH_HEADER]: hashBytes64(payload) }
  return Array.from({ length: count }, (_, n) => ({
    key: n === 0 ? key : partKey(key, n),
    payload: payload.subarray(n * size, (n + 1) * size),
    headers,
  }))
}

/** In how many parts the document is of which this is the first. */
export function partsSaid(message: StoredMessage): number {
  const count = Number(message.headers.get(COUNT_HEADER) ?? 1)
  return Number.isInteger(count) && count > 1 && count <= PARTS_MAX ? count : 1
}

/** The whole document; undefined when its parts do not belong together. */
export async function joinParts(
  key: string,
  first: StoredMessage,
  read: (key: string) => Promise<StoredMessage | undefined>,
): Promise<StoredMessage | undefined> {
  const hash = first.headers.get(HASH_HEADER)
  const payloads = [first.payload]
  for (let n = 1; n < partsSaid(first); n++) {
    const part = await read(partKey(key, n))
    if (part?.headers.get(HASH_HEADER) !== hash) return undefined
    payloads.push(part?.payload ?? new Uint8Array())
  }
  const payload = new Uint8Array(Buffer.concat(payloads))
  return hashBytes64(payload) === hash ? { ...first, payload } : undefined
}
