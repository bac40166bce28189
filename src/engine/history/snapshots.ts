/**
 * Keeps the base as it was, now and then, and says which packs hold the facts in between. So the
 * state at any earlier position is a snapshot, and few facts. See docs/decisions/time-travel.md.
 *
 *   place     the packs of a wave are noted in the stretches of their facts: with its checkpoint
 *   take      a copy of the base is written: nothing refers to it
 *   begin     the next stretch is stored with the position of the base
 *
 * What dies between two of them leaves a copy that the next engine writes again under its number.
 */

import { PAST_KINDS } from '../../../projections/past.ts'
import type { Fact } from '../../../streams/facts.ts'
import type { HistoryManifest, SealedFact } from '../../../streams/history.ts'
import {
  encodeSnapshot,
  type SnapshotDoc,
  type Stretch,
  type Stretches,
  snapshotKey,
} from '../../../streams/snapshots.ts'
import type { Names } from '../../../streams/subjects.ts'
import { zstdDecompressSync } from '../../../streams/zstd.ts'
import type { Connection } from '../../log/connection.ts'
import { joinParts, partsSaid } from '../../log/document-parts.ts'
import { ENCODING_HEADER } from '../../log/documents.ts'
import { messagesUnder } from '../../log/messages-under.ts'
import type { StoredMessage } from '../../log/nats.ts'
import type { Mark } from '../shard/position.ts'
import type { Base } from './base.ts'

/** A snapshot is due after so many bytes of facts, if not for their number. */
const EVERY_BYTES = 32 * 1024 * 1024
/** And after so many bytes for each of its own: what snapshots take is a part of what facts do. */
const BYTES_FOR_ONE = 4
/** A base that is larger than this is not copied: it would not fit the memory of an engine. */
export const SNAPSHOT_MAX_BYTES = 32 * 1024 * 1024
/** Of a fact, where nothing better is known. */
const FACT_BYTES = 256

interface SnapshotsOptions {
  readonly connection: Connection
  readonly names: Names
  readonly shard: number
  readonly snapshotEvery: number
}

export class Snapshots {
  readonly #options: SnapshotsOptions
  readonly #base: Base
  /** Where each stretch begins. The first one that is kept has this number. */
  #starts: number[] = []
  #first = 0
  /** By number of a stretch: the packs of this wave, with the number of facts. */
  readonly #placed = new Map<number, Map<number, number>>()
  #kept: SealedFact[] = []
  #facts = 0
  #bytes = 0
  #size = 0
  /** Facts of the newest stretch were pruned: it cannot be travelled to any more. */
  #isDamaged = false

  constructor(options: SnapshotsOptions, base: Base) {
    this.#options = options
    this.#base = base
  }

  async begin(): Promise<void> {
    const { store } = this.#base
    const stretches = await store.read<Stretches>(snapshotKey.stretches)
    if (!stretches) {
      // What was sealed before cannot be travelled to.
      const { seq, mark } = this.#base
      await this.#begin(0, seq, mark?.ms ?? 0)
      return
    }
    this.#first = stretches.first
    const numbers = Array.from({ length: stretches.next - stretches.first }, (_, i) => stretches.first + i)
    const found = await this.#stretches()
    this.#starts = numbers.map((n) => found.get(n)?.seq ?? Number.NaN)
    const last = found.get(stretches.next - 1)
    this.#facts = (last?.packs ?? []).reduce((sum, [, facts]) => sum + facts, 0)
    this.#bytes = this.#facts * FACT_BYTES
  }

  /** Where the stretch before the newest one begins. Nobody folds from before it to the present. */
  get previousStart(): number {
    return this.#starts.at(-2) ?? 0
  }

  /** Of facts of no run: those that change what can be travelled to. */
  keep(fact: Fact, sealed: SealedFact): void {
    if (/^(schedule|sensor)\./.test(fact.name)) this.#kept.push(sealed)
  }

  /** Since the last time. They go into a pack. */
  takeKept(): SealedFact[] {
    const kept = this.#kept
    this.#kept = []
    return kept
  }

  /** A pack was stored that holds these. */
  place(pack: number, facts: readonly Pick<SealedFact, 'seq'>[]): void {
    for (const { seq } of facts) {
      const n = this.#stretchOf(seq)
      if (n === undefined) continue
      const packs = this.#placed.get(n) ?? new Map<number, number>()
      packs.set(pack, (packs.get(pack) ?? 0) + 1)
      this.#placed.set(n, packs)
    }
  }

  /** Part of the checkpoint that says that the packs are there. */
  async putPlaced(facts: number, bytes: number): Promise<void> {
    const { store } = this.#base
    this.#facts += facts
    this.#bytes += bytes
    for (const [n, packs] of this.#placed) {
      const key = snapshotKey.stretch(n)
      if (!store.has(key)) await store.load([key])
      const stretch = store.get<Stretch>(key)
      if (stretch) store.put<Stretch>(key, { ...stretch, packs: [...stretch.packs, ...packs] })
    }
    this.#placed.clear()
  }

