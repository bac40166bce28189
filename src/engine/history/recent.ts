/**
 * Stores changes of the state, so that a moment of the last hour is found by few documents and few
 * facts. See docs/decisions/time-travel.md.
 *
 *   store     changes, with the list that names them
 *   whole     now and then the whole state of that position, made as a reader makes it
 *   drop      what is older than a snapshot leaves the list, and is deleted then
 *
 * What dies between two of them leaves documents that no list names: the next engine deletes them.
 */
import {
  type ChangesList,
  type ChangesPlace,
  changesKey,
  decodeChangesList,
  encodeChanges,
  encodeChangesList,
} from '../../../streams/changes.ts'
import { encodeSnapshot } from '../../../streams/snapshots.ts'
import { streamBounds } from '../../log/nats.ts'
import { gapsIn, isOfLog, stepsOf } from '../../log/past/changes.ts'
import { storedState } from '../../log/past/shard.ts'
import { findStretch } from '../../log/past/stretches.ts'
import type { Base } from './base.ts'
import type { Changed, Cut } from './changed.ts'
import type { SealerOptions } from './options.ts'
import { SNAPSHOT_MAX_BYTES } from './snapshots.ts'

/** A whole is due after so many changes, or when they have as many bytes as the last whole. */
const WHOLE_AFTER = 64
const WHOLE_BYTES = 512 * 1024
/** More is not kept, as when the base is too large for snapshots. */
const KEPT_MAX = 4096
const KEPT_MAX_BYTES = 512 * 1024 * 1024

type RecentOptions = Pick<SealerOptions, 'connection' | 'names' | 'shard' | 'snapshotEvery'> & {
  readonly changed: Pick<Changed, 'take'>
}

export class Recent {
  readonly #options: RecentOptions
  readonly #base: Base
  #all: ChangesPlace[] = []
  #next = 0
  /** The state was too large: it is tried again after so many changes. */
  #wholeAfter = 0

  constructor(options: RecentOptions, base: Base) {
    this.#options = options
    this.#base = base
  }

  async begin(): Promise<void> {
    const { connection, names, shard } = this.#options
    const bytes = await this.#base.store.read<unknown>(changesKey.list)
    const list = bytes instanceof Uint8Array ? decodeChangesList(bytes) : undefined
    this.#next = list?.next ?? 0
    this.#all = list && list.log === this.#base.manifest.log ? [...list.all] : []
    const { last } = await connection.read((nc) => streamBounds(nc, names.log(shard)))
    for (let place = this.#all.at(-1); place; place = this.#all.at(-1)) {
      if (await isOfLog(this.#options, shard, place, last)) break
      this.#all.pop()
    }
    if (list && this.#all.length < list.all.length) await this.#write()
    const named = new Set(this.#all.flatMap(keysOf))
    const stored = [...(await this.#base.keys('changes.')), ...(await this.#base.keys('whole.'))]
    await this.#purge(stored.filter((key) => !named.has(key)))
  }

  /** What is there to store. */
  async store(): Promise<void> {
    const { changed } = this.#options
    for (let cut = changed.take(); cut; cut = changed.take()) {
      // Those of an engine before this one say the same: this one has folded the facts again.
      if (cut.seq <= (this.#all.at(-1)?.seq ?? 0)) continue
      await this.#storeChanges(cut)
      await this.#storeWhole()
    }
  }

  /** Nobody looks behind this position any more. */
  async drop(upTo: number): Promise<void> {
    let bytes = this.#all.reduce((sum, place) => sum + sizeOf(place), 0)
    let count = 0
    for (const place of this.#all) {
      if (place.seq > upTo && this.#all.length - count <= KEPT_MAX && bytes <= KEPT_MAX_BYTES) break
      bytes -= sizeOf(place)
      count += 1
    }
    if (count === 0) return
    const dropped = this.#all.slice(0, count)
    this.#all = this.#all.slice(count)
    await this.#write()
    await this.#purge(dropped.flatMap(keysOf))
  }

  async #storeChanges({ from, seq, mark, changes }: Cut): Promise<void> {
    const n = this.#next
    const bytes = await encodeChanges(changes())
    this.#next += 1
    this.#all.push({ n, from, seq, mark, bytes: bytes.length })
    await this.#write({ key: changesKey.changes(n), bytes })
  }

  async #storeWhole(): Promise<void> {
    const { shard, snapshotEvery } = this.#options
    const { whole, changes } = stepsOf(this.#all)
    const last = changes.at(-1)
    const bytes = changes.reduce((sum, place) => sum + place.bytes, 0)
    const isDue = changes.length >= WHOLE_AFTER || bytes >= Math.max(WHOLE_BYTES, whole?.whole ?? 0)
    if (!last || !isDue || changes.length < this.#wholeAfter) return
    const found = await findStretch(this.#options, shard, { seq: last.seq })
    const steps = stepsOf(this.#all.filter(({ seq }) => seq > found.stretch.seq))
    // An hour of facts that an older version has folded: they are sealed before long.
    if (gapsIn(steps, found.stretch.seq) > 2 * snapshotEvery) return
    const state = await storedState(this.#options, shard, found, steps)
    const docs = state?.view.whole() ?? []
    const size = docs.reduce((sum, [key, doc]) => sum + key.length + (doc?.length ?? 0), 0)
    this.#wholeAfter = size > SNAPSHOT_MAX_BYTES ? 2 * changes.length : 0
    if (!state || size > SNAPSHOT_MAX_BYTES) return
    const encoded = await encodeSnapshot(docs)
    this.#all = this.#all.map((place) => (place.n === last.n ? { ...place, whole: encoded.length } : place))
    await this.#write({ key: changesKey.whole(last.n), bytes: encoded })
  }

  /** The list, and what it names from now on. */
  async #write(...documents: readonly { readonly key: string; readonly bytes: Uint8Array }[]): Promise<void> {
    const list: ChangesList = { v: 1, log: this.#base.manifest.log, next: this.#next, all: this.#all }
    await this.#base.write([...documents, { key: changesKey.list, bytes: encodeChangesList(list) }])
  }

  async #purge(keys: readonly string[]): Promise<void> {
    await this.#base.purge(keys.flatMap((key) => [key, `part.*.${key}`]))
  }
}

function keysOf({ n, whole }: ChangesPlace): string[] {
  return [changesKey.changes(n), ...(whole === undefined ? [] : [changesKey.whole(n)])]
}

function sizeOf({ bytes, whole = 0 }: ChangesPlace): number {
  return bytes + whole
}
