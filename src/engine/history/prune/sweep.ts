/**
 * Takes away what pruning has left: old packs, pages of lists, and objects that nothing names any
 * more. It is a document of the base until that is done, so an engine that dies leaves it to the
 * next one.
 */
import { historyKey } from '../../../../streams/history.ts'
import { retentionKey } from '../../../../streams/retention.ts'
import { Blobs } from '../../../io/blobs.ts'
import type { Base } from '../base.ts'
import { forgetKeys } from '../forget.ts'
import type { SealerOptions } from '../options.ts'
import { graceOf, isLate } from '../waves.ts'
import { NamedBlobs } from './named-blobs.ts'

/** What is still to be taken away. */
export interface PruneWave {
  readonly v: 1
  /** The server's time. */
  readonly atMs: number
  readonly packs?: readonly number[]
  readonly pages?: readonly string[]
  /** Documents of the base. */
  readonly docs?: readonly string[]
  readonly blobs?: readonly string[]
}

/** Objects in one document. */
const BLOBS_MAX = 4000
/** Objects that are looked at, and taken away, in one step. */
const BLOBS_STEP = 100
const PACKS_STEP = 16
/** While it is not known what is named, nothing is asked for so long. */
const UNKNOWN_MS = 5000

export class Sweep {
  readonly #options: SealerOptions
  readonly #base: Base
  readonly #waves = new Map<string, PruneWave>()
  #next = 0
  #askAtMs = 0

  constructor(options: SealerOptions, base: Base) {
    this.#options = options
    this.#base = base
  }

  async begin(): Promise<void> {
    for (const key of (await this.#base.keys('prune.')).toSorted()) {
      const wave = await this.#base.store.read<PruneWave>(key)
      if (wave) this.#waves.set(key, wave)
      this.#next = Number(key.slice('prune.'.length)) + 1
    }
  }

  /** Part of the next checkpoint of the base. What it returns is to be kept behind that. */
  put(atMs: number, { blobs, ...rest }: Omit<Required<PruneWave>, 'v' | 'atMs'>): ReadonlyMap<string, PruneWave> {
    const waves: PruneWave[] = [{ v: 1, atMs, ...rest }]
    for (let i = 0; i < blobs.length; i += BLOBS_MAX) waves.push({ v: 1, atMs, blobs: blobs.slice(i, i + BLOBS_MAX) })
    const byKey = new Map(waves.map((wave) => [retentionKey.wave(this.#next++), wave]))
    for (const [key, wave] of byKey) this.#base.store.put<PruneWave>(key, wave)
    return byKey
  }

  /** They are stored: nothing counts any more of what they take away. */
  async keep(waves: ReadonlyMap<string, PruneWave>): Promise<void> {
    const nowMs = this.#options.clock.now()
    let isChanged = false
    for (const [key, wave] of waves) {
      const late = isLate(wave.atMs, nowMs) ? { ...wave, atMs: nowMs } : undefined
      this.#waves.set(key, late ?? wave)
      if (!late) continue
      this.#base.store.put<PruneWave>(key, late)
      isChanged = true
    }
    if (isChanged) await this.#base.checkpoint(this.#base.seq, undefined, this.#base.manifest)
  }

  /** Takes some away. Says whether there is more that can be taken away now. */
  async step(): Promise<boolean> {
    const { clock, afterMs } = this.#options
    for (const [key, wave] of this.#waves) {
      if (wave.atMs + graceOf(afterMs) > clock.now()) return false
      if (wave.packs || wave.pages) {
        if (!(await this.#dropPacks(key, wave))) return false
        return true
      }
      if (performance.now() < this.#askAtMs) continue
      if (await this.#dropBlobs(key, wave)) return true
    }
    return false
  }

  /** False: the state has to be stored first. */
  async #dropPacks(key: string, wave: PruneWave): Promise<boolean> {
    if (wave.pages && wave.pages.length > 0 && !(await forgetKeys(this.#options, wave.pages))) return false
    const { packs = [], docs = [] } = wave
    await this.#base.purge(docs.flatMap((key) => [key, `part.*.${key}`]))
    for (const n of packs.slice(0, PACKS_STEP))
      await this.#base.purge([historyKey.pack(n), `part.*.${historyKey.pack(n)}`])
    const left = packs.slice(PACKS_STEP)
    await this.#store(key, left.length > 0 ? { ...wave, packs: left, pages: [], docs: [] } : undefined)
    return true
  }

  /** False: it is not known yet what is named. */
  async #dropBlobs(key: string, wave: PruneWave): Promise<boolean> {
    const { connection, names, shards, afterMs } = this.#options
    const named = await NamedBlobs.of({ connection, names, shards }, wave.atMs + graceOf(afterMs))
    if (!named) {
      this.#askAtMs = performance.now() + Math.min(UNKNOWN_MS, afterMs)
      return false
    }
    const { blobs = [] } = wave
    const unnamed = await named.unnamed(blobs.slice(0, BLOBS_STEP))
    // The index was merged meanwhile: at the next look it is known again.
    if (!unnamed) return false
    const store = new Blobs(connection, names.blobBucket)
    for (const name of unnamed) await store.remove(name, wave.atMs)
    const left = blobs.slice(BLOBS_STEP)
    await this.#store(key, left.length > 0 ? { ...wave, blobs: left } : undefined)
    return true
  }

  async #store(key: string, wave: PruneWave | undefined): Promise<void> {
    if (wave) this.#base.store.put<PruneWave>(key, wave)
    else this.#base.store.delete<PruneWave>(key)
    await this.#base.checkpoint(this.#base.seq, undefined, this.#base.manifest)
    if (wave) this.#waves.set(key, wave)
    else this.#waves.delete(key)
  }
}
