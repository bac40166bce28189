/** From states to pixels. Pure: writes into the pixels of a canvas, given as 32-bit numbers. */
import { TILE } from './cells.ts'
import { type Grid, placeOf } from './layout.ts'
import { CANCELLED, DONE, FAILED, GATE, RANKS, RETRYING, RUNNING, STATE_COUNT, sumOf, WAITING } from './states.ts'

/** Colours by the number of a state, as the canvas stores them. */
export interface Palette {
  readonly full: Uint32Array
  /** Of what a filter leaves out. */
  readonly dim: Uint32Array
}

/** What is shown in full colours. */
export interface Lit {
  /** Undefined: all states. */
  readonly state: number | undefined
  /** A byte an instance, 1 for those with an error; undefined: whatever their error. */
  readonly marked: Uint8Array | undefined
}

export const ALL_LIT: Lit = { state: undefined, marked: undefined }
/** Instances in a row of a tile. */
const ROW = 100

/** `rgb(34, 104, 82)` as the canvas stores it: alpha, blue, green, red. */
export function colourOf(css: string): number {
  const [r = 0, g = 0, b = 0] = (css.match(/[\d.]+/g) ?? []).map((part) => Math.round(Number(part)))
  return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0
}

export function mixed(colour: number, ground: number, share: number): number {
  const part = (shift: number): number =>
    Math.round(((colour >>> shift) & 255) * share + ((ground >>> shift) & 255) * (1 - share)) << shift
  return ((255 << 24) | part(16) | part(8) | part(0)) >>> 0
}

export function isLit(lit: Lit, i: number, state: number): boolean {
  return (
    (lit.state === undefined || lit.state === state) &&
    (lit.marked === undefined || (state === FAILED && lit.marked[i] === 1))
  )
}

export interface Shown {
  readonly states: Uint8Array
  /** How many there will be. Those whose keys are not stored yet wait. */
  readonly limit: number
}

/** Draws one tile from the states of all. Beyond the last instance nothing is. */
export function paintTile(
  pixels: Uint32Array,
  grid: Grid,
  tile: number,
  { states, limit }: Shown,
  { full, dim }: Palette,
  lit: Lit,
): void {
  const { x, y } = placeOf(grid, tile)
  const { side, width } = grid
  const begin = tile * TILE
  const end = Math.min(limit, begin + TILE)
  fillSquare(pixels, grid, tile, 0)
  if (side >= ROW) {
    // Each instance has a pixel, or more.
    for (let row = 0; row < side; row++) {
      const first = begin + Math.floor((row * ROW) / side) * ROW
      const line = (y + row) * width + x
      for (let column = 0; column < side; column++) {
        const i = first + Math.floor((column * ROW) / side)
        if (i >= end) break
        const state = states[i] ?? WAITING
        pixels[line + column] = (isLit(lit, i, state) ? full : dim)[state] ?? 0
      }
    }
    return
  }
  // Several share one: the worst of those in full colours, else of the others.
  const worst = new Uint8Array(side * side)
  for (let i = begin; i < end; i++) {
    const place = i - begin
    const row = Math.floor((Math.floor(place / ROW) * side) / ROW)
    const column = Math.floor(((place % ROW) * side) / ROW)
    const state = states[i] ?? WAITING
    const isFull = isLit(lit, i, state)
    const rank = (RANKS[state] ?? 0) + (isFull ? 8 : 0)
    const at = row * side + column
    if (rank <= (worst[at] ?? 0)) continue
    worst[at] = rank
    pixels[(y + row) * width + x + column] = (isFull ? full : dim)[state] ?? 0
  }
}

/** What fills a tile of counts, from its top: the worst first, at the same place in all. */
const STACKED = [FAILED, RETRYING, GATE, RUNNING, DONE, CANCELLED, WAITING] as const

/** Draws a tile of which only counts are known: their shares, and of none that is there nothing. */
export function paintSummary(
  pixels: Uint32Array,
  grid: Grid,
  tile: number,
  counts: readonly number[],
  { full, dim }: Palette,
  lit: Lit,
): void {
  const { x, y } = placeOf(grid, tile)
  const { side, width } = grid
  const areas = shareOut(counts, side * side)
  let at = 0
  for (const state of STACKED) {
    const colour = (lit.state === undefined || lit.state === state ? full : dim)[state] ?? 0
    for (const until = at + (areas[state] ?? 0); at < until; at++)
      pixels[(y + Math.floor(at / side)) * width + x + (at % side)] = colour
  }
}

/** Divides an area by counts. Whatever is there gets one at least; the largest gives way. */
export function shareOut(counts: readonly number[], area: number): number[] {
  const all = sumOf(counts)
  const shares = new Array<number>(STATE_COUNT).fill(0)
  if (all === 0) {
    shares[WAITING] = area
    return shares
  }
  for (let state = 0; state < STATE_COUNT; state++) {
    const n = counts[state] ?? 0
    shares[state] = n === 0 ? 0 : Math.max(1, Math.floor((n / all) * area))
  }
  const largest = shares.indexOf(Math.max(...shares))
  shares[largest] = (shares[largest] ?? 0) + area - sumOf(shares)
  return shares
}

/** Draws one cell: an instance of an open tile. */
export function paintCell(pixels: Uint32Array, grid: Grid, cell: number, colour: number): void {
  fillSquare(pixels, grid, cell, colour)
}

function fillSquare(pixels: Uint32Array, grid: Grid, i: number, colour: number): void {
  const { x, y } = placeOf(grid, i)
  for (let row = 0; row < grid.side; row++) {
    const line = (y + row) * grid.width + x
    pixels.fill(colour, line, line + grid.side)
  }
}
