/**
 * The index of the history: sorted segments, each eight times as large as the one before. New
 * entries are merged with the smallest segments into the first one that has room for all of them.
 * So an entry is written some twenty times in its life, and whoever looks reads a page of each
 * segment.
 */
import {
  decodePage,
  encodePage,
  type HistoryManifest,
  historyKey,
  type IndexEntry,
  type IndexSegment,
  pageOf,
} from '../../../streams/history.ts'

const FIRST_LEVEL_ENTRIES = 4096
const LEVEL_FACTOR = 8
/** Entries on a page, on average: 3 KiB. */
const PAGE_ENTRIES = 256
const READ_AHEAD = 64
/** Pages that are handed over to be stored at a time. */
const WRITE_PAGES = 256

export interface PageStore {
  /** Pages, in the order of their keys. Throws where one is missing. */
  read(keys: readonly string[]): Promise<Uint8Array[]>
  write(pages: readonly { readonly key: string; readonly bytes: Uint8Array }[]): Promise<void>
}

/** What an insertion changes of the manifest, and the segments that are of no use after it. */
export interface Inserted extends Pick<HistoryManifest, 'levels' | 'nextSegment'> {
  readonly obsolete: readonly IndexSegment[]
}

/** Stores entries in a new segment. It counts when the manifest says so. */
export async function insertEntries(
  store: PageStore,
  { levels, nextSegment }: Pick<HistoryManifest, 'levels' | 'nextSegment'>,
  entries: readonly IndexEntry[],
  isGone: (pack: number) => boolean = () => false,
): Promise<Inserted> {
  if (entries.length === 0) return { levels, nextSegment, obsolete: [] }
  let level = 0
  let total = entries.length + (levels[0]?.entries ?? 0)
  while (total > FIRST_LEVEL_ENTRIES * LEVEL_FACTOR ** level) {
    level += 1
    total += levels[level]?.entries ?? 0
  }
  const obsolete = levels.slice(0, level + 1).filter((segment) => segment !== null)
  const bits = Math.max(0, Math.ceil(Math.log2(total / PAGE_ENTRIES)))
  const sources = [new Entries(entries), ...obsolete.map((segment) => new Pages(store, segment))]
  const written = await merge(store, { id: nextSegment, bits }, sources, isGone)
  const merged = { id: nextSegment, bits, entries: written }
  const after = [...Array.from({ length: level }, () => null), merged, ...levels.slice(level + 1)]
  return { levels: after, nextSegment: nextSegment + 1, obsolete }
}

/** Sorted entries, taken from the front. */
interface Sorted {
  /** All with hashes below this one that are left. */
  below(hash: bigint): Promise<IndexEntry[]>
}

/** How many entries it wrote. What the index says of packs that are gone is left out. */
async function merge(
  store: PageStore,
  { id, bits }: Pick<IndexSegment, 'id' | 'bits'>,
  sources: readonly Sorted[],
  isGone: (pack: number) => boolean,
): Promise<number> {
  const count = 2 ** bits
  let pages: { key: string; bytes: Uint8Array }[] = []
  let written = 0
  for (let n = 0; n < count; n++) {
    const end = BigInt(n + 1) << BigInt(64 - bits)
    const found: IndexEntry[] = []
    for (const source of sources)
      for (const entry of await source.below(end)) if (!isGone(entry.pack)) found.push(entry)
    found.sort(compare)
    written += found.length
    pages.push({ key: historyKey.page(id, n), bytes: encodePage(found) })
    if (pages.length < WRITE_PAGES && n < count - 1) continue
    await store.write(pages)
    pages = []
  }
  return written
}

function compare(a: IndexEntry, b: IndexEntry): number {
  if (a.hash !== b.hash) return a.hash < b.hash ? -1 : 1
  return a.pack - b.pack
}

class Entries implements Sorted {
  readonly #entries: IndexEntry[]
  #next = 0

  constructor(entries: readonly IndexEntry[]) {
    this.#entries = entries.toSorted(compare)
  }

  async below(hash: bigint): Promise<IndexEntry[]> {
    const from = this.#next
    while (this.#next < this.#entries.length && (this.#entries[this.#next]?.hash ?? hash) < hash) this.#next += 1
    return this.#entries.slice(from, this.#next)
  }
}

/** The entries of a segment, a few pages of it in memory. */
class Pages implements Sorted {
  readonly #store: PageStore
  readonly #segment: IndexSegment
  #page = 0
  #read: Uint8Array[] = []
  #left: IndexEntry[] = []

  constructor(store: PageStore, segment: IndexSegment) {
    this.#store = store
    this.#segment = segment
  }

  async below(hash: bigint): Promise<IndexEntry[]> {
    const { bits } = this.#segment
    // The page of the last hash that is wanted, and all before it.
    const last = pageOf(hash - 1n, bits)
    while (this.#page <= last) this.#left.push(...decodePage(await this.#nextPage()))
    let count = 0
    while (count < this.#left.length && (this.#left[count]?.hash ?? hash) < hash) count += 1
    return this.#left.splice(0, count)
  }

  async #nextPage(): Promise<Uint8Array> {
    if (this.#read.length === 0) {
      const { id, bits } = this.#segment
      const count = Math.min(READ_AHEAD, 2 ** bits - this.#page)
      this.#read = await this.#store.read(Array.from({ length: count }, (_, i) => historyKey.page(id, this.#page + i)))
    }
    this.#page += 1
    return this.#read.shift() ?? new Uint8Array()
  }
}
