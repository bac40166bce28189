/**
 * The history: each pack is there and can be read, each page of the index is there, sorted and
 * whole, and the index leads to all that a pack holds.
 */
import { FlowStoneError, messageOf } from '../../../streams/errors.ts'
import { decodePage, historyKey, type IndexSegment, pageOf, type SealedRun } from '../../../streams/history.ts'
import { directGetMany, leaderGet, type StoredMessage } from '../../log/nats.ts'
import { manifestOf } from '../../log/packs.ts'
import { docEntriesFor, entriesFor } from '../history/packing.ts'
import type { Check, ShardContext } from './check.ts'
import { Ledger } from './ledger.ts'

const CHECK = 'history'
const PAGES = 64
const TRIES = 5
const FROM_BACKUP = 'restore the history bucket from a backup: what was sealed is on no log any more'
const MISSING_MAX = 10_000

export class HistoryCheck implements Check {
  readonly #at: ShardContext
  readonly #index: Ledger
  #packs = 0
  #runs = 0
  #pages = 0
  #isBroken = false

  constructor(at: ShardContext) {
    this.#at = at
    this.#index = new Ledger(at.scratch)
  }

  pack(n: number, runs: readonly SealedRun[]): void {
    this.#packs += 1
    this.#runs += runs.length
    for (const sealed of runs) {
      const { run, facts } = sealed
      const of = run === '' ? `facts of no run in pack ${n}` : `run ${run} in pack ${n}`
      for (const { hash, pack } of entriesFor(run, facts, n)) this.#index.want(entryHash(hash, pack), of)
      for (const { hash } of docEntriesFor(sealed, n))
        this.#index.want(entryHash(hash, n), `a document of run ${run} in pack ${n}`)
    }
  }

  /** A pack that is gone, or cannot be read. */
  damaged(n: number, error: unknown): void {
    const { shard, findings } = this.#at
    const key = historyKey.pack(n)
    const message =
      error === undefined
        ? `${key} of the history is gone; the manifest says that there is one`
        : `${key} of the history cannot be read: ${messageOf(error)}`
    const kind = error === undefined ? 'pack_missing' : 'pack_damaged'
    const isNewer = error instanceof FlowStoneError && error.code === 'newer_version'
    const advice = isNewer ? 'verify with the version of FlowStone that wrote it' : FROM_BACKUP
    findings.add({ check: CHECK, kind, shard, document: key, message, advice })
  }

  /** All of it. */
  lost(message: string): void {
    const { shard, findings } = this.#at
    findings.add({ check: CHECK, kind: 'history_lost', shard, message, advice: FROM_BACKUP })
  }

  /** The document that says which packs there are. */
  manifestGone(): void {
    const key = historyKey.manifest
    this.#add('manifest_missing', key, `${key} of the history is gone, so nobody knows what is sealed`)
  }

  async finish(): Promise<void> {
    const { findings, shard } = this.#at
    await this.#readIndex()
    const said = new Set<string>()
    // Of a page that is gone or damaged that was said. Who is not found by it would be a long list.
    const compared = this.#isBroken ? [] : this.#index.compare()
    for (const found of compared) {
      if (!('missing' in found) || said.size >= MISSING_MAX || said.has(found.missing)) continue
      said.add(found.missing)
      const message = `the index of the history does not lead to ${found.missing}, which is there`
      findings.add({ check: CHECK, kind: 'index_incomplete', shard, message, advice: FROM_BACKUP })
    }
    findings.looked(CHECK, shard, { packs: this.#packs, runs: this.#runs, pages: this.#pages })
  }

  /** Segments are merged meanwhile: then it begins again with those that there are now. */
  async #readIndex(): Promise<void> {
    const { shard } = this.#at
    for (let attempt = 1; attempt <= TRIES; attempt++) {
      const manifest = await manifestOf(this.#at, shard)
      const segments = (manifest?.levels ?? []).filter((level) => level !== null)
      const missing: string[] = []
      for (const segment of segments) missing.push(...(await this.#readSegment(segment, manifest?.packs ?? 0)))
      if (missing.length === 0) return
      const now = await manifestOf(this.#at, shard)
      const isSame = now !== undefined && manifest !== undefined && now.nextSegment === manifest.nextSegment
      if (!isSame && attempt < TRIES) continue
      for (const key of missing) this.#add('page_missing', key, `${key}, a page of the index, is gone`)
      return
    }
  }

  /** Returns the pages that are gone. */
  async #readSegment(segment: IndexSegment, packs: number): Promise<string[]> {
    const count = 2 ** segment.bits
    const missing: string[] = []
    let entries = 0
    for (let from = 0; from < count; from += PAGES) {
      const numbers = Array.from({ length: Math.min(PAGES, count - from) }, (_, i) => from + i)
      const pages = await this.#read(numbers.map((n) => historyKey.page(segment.id, n)))
      for (const [i, page] of pages.entries()) {
        const n = from + i
        if (page) entries += this.#readPage(segment, n, page, packs)
        else missing.push(historyKey.page(segment.id, n))
      }
      await this.#at.pace.took(numbers.length)
    }
    if (missing.length === 0 && entries !== segment.entries) {
      const key = `index.${segment.id}`
      this.#add(
        'index_incomplete',
        key,
        `segment ${key} has ${entries} entries, and the manifest says ${segment.entries}`,
      )
    }
    return missing
  }

  #readPage({ id, bits }: IndexSegment, n: number, page: StoredMessage, packs: number): number {
    this.#pages += 1
    const key = historyKey.page(id, n)
    try {
      const entries = decodePage(page.payload)
      let before = 0n
      for (const { hash, pack } of entries) {
        if (hash < before || pageOf(hash, bits) !== n || pack >= packs) {
          this.#add('page_damaged', key, `${key}, a page of the index, holds what does not belong there`)
          break
        }
        before = hash
      }
      for (const { hash, pack } of entries) this.#index.add(entryHash(hash, pack), 0)
      return entries.length
    } catch (error) {
      this.#add('page_damaged', key, `${key}, a page of the index, cannot be read: ${messageOf(error)}`)
      return 0
    }
  }

  async #read(keys: readonly string[]): Promise<(StoredMessage | undefined)[]> {
    const { connection, names, shard } = this.#at
    const bucket = names.historyBucket(shard)
    const stream = names.kvStream(bucket)
    const subjects = keys.map((key) => names.kvSubject(bucket, key))
    const there = await connection.read((nc) => directGetMany(nc, stream, subjects))
    return await Promise.all(
      subjects.map(async (last_by_subj) => {
        const query = { last_by_subj }
        const found = there.get(last_by_subj) ?? (await connection.read((nc) => leaderGet(nc, stream, query)))
        return found?.headers.has('KV-Operation') ? undefined : found
      }),
    )
  }

  #add(kind: string, document: string, message: string): void {
    this.#isBroken = true
    const { shard, findings } = this.#at
    findings.add({ check: CHECK, kind, shard, document, message, advice: FROM_BACKUP })
  }
}

/** Of an entry as a whole: a hash that leads to another pack does not lead here. */
function entryHash(hash: bigint, pack: number): bigint {
  return BigInt.asUintN(64, hash ^ (BigInt(pack + 1) * 0x9e3779b185ebca87n))
}
