/**
 * The states of all instances, one byte each, and which tiles have changed since they were drawn.
 * No DOM: maps and ranges of the API come in as they are.
 */
import { STATE_COUNT, UNCHANGED } from './states.ts'

/** Instances of a tile of the map. */
export const TILE = 10_000
/** Of a scatter that is too large for a map. */
export const LARGE_TILE = 100_000
export const MAP_MAX = 10_000_000

/** Of `map` and `ranges` events, and of `/scatters/:scatter/map`. */
export interface MapPart {
  readonly from: number
  readonly length: number
  /** Base64 of the runs. */
  readonly runs: string
}

/**
 * Writes runs into `states` from `from` on, in place. `onChange` gets each piece that was written.
 * Returns where it ended. What is beyond `states` is left out.
 */
export function writeRuns(
  bytes: Uint8Array,
  states: Uint8Array,
  from: number,
  onChange: (begin: number, end: number) => void,
): number {
  let at = from
  for (let i = 0; i < bytes.length; ) {
    // By multiplication: long runs have more than 32 bits.
    let number = 0
    for (let factor = 1; ; factor *= 128) {
      const byte = bytes[i++] ?? 0
      number += (byte & 127) * factor
      if (byte < 128) break
    }
    const state = number % 8
    const end = Math.min(states.length, at + (number - state) / 8 + 1)
    if (state !== UNCHANGED && end > at) {
      if (end - at === 1) states[at] = state
      else states.fill(state, at, end)
      onChange(at, end)
    }
    at = end
  }
  return at
}

export function bytesOf(base64: string): Uint8Array {
  const text = atob(base64)
  const bytes = new Uint8Array(text.length)
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i)
  return bytes
}

export class Cells {
  #bytes = new Uint8Array(0)
  #length = 0
  readonly #dirty = new Set<number>()
  #isAllDirty = true
  readonly #listeners = new Set<() => void>()

  get length(): number {
    return this.#length
  }

  /** A byte an instance: its state. */
  get states(): Uint8Array {
    return this.#bytes.subarray(0, this.#length)
  }

  /** A whole map takes the place of what was there. */
  load(part: MapPart): void {
    this.#grow(part.from + part.length)
    this.#length = part.from + part.length
    writeRuns(bytesOf(part.runs), this.states, part.from, () => {})
    this.#isAllDirty = true
    this.#say()
  }

  /** What has changed of it. Instances may be new. */
  apply(part: MapPart): void {
    const end = part.from + part.length
    if (end > this.#length) {
      this.#grow(end)
      this.#length = end
    }
    writeRuns(bytesOf(part.runs), this.states, part.from, (begin, until) => {
      for (let tile = Math.floor(begin / TILE); tile * TILE < until; tile++) this.#dirty.add(tile)
    })
    this.#say()
  }

  /** Calls `on` after each change. Returns how to stop. */
  listen(on: () => void): () => void {
    this.#listeners.add(on)
    return () => {
      this.#listeners.delete(on)
    }
  }

  /** Which tiles are to be drawn anew, and no longer from now on. */
  takeDirty(): 'all' | ReadonlySet<number> {
    const taken = this.#isAllDirty ? 'all' : new Set(this.#dirty)
    this.#isAllDirty = false
    this.#dirty.clear()
    return taken
  }

  /** How many of [from, to) are in each state, by its number. */
  countsOf(from: number, to: number): number[] {
    const counts = new Array<number>(STATE_COUNT).fill(0)
    const end = Math.min(to, this.#length)
    for (let i = from; i < end; i++) {
      const state = this.#bytes[i] ?? 0
      counts[state] = (counts[state] ?? 0) + 1
    }
    return counts
  }

  #say(): void {
    for (const on of this.#listeners) on()
  }

  /** Twice the room at once: keys come in many pieces. */
  #grow(length: number): void {
    if (length <= this.#bytes.length) return
    const larger = new Uint8Array(Math.max(length, Math.min(MAP_MAX, this.#bytes.length * 2)))
    larger.set(this.states)
    this.#bytes = larger
  }
}