  /** After a checkpoint: the bucket has the base as it is at `seq`. */
  async takeIfDue(seq: number, mark: Mark | undefined, manifest: HistoryManifest): Promise<void> {
    const isDue = this.#isDamaged || this.#facts >= this.#options.snapshotEvery || this.#bytes >= EVERY_BYTES
    if (!isDue || this.#bytes < this.#size * BYTES_FOR_ONE) return
    if (await this.#begin(this.#first + this.#starts.length, seq, mark?.ms ?? 0))
      await this.#base.checkpoint(seq, mark, manifest)
  }

  /**
   * Drops the oldest stretches, as far as packs of them are gone: nobody can travel there any more.
   * Part of the next checkpoint. Returns the keys of their snapshots, which are to be taken away.
   */
  async dropOldest(isGone: (pack: number) => boolean): Promise<string[]> {
    const { store } = this.#base
    const dropped: string[] = []
    while (this.#starts.length > 1) {
      const key = snapshotKey.stretch(this.#first)
      if (!store.has(key)) await store.load([key])
      if (!store.get<Stretch>(key)?.packs.some(([pack]) => isGone(pack))) break
      store.delete<Stretch>(key)
      dropped.push(snapshotKey.snapshot(this.#first))
      this.#starts.shift()
      this.#first += 1
    }
    const last = snapshotKey.stretch(this.#first + this.#starts.length - 1)
    if (!store.has(last)) await store.load([last])
    if (store.get<Stretch>(last)?.packs.some(([pack]) => isGone(pack))) this.#isDamaged = true
    const stretches = { v: 1, first: this.#first, next: this.#first + this.#starts.length } as const
    if (dropped.length > 0) store.put<Stretches>(snapshotKey.stretches, stretches)
    return dropped
  }

  /** Writes a snapshot, and puts the stretch that begins with it. False: it is too large. */
  async #begin(n: number, seq: number, ms: number): Promise<boolean> {
    this.#isDamaged = false
    this.#facts = 0
    this.#bytes = 0
    if (seq > 0) {
      const docs = await this.#docs()
      if (!docs) return false
      const bytes = await encodeSnapshot(docs)
      await this.#base.write([{ key: snapshotKey.snapshot(n), bytes }])
      this.#size = bytes.length
    }
    const { store } = this.#base
    if (this.#starts.length === 0) this.#first = n
    this.#starts.push(seq)
    store.put<Stretch>(snapshotKey.stretch(n), { seq, ms, packs: [] })
    store.put<Stretches>(snapshotKey.stretches, { v: 1, first: this.#first, next: n + 1 })
    return true
  }

  /** The number of the stretch of a fact; undefined when that is not kept. */
  #stretchOf(seq: number): number | undefined {
    let [low, high] = [0, this.#starts.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if ((this.#starts[middle] ?? 0) < seq) low = middle + 1
      else high = middle
    }
    return low === 0 ? undefined : this.#first + low - 1
  }

  async #stretches(): Promise<ReadonlyMap<number, Stretch>> {
    const found = new Map<number, Stretch>()
    const keys = await this.#base.keys('stretch.')
    await Promise.all(
      keys.map(async (key) => {
        const stretch = await this.#base.store.read<Stretch>(key)
        if (stretch) found.set(Number(key.slice('stretch.'.length)), stretch)
      }),
    )
    return found
  }

  /** Undefined when they are too large. */
  async #docs(): Promise<SnapshotDoc[] | undefined> {
    const { connection, names, shard } = this.#options
    const bucket = names.historyBucket(shard)
    const prefix = names.kvSubject(bucket, '')
    const filters = [...PAST_KINDS].flatMap((kind) => [`${prefix}${kind}.>`, `${prefix}part.*.${kind}.>`])
    const messages = new Map<string, StoredMessage>()
    let bytes = 0
    for await (const message of messagesUnder(connection, names.kvStream(bucket), filters)) {
      const { headers, payload } = message
      if (headers.has('KV-Operation') || headers.has('Nats-Marker-Reason')) continue
      bytes += payload.length
      if (bytes > SNAPSHOT_MAX_BYTES) return undefined
      messages.set(message.subject.slice(prefix.length), message)
    }
    const docs: SnapshotDoc[] = (await this.#base.keys('pipeline.')).map((key) => [key, undefined])
    for (const [key, message] of messages) {
      if (key.startsWith('part.')) continue
      const read = async (part: string): Promise<StoredMessage | undefined> => messages.get(part)
      const whole = partsSaid(message) === 1 ? message : await joinParts(key, message, read)
      if (!whole) throw new Error(`document ${key} of the base is not whole`)
      const isPlain = message.headers.get(ENCODING_HEADER) !== 'zstd'
      docs.push([key, isPlain ? whole.payload : new Uint8Array(zstdDecompressSync(whole.payload))])
    }
    return docs
  }
}
