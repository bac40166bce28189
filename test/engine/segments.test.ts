import { describe, expect, it } from 'vitest'
import { insertEntries, type PageStore } from '../../src/engine/history/segments.ts'
import {
  decodePage,
  type HistoryManifest,
  historyKey,
  type IndexEntry,
  type IndexSegment,
  indexHash,
  packsIn,
  pageOf,
} from '../../streams/history.ts'

/** Pages in memory. */
class Kept implements PageStore {
  readonly pages = new Map<string, Uint8Array>()

  async read(keys: readonly string[]): Promise<Uint8Array[]> {
    return keys.map((key) => {
      const page = this.pages.get(key)
      if (!page) throw new Error(`no page ${key}`)
      return page
    })
  }

  async write(pages: readonly { readonly key: string; readonly bytes: Uint8Array }[]): Promise<void> {
    for (const { key, bytes } of pages) this.pages.set(key, bytes)
  }

  drop({ id, bits }: IndexSegment): void {
    for (let n = 0; n < 2 ** bits; n++) this.pages.delete(historyKey.page(id, n))
  }
}

type Index = Pick<HistoryManifest, 'levels' | 'nextSegment'>

function find(store: Kept, { levels }: Index, hash: bigint): number[] {
  const packs = levels.flatMap((level) => {
    if (level === null) return []
    const page = store.pages.get(historyKey.page(level.id, pageOf(hash, level.bits)))
    if (!page) throw new Error('a page is missing')
    return packsIn(page, hash)
  })
  return packs.toSorted((a, b) => a - b)
}

describe('the index of the history', () => {
  it('finds all that was ever put into it, and nothing else', async () => {
    const store = new Kept()
    let index: Index = { levels: [], nextSegment: 0 }
    const expected = new Map<bigint, number[]>()
    for (let pack = 0; pack < 60; pack++) {
      const entries: IndexEntry[] = Array.from({ length: 700 }, (_, i) => ({
        hash: indexHash.run(`${pack}-${i}`),
        pack,
      }))
      // One that is in many packs.
      entries.push({ hash: indexHash.run('large'), pack })
      for (const { hash } of entries) expected.set(hash, [...(expected.get(hash) ?? []), pack])
      const { obsolete, ...next } = await insertEntries(store, index, entries)
      for (const segment of obsolete) store.drop(segment)
      index = next
    }
    for (const [hash, packs] of expected) expect(find(store, index, hash)).toEqual(packs)
    expect(find(store, index, indexHash.run('nowhere'))).toEqual([])
    const segments = index.levels.filter((level) => level !== null)
    expect(segments.reduce((sum, { entries }) => sum + entries, 0)).toBe(60 * 701)
    expect(segments.length).toBeLessThanOrEqual(3)
    const pages = segments.reduce((sum, { bits }) => sum + 2 ** bits, 0)
    expect(store.pages.size).toBe(pages)
    expect(Math.max(...[...store.pages.values()].map((page) => decodePage(page).length))).toBeLessThan(512)
  })

  it('keeps what it had when nothing is put into it', async () => {
    const index: Index = { levels: [], nextSegment: 3 }
    expect(await insertEntries(new Kept(), index, [])).toEqual({ ...index, obsolete: [] })
  })
})
