/**
 * Draws a map on a canvas: once a frame at most, and only tiles that have changed. A hidden tab has
 * no frames, so it draws nothing.
 */
import { paint } from '../state/theme.ts'
import { type Cells, TILE } from './cells.ts'
import { type Grid, placeOf } from './layout.ts'
import { colourOf, isLit, type Lit, mixed, type Palette, paintCell, paintSummary, paintTile } from './pixels.ts'
import { UI_STATES, WAITING } from './states.ts'

export type MapView =
  /** Tiles of all instances. */
  | { readonly kind: 'tiles'; readonly cells: Cells; readonly limit: number }
  /** Tiles of which only counts are known. */
  | { readonly kind: 'summaries'; readonly tiles: readonly (readonly number[])[] }
  /** The instances [from, to) of one tile. */
  | { readonly kind: 'cells'; readonly cells: Cells; readonly from: number; readonly to: number }
  /** The same, of a range that was read by itself. */
  | { readonly kind: 'range'; readonly states: Uint8Array; readonly from: number; readonly to: number }

export interface Picture {
  readonly view: MapView
  readonly grid: Grid
  readonly lit: Lit
  readonly palette: Palette
}

const DIM_SHARE = 0.16
/** With more of them, all are sent to the canvas at once. */
const PIECES_MAX = 30

export function paletteNow(): Palette {
  const ground = colourOf(paint('--surface'))
  const full = UI_STATES.map((state) => colourOf(paint(`--map-${state}`)))
  return {
    full: Uint32Array.from(full),
    dim: Uint32Array.from(full, (colour) => mixed(colour, ground, DIM_SHARE)),
  }
}

export class Painter {
  readonly #canvas: HTMLCanvasElement
  #picture: Picture | undefined
  #image: ImageData | undefined
  #frame: number | undefined

  constructor(canvas: HTMLCanvasElement) {
    this.#canvas = canvas
  }

  /** Draws all of it, in this frame. */
  show(picture: Picture): void {
    this.#picture = picture
    const { grid } = picture
    if (this.#canvas.width !== grid.width || this.#canvas.height !== grid.height || !this.#image) {
      this.#canvas.width = grid.width
      this.#canvas.height = grid.height
      this.#image = grid.width > 0 && grid.height > 0 ? new ImageData(grid.width, grid.height) : undefined
    }
    if ('cells' in picture.view) picture.view.cells.takeDirty()
    this.#draw('all')
  }

  /** Draws what has changed, in the next frame. */
  touch(): void {
    this.#frame ??= requestAnimationFrame(() => {
      this.#frame = undefined
      const view = this.#picture?.view
      if (view && 'cells' in view) this.#draw(view.cells.takeDirty())
    })
  }

  stop(): void {
    if (this.#frame !== undefined) cancelAnimationFrame(this.#frame)
  }

  #draw(dirty: 'all' | ReadonlySet<number>): void {
    const context = this.#canvas.getContext('2d')
    const [image, picture] = [this.#image, this.#picture]
    if (!context || !image || !picture) return
    const pixels = new Uint32Array(image.data.buffer)
    const { view, grid } = picture
    if (dirty === 'all') pixels.fill(0)
    if (view.kind !== 'tiles' || dirty === 'all') {
      if (view.kind === 'cells' && dirty !== 'all' && !touches(dirty, view)) return
      paintAll(pixels, picture)
      context.putImageData(image, 0, 0)
    } else {
      const tiles = [...dirty].filter((tile) => tile < grid.count)
      for (const tile of tiles) paintOne(pixels, picture, tile)
      if (tiles.length > PIECES_MAX) context.putImageData(image, 0, 0)
      else
        for (const tile of tiles) {
          const { x, y } = placeOf(grid, tile)
          context.putImageData(image, 0, 0, x, y, grid.side, grid.side)
        }
    }
    if (!isMarked) {
      // In a trace: when the first map was there.
      performance.mark('flowstone.map')
      isMarked = true
    }
  }
}

let isMarked = false

function touches(dirty: ReadonlySet<number>, { from, to }: { readonly from: number; readonly to: number }): boolean {
  for (let tile = Math.floor(from / TILE); tile * TILE < to; tile++) if (dirty.has(tile)) return true
  return false
}

function paintAll(pixels: Uint32Array, picture: Picture): void {
  for (let i = 0; i < picture.grid.count; i++) paintOne(pixels, picture, i)
}

/** A tile, or a cell. */
function paintOne(pixels: Uint32Array, { view, grid, lit, palette }: Picture, i: number): void {
  switch (view.kind) {
    case 'tiles':
      paintTile(pixels, grid, i, { states: view.cells.states, limit: view.limit }, palette, lit)
      return
    case 'summaries':
      paintSummary(pixels, grid, i, view.tiles[i] ?? [], palette, lit)
      return
    case 'cells':
    case 'range': {
      const index = view.from + i
      const state = (view.kind === 'cells' ? view.cells.states[index] : view.states[i]) ?? WAITING
      paintCell(pixels, grid, i, (isLit(lit, index, state) ? palette.full : palette.dim)[state] ?? 0)
      return
    }
    default:
      view satisfies never
  }
}
