/**
 * Finds objects of the object store that nothing names. A process died between storing a value and
 * the fact that names it, or while it took one away.
 */
import { Blobs, type StoredBlob } from '../../../io/blobs.ts'
import { type BlobSource, NamedBlobs } from './named-blobs.ts'

/** What `flow.retention.gc` found. */
export interface Strays {
  readonly objects: number
  readonly bytes: number
}

const AT_ONCE = 200
/** The index may be merged while it is read. */
const TRIES = 5

/**
 * Takes strays away that were stored before `beforeMs`; or only counts them. Undefined while it
 * cannot be known what is named.
 */
export async function takeStrays(source: BlobSource, beforeMs: number, isDry: boolean): Promise<Strays | undefined> {
  const store = new Blobs(source.connection, source.names.blobBucket)
  let named = await NamedBlobs.of(source, beforeMs)
  if (!named) return undefined
  let [objects, bytes] = [0, 0]
  const known = new Set<string>()
  let some: StoredBlob[] = []
  const take = async (): Promise<boolean> => {
    let unnamed: readonly string[] | undefined
    for (let i = 0; i < TRIES && named && !unnamed; i++) {
      unnamed = await named.unnamed(some.map(({ name }) => name))
      if (!unnamed) named = await NamedBlobs.of(source, beforeMs)
    }
    if (!unnamed) return false
    const strays = new Set(unnamed)
    for (const { name, size } of some) {
      if (!strays.has(name) || !(isDry || (await store.remove(name, beforeMs)))) continue
      objects += 1
      bytes += size
    }
    some = []
    return true
  }
  for await (const blob of store.list()) {
    known.add(blob.nuid)
    if (blob.timeMs >= beforeMs) continue
    some.push(blob)
    if (some.length >= AT_ONCE && !(await take())) return undefined
  }
  if (!(await take())) return undefined
  const half = await store.takeHalves(known, beforeMs, isDry)
  return { objects: objects + half.objects, bytes: bytes + half.bytes }
}
